"""A flow that wants to send again although its client has gone is told so at once, and does not hold the server up."""

import threading

import grpc
import pytest

from interpose import Call, Flow, Kind, Outcome, Side
from interpose.testing import FakeClock, Place, failed
from tests.support.patience import PATIENCE


@pytest.mark.parametrize("asyncio", [False, True], ids=["sync", "aio"])
@pytest.mark.parametrize("kind", [Kind.UNARY_UNARY, Kind.UNARY_STREAM], ids=lambda kind: kind.value)
def test_no_second_pause_for_a_client_that_has_gone(asyncio: bool, kind: Kind) -> None:
    """Its deadline passes during a pause; the flow yields a delayed call again, and nothing waits for that delay."""
    # A machine that is busy may not bring a call to its handler before the deadline.
    assert any(ended_twice(asyncio, kind, deadline) for deadline in (0.05, 0.5, 5.0))


def ended_twice(asyncio: bool, kind: Kind, deadline: float) -> bool:
    """Was the flow told twice that the client has gone? False: the call has not come to it."""
    told: list[Outcome] = []
    begun, ended = threading.Event(), threading.Event()
    clock = FakeClock()  # nobody moves it: a pause never ends by itself

    def stubborn(call: Call) -> Flow:
        begun.set()
        told.append((yield call.after(30)))
        told.append((yield call.after(30)))
        ended.set()

    with Place(asyncio, Side.SERVER, kind).open(
        stubborn, script=[failed(grpc.StatusCode.UNAVAILABLE)], clock=clock
    ) as rpc:
        calling = threading.Thread(target=rpc.call, args=("a",), kwargs={"timeout": deadline})
        calling.start()
        came = begun.wait(deadline)
        over = came and ended.wait(PATIENCE)
        clock.advance(60)  # lets a server that still pauses go on, so that it can be stopped
        calling.join()

    if came:  # by then: one that began later was not waited for
        assert over, "the flow was kept waiting for a client that has gone"
        assert [outcome.code for outcome in told] == [grpc.StatusCode.DEADLINE_EXCEEDED] * 2
    return came
