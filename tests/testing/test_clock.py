"""FakeClock: time that a test moves, and what waits on it on both stacks."""

import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from interpose import Call, Flow, Side
from interpose.interceptors import Retry
from interpose.testing import PLACES, FakeClock, Place, Reply, Rpc, failed, ok
from interpose.testing import clock as clock_module
from tests.interceptors.driving import Told, is_server, requests

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE

HEDGED = [place for place in PLACES if place.side is Side.CLIENT and not place.kind.response_streaming]
HANDLERS = [place for place in PLACES if is_server(place) and place.asyncio]


def half_a_minute_later(call: Call) -> Flow:
    outcome = yield call.buffered()
    if not outcome.ok and outcome.replayable:
        yield call.after(30)


@contextmanager
def calling(rpc: Rpc, *messages: str) -> Iterator[futures.Future[Reply]]:
    """One RPC, in a thread of its own."""
    with futures.ThreadPoolExecutor(1) as pool:
        yield pool.submit(rpc.call, *messages)


# --- on both stacks ---------------------------------------------------------------------------------------------------


def test_a_pause_lasts_until_the_test_moves_the_time(place: Place) -> None:
    """Not a second less: at 29 s nothing was sent, at 30 s it is."""
    clock = FakeClock()
    script = [failed(UNAVAILABLE, unread=is_server(place)), ok()]

    with place.open(half_a_minute_later, script=script, clock=clock) as rpc, calling(rpc, *requests(place)) as reply:
        clock.wait_for()
        clock.advance(29)
        early = len(rpc.attempts)
        clock.advance(1)
        assert reply.result(10).ok

    assert (early, len(rpc.attempts)) == (1, 2)
    assert clock.pauses == [30]
    assert clock.now() == 1030


def test_an_automatic_clock_does_not_wait(place: Place) -> None:
    """Whoever sleeps moves it; three pauses of a minute are over at once."""
    clock = FakeClock(auto=True)
    script = [failed(UNAVAILABLE, unread=is_server(place))] * 3

    with place.open(Retry(safe=True, backoff=lambda number: 60.0), script=script, clock=clock) as rpc:
        reply = rpc.call(*requests(place))

    assert reply.code is grpc.StatusCode.OK
    assert clock.pauses == [60.0] * 3
    assert clock.now() == 1180


@pytest.mark.parametrize("place", HANDLERS, ids=str)
def test_a_timeout_of_a_handler(place: Place) -> None:
    """A handler that may take half a minute is cancelled when the test says that it has passed."""
    clock, told = FakeClock(), Told()

    def limits(call: Call) -> Flow:
        yield call.with_timeout(30)

    with (
        place.open(told, limits, script=[ok(hang=True)], clock=clock) as rpc,
        calling(rpc, *requests(place)) as reply,
    ):
        rpc.echo.wait_begun()
        clock.wait_for()
        clock.advance(30)
        assert reply.result(10).code is grpc.StatusCode.DEADLINE_EXCEEDED
        rpc.echo.wait_ended()

    assert [outcome.elapsed for outcome in told.outcomes] == [30]
    assert rpc.attempts[0].cancelled


@pytest.mark.parametrize("place", HEDGED, ids=str)
def test_copies_leave_when_the_test_says_so(place: Place) -> None:
    """The second copy leaves after its delay, and wins."""
    clock = FakeClock()

    def races(call: Call) -> Flow:
        yield call.hedged(copies=2, delay=30)

    with (
        place.open(races, script=[ok(hang=True), ok("second")], clock=clock) as rpc,
        calling(rpc, *requests(place)) as reply,
    ):
        clock.wait_for()
        rpc.echo.wait_begun()
        clock.advance(30)
        assert reply.result(10).messages == ["second"]

    assert len(rpc.attempts) == 2


# --- the clock itself -------------------------------------------------------------------------------------------------


