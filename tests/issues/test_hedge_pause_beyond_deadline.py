"""A pause between the copies of a hedged call is over when the deadline has passed, and does not hold the caller."""

import threading

import grpc
import pytest

from interpose import Call, Flow, Kind, Outcome, Side
from interpose.testing import FakeClock, Place, failed


@pytest.mark.parametrize("asyncio", [False, True], ids=["sync", "aio"])
@pytest.mark.parametrize("kind", [Kind.UNARY_UNARY, Kind.UNARY_STREAM], ids=lambda kind: kind.value)
def test_no_pause_beyond_the_deadline(asyncio: bool, kind: Kind) -> None:
    """A copy failed and the next one may go in a minute; the deadline passes after ten seconds, and that is the end."""
    clock = FakeClock()
    asked, ended = threading.Event(), threading.Event()

    def in_a_minute(outcome: Outcome) -> float:
        asked.set()
        return 60.0

    def hedge(call: Call) -> Flow:
        yield call.hedged(copies=2, delay=5, verdict=in_a_minute)
        ended.set()

    with Place(asyncio, Side.CLIENT, kind).open(
        hedge, script=[failed(grpc.StatusCode.UNAVAILABLE)], clock=clock
    ) as rpc:
        calling = threading.Thread(target=rpc.call, args=("a",), kwargs={"timeout": 10})
        calling.start()
        assert asked.wait(10)
        # To one second beyond the deadline; in steps, since the pause may begin after the first ones.
        for _ in range(11):
            clock.advance(1)
            if ended.wait(0.1):
                break
        over = ended.is_set()
        clock.advance(60)  # lets a call that still pauses go on, so that it can end
        calling.join()

    assert over, "the caller was kept waiting beyond the deadline"
    assert len(rpc.attempts) == 1
