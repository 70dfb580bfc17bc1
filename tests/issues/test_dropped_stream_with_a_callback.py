"""A response stream that was dropped is cancelled, also if somebody had asked to be called back at its end."""

import asyncio
import gc
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import Call, Flow, intercept_channel

SOON = 5  # seconds


class Told:
    """An interceptor that keeps the codes it was told."""

    def __init__(self) -> None:
        self.codes: list[grpc.StatusCode] = []

    def __call__(self, call: Call) -> Flow:
        outcome = yield call
        self.codes.append(outcome.code)


@pytest.fixture
def target() -> Iterator[str]:
    """The address of a server whose response stream ends when its client leaves."""

    def endless(request: bytes, context: Any) -> Iterator[bytes]:
        while context.is_active():
            yield request

    pool = ThreadPoolExecutor(2)
    server = grpc.server(pool)
    methods = {"Watch": grpc.unary_stream_rpc_method_handler(endless)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Endless", methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()
    pool.shutdown()


def test_a_dropped_stream_with_a_callback_is_cancelled(target: str) -> None:
    """The callback does not keep the stream alive: once it was dropped, the flow is told and the callback is called."""
    told, called = Told(), threading.Event()

    with intercept_channel(grpc.insecure_channel(target), told) as channel:
        call = channel.unary_stream("/Endless/Watch")(b"a")
        call.add_done_callback(lambda _: called.set())
        next(call)
        del call
        gc.collect()
        ended = called.wait(SOON)

    assert ended
    assert told.codes == [grpc.StatusCode.CANCELLED]


async def test_a_dropped_asyncio_stream_with_a_callback_is_cancelled(target: str) -> None:
    """The same on asyncio."""
    told, called = Told(), asyncio.Event()

    async with intercept_channel(grpc.aio.insecure_channel(target), told) as channel:
        call = channel.unary_stream("/Endless/Watch")(b"a")
        call.add_done_callback(lambda _: called.set())
        await call.read()
        del call
        gc.collect()
        done, _ = await asyncio.wait([asyncio.ensure_future(called.wait())], timeout=SOON)

    assert done
    assert told.codes == [grpc.StatusCode.CANCELLED]
