"""Deadlines: fixed once, shortened and never lengthened, none where none was set."""

import asyncio
from typing import Any

import grpc
import pytest

from interpose import Call, Flow, context, errors
from interpose.testing import Echo, FakeClock, failed
from tests.facts.calling import EVERY, FEW, STARTED, Gate, Watch, Way, late, opened, ways
from tests.facts.handling import ASYNC, Held, Shape, handling, serve, shapes
from tests.facts.handling import UNARY as UNARY_SHAPES
from tests.facts.serving import Watch as Counting
from tests.support.patience import PATIENCE

pytestmark = pytest.mark.usefixtures("hosts")

DEADLINE_EXCEEDED = grpc.StatusCode.DEADLINE_EXCEEDED
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


# --- clients ----------------------------------------------------------------------------------------------------------


@pytest.mark.fact("A-14", "C-12")
@ways(EVERY)
def test_every_attempt_gets_what_is_left_of_the_deadline(way: Way) -> None:
    """Time that flows and earlier attempts have spent is taken off; the deadline was fixed when the stub was called."""
    clock, echo = FakeClock(), Echo([failed(UNAVAILABLE)])

    def slow(call: Call) -> Flow:
        clock.advance(10)
        outcome = yield call.buffered()
        assert not outcome.ok
        clock.advance(10)
        yield call.buffered()

    with opened(way, echo, slow, clock=clock) as link:
        link.call(timeout=30)

    first, second = (attempt.time_remaining or 1e9 for attempt in echo.attempts)
    assert first < 20.5
    assert second < 10.5


@pytest.mark.fact("A-14", "C-12")
@ways(EVERY)
def test_a_timeout_of_one_attempt_stays_within_the_deadline(way: Way) -> None:
    """An attempt's own timeout shortens what is left, and never lengthens it."""
    echo = Echo([failed(UNAVAILABLE)])

    def per_attempt(call: Call) -> Flow:
        yield call.buffered().with_timeout(5)
        yield call.buffered().with_timeout(500)

    with opened(way, echo, per_attempt) as link:
        link.call(timeout=30)

    first, second = (attempt.time_remaining or 1e9 for attempt in echo.attempts)
    assert first < 5.5
    assert 5.5 < second < 30.5


@pytest.mark.fact("C-13", "R-32")
@pytest.mark.parametrize("timeout", [0, 0.0, -1, -1e9])
@ways(FEW)
def test_without_time_nothing_is_sent(way: Way, timeout: float) -> None:
    """timeout=0, or less, is DEADLINE_EXCEEDED made here, where grpc's own would mostly succeed on loopback."""
    watch, echo = Watch(), Echo()

    with opened(way, echo, watch) as link, pytest.raises(errors.DeadlineExceeded) as caught:
        link.call(timeout=timeout)

    assert not echo.attempts
    assert caught.value.local
    assert watch.outcome().local
    assert watch.outcome().code is DEADLINE_EXCEEDED


@pytest.mark.fact("C-13")
@ways(EVERY)
def test_an_attempt_after_the_deadline_is_not_sent(way: Way) -> None:
    """A flow that has used up the deadline and sends again: nothing is sent."""
    clock, echo, watch = FakeClock(), Echo([failed(UNAVAILABLE)]), Watch()

    def slow(call: Call) -> Flow:
        yield call.buffered()
        clock.advance(30)
        yield call.buffered()

    with opened(way, echo, watch, slow, clock=clock) as link, pytest.raises(errors.DeadlineExceeded):
        link.call(timeout=30)

    assert len(echo.attempts) == 1
    assert watch.outcome().local


@pytest.mark.fact("C-13")
@ways(EVERY)
def test_a_delay_ends_at_the_deadline(way: Way) -> None:
    """A call that is to be sent after its deadline ends at the deadline, and is not sent."""
    watch, echo = Watch(), Echo()

    with opened(way, echo, watch, late) as link, pytest.raises(errors.DeadlineExceeded):
        link.call(timeout=0.05)

    assert not echo.attempts
    assert watch.outcome().local


@pytest.mark.fact("A-8", "R-30")
@ways(STARTED)
def test_without_a_deadline_there_is_none(way: Way) -> None:
    """No timeout: None for the flow, for the call, and for the server, not some 292 years."""
    echo, seen = Echo(), list[Any]()

    def look(call: Call) -> Flow:
        seen.extend((call.timeout, call.deadline))
        yield call

    with opened(way, echo, look) as link:
        call = link.start()
        seen.append(call.ask("time_remaining"))
        call.messages()

    assert seen == [None, None, None]
    assert echo.attempts[0].time_remaining is None


@pytest.mark.fact("A-8")
@ways(STARTED)
def test_a_call_knows_the_time_it_has(way: Way) -> None:
    """`time_remaining()` of an intercepted call works, with and without a deadline, also while it waits to be sent."""
    with opened(way, Gate(), late) as link:
        timed, endless = link.start(timeout=PATIENCE), link.start()
        left, never = timed.ask("time_remaining"), endless.ask("time_remaining")
        timed.cancel()
        endless.cancel()

    assert 0 < left <= PATIENCE
    assert never is None


@pytest.mark.fact("R-31")
@pytest.mark.parametrize("timeout", [1e9, 9e9, 9.3e18, float("inf")])
@ways(FEW)
def test_a_timeout_of_ages_is_no_deadline(way: Way, timeout: float) -> None:
    """A timeout that grpc would take for a deadline in the past is no deadline: from the application or from a flow."""
    echo = Echo()

    def ages(call: Call) -> Flow:
        yield call.with_timeout(timeout)

    with opened(way, echo, ages) as link:
        link.call(timeout=timeout)
        link.call()

    assert [attempt.time_remaining for attempt in echo.attempts] == [None, None]


