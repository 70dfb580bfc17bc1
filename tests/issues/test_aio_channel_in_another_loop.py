"""An asyncio channel belongs to the loop in which it was made: used in another it says so, and while that rests it works."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import Call, Flow, Kind, intercept_channel
from interpose.interceptors import Retry
from interpose.testing.echo import Echo, Stub
from tests.support.patience import PATIENCE

WAYS = ["bare", "ours", "kept"]  # kept: request messages are


def passes(call: Call) -> Flow:
    yield call


@pytest.fixture
def target() -> Iterator[str]:
    with Echo().serve() as target:
        yield target


def make(target: str, way: str) -> Any:
    native = grpc.aio.insecure_channel(target)
    if way == "bare":
        return native
    return intercept_channel(native, passes if way == "ours" else Retry(safe=True))


@pytest.fixture
def home() -> Iterator[asyncio.AbstractEventLoop]:
    """The loop in which channels are made."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)  # grpc asks for it while it does not run
    yield loop
    asyncio.set_event_loop(None)
    loop.close()


def started(channel: Any, kind: Kind) -> Any:
    return getattr(Stub(channel), kind.value)(iter(["a"]) if kind.request_streaming else "a", timeout=PATIENCE)


async def answer(call: Any, kind: Kind) -> Any:
    return await (call.read() if kind.response_streaming else call)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.value)
def test_while_its_loop_does_not_run(kind: Kind, way: str, target: str, home: asyncio.AbstractEventLoop) -> None:
    """`loop.run_until_complete(stub(x))`: the call is made between two runs of the loop."""

    async def opened() -> Any:
        return make(target, way)

    channel = home.run_until_complete(opened())
    call = started(channel, kind)

    assert home.run_until_complete(answer(call, kind)) == "a"
    call.cancel()
    home.run_until_complete(channel.close())


@pytest.mark.parametrize("way", WAYS)
def test_a_stream_that_is_written(way: str, target: str, home: asyncio.AbstractEventLoop) -> None:
    """As well with `write`."""

    async def opened() -> Any:
        return make(target, way)

    channel = home.run_until_complete(opened())
    call = Stub(channel).stream_unary(timeout=PATIENCE)
    home.run_until_complete(call.write("a"))
    home.run_until_complete(call.done_writing())

    assert home.run_until_complete(call) == "a"
    home.run_until_complete(channel.close())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.value)
def test_its_loop_is_closed(kind: Kind, way: str, target: str, home: asyncio.AbstractEventLoop) -> None:
    """RuntimeError when a stub is called."""

    async def opened() -> Any:
        return make(target, way)

    channel = home.run_until_complete(opened())
    stub = getattr(Stub(channel), kind.value)
    home.run_until_complete(channel.close())
    home.close()

    async def main() -> None:
        with pytest.raises(RuntimeError, match=r"loop .*closed"):
            stub("a", timeout=PATIENCE)

    if way != "bare":  # which leaves a coroutine that was never awaited
        asyncio.run(main())


ASKS: dict[str, Callable[[Any], Any]] = {
    "code": lambda call: call.code(),
    "details": lambda call: call.details(),
    "initial_metadata": lambda call: call.initial_metadata(),
    "trailing_metadata": lambda call: call.trailing_metadata(),
    "wait_for_connection": lambda call: call.wait_for_connection(),
}


@pytest.mark.parametrize("way", ["ours", "kept"])
@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.value)
def test_in_another_loop(kind: Kind, way: str, target: str, home: asyncio.AbstractEventLoop) -> None:
    """RuntimeError at once from whatever is awaited, as from a bare channel (and where that hangs); nothing hangs."""

    async def opened() -> Any:
        return make(target, way)

    async def iterated(call: Any) -> list[Any]:
        return [message async for message in call]

    async def elsewhere() -> None:
        asks = [*ASKS.values(), lambda call: answer(call, kind)]
        if kind.response_streaming:
            asks.append(iterated)
        for ask in asks:
            call = started(channel, kind)
            with pytest.raises(RuntimeError, match="attached to a different loop"):
                await asyncio.wait_for(ask(call), PATIENCE)
            call.cancel()
        if kind.request_streaming:
            call = getattr(Stub(channel), kind.value)(timeout=PATIENCE)
            with pytest.raises(RuntimeError, match="attached to a different loop"):
                await asyncio.wait_for(call.write("a"), PATIENCE)
            call.cancel()

    channel = home.run_until_complete(opened())
    asyncio.run(elsewhere())
    home.run_until_complete(channel.close())
