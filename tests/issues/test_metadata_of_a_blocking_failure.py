"""What a server sent in front of a failure is in the outcome of a blocking call too."""

import grpc
import pytest

from interpose import Call, Flow, Outcome, Side
from interpose.testing import PLACES, Place, failed

UNARY_RESPONSES = [place for place in PLACES if place.side is Side.CLIENT and not place.kind.response_streaming]


@pytest.mark.parametrize("place", UNARY_RESPONSES, ids=str)
def test_a_failed_call_has_its_initial_metadata(place: Place) -> None:
    """It tells `Retry` that the server had begun to process the call."""
    outcomes: list[Outcome] = []

    def watch(call: Call) -> Flow:
        outcomes.append((yield call))

    begun = failed(grpc.StatusCode.UNAVAILABLE, initial=(("x-node", "7"),))
    with place.open(watch, script=[begun]) as rpc:
        reply = rpc.call("a")

    assert reply.initial_metadata["x-node"] == "7"
    assert [outcome.initial_metadata.get("x-node") for outcome in outcomes] == ["7"]
