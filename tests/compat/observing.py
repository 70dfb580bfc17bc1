"""Run the acts against a server with a stack of interceptors, and give all that was seen."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc
import grpc.aio

from interpose import intercept_channel
from tests.compat import interceptors
from tests.compat.apis import ORIGINAL, OURS, Api
from tests.compat.services import ACTS, AsyncService, Book, Service

PATH = "/shop.v1.Orders/Place"
REQUESTS = ("a", "b", "c")


def handlers(handler: Any) -> Any:
    _, service, method = PATH.split("/")
    return grpc.method_handlers_generic_handler(service, {method: handler})


@contextmanager
def served(handler: Any, stack: Sequence[Any]) -> Iterator[grpc.Channel]:
    """A channel to a sync server."""
    with futures.ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool, interceptors=list(stack))
        server.add_generic_rpc_handlers((handlers(handler),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
        server.stop(None).wait()


def request_of(kind: str) -> Any:
    return iter(REQUESTS) if kind.startswith("stream") else REQUESTS[0]


def pairs(metadata: Any) -> list[tuple[Any, Any]]:
    return [(key, value) for key, value in metadata or () if key.startswith("x-")]


def anonymous(details: str) -> str:
    """The details without the place of an exception's class, which grpc.aio tells."""
    return details.replace(OURS.package, "").replace(ORIGINAL.package, "")


def call(channel: grpc.Channel, kind: str, metadata: Any = ()) -> dict[str, Any]:
    """One RPC to its end, as its client sees it."""
    stub = getattr(channel, kind)(PATH, str.encode, bytes.decode)
    messages: list[str] = []
    try:
        if kind.endswith("unary"):
            message, ended = stub.with_call(request_of(kind), metadata=metadata)
            messages.append(message)
        else:
            ended = stub(request_of(kind), metadata=metadata)
            messages.extend(ended)
    except grpc.RpcError as error:
        ended = error if kind.endswith("unary") else ended
    return {
        "messages": messages,
        "code": ended.code(),
        "details": anonymous(ended.details()),
        "trailing": pairs(ended.trailing_metadata()),
    }


async def acall(channel: Any, kind: str, metadata: Any = ()) -> dict[str, Any]:
    """The same on asyncio."""
    stub = getattr(channel, kind)(PATH, str.encode, bytes.decode)
    messages: list[str] = []
    ended = stub(request_of(kind), metadata=metadata)
    try:
        if kind.endswith("unary"):
            messages.append(await ended)
        else:
            async for message in ended:
                messages.append(message)  # noqa: PERF401  what came before a failure counts
    except grpc.RpcError:
        pass
    return {
        "messages": messages,
        "code": await ended.code(),
        "details": anonymous(await ended.details()),
        "trailing": pairs(await ended.trailing_metadata()),
    }


def observe(api: Api, shape: str, stack: Sequence[str]) -> dict[str, Any]:
    """What client, handler and interceptors of a sync server see, by act."""
    book = Book()
    made = interceptors.sync(api, book, shape)
    with served(Service(api, book).handler(shape), [made[name]() for name in stack]) as channel:
        clients = {act: call(channel, shape, (("act", act),)) for act in ACTS}
    return {act: (client, book.calls.get(act)) for act, client in clients.items()}


async def aobserve(api: Api, shape: str, stack: Sequence[str]) -> dict[str, Any]:
    """The same of an asyncio server."""
    book = Book()
    kind = shape.removesuffix("_written")
    made = interceptors.aio(api, book, kind)
    server = aserved(AsyncService(api, book).handler(shape), [made[name]() for name in stack])

    def clients_see() -> dict[str, Any]:
        # A sync client: grpc.aio's reports INTERNAL at times, if a status comes while it still sends.
        with grpc.insecure_channel(server.target) as channel:
            return {act: call(channel, kind, (("act", act),)) for act in ACTS}

    async with server:
        clients = await asyncio.to_thread(clients_see)
    return {act: (client, book.calls.get(act)) for act, client in clients.items()}


class aserved:  # noqa: N801  it is used like a function
    """A channel to an asyncio server, whose interceptors are `stack`; the channel's are `client`."""

    def __init__(self, handler: Any, stack: Sequence[Any] = (), client: Sequence[Any] = ()) -> None:
        self._handler = handler
        self._stack = stack
        self._client = client

    async def __aenter__(self) -> Any:
        self._server = grpc.aio.server(interceptors=list(self._stack))
        self._server.add_generic_rpc_handlers((handlers(self._handler),))
        port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        self.target = f"127.0.0.1:{port}"
        channel = grpc.aio.insecure_channel(self.target, interceptors=self._client)
        # A bare client of grpc.aio that still sends when the status comes reports INTERNAL at times; ours hardly ever.
        self._channel = intercept_channel(channel)
        return self._channel

    async def __aexit__(self, *raised: object) -> None:
        await self._channel.close()
        await self._server.stop(None)
