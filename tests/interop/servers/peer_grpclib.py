"""The service of peer.proto on grpclib. A request says how its call ends: test_endings.py has the list.

It prints its port, and serves until it is killed.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping

from google.protobuf.wrappers_pb2 import StringValue
from google.rpc.error_details_pb2 import ErrorInfo
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Server, Stream

SIZES = {"large": 3_000_000, "oversized": 5_000_000}
seen: set[str] = set()


async def end(stream: Stream[StringValue, StringValue]) -> None:
    text = [request.value async for request in stream][-1]
    if text == "wait":
        await asyncio.Event().wait()
    if text == "bug":
        raise ValueError("boom")
    if text == "abort":
        raise GRPCError(Status.NOT_FOUND, "no order 8: größer 😀")
    if text == "rich":
        raise GRPCError(Status.FAILED_PRECONDITION, "sold out", [ErrorInfo(reason="SOLD_OUT", domain="shop.example")])
    if text.startswith("again") and text not in seen:
        seen.add(text)  # without a pushback: grpclib refuses metadata whose key begins with "grpc-"
        raise GRPCError(Status.UNAVAILABLE, "not yet")
    await stream.send_message(StringValue(value="x" * SIZES[text] if text in SIZES else text[:40]))


class Peer:
    def __mapping__(self) -> Mapping[str, Handler]:
        kinds = {
            "Unary": Cardinality.UNARY_UNARY,
            "Down": Cardinality.UNARY_STREAM,
            "Up": Cardinality.STREAM_UNARY,
            "Both": Cardinality.STREAM_STREAM,
        }
        return {
            f"/interop.v1.Peer/{name}": Handler(end, kind, StringValue, StringValue) for name, kind in kinds.items()
        }


async def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    server = Server([Peer()])
    await server.start(sock=listener)
    print(listener.getsockname()[1], flush=True)  # noqa: T201  a program
    await server.wait_closed()


if __name__ == "__main__":
    asyncio.run(main())
