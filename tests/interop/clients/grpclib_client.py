"""A client on grpclib. Each line of its input is a job, each line of its output says how one ended: jobs.py has both."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from typing import Any

from google.protobuf.wrappers_pb2 import StringValue
from google.rpc import error_details_pb2  # noqa: F401  grpclib knows the details whose modules are imported
from google.rpc.status_pb2 import Status
from grpclib.client import Channel, StreamStreamMethod, StreamUnaryMethod, UnaryStreamMethod, UnaryUnaryMethod
from grpclib.exceptions import GRPCError, StreamTerminatedError

METHODS = {
    "Unary": UnaryUnaryMethod,
    "Down": UnaryStreamMethod,
    "Up": StreamUnaryMethod,
    "Both": StreamStreamMethod,
}


async def perform(channel: Channel, job: Any) -> None:
    messages: list[str] = []
    ending = {"id": job["id"], "code": "OK", "details": "", "messages": messages}
    path = f"/interop.v1.Peer/{job['method']}"
    method = METHODS[job["method"]](channel, path, StringValue, StringValue)
    try:
        async with asyncio.timeout(job.get("cancel_after")):
            async with method.open(timeout=job.get("timeout"), metadata=job.get("metadata")) as stream:
                await stream.send_message(StringValue(value=job["text"]), end=not job.get("open"))
                while (answer := await stream.recv_message()) is not None:
                    messages.append(answer.value[:40])
            ending["word"] = stream.trailing_metadata.getall("word", [])
    except GRPCError as error:
        ending.update(code=error.status.name, details=error.message)
        if error.details:
            rich = Status()
            for detail in error.details:
                rich.details.add().Pack(detail)
            ending["rich"] = base64.b64encode(rich.SerializeToString()).decode()
    except (StreamTerminatedError, TimeoutError, OSError, NotImplementedError) as error:
        ending.update(code=type(error).__name__, details=str(error))
    print(json.dumps(ending), flush=True)  # noqa: T201  a program


async def main(target: str) -> None:
    host, port = target.split(":")
    reader = asyncio.StreamReader(limit=2**27)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    channel = Channel(host, int(port))
    async with asyncio.TaskGroup() as jobs:
        async for line in reader:
            jobs.create_task(perform(channel, json.loads(line)))
    channel.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
