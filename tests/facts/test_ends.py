"""However an RPC ends, its flow is told once, and its caller as grpc tells it."""

import gc
import threading
from typing import Any

import grpc
import pytest

from interpose import Call, Flow, errors
from interpose.testing import Echo, failed
from tests.facts.calling import (
    EVERY,
    FULL,
    FUTURES,
    GIVEN_UP,
    STARTED,
    STREAMS,
    Background,
    Gate,
    Link,
    Watch,
    Way,
    connected,
    in_time,
    late,
    opened,
    passing,
    ways,
)
from tests.facts.hosting import served
from tests.support.patience import PATIENCE

pytestmark = pytest.mark.usefixtures("hosts")

OK = grpc.StatusCode.OK
CANCELLED = grpc.StatusCode.CANCELLED
DEADLINE_EXCEEDED = grpc.StatusCode.DEADLINE_EXCEEDED
NOT_FOUND = grpc.StatusCode.NOT_FOUND
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
UNKNOWN = grpc.StatusCode.UNKNOWN


@pytest.mark.fact("E-1")
@ways(EVERY)
def test_one_outcome_after_exhaustion(way: Way) -> None:
    """An RPC that ends well is told to the flow once, also after grpc's objects are collected."""
    watch = Watch()

    with opened(way, Echo(), watch) as link:
        messages = link.call("a", "b")
        gc.collect()

    assert messages == FULL[way.kind]
    assert watch.outcome().ok


@pytest.mark.fact("E-1")
@ways(EVERY)
def test_one_outcome_after_an_error(way: Way) -> None:
    """An RPC that the server fails is told to the flow once, with the messages that came before."""
    watch = Watch()

    with opened(way, Echo([failed(NOT_FOUND, after=2)]), watch) as link:
        with pytest.raises(errors.NotFound):
            link.call("a", "b", "c")
        gc.collect()

    assert watch.outcome().code is NOT_FOUND
    assert watch.outcome().responses == (2 if way.streams else 0)


@pytest.mark.fact("E-1", "A-7", "A-13", "R-33")
@ways(STARTED)
def test_one_outcome_after_cancel(way: Way) -> None:
    """cancel() ends the RPC here at once and on the server soon; a second cancel() does nothing."""
    watch, gate = Watch(), Gate()

    with opened(way, gate, watch) as link:
        call = link.start()
        gate.wait_begun()
        answers = call.cancel(), call.cancel()
        outcome = watch.outcome()
        with pytest.raises(GIVEN_UP):
            call.messages()
        gate.wait_ended()

    assert answers == (True, False)
    assert outcome.code is CANCELLED
    assert outcome.local
    assert call.done() if way.aio else call.native.cancelled()


@pytest.mark.fact("E-1")
@ways(STARTED)
def test_one_outcome_after_cancel_before_anything_was_sent(way: Way) -> None:
    """cancel() in the same breath as the call is one outcome, and leaves nothing behind."""
    watch = Watch()

    with opened(way, Gate(), watch) as link:
        call = link.start()
        call.cancel()
        with pytest.raises(GIVEN_UP):
            call.messages()

    assert watch.outcome().code is CANCELLED


@pytest.mark.fact("E-1")
@ways(STREAMS)
def test_one_outcome_after_cancel_in_the_middle_of_a_stream(way: Way) -> None:
    """cancel() while another thread or task waits for a message ends it for both, and counts what was delivered."""
    watch, gate = Watch(), Gate()

    with opened(way, gate, watch) as link:
        stream = link.start()
        assert stream.next() == "first"
        reader = Background(stream.next)
        stream.cancel()
        with pytest.raises(GIVEN_UP):
            reader.result()
        gate.wait_ended()

    outcome = watch.outcome()
    assert outcome.code is CANCELLED
    assert outcome.responses == 1
    assert not outcome.replayable


@pytest.mark.fact("E-1", "R-33")
@ways(EVERY)
def test_one_outcome_after_the_deadline(way: Way) -> None:
    """A deadline that passes while the server is silent is one outcome."""
    watch = Watch()

    with opened(way, Gate(), watch) as link, pytest.raises(errors.DeadlineExceeded):
        link.call(timeout=0.1)

    assert watch.outcome().code is DEADLINE_EXCEEDED


