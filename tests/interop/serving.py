"""Servers for foreign clients: with interceptors, or without any."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc
import grpc.aio
from google.protobuf.wrappers_pb2 import StringValue

from interpose import Kind, server_interceptor
from tests.interop.calling import service
from tests.support.patience import PATIENCE


@contextmanager
def serving(stack: str, fail: Any, *flows: Any) -> Iterator[str]:
    """Serve the peer's service, each method of which reads its requests and ends in `fail(context)`; gives the target.

    fail: raises, aborts, or gives what has to be awaited to that end.
    """
    given = [server_interceptor(*flows)] if flows else []
    serve = _sync if stack == "sync" else _asyncio
    with serve(given, fail) as port:
        yield f"127.0.0.1:{port}"


@contextmanager
def _sync(interceptors: list[Any], fail: Any) -> Iterator[int]:
    def plain(request: Any, context: Any) -> Any:
        _read(request)
        fail(context)

    def stream(request: Any, context: Any) -> Any:
        _read(request)
        fail(context)
        yield

    pool = futures.ThreadPoolExecutor(4)
    server = grpc.server(pool, interceptors=interceptors)
    server.add_generic_rpc_handlers((service({kind: stream if kind.response_streaming else plain for kind in Kind}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait(PATIENCE)
        pool.shutdown()


@contextmanager
def _asyncio(interceptors: list[Any], fail: Any) -> Iterator[int]:
    async def later(request: Any, context: Any) -> Any:
        await _read_later(request)
        await _awaited(fail(context))

    async def stream(request: Any, context: Any) -> Any:
        await _read_later(request)
        await _awaited(fail(context))
        yield

    async def begin() -> tuple[Any, int]:
        server = grpc.aio.server(interceptors=interceptors)
        handlers = {kind: stream if kind.response_streaming else later for kind in Kind}
        server.add_generic_rpc_handlers((service(handlers),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return server, port

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server, port = asyncio.run_coroutine_threadsafe(begin(), loop).result(PATIENCE)
    try:
        yield port
    finally:
        for last in (server.stop(None), loop.shutdown_asyncgens()):
            asyncio.run_coroutine_threadsafe(last, loop).result(PATIENCE)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(PATIENCE)
        loop.close()


# A bare asyncio client that still sends when the status comes reports INTERNAL at times, so the requests are read first.


def _read(request: Any) -> None:
    if not isinstance(request, StringValue):
        assert all(isinstance(message, StringValue) for message in request)


async def _read_later(request: Any) -> None:
    if not isinstance(request, StringValue):
        assert all([isinstance(message, StringValue) async for message in request])


async def _awaited(value: Any) -> None:
    if value is not None:
        await value
