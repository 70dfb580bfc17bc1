"""What a handler sent in front of its response is part of the outcome that flows on the server are told."""

import pytest

from interpose import Call, Flow, Outcome, Side
from interpose.testing import PLACES, Place, ok

SERVERS = [place for place in PLACES if place.side is Side.SERVER]


@pytest.mark.parametrize("place", SERVERS, ids=str)
@pytest.mark.parametrize("trailing", [(), (("x-trailing", "t"),)], ids=["plain", "trailing"])
def test_a_flow_is_told_what_the_handler_sent_in_front(place: Place, trailing: tuple[tuple[str, str], ...]) -> None:
    """It is in `initial_metadata`, beside what interceptors put there; and the handler cannot be called again."""
    outcomes: list[Outcome] = []

    def watch(call: Call) -> Flow:
        outcomes.append((yield call.with_initial_metadata(("x-ours", "1"))))

    with place.open(watch, script=[ok(initial=(("x-node", "7"),), trailing=trailing)]) as rpc:
        reply = rpc.call("a")

    [outcome] = outcomes
    assert reply.initial_metadata.get_all("x-node") == ["7"]
    assert outcome.initial_metadata.get_all("x-node") == ["7"]
    assert outcome.initial_metadata.get_all("x-ours") == ["1"]
    assert not outcome.replayable


@pytest.mark.parametrize("place", SERVERS, ids=str)
def test_a_response_that_has_begun_is_not_replayable(place: Place) -> None:
    """The handler sent metadata, and would send it a second time."""
    outcomes: list[Outcome] = []

    def watch(call: Call) -> Flow:
        outcomes.append((yield call))

    with place.open(watch, script=[ok(initial=(("x-node", "7"),))]) as rpc:
        rpc.call("a")

    assert [outcome.replayable for outcome in outcomes] == [False]