@pytest.mark.fact("E-1", "C-4")
@ways(STREAMS)
def test_one_outcome_after_the_deadline_of_a_stream_that_nobody_reads(way: Way) -> None:
    """A deadline ends a stream that is held and not read: no reader is needed to tell the flow."""
    watch = Watch()

    with opened(way, Gate(), watch) as link:
        stream = link.start(timeout=0.1)
        outcome = watch.outcome()
        code = in_time(stream.code)

    assert outcome.code is code is DEADLINE_EXCEEDED


@pytest.mark.fact("E-1", "R-44")
@ways(EVERY)
def test_one_outcome_after_the_channel_was_closed(way: Way) -> None:
    """close() of the channel ends RPCs under way, each with one outcome, and frees those that wait for them."""
    watch, gate = Watch(), Gate()

    with opened(way, gate, watch) as link:
        caller = Background(link.call)
        gate.wait_begun()
        link.close()
        with pytest.raises(GIVEN_UP):
            caller.result()

    assert watch.outcome().code is CANCELLED


@pytest.mark.fact("E-1", "R-45", "R-46")
@ways(EVERY)
def test_one_outcome_after_the_server_stopped(way: Way) -> None:
    """A server that stops without grace ends RPCs under way, each with one outcome."""
    watch, gate = Watch(), Gate()

    with served("sync", [gate.handlers(asyncio=False)]) as (_, target, stop), connected(way, target, watch) as link:
        caller = Background(link.call)
        gate.wait_begun()
        stop(None)
        gate.close()
        with pytest.raises(grpc.RpcError) as caught:
            caller.result()

    assert watch.outcome().code is caught.value.code()
    assert watch.outcome().code in (UNAVAILABLE, CANCELLED, UNKNOWN)


# --- before it is sent ------------------------------------------------------------------------------------------------


class Late:
    """A flow that sends the call in a minute, and says so."""

    def __init__(self) -> None:
        self.begun = threading.Event()

    def __call__(self, call: Call) -> Flow:
        self.begun.set()
        yield call.after(60)


@pytest.mark.fact("E-1", "R-44")
@ways(EVERY)
def test_closing_the_channel_ends_a_call_that_waits_to_be_sent(way: Way) -> None:
    """A call that is delayed for a minute ends as CANCELLED when its channel is closed, and is not sent."""
    watch, echo, delaying = Watch(), Echo(), Late()

    with opened(way, echo, watch, delaying) as link:
        caller = Background(link.call)
        assert delaying.begun.wait(PATIENCE)
        link.close()
        with pytest.raises(GIVEN_UP):
            caller.result()

    assert watch.outcome().code is CANCELLED
    assert not echo.attempts


@pytest.mark.fact("C-18", "E-1")
@ways(way for way in EVERY if way.aio)
def test_closing_the_outer_channel_ends_what_waits(way: Way) -> None:
    """Of two channels put on one another, closing either ends a call that waits to be sent."""
    from interpose import intercept_channel

    watch, delaying = Watch(), Late()

    with opened(way, Echo(), watch, delaying) as link:
        outer: Link = link.over(intercept_channel(link.channel, passing))
        caller = Background(outer.call)
        assert delaying.begun.wait(PATIENCE)
        outer.close()
        with pytest.raises(GIVEN_UP):
            caller.result()

    assert watch.outcome().code is CANCELLED


@pytest.mark.fact("E-1", "R-44")
@ways(EVERY)
def test_closing_the_channel_ends_a_flow_that_would_try_on(way: Way) -> None:
    """Once a channel is closed, a flow between two attempts goes on at once, as often as it tries; nothing is sent."""
    watch, paused, echo = Watch(), threading.Event(), Echo([failed(UNAVAILABLE)])

    def stubborn(call: Call) -> Flow:
        outcome = yield call.buffered()
        for _ in range(3):
            if outcome.ok or not outcome.replayable:
                return outcome
            paused.set()
            outcome = yield call.buffered().after(60)
        return outcome

    with opened(way, echo, watch, stubborn) as link:
        caller = Background(link.call)
        assert paused.wait(PATIENCE)
        link.close()
        with pytest.raises((grpc.RpcError, ValueError, *GIVEN_UP)):
            caller.result()

    assert not watch.outcome().ok
    assert len(echo.attempts) == 1


@pytest.mark.fact("E-1")
@ways(STARTED)
def test_cancel_ends_a_call_that_waits_to_be_sent(way: Way) -> None:
    """cancel() of a call that is delayed for a minute ends it now, and it is not sent."""
    watch, echo = Watch(), Echo()

    with opened(way, echo, watch, late) as link:
        call = link.start()
        early = call.done()
        assert call.cancel()
        outcome = watch.outcome()

    assert not early
    assert outcome.code is CANCELLED
    assert call.native.done() and call.native.cancelled()
    assert not echo.attempts


