"""A client on grpcio, bare. Each line of its input is a job, each line of its output says how one ended: jobs.py has both."""

from __future__ import annotations

import base64
import json
import sys
import threading
from collections.abc import Iterator
from typing import Any

import grpc
from google.protobuf.wrappers_pb2 import StringValue

KINDS = {"Unary": "unary_unary", "Down": "unary_stream", "Up": "stream_unary", "Both": "stream_stream"}
OPTIONS = [("grpc.max_receive_message_length", 2**26), ("grpc.initial_reconnect_backoff_ms", 100)]


def requests(job: Any, over: threading.Event) -> Iterator[Any]:
    yield StringValue(value=job["text"])
    if job.get("open"):
        over.wait()


def perform(channel: Any, job: Any) -> None:
    messages: list[str] = []
    over = threading.Event()
    kind = KINDS[job["method"]]
    method = getattr(channel, kind)(
        f"/interop.v1.Peer/{job['method']}", StringValue.SerializeToString, StringValue.FromString
    )
    request = StringValue(value=job["text"]) if kind.startswith("unary") else requests(job, over)
    begin = method if kind.endswith("stream") else method.future
    call = begin(request, timeout=job.get("timeout"), metadata=list(job.get("metadata", {}).items()))
    if job.get("cancel_after"):
        threading.Timer(job["cancel_after"], call.cancel).start()
    try:
        answers = call if kind.endswith("stream") else [call.result()]
        messages.extend(answer.value[:40] for answer in answers)
    except (grpc.RpcError, grpc.FutureCancelledError):
        pass  # its code says it
    over.set()
    trailers = call.trailing_metadata() or ()
    rich = dict(trailers).get("grpc-status-details-bin")
    ending = {"id": job["id"], "code": call.code().name, "details": call.details(), "messages": messages}
    ending["word"] = [value for key, value in trailers if key == "word"]
    if rich:
        ending["rich"] = base64.b64encode(rich).decode()
    sys.stdout.write(f"{json.dumps(ending)}\n")  # at once, where print leaves a gap before the end of the line
    sys.stdout.flush()


def main(target: str) -> None:
    with grpc.insecure_channel(target, OPTIONS) as channel:
        threads = []
        for line in sys.stdin:
            threads.append(threading.Thread(target=perform, args=(channel, json.loads(line))))
            threads[-1].start()
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    main(sys.argv[1])