def test_timers_ring_in_order() -> None:
    """By their time, each at its time, and those of the same time as they were asked for."""
    clock, rang = FakeClock(0.0), []

    for name, seconds in (("c", 3), ("a", 1), ("b", 1), ("late", 9)):
        clock.call_later(seconds, lambda name=name: rang.append((name, clock.now())))  # type: ignore[misc]
    clock.advance(5)

    assert rang == [("a", 1), ("b", 1), ("c", 3)]
    assert (clock.now(), clock.waiting) == (5, 1)


def test_a_timer_may_set_another() -> None:
    """It rings in the same advance, if it is due by then."""
    clock, rang = FakeClock(0.0), []

    clock.call_later(1, lambda: clock.call_later(1, lambda: rang.append(clock.now())))
    clock.advance(2)

    assert rang == [2]


def test_what_is_due_at_once_rings_without_the_test() -> None:
    """Zero seconds are no pause."""
    clock, rang = FakeClock(), threading.Event()

    clock.call_later(0, rang.set)

    assert rang.wait(10)
    assert (clock.pauses, clock.waiting) == ([], 0)


def test_a_cancelled_timer_does_not_ring() -> None:
    """And nobody waits for it; to cancel twice, or after it rang, does nothing."""
    clock, rang = FakeClock(), []
    first, second, third = (clock.call_later(at, lambda at=at: rang.append(at)) for at in (1, 2, 3))  # type: ignore[misc]

    first.cancel()
    first.cancel()
    third.cancel()
    waiting = clock.waiting
    clock.advance(5)
    second.cancel()

    assert (waiting, rang, clock.waiting) == (1, [2], 0)


def test_a_sleeper_can_be_woken() -> None:
    """Then the time has not moved; and one that is awake already does not sleep."""
    clock, woken = FakeClock(), threading.Event()
    sleeper = threading.Thread(target=clock.sleep, args=(3600, woken))

    sleeper.start()
    clock.wait_for()
    woken.set()
    sleeper.join(10)
    FakeClock(auto=True).sleep(3600, woken)

    assert not sleeper.is_alive()
    assert clock.now() == 1000


def test_an_automatic_timer_rings_on_another_thread() -> None:
    """So that who set it is not called back while it still holds a lock."""
    clock, rang = FakeClock(auto=True), threading.Event()
    where: list[str] = []

    clock.call_later(3600, lambda: (where.append(threading.current_thread().name), rang.set()))

    assert rang.wait(10)
    assert where != [threading.current_thread().name]
    assert clock.now() == 4600


def test_an_automatic_timer_that_is_cancelled() -> None:
    """The time does not move for it, if it was cancelled before it rang."""
    clock = FakeClock(auto=True)

    alarm = clock.call_later(3600, lambda: None)
    alarm._clock._ring_early(alarm, 3600)  # as the other thread does
    alarm._clock._ring_early(alarm, 3600)  # which comes too late

    assert clock.now() == 4600


def test_time_does_not_run_backwards() -> None:
    """Nothing of ours could bear it."""
    with pytest.raises(ValueError, match="time goes forwards"):
        FakeClock().advance(-1)


async def test_a_test_that_shares_its_loop_can_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """`reached` gives way to the loop until somebody waits on the clock; TimeoutError if nobody does."""
    clock = FakeClock()
    threading.Thread(target=clock.call_later, args=(5, print)).start()

    await clock.reached()
    monkeypatch.setattr(clock_module, "HANG_TIMEOUT", 0.01)
    with pytest.raises(TimeoutError):
        await clock.reached(2)

    assert clock.waiting == 1


def test_a_wait_in_vain_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """With how many there were."""
    monkeypatch.setattr(clock_module, "HANG_TIMEOUT", 0.01)

    with pytest.raises(TimeoutError, match="0 wait on the clock, not 1"):
        FakeClock().wait_for()


def test_it_is_a_clock_for_policies() -> None:
    """It has all that one of ours has."""
    clock: Any = FakeClock(7.0)

    assert (clock.now(), clock.waiting, clock.pauses) == (7.0, 0, [])
