"""Whatever waits in a channel ends with CANCELLED when that is closed, and sends nothing more on it."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent import futures
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import Call, Flow, Interceptor, intercept_channel
from interpose._clock import SYSTEM, Alarm, Clock
from interpose.interceptors import Coalesce, Hedge
from interpose.testing import FakeClock, failed, ok
from interpose.testing.echo import Echo, Stub, decode, encode
from tests.hedging.serving import PATH, served
from tests.support.patience import PATIENCE

FAR = 3600.0
CANCELLED = grpc.StatusCode.CANCELLED


def code_of(error: BaseException | None) -> Any:
    return CANCELLED if isinstance(error, asyncio.CancelledError | grpc.FutureCancelledError) else error.code()  # type: ignore[union-attr]


def blocking(stub: Any) -> Any:
    try:
        return stub.unary_unary("a")
    except grpc.RpcError as error:
        return code_of(error)


def future(stub: Any) -> Any:
    return stub.unary_unary.future("a").code()


def stream(stub: Any) -> Any:
    return stub.unary_stream("a").code()


async def unary_on_asyncio(stub: Any) -> Any:
    try:
        return await stub.unary_unary("a")
    except (grpc.RpcError, asyncio.CancelledError) as error:
        return code_of(error)


async def stream_on_asyncio(stub: Any) -> Any:
    return await stub.unary_stream("a").code()


SYNC = [blocking, future, stream]
ASYNCIO = [unary_on_asyncio, stream_on_asyncio]


def closed_on_sync(
    stack: tuple[Interceptor, ...], script: list[Any], ways: list[Any], ready: Any, clock: Clock = SYSTEM
) -> list[Any]:
    """What calls end with that are under way when the channel is closed."""
    with Echo(script).serve() as target, futures.ThreadPoolExecutor(len(ways)) as pool:
        channel = intercept_channel(grpc.insecure_channel(target), *stack, clock=clock)
        ends = [pool.submit(way, Stub(channel)) for way in ways]
        assert ready.wait(PATIENCE)
        channel.close()
        return [end.result(PATIENCE) for end in ends]


async def closed_on_asyncio(
    stack: tuple[Interceptor, ...],
    script: list[Any],
    ways: list[Any],
    ready: Any,
    grace: float | None,
    clock: Clock = SYSTEM,
) -> list[Any]:
    async with Echo(script).serve_aio() as target:
        channel = intercept_channel(grpc.aio.insecure_channel(target), *stack, clock=clock)
        ends = [asyncio.ensure_future(way(Stub(channel))) for way in ways]
        assert await asyncio.to_thread(ready.wait, PATIENCE)
        await channel.close(grace)
        return await asyncio.wait_for(asyncio.gather(*ends), PATIENCE)


# --- a hedge that waits between two copies ----------------------------------------------------------------------------


class Pausing(FakeClock):
    """A clock that notes when something waits for an hour: the second copy, as the server wants it."""

    def __init__(self) -> None:
        super().__init__()
        self.ready = threading.Event()

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Alarm:
        alarm = super().call_later(seconds, callback)
        if seconds == PAUSE:
            self.ready.set()
        return alarm


PAUSE = 7200.0
HEDGE = Hedge(safe=True, delay=FAR)
PUSHBACK = failed(grpc.StatusCode.UNAVAILABLE, pushback=PAUSE)


@pytest.mark.parametrize("way", SYNC)
def test_between_two_copies(way: Callable[[Any], Any]) -> None:
    """On sync."""
    clock = Pausing()

    assert closed_on_sync((HEDGE,), [PUSHBACK], [way], clock.ready, clock) == [CANCELLED]


@pytest.mark.parametrize("grace", [None, FAR])
@pytest.mark.parametrize("way", ASYNCIO)
async def test_between_two_copies_on_asyncio(way: Callable[[Any], Any], grace: float | None) -> None:
    """On asyncio, at once also if calls under way were given time."""
    clock = Pausing()

    assert await closed_on_asyncio((HEDGE,), [PUSHBACK], [way], clock.ready, grace, clock) == [CANCELLED]


async def test_a_copy_that_runs_has_its_grace() -> None:
    """The close of a channel starts no other copy, and leaves the one that runs as much time as any call."""
    gate, clock = threading.Event(), FakeClock()

    with served(gate, "second") as service:
        channel = intercept_channel(grpc.aio.insecure_channel(service.address), HEDGE, clock=clock)
        call = channel.unary_unary(PATH, encode, decode)("a")
        assert await asyncio.to_thread(service.started.acquire, timeout=PATIENCE)
        closing = asyncio.ensure_future(channel.close(FAR))
        await asyncio.sleep(0)  # it has begun
        clock.advance(FAR)
        gate.set()

        assert await call == "slow"
        await closing

    assert len(service.copies) == 1


# --- those that wait for another call ---------------------------------------------------------------------------------


class Ready:
    """Is the call sent, and do all others wait for it?"""

    def __init__(self, coalesce: Coalesce, waiting: int) -> None:
        self._coalesce = coalesce
        self._waiting = waiting

    def wait(self, patience: float) -> bool:
        until = time.monotonic() + patience
        while self._coalesce.snapshot().waiting < self._waiting and time.monotonic() < until:
            time.sleep(0.001)  # nothing says when a caller begins to wait; only the snapshot shows it
        return self._coalesce.snapshot().waiting == self._waiting


def test_callers_that_wait_for_another() -> None:
    """On sync, in a blocking call and as futures."""
    coalesce = Coalesce(safe=True)
    ways = [future, blocking, future, blocking]

    assert closed_on_sync((coalesce,), [ok(hang=True), ...], ways, Ready(coalesce, 3)) == [CANCELLED] * 4


async def test_callers_that_wait_for_another_on_asyncio() -> None:
    """On asyncio."""
    coalesce = Coalesce(safe=True)
    ways = [unary_on_asyncio] * 4

    assert await closed_on_asyncio((coalesce,), [ok(hang=True), ...], ways, Ready(coalesce, 3), None) == [CANCELLED] * 4


# --- what an interceptor sends then -----------------------------------------------------------------------------------


def stubborn(ready: threading.Event) -> Interceptor:
    """Sends again, whatever it was told; once."""

    def flow(call: Call) -> Flow:
        ready.set()
        outcome = yield call
        if not outcome.ok:
            yield call

    return flow


HANGS: list[Any] = [ok(hang=True), ...]


@pytest.mark.parametrize("way", SYNC)
def test_what_is_sent_on_a_channel_that_was_closed_meanwhile(way: Callable[[Any], Any]) -> None:
    """CANCELLED, and not the exception that is for those who call a channel that is closed."""
    ready = threading.Event()

    assert closed_on_sync((stubborn(ready),), HANGS, [way], ready) == [CANCELLED]


@pytest.mark.parametrize("way", ASYNCIO)
async def test_what_is_sent_on_a_channel_that_was_closed_meanwhile_on_asyncio(way: Callable[[Any], Any]) -> None:
    """As well on asyncio."""
    ready = threading.Event()

    assert await closed_on_asyncio((stubborn(ready),), HANGS, [way], ready, None) == [CANCELLED]


def test_those_who_call_a_closed_channel() -> None:
    """They are told that it is, as by a bare one."""
    channel = intercept_channel(grpc.insecure_channel("localhost:1"), Hedge(safe=True, delay=FAR))
    stub = Stub(channel).unary_unary
    channel.close()

    with pytest.raises(ValueError, match="closed"):
        stub("a")


async def test_those_who_call_a_closed_channel_on_asyncio() -> None:
    """On asyncio as well."""
    channel = intercept_channel(grpc.aio.insecure_channel("localhost:1"), Hedge(safe=True, delay=FAR))
    stub = Stub(channel).unary_unary
    await channel.close()

    with pytest.raises(grpc.aio.UsageError, match="closed"):
        await stub("a")
