"""asyncio: what is refused as a mixture of styles is the same as in grpc, before and after the end."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import Call, Flow, intercept_channel

KINDS = ["unary_stream", "stream_stream"]


def passes(call: Call) -> Flow:
    yield call


async def echo(request: Any, context: Any) -> AsyncIterator[bytes]:
    for message in [request] if isinstance(request, bytes) else [each async for each in request]:
        if message == b"no":
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such thing")
        yield message


@pytest.fixture(params=["raw", "wrapped"])
async def channel(request: pytest.FixtureRequest) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to the echo, raw or ours."""
    server = grpc.aio.server()
    handlers = {
        "unary_stream": grpc.unary_stream_rpc_method_handler(echo),
        "stream_stream": grpc.stream_stream_rpc_method_handler(echo),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Echo", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    native = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
    async with intercept_channel(native, passes) if request.param == "wrapped" else native as channel:
        yield channel
    await server.stop(None)


def begin(channel: grpc.aio.Channel, kind: str, message: bytes) -> Any:
    return getattr(channel, kind)(f"/Echo/{kind}")([message] if kind == "stream_stream" else message, timeout=10)


@pytest.mark.parametrize("kind", KINDS)
async def test_reading_an_iterated_call_after_its_end(channel: grpc.aio.Channel, kind: str) -> None:
    """`read` of a call that was iterated to its end gives EOF."""
    call = begin(channel, kind, b"yes")

    assert [message async for message in call] == [b"yes"]
    assert call.done()
    assert await call.read() is grpc.aio.EOF


@pytest.mark.parametrize("kind", KINDS)
async def test_reading_a_failed_call_that_was_iterated(channel: grpc.aio.Channel, kind: str) -> None:
    """`read` of a call that failed while it was iterated raises the failure."""
    call = begin(channel, kind, b"no")
    with pytest.raises(grpc.aio.AioRpcError, match="no such thing"):
        await anext(aiter(call))

    with pytest.raises(grpc.aio.AioRpcError, match="no such thing"):
        await call.read()


@pytest.mark.parametrize("kind", KINDS)
async def test_reading_after_the_end_settles_no_style(channel: grpc.aio.Channel, kind: str) -> None:
    """A call that is over may be read first and iterated then."""
    call = begin(channel, kind, b"no")
    await call.code()
    with pytest.raises(grpc.aio.AioRpcError, match="no such thing"):
        await call.read()

    with pytest.raises(grpc.aio.AioRpcError, match="no such thing"):
        await anext(aiter(call))


async def test_writing_beside_an_iterator_after_the_end(channel: grpc.aio.Channel) -> None:
    """A call that was given its requests refuses others as a UsageError, also when it is over."""
    call = begin(channel, "stream_stream", b"yes")
    assert [message async for message in call] == [b"yes"]

    with pytest.raises(grpc.aio.UsageError):
        await call.write(b"more")
    with pytest.raises(grpc.aio.UsageError):
        await call.done_writing()
