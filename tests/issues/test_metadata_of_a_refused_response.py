"""A response that a map refuses was sent all the same, and so was the metadata in front of it."""

import pytest

from interpose import Call, Flow, Outcome, Side, errors
from interpose.testing import PLACES, Place, ok

CLIENTS = [place for place in PLACES if place.side is Side.CLIENT]


@pytest.mark.parametrize("place", CLIENTS, ids=str)
def test_the_outcome_knows_what_came_in_front(place: Place) -> None:
    """In all client places `initial_metadata` is told, whatever becomes of the response."""
    outcomes: list[Outcome] = []

    def refuse(response: str) -> str:
        raise errors.OutOfRange(f"{response} is too much")

    def watch(call: Call) -> Flow:
        outcomes.append((yield call.map(responses=refuse)))

    with place.open(watch, script=[ok(initial=(("x-node", "7"),))]) as rpc:
        reply = rpc.call("a")

    [outcome] = outcomes
    assert outcome.code is reply.code is outcome.code.OUT_OF_RANGE
    assert outcome.initial_metadata.get_all("x-node") == ["7"]
