"""Sync calls on a bad day: flows that wait, clocks that break, Ctrl-C, and cancels that come in between."""

import gc
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from interpose import Call, Flow, Kind, Outcome, Side, errors, wait
from interpose._scope import Scope
from interpose._shell import exchange
from interpose._shell.native import Pauses
from interpose.sync.exchange import Exchange
from interpose.testing import Act, FakeClock, Place, Stub, failed
from tests.support.patience import PATIENCE

FAR = 3600.0  # a delay that no test waits for
HANGS = Act(hang=True)
UNARY = [Kind.UNARY_UNARY, Kind.STREAM_UNARY]

every_kind = pytest.mark.parametrize("kind", Kind, ids=str)
both_unary = pytest.mark.parametrize("kind", UNARY, ids=str)


def client(kind: Kind) -> Place:
    return Place(asyncio=False, side=Side.CLIENT, kind=kind)


def requests(kind: Kind) -> Any:
    return iter(["a"]) if kind.request_streaming else "a"


def begin(channel: Any, kind: Kind) -> Any:
    """A call that does not block: a future, or a stream."""
    stub = getattr(Stub(channel), kind.value)
    return (stub if kind.response_streaming else stub.future)(requests(kind), timeout=PATIENCE)


def finish(kind: Kind, call: Any) -> Any:
    """Wait for the end; raises the failure."""
    return list(call) if kind.response_streaming else call.result(PATIENCE)


# --- flows that wait --------------------------------------------------------------------------------------------------


class Later:
    """An awaitable."""

    def __await__(self) -> Any:
        yield


@every_kind
@pytest.mark.parametrize("blocking", [True, False], ids=["blocking", "not blocking"])
def test_nothing_can_be_awaited(kind: Kind, blocking: bool) -> None:
    """A flow that waits for an awaitable is told so where it waits, and may go on without."""
    told: list[str] = []

    def waits(call: Call) -> Flow:
        try:
            yield from wait(Later())
        except TypeError as error:
            told.append(str(error))
        yield call

    with client(kind).open(waits) as rpc:
        answered = rpc.call("a").ok if blocking else bool(finish(kind, begin(rpc.channel, kind)))

    assert answered
    assert len(told) == 1 and "waits waits for" in told[0]


# --- clocks that break ------------------------------------------------------------------------------------------------


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
def test_a_clock_that_breaks_leaves_nobody_waiting(kind: Kind, logged: list[str]) -> None:
    """On whatever thread it breaks, the call ends with INTERNAL, and the log tells why."""

    def again(call: Call) -> Flow:
        outcome = yield call.buffered()
        if not outcome.ok:
            yield call.buffered().after(1)

    script = [failed(grpc.StatusCode.UNAVAILABLE)]
    with client(kind).open(again, script=script, clock=Broken(LookupError("no timers here"))) as rpc:
        with pytest.raises(errors.Internal, match="interpose failed: LookupError"):
            finish(kind, begin(rpc.channel, kind))
        answered = bool(finish(kind, begin(rpc.channel, kind)))

    assert logged == [f"interpose failed while it drove /interpose.testing.Echo/{kind.value}"]
    assert answered


