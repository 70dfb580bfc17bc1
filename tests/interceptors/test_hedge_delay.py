"""Hedge: a delay that is observed."""

from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import Call, Flow, Kind, Side
from interpose.interceptors import Hedge
from interpose.interceptors.hedge import quantile
from interpose.testing import PLACES, FakeClock, Place, failed, ok, play
from interpose.testing.acts import Act
from tests.interceptors.driving import hedge, times

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
NOT_FOUND = grpc.StatusCode.NOT_FOUND
CANCELLED = grpc.StatusCode.CANCELLED
INTERNAL = grpc.StatusCode.INTERNAL


CLIENTS = [place for place in PLACES if place.side is Side.CLIENT]
STREAMED = [place for place in CLIENTS if place.kind.response_streaming]
KINDS = pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.value)


# --- a delay that is observed ---------------------------------------------------------------------------------------


def observing(clock: FakeClock, **options: Any) -> Hedge:
    """One that hedges after the median of the last 20 calls, and one second at first."""
    return hedge(delay=quantile(0.5, initial=1.0, window=20), **options)


def method_delay(hedging: Hedge) -> float:
    [delay] = hedging.delays().values()
    return delay


@KINDS
def test_the_delay_follows_the_calls(kind: Kind) -> None:
    """It is `initial` at first, and what was asked for once enough calls have been seen."""
    clock = FakeClock()
    hedging = observing(clock)

    first = play(hedging, [ok(delay=9), ok("second")], kind=kind, clock=clock)
    for _ in range(15):
        play(hedging, [ok(delay=0.25)], kind=kind, clock=clock)
    played = play(hedging, [ok(delay=9), ok()], kind=kind, clock=clock)

    assert times(first) == [0, 1.0]
    assert times(played) == [0, 0.25]


def test_each_method_has_a_delay_of_its_own() -> None:
    """One that is slow by nature does not delay another."""
    clock = FakeClock()
    hedging = observing(clock)

    for _ in range(16):
        play(hedging, [ok(delay=0.5)], method="/a.A/Slow", clock=clock)
        play(hedging, [ok(delay=0.01)], method="/a.A/Quick", clock=clock)

    assert hedging.delays() == pytest.approx({"/a.A/Slow": 0.5, "/a.A/Quick": 0.01})


def test_where_the_delay_is_fixed_none_is_observed() -> None:
    """There is nothing to tell."""
    hedging = hedge()
    play(hedging)

    assert hedging.delays() == {}


def test_a_first_copy_that_lost_counts_with_the_time_it_was_cancelled_at() -> None:
    """Its answer would have taken longer still."""
    clock = FakeClock()
    hedging = observing(clock)

    for _ in range(16):
        play(hedging, [Act(hang=True), ok(delay=3)], clock=clock)

    assert method_delay(hedging) == 4.0


def test_one_that_was_late_counts_however_it_ended() -> None:
    """At the deadline, say, when every copy hangs: or a server that is too slow would be hedged all the time."""
    clock = FakeClock()
    hedging = observing(clock)

    for _ in range(16):
        play(hedging, [Act(hang=True), ...], timeout=3, clock=clock)

    assert method_delay(hedging) == 3.0


@pytest.mark.parametrize("act", [failed(NOT_FOUND, delay=0.125), failed(CANCELLED, delay=0.125)])
def test_one_that_failed_early_does_not_count(act: Act) -> None:
    """It does not tell how long an answer takes; nor does one that was given up before it was late."""
    clock = FakeClock()
    hedging = observing(clock)

    for _ in range(16):
        play(hedging, [act], clock=clock)

    assert method_delay(hedging) == 1.0


@pytest.mark.parametrize("place", [place for place in STREAMED if place.kind is Kind.UNARY_STREAM], ids=str)
def test_of_a_stream_the_time_to_its_first_message_counts(place: Place) -> None:
    """However long it goes on."""
    clock = FakeClock()
    hedging = observing(clock)

    def slow_reader(call: Call) -> Flow:
        seen: list[str] = []

        def look(message: str) -> None:
            seen.append(message)
            if len(seen) > 1:
                clock.advance(100)

        yield call.tap(responses=look)

    with place.open(hedging, slow_reader, clock=clock) as rpc:
        for _ in range(16):
            rpc.call("a")

    assert method_delay(hedging) == 0.0
