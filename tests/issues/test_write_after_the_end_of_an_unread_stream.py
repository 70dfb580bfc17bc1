"""asyncio: a write behind the server's end makes grpc.aio say that the call failed, before anybody has read what it answered.

The server's status comes behind those messages. So code that asked for the connection, or for initial metadata, and read only
then, waited for an end that came only by its own reading: once in some hundred streams whose server ends first.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import Call, Flow, errors, intercept_channel
from interpose.aio import exchange
from tests.support.patience import PATIENCE


async def answers_at_once(requests: Any, context: Any) -> AsyncIterator[bytes]:
    """It reads nothing."""
    await context.send_initial_metadata((("from", "the server"),))
    yield b"first"
    yield b"last"


async def fails_at_once(requests: Any, context: Any) -> AsyncIterator[bytes]:
    """It reads nothing."""
    yield b"first"
    await context.abort(grpc.StatusCode.NOT_FOUND, "no such thing")


async def without_end() -> AsyncIterator[bytes]:
    while True:
        yield b"more"
        await asyncio.sleep(0)


def passes(call: Call) -> Flow:
    yield call


@pytest.fixture
async def stream(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """A call that is written to until grpc.aio has made up its failure, and not read."""
    server = grpc.aio.server()
    ends = getattr(request, "param", answers_at_once)
    handlers = {"Ends": grpc.stream_stream_rpc_method_handler(ends)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Server", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    native = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)])
    async with intercept_channel(native, passes) as channel:
        call: Any = channel.stream_stream("/Server/Ends")(without_end(), timeout=PATIENCE)
        async with asyncio.timeout(PATIENCE):
            while (attempt := call._exchange.attempt) is not None and not attempt.native.done():  # noqa: ASYNC110  what the native call says, and ours does not yet
                await asyncio.sleep(0)
        yield call
    await server.stop(None)


async def test_it_is_connected(stream: Any) -> None:
    """`wait_for_connection` comes back: the server has answered."""
    await asyncio.wait_for(stream.wait_for_connection(), PATIENCE)

    assert [message async for message in stream] == [b"first", b"last"]
    assert await stream.code() is grpc.StatusCode.OK


async def test_its_metadata_are_there(stream: Any) -> None:
    """`initial_metadata` has what the server sent in front of the messages."""
    metadata = await asyncio.wait_for(stream.initial_metadata(), PATIENCE)

    assert metadata["from"] == "the server"
    assert [message async for message in stream] == [b"first", b"last"]
    assert await stream.code() is grpc.StatusCode.OK


@pytest.mark.parametrize("stream", [fails_at_once], indirect=True, ids=["fails"])
async def test_a_failure_that_comes_a_moment_later_is_raised(stream: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody reads meanwhile, so that the server's status comes; the failure that was made up is not shown."""
    monkeypatch.setattr(exchange, "REFUSAL_GAP", PATIENCE)
    waiting = asyncio.ensure_future(stream.wait_for_connection())
    await asyncio.sleep(0)

    with pytest.raises(errors.NotFound):
        assert [message async for message in stream] == [b"first"]
    with pytest.raises(errors.NotFound):
        await asyncio.wait_for(waiting, PATIENCE)
