"""`call.answered_within(…)`: an attempt whose answer does not begin in time fails; a stream that has begun goes on."""

import threading
from typing import Any

import grpc
import pytest

from interpose import Call, Flow, Kind, Method, Outcome, Side
from interpose._clock import SYSTEM, Clock
from interpose.testing import PLACES, FakeClock, Place, failed, incoming, ok, play

CLIENTS = [place for place in PLACES if place.side is Side.CLIENT]
STREAMS = [place for place in CLIENTS if place.kind.response_streaming]
HANGS = ok(hang=True)

clients = pytest.mark.parametrize("place", CLIENTS, ids=str)
streams = pytest.mark.parametrize("place", STREAMS, ids=str)


class Impatient:
    """Sends it again as long as no answer begins within `seconds`, and there is time."""

    def __init__(self, seconds: float, clock: Clock = SYSTEM) -> None:
        self.seconds = seconds
        self.outcomes: list[Outcome] = []
        self._clock = clock

    def _in_time(self, call: Call) -> bool:
        return call.deadline is None or self._clock.now() < call.deadline

    def __call__(self, call: Call) -> Flow:
        call = call.buffered() if call.kind.request_streaming else call
        self.outcomes.append((yield call.answered_within(self.seconds)))
        while self._in_time(call) and self.outcomes[-1].code is grpc.StatusCode.DEADLINE_EXCEEDED:
            self.outcomes.append((yield call.answered_within(self.seconds)))


@pytest.mark.slow
@clients
def test_an_attempt_that_hangs_is_given_up(place: Place) -> None:
    """The attempt fails with DEADLINE_EXCEEDED and can be sent again; at the server it is cancelled."""
    impatient = Impatient(1.5)  # within which the second attempt has to begin, on a busy machine, too

    with place.open(impatient, script=[HANGS, ok("here")]) as rpc:
        reply = rpc.call("a")
        rpc.echo.wait_ended(2)

    assert reply.messages == ["here"] and [attempt.cancelled for attempt in rpc.attempts] == [True, False]
    assert [outcome.code.name for outcome in impatient.outcomes] == ["DEADLINE_EXCEEDED", "OK"]


@streams
def test_a_stream_that_says_nothing_fails_here(place: Place) -> None:
    """It says so: `error.local`, and how long it waited. The time is the clock's that was handed in."""
    clock = FakeClock()
    impatient = Impatient(30, clock)

    with place.open(impatient, script=[HANGS, failed(grpc.StatusCode.NOT_FOUND)], clock=clock) as rpc:

        def pass_time() -> None:
            rpc.echo.wait_begun()
            clock.wait_for()
            clock.advance(30)

        passing = threading.Thread(target=pass_time)
        passing.start()
        reply = rpc.call("a")
        passing.join()

    first = impatient.outcomes[0]
    assert reply.code is grpc.StatusCode.NOT_FOUND
    assert first.local and first.details == "no answer had begun after 30 s"
    assert clock.waiting == 0  # a timer that is not needed any more is taken back


@streams
@pytest.mark.parametrize("begun", [{"initial": (("x-node", "8"),)}, {}], ids=["metadata", "message"])
def test_a_stream_that_has_begun_goes_on(place: Place, begun: dict[str, Any]) -> None:
    """Initial metadata or a message is a beginning; what comes after may take as long as it likes."""
    clock = FakeClock()
    impatient = Impatient(30, clock)
    going_on = threading.Event()

    def slow(call: Call) -> Flow:
        def pause(_: object) -> None:
            if not going_on.is_set():
                going_on.set()
                clock.advance(60)

        yield call.tap(responses=pause)

    with place.open(slow, impatient, script=[ok("a", "b", "c", **begun)], clock=clock) as rpc:
        reply = rpc.call("a")

    assert reply.messages == ["a", "b", "c"] and going_on.is_set()


@pytest.mark.slow
@streams
def test_metadata_alone_is_a_beginning(place: Place) -> None:
    """The server has taken it up and told so; then the deadline of the call is what limits it."""
    impatient = Impatient(1.5)  # within which metadata has to come, on a busy machine, too

    with place.open(impatient, script=[ok(hang=True, initial=(("x-node", "8"),))]) as rpc:
        reply = rpc.call("a", timeout=2)

    assert reply.code is grpc.StatusCode.DEADLINE_EXCEEDED and len(rpc.attempts) == 1
    assert len(impatient.outcomes) == 1 and not impatient.outcomes[0].local


def test_a_unary_call_keeps_the_shorter_time() -> None:
    """The caller's own timeout, or that of the interceptor, whichever is first."""
    method = Method("/a/b", Kind.UNARY_UNARY)

    assert Call(method, timeout=2.0).answered_within(3).timeout == 2.0
    assert Call(method, timeout=4.0).answered_within(3).timeout == 3
    assert Call(method).answered_within(3).timeout == 3


@pytest.mark.parametrize(("seconds", "error"), [(0, ValueError), (-1, ValueError), (1e9, ValueError), ("1", TypeError)])
def test_what_makes_no_sense_is_refused(seconds: Any, error: type[Exception]) -> None:
    """Seconds above 0, short of what grpc takes for no time at all."""
    with pytest.raises(error, match="seconds must be"):
        Call(Method("/a/b", Kind.UNARY_UNARY)).answered_within(seconds)


def test_a_server_has_a_timeout_for_that() -> None:
    """There, it is the handler that answers."""
    with pytest.raises(ValueError, match="limit its handler with with_timeout"):
        incoming().answered_within(1)


@pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.value)
def test_played_by_hand(kind: Kind) -> None:
    """`play` gives up an act that hangs or is too late, and takes those that begin in time."""
    impatient = Impatient(2.0)

    played = play(impatient, [HANGS, ok(delay=3), ok("here", delay=1)], kind=kind)

    assert played.outcome.ok and played.elapsed == 5.0
    assert [outcome.code.name for outcome in impatient.outcomes] == ["DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", "OK"]


def test_the_deadline_comes_first() -> None:
    """Played by hand: the deadline of the call is the end where it is before."""
    clock = FakeClock()

    played = play(Impatient(5, clock), [HANGS], kind=Kind.UNARY_STREAM, timeout=2, clock=clock)

    assert played.outcome.code is grpc.StatusCode.DEADLINE_EXCEEDED and not played.outcome.local
    assert played.elapsed == 2