@pytest.mark.fact("E-1")
@ways(STARTED)
def test_cancel_ends_a_call_between_two_attempts(way: Way) -> None:
    """cancel() of a call that is to be sent again in a minute ends it now; nothing more is sent."""
    watch, echo, paused = Watch(), Echo([failed(UNAVAILABLE)]), threading.Event()

    def late_again(call: Call) -> Flow:
        yield call.buffered()
        paused.set()
        yield call.buffered().after(60)

    with opened(way, echo, watch, late_again) as link:
        call = link.start()
        assert paused.wait(PATIENCE)
        call.cancel()
        with pytest.raises(GIVEN_UP):
            call.messages()

    assert watch.outcome().code is CANCELLED
    assert len(echo.attempts) == 1


@pytest.mark.fact("E-1", "R-38")
@ways(STREAMS)
def test_dropping_a_stream_that_waits_to_be_sent_ends_it(way: Way) -> None:
    """A response stream that is dropped before its delayed call was sent is not sent."""
    watch, echo = Watch(), Echo()

    with opened(way, echo, watch, late) as link:
        link.start().drop()
        outcome = watch.outcome()

    assert outcome.code is CANCELLED
    assert not echo.attempts


# --- questions and answers --------------------------------------------------------------------------------------------


@pytest.mark.fact("C-8", "A-13")
@ways(STARTED)
def test_a_cancelled_call_answers_every_question(way: Way) -> None:
    """After cancel(): code() is CANCELLED, waiting for the result says so, and there is no metadata."""
    gate = Gate()

    with opened(way, gate, passing) as link:
        call = link.start()
        gate.wait_begun()
        call.cancel()
        code = in_time(call.code)
        details, initial, trailing = (call.ask(name) for name in ("details", "initial_metadata", "trailing_metadata"))
        with pytest.raises(GIVEN_UP):
            call.messages()
        if not way.aio:
            for question in (call.native.result, call.native.exception, call.native.traceback):
                with pytest.raises(grpc.FutureCancelledError):
                    question(PATIENCE)
            assert not call.native.running()
            assert not call.native.is_active()

    assert code is CANCELLED
    assert details and not initial and not trailing
    assert call.native.cancelled()
    assert call.native.done()


@pytest.mark.fact("R-9")
@ways(way for way in STARTED if way.aio)
def test_whoever_waits_a_cancel_reaches_the_server(way: Way) -> None:
    """A task that asks for the code or metadata does not keep a cancel from the server."""
    gate = Gate()

    with opened(way, gate, passing) as link:
        call = link.start()
        gate.wait_begun()
        askers = [Background(lambda name=name: call.ask(name)) for name in ("code", "details", "trailing_metadata")]
        call.cancel()
        code, details, _ = (asker.result() for asker in askers)
        gate.wait_ended()

    assert code is CANCELLED
    assert details == "Locally cancelled by application!"


@pytest.mark.fact("E-1", "R-41")
def test_cancelling_from_the_callback_of_another_call() -> None:
    """A callback, on grpc's own thread, may cancel other calls of the channel."""
    watch, cancelled = Watch(), threading.Event()
    way = FUTURES[0]

    with opened(way, Gate(), watch) as link:
        others = link.start(), link.start()

        def cancel_all(_: Any) -> None:
            for other in others:
                other.cancel()
            cancelled.set()

        link.start(timeout=0.05).add_done_callback(cancel_all)
        assert cancelled.wait(PATIENCE)
        codes = [in_time(other.code) for other in others]

    assert codes == [CANCELLED, CANCELLED]
    assert len(watch.outcomes) == 3


@pytest.mark.fact("E-1")
@ways(FUTURES)
def test_a_future_that_fails_unseen_is_told(way: Way, caplog: pytest.LogCaptureFixture) -> None:
    """The failure of a call whose result nobody asks for is told to the flow; asyncio has nothing to complain about."""
    watch = Watch()

    with opened(way, Echo([failed(NOT_FOUND)]), watch) as link:
        call = link.start()
        outcome = watch.outcome()
        call.drop()

    assert outcome.code is NOT_FOUND
    assert not [record for record in caplog.records if record.name == "asyncio"]