@every_kind
def test_ctrl_c_while_a_call_is_driven(kind: Kind, logged: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """KeyboardInterrupt comes out where the application called, and the call has ended: nothing waits for it."""
    ended: list[Outcome | None] = []
    settle = Exchange._settle

    def later(call: Call) -> Flow:
        yield call.after(1)

    def settled(exchange: Exchange, outcome: Outcome) -> None:
        settle(exchange, outcome)
        ended.append(exchange.outcome)

    monkeypatch.setattr(Exchange, "_settle", settled)
    with client(kind).open(later, clock=Broken(KeyboardInterrupt())) as rpc, pytest.raises(KeyboardInterrupt):
        begin(rpc.channel, kind)

    assert [outcome.details for outcome in ended if outcome] == ["interpose failed: KeyboardInterrupt"]
    assert len(logged) == 1


# --- Ctrl-C -----------------------------------------------------------------------------------------------------------


class Interrupted(FakeClock):
    """A clock on which Ctrl-C comes during every sleep."""

    def sleep(self, seconds: float, woken: threading.Event) -> None:
        raise KeyboardInterrupt


@both_unary
def test_ctrl_c_during_a_pause(kind: Kind) -> None:
    """A blocking call that is put off raises KeyboardInterrupt, is never sent, and the flow is told CANCELLED."""
    told: list[Outcome] = []

    def later(call: Call) -> Flow:
        told.append((yield call.after(1)))

    with client(kind).open(later, clock=Interrupted()) as rpc:
        with pytest.raises(KeyboardInterrupt):
            getattr(Stub(rpc.channel), kind.value)(requests(kind))
        attempts = list(rpc.attempts)

    assert [outcome.code for outcome in told] == [grpc.StatusCode.CANCELLED]
    assert attempts == []


@both_unary
def test_ctrl_c_during_a_race(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    """A blocking call whose copies race is cancelled, all copies of it, and raises KeyboardInterrupt."""

    def hedged(call: Call) -> Flow:
        yield call.hedged(copies=2, delay=FAR)

    with client(kind).open(hedged, script=[HANGS, ...]) as rpc:

        def interrupted(exchange: Exchange, timeout: float | None = None) -> Outcome:
            rpc.echo.wait_begun()
            raise KeyboardInterrupt

        monkeypatch.setattr(Exchange, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            getattr(Stub(rpc.channel), kind.value)(requests(kind))
        rpc.echo.wait_ended()
        attempts = list(rpc.attempts)

    assert [attempt.cancelled for attempt in attempts] == [True]


# --- what it belongs to, and cancels ----------------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("blocking", [True, False], ids=["blocking", "not blocking"])
def test_a_call_within_what_has_ended_is_not_sent(kind: Kind, blocking: bool) -> None:
    """The incoming RPC that it belongs to is over: it fails at once with CANCELLED."""
    scope = Scope()
    scope.close()

    def belongs(call: Call) -> Flow:
        yield call.within(scope)

    with client(kind).open(belongs) as rpc:
        code = rpc.call("a").code if blocking else begin(rpc.channel, kind).code()
        attempts = list(rpc.attempts)

    assert code is grpc.StatusCode.CANCELLED
    assert attempts == []


@both_unary
def test_a_future_that_is_dropped_cancels_its_copies(kind: Kind) -> None:
    """The copies of a hedged call end at the server when the application drops the future."""

    def hedged(call: Call) -> Flow:
        yield call.hedged(copies=2, delay=FAR)

    with client(kind).open(hedged, script=[HANGS, ...]) as rpc:
        call = begin(rpc.channel, kind)
        rpc.echo.wait_begun()
        del call
        gc.collect()
        rpc.echo.wait_ended()
        attempts = list(rpc.attempts)

    assert [attempt.cancelled for attempt in attempts] == [True]


@both_unary
def test_a_cancel_that_comes_just_before_a_race(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread that cancels while the race is being made finds nothing to cancel; the race is cancelled then."""

    class Outrun(exchange.Lanes):
        def __init__(self, exchange: Exchange, step: Any) -> None:
            super().__init__(exchange, step)
            exchange.cancel()

    def hedged(call: Call) -> Flow:
        told.append((yield call.hedged(copies=2, delay=FAR)))

    told: list[Outcome] = []
    monkeypatch.setattr(exchange, "Lanes", Outrun)
    with client(kind).open(hedged, script=[HANGS, ...]) as rpc:
        call = begin(rpc.channel, kind)
        with pytest.raises(grpc.FutureCancelledError):
            call.result(PATIENCE)

    assert [outcome.code for outcome in told] == [grpc.StatusCode.CANCELLED]


def test_a_stream_that_ended_meanwhile_is_not_held() -> None:
    """A single-threaded stream that ends before the channel holds it is let go: the channel would keep it for ever."""
    pauses = Pauses()
    route: Any = SimpleNamespace(pauses=pauses)
    exchange = Exchange(route, None, None, None, None, None)  # type: ignore[arg-type]  only its route is asked
    running, ended = SimpleNamespace(over=False), SimpleNamespace(over=True)
    exchange.hold(running)  # type: ignore[arg-type]
    held = len(pauses)
    exchange.hold(ended)  # type: ignore[arg-type]

    assert (held, len(pauses)) == (1, 0)
