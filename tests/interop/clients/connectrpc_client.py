"""A client on connectrpc. Each line of its input is a job, each line of its output says how one ended: jobs.py has both."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import AsyncIterator
from typing import Any as Anything

from connectrpc.client import ConnectClient, ResponseMetadata
from connectrpc.errors import ConnectError
from connectrpc.method import IdempotencyLevel, MethodInfo, StreamType
from connectrpc.protocol import ProtocolType
from google.protobuf.any_pb2 import Any
from google.rpc.status_pb2 import Status
from protobuf.wkt import StringValue
from pyqwest import Client, HTTPTransport, HTTPVersion

METHODS = {
    "Unary": ("unary", StreamType.UNARY),
    "Down": ("server_stream", StreamType.SERVER_STREAM),
    "Up": ("client_stream", StreamType.CLIENT_STREAM),
    "Both": ("bidi_stream", StreamType.BIDI_STREAM),
}


async def requests(job: Anything, over: asyncio.Event) -> AsyncIterator[StringValue]:
    yield StringValue(value=job["text"])
    if job.get("open"):
        await over.wait()


async def perform(client: ConnectClient, job: Anything) -> None:
    with ResponseMetadata() as response:
        ending = await ended(client, job)
    ending["word"] = list(response.trailers.getall("word"))
    print(json.dumps(ending), flush=True)  # noqa: T201  a program


async def ended(client: ConnectClient, job: Anything) -> dict[str, Anything]:
    messages: list[str] = []
    ending = {"id": job["id"], "code": "OK", "details": "", "messages": messages}
    over = asyncio.Event()
    name, kind = METHODS[job["method"]]
    method = MethodInfo(
        name=job["method"],
        service_name="interop.v1.Peer",
        input=StringValue,
        output=StringValue,
        idempotency_level=IdempotencyLevel.UNKNOWN,
        stream_type=kind,
    )
    request = StringValue(value=job["text"]) if name in ("unary", "server_stream") else requests(job, over)
    headers = job.get("metadata", {})
    timeout = round(1000 * job["timeout"]) if job.get("timeout") else None
    try:
        async with asyncio.timeout(job.get("cancel_after")):
            call = getattr(client, f"execute_{name}")(
                request=request, method=method, timeout_ms=timeout, headers=headers
            )
            if name in ("server_stream", "bidi_stream"):
                async for answer in call:
                    messages.append(answer.value[:40])  # noqa: PERF401  what came before a failure counts
            else:
                messages.append((await call).value[:40])
    except ConnectError as error:
        ending.update(code=error.code.name, details=error.message)
        if error.details:
            details = [
                Any(type_url=f"type.googleapis.com/{one.type_name}", value=one.message_bytes) for one in error.details
            ]
            ending["rich"] = base64.b64encode(Status(details=details).SerializeToString()).decode()
    except TimeoutError as error:
        ending.update(code=type(error).__name__, details=str(error))
    over.set()
    return ending


async def main(target: str) -> None:
    reader = asyncio.StreamReader(limit=2**27)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    http = Client(HTTPTransport(http_version=HTTPVersion.HTTP2))
    client = ConnectClient(f"http://{target}", protocol=ProtocolType.GRPC, http_client=http)
    async with asyncio.TaskGroup() as jobs:
        async for line in reader:
            jobs.create_task(perform(client, json.loads(line)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
