"""A blocking call that is hedged: its copies ran in a context without what outer interceptors had set."""

from contextvars import ContextVar

import pytest

from interpose import Call, Flow, Kind, Side
from interpose.testing import PLACES, Place

CLIENTS = [
    place for place in PLACES if place.side is Side.CLIENT and place.kind in (Kind.UNARY_UNARY, Kind.UNARY_STREAM)
]
MARK: ContextVar[str] = ContextVar("mark", default="")


@pytest.mark.parametrize("place", CLIENTS, ids=str)
def test_copies_see_what_outer_interceptors_have_set(place: Place) -> None:
    """And the outer one sees it still at the end."""
    seen: list[str] = []

    def outer(call: Call) -> Flow:
        MARK.set("set")
        yield call.hedged(copies=2, delay=60)
        seen.append(MARK.get())

    def inner(call: Call) -> Flow:
        seen.append(MARK.get())
        yield call
        seen.append(MARK.get())

    with place.open(outer, inner) as rpc:
        assert rpc.call("a").ok

    assert seen == ["set", "set", "set"]
