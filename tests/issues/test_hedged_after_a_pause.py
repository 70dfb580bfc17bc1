"""A hedged call that is to be sent later pauses once: the delay between copies runs from when the first one was sent."""

import threading

import grpc
import pytest

from interpose import Call, Flow, Kind, Side
from interpose.testing import FakeClock, Place, failed, ok, play
from interpose.testing.acts import Act
from tests.support.patience import PATIENCE

FAR = 1000.0
DOWN = failed(grpc.StatusCode.UNAVAILABLE)
KINDS = pytest.mark.parametrize("kind", [Kind.UNARY_UNARY, Kind.UNARY_STREAM], ids=lambda kind: kind.value)


def later(call: Call) -> Flow:
    """As `Retry` around a `Hedge` asks for it."""
    yield call.after(10).hedged(copies=2, delay=1)


@KINDS
def test_a_failure_lets_the_next_copy_go_at_once(kind: Kind) -> None:
    """The first copy is sent after the pause; when it fails, nobody pauses again."""
    played = play(later, [DOWN, ok()], kind=kind)

    assert [sent.at for sent in played.sent] == [10, 10]


@KINDS
def test_the_second_copy_goes_one_delay_after_the_first(kind: Kind) -> None:
    """And not before the first has been."""
    played = play(later, [Act(hang=True), ok()], kind=kind)

    assert [sent.at for sent in played.sent] == [10, 11]


@KINDS
@pytest.mark.parametrize("asyncio", [False, True], ids=["sync", "aio"])
def test_on_real_channels(asyncio: bool, kind: Kind) -> None:
    """Ten seconds after it was asked for the first copy fails and the second one answers, without more time passing."""
    clock, replies = FakeClock(), list[bool]()

    with Place(asyncio, Side.CLIENT, kind).open(later, script=[DOWN, ok()], clock=clock) as rpc:
        calling = threading.Thread(target=lambda: replies.append(rpc.call("a").ok))
        calling.start()
        clock.wait_for(2)  # the pause, and the delay of the second copy
        clock.advance(10)
        calling.join(PATIENCE)
        in_time = not calling.is_alive()
        clock.advance(FAR)
        calling.join()

    assert in_time, "the second copy paused once more"
    assert replies == [True]
    assert len(rpc.attempts) == 2


def test_nobody_asks_for_another_copy_before_the_first_is_sent() -> None:
    """A budget would count a copy that may never be needed."""
    clock, asked = FakeClock(start=0), list[float]()

    def ready() -> bool:
        asked.append(clock.now())
        return True

    def hedge(call: Call) -> Flow:
        yield call.after(10).hedged(copies=2, delay=1, ready=ready)

    play(hedge, [Act(hang=True), ok()], clock=clock)

    assert asked == [11]
