"""A call carries the clock of its channel or server."""

from __future__ import annotations

import pytest

from interpose import Call, Flow, Side
from interpose.testing import PLACES, FakeClock, Place, play


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_the_clock_of_the_channel_or_server(place: Place) -> None:
    """In each place, whatever was asked of the call, and after its end too."""
    clock, seen = FakeClock(), list[object]()

    def look(call: Call) -> Flow:
        seen.append(call.clock)
        yield call.with_metadata(("x-a", "b"))
        seen.append(call.clock)

    def further_in(call: Call) -> Flow:
        seen.append(call.clock)
        yield call

    with place.open(look, further_in, clock=clock) as rpc:
        assert rpc.call("a").ok

    assert seen == [clock] * 3


@pytest.mark.parametrize("side", Side)
def test_the_clock_of_a_play(side: Side) -> None:
    """That which was given to `play`."""
    clock, seen = FakeClock(), list[object]()

    def look(call: Call) -> Flow:
        seen.append(call.clock)
        yield call

    play(look, side=side, clock=clock)

    assert seen == [clock]