@pytest.mark.fact("R-31")
@ways(EVERY)
def test_a_timeout_that_is_no_number_ends_the_call(way: Way) -> None:
    """timeout=nan is DEADLINE_EXCEEDED, as on grpc's own channel, with one outcome."""
    watch = Watch()

    with opened(way, Gate(), watch) as link, pytest.raises(errors.DeadlineExceeded):
        link.call(timeout=float("nan"))

    assert watch.outcome().code is DEADLINE_EXCEEDED


@pytest.mark.fact("C-19")
@ways(EVERY)
def test_a_flow_sees_wait_for_ready(way: Way) -> None:
    """A flow can tell a call that may wait for ever: wait_for_ready, and no timeout."""
    seen: list[tuple[bool | None, float | None]] = []

    def look(call: Call) -> Flow:
        seen.append((call.wait_for_ready, call.timeout))
        yield call

    with opened(way, Echo(), look) as link:
        link.call(wait_for_ready=True)
        link.call()

    assert seen == [(True, None), (None, None)]


# --- servers ----------------------------------------------------------------------------------------------------------


@pytest.mark.fact("S-10", "R-30")
@shapes(UNARY_SHAPES)
def test_without_a_deadline_a_handler_has_none(shape: Shape) -> None:
    """Without a deadline `call.timeout`, `call.deadline` and `context.deadline()` are None."""
    seen: list[Any] = []

    def look(call: Call) -> Flow:
        seen.extend((call.timeout, call.deadline))
        yield call

    def body(native: Any) -> str:
        seen.append(context.deadline())
        if shape.waits:
            assert native.time_remaining() is None
        return "a"

    with serve(shape, handling(shape, body), look) as rpc:
        reply = rpc.call(timeout=None)

    assert reply.ok and seen == [None, None, None]


@pytest.mark.fact("S-10", "S-15")
@shapes(UNARY_SHAPES)
def test_with_a_deadline_it_is_the_clients(shape: Shape) -> None:
    """With a deadline flow and handler see what is left of it, and a flow's timeout shortens it for the handler."""
    seen, deadlines = list[float](), list[float | None]()

    def look(call: Call) -> Flow:
        assert call.timeout is not None
        seen.append(call.timeout)
        deadlines.append(call.deadline)
        yield call.with_timeout(3) if call.metadata.get("x-shorter") else call

    def body(native: Any) -> str:
        seen.append(native.time_remaining())
        deadlines.append(context.deadline())
        return "a"

    with serve(shape, handling(shape, body), look) as rpc:
        rpc.call(timeout=8)
        rpc.call(timeout=8, metadata=(("x-shorter", "1"),))

    first, handler, second, shortened = seen
    assert 3 < handler <= first < 9 and 3 < second < 9 and 0 < shortened <= 3
    assert None not in deadlines and deadlines[0] == deadlines[1] and deadlines[2] == deadlines[3]


@pytest.mark.fact("S-10")
@shapes(UNARY_SHAPES)
def test_a_timeout_without_a_deadline_reaches_the_handler(shape: Shape) -> None:
    """A flow's timeout is what a handler has left when the client set no deadline."""
    seen: list[float] = []

    def limit(call: Call) -> Flow:
        yield call.with_timeout(3)

    def body(native: Any) -> str:
        seen.append(native.time_remaining())
        return "a"

    with serve(shape, handling(shape, body), limit) as rpc:
        rpc.call(timeout=None)

    assert 0 < seen[0] <= 3


@pytest.mark.fact("S-15")
@shapes(UNARY_SHAPES)
def test_the_incoming_call_is_known_in_handlers(shape: Shape) -> None:
    """In a handler `context.current_call()` is the call as flows left it, with the client's deadline."""
    calls, deadlines = list[Call | None](), list[float | None]()

    def mark(call: Call) -> Flow:
        deadlines.append(call.deadline)
        yield call.with_metadata(("x-mark", "flow"))

    def body(_: Any) -> str:
        calls.append(context.current_call())
        deadlines.append(context.deadline())
        return "a"

    with serve(shape, handling(shape, body), mark) as rpc:
        rpc.call(timeout=8)

    assert calls[0] is not None and calls[0].metadata["x-mark"] == "flow"
    assert deadlines[0] is not None and deadlines[0] == deadlines[1]


@pytest.mark.fact("S-21")
@pytest.mark.parametrize("deadline", [None, PATIENCE])
@shapes(ASYNC)
def test_a_timeout_of_a_flow_cancels_the_handler(shape: Shape, deadline: float | None) -> None:
    """An async handler that takes longer than a flow allows is cancelled, and the client sees DEADLINE_EXCEEDED."""
    watch, held = Counting(), Held()

    def limit(call: Call) -> Flow:
        yield call.with_timeout(0.05)

    with serve(shape, handling(shape, held), watch, limit) as rpc:
        reply = rpc.call(timeout=deadline)

    assert reply.code is DEADLINE_EXCEEDED
    assert [outcome.code for outcome in watch.outcomes] == [DEADLINE_EXCEEDED]
    assert [type(error) for error in held.raised] == ([asyncio.CancelledError] if held.entered.is_set() else [])
