"""Asyncio calls on a bad day: clocks that break, channels that close, and who awaits is cancelled."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import Call, Flow, Kind, Outcome, errors, intercept_channel
from interpose._grpcio.aio_calls import at_once
from interpose._shell import exchange
from interpose.aio.exchange import Exchange
from interpose.testing import Act, Echo, FakeClock, Stub, failed
from interpose.testing.echo import decode, encode
from tests.facts.serving import SERVICE, serving
from tests.support.patience import PATIENCE

every_kind = pytest.mark.parametrize("kind", Kind, ids=str)


def begin(stub: Any, kind: Kind) -> Any:
    return stub(["a"] if kind.request_streaming else "a", timeout=PATIENCE)


async def finish(kind: Kind, call: Any) -> Any:
    """Wait for the end; raises the failure."""
    return [message async for message in call] if kind.response_streaming else await call


def test_what_has_to_wait_gives_nothing() -> None:
    """A coroutine that needs the loop is closed, not left to complain, and gives None; one that does not, its value."""
    closed: list[str] = []

    async def waits() -> str:
        try:
            await asyncio.sleep(0)
        finally:
            closed.append("waits")
        return "too late"

    async def knows() -> str:
        return "known"

    assert (at_once(waits()), at_once(knows())) == (None, "known")
    assert closed == ["waits"]


class Broken(FakeClock):
    """A clock of the application's with which nothing can be put off."""

    def __init__(self, fault: BaseException) -> None:
        super().__init__()
        self._fault = fault

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Any:
        raise self._fault


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the log tells. Not by caplog: it would keep the error, and by its traceback the flow."""
    lines: list[str] = []
    monkeypatch.setattr(exchange._log, "exception", lambda text, *arguments: lines.append(text % arguments))
    return lines


@every_kind
async def test_a_clock_that_breaks_leaves_nobody_waiting(kind: Kind, logged: list[str]) -> None:
    """Whoever drives the call then, it ends with INTERNAL where it is awaited, and the log tells why."""

    def again(call: Call) -> Flow:
        outcome = yield call.buffered()
        if not outcome.ok:
            yield call.buffered().after(1)

    clock = Broken(LookupError("no timers here"))
    async with (
        Echo([failed(grpc.StatusCode.UNAVAILABLE)]).serve_aio() as target,
        intercept_channel(grpc.aio.insecure_channel(target), again, clock=clock) as channel,
    ):
        with pytest.raises(errors.Internal, match="interpose failed: LookupError"):
            await finish(kind, begin(Stub(channel).method(kind), kind))

    assert logged == [f"interpose failed while it drove /interpose.testing.Echo/{kind.value}"]


@every_kind
async def test_ctrl_c_while_a_call_is_driven(kind: Kind, logged: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """KeyboardInterrupt comes out where the application called, and the call has ended: nothing waits for it."""
    ended: list[Outcome | None] = []
    settle = Exchange._settle

    def later(call: Call) -> Flow:
        yield call.after(1)

    def settled(exchange: Exchange, outcome: Outcome) -> None:
        settle(exchange, outcome)
        ended.append(exchange.outcome)

    monkeypatch.setattr(Exchange, "_settle", settled)
    channel = intercept_channel(grpc.aio.insecure_channel("127.0.0.1:1"), later, clock=Broken(KeyboardInterrupt()))
    async with channel:
        with pytest.raises(KeyboardInterrupt):
            begin(Stub(channel).method(kind), kind)

    assert [outcome.details for outcome in ended if outcome] == ["interpose failed: KeyboardInterrupt"]
    assert len(logged) == 1


@every_kind
async def test_a_channel_that_closes_lets_nothing_be_put_off(kind: Kind) -> None:
    """A call that fails while its channel closes with grace, and is to be sent again later, ends with CANCELLED."""
    told: list[Outcome] = []

    def again(call: Call) -> Flow:
        told.append((yield call.buffered()))
        told.append((yield call.buffered().after(3600)))

    def handler(argument: Any, context: Any) -> Any:
        if kind.request_streaming:
            list(argument)
        arrived.release()
        assert gate.wait(PATIENCE)
        context.abort(grpc.StatusCode.UNAVAILABLE, "not now")

    arrived, gate = threading.Semaphore(0), threading.Event()
    with serving("sync", {kind.value: handler}) as server:
        channel = intercept_channel(grpc.aio.insecure_channel(server.target), again)
        call = begin(getattr(channel, kind.value)(f"/{SERVICE}/{kind.value}", encode, decode), kind)
        assert await asyncio.to_thread(arrived.acquire, timeout=PATIENCE)
        closing = asyncio.ensure_future(channel.close(grace=PATIENCE))
        await asyncio.sleep(0)
        gate.set()
        with pytest.raises(errors.Cancelled):
            await finish(kind, call)
        await closing

    assert [outcome.code for outcome in told] == [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED]
    assert not arrived.acquire(blocking=False)


class Native(grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[misc]
    """A native interceptor that passes on."""

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return await continuation(details, request)


async def test_cancelling_who_awaits_through_a_native_interceptor() -> None:
    """The task that awaits is cancelled, and so is the call, at the server too; the flow is told once."""
    told: list[Outcome] = []

    def watch(call: Call) -> Flow:
        told.append((yield call))

    echo = Echo([Act(hang=True)])
    async with echo.serve_aio() as target:
        native = grpc.aio.insecure_channel(target, interceptors=[Native()])
        async with intercept_channel(native, watch) as channel:
            call = Stub(channel).unary_unary("a")
            waiting = asyncio.ensure_future(call)
            await asyncio.to_thread(echo.wait_begun)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await asyncio.to_thread(echo.wait_ended)

    assert call.cancelled()
    assert echo.attempts[0].cancelled
    assert [outcome.code for outcome in told] == [grpc.StatusCode.CANCELLED]
