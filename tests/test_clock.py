"""The system clock: one thread that rings, as long as something is due."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

from interpose._clock import SystemClock

SOON = 10.0  # seconds; no test waits so long, unless it fails
FAR = 3600.0


@pytest.fixture
def clock() -> SystemClock:
    """A clock of its own."""
    return SystemClock()


def ended(clock: SystemClock) -> bool:
    """Wait until the clock's thread has gone."""
    thread = clock._thread
    if thread is not None:
        thread.join(SOON)
    return clock._thread is None


def rung(clock: SystemClock, *delays: float) -> list[float]:
    """Ask for callbacks after these delays, and tell the order in which they came."""
    order: list[float] = []
    over = threading.Semaphore(0)

    def callback(delay: float) -> Callable[[], object]:
        return lambda: (order.append(delay), over.release())

    for delay in delays:
        clock.call_later(delay, callback(delay))
    for _ in delays:
        assert over.acquire(timeout=SOON)
    return order


def test_it_calls_back_in_order(clock: SystemClock) -> None:
    """Whatever the order in which callbacks were asked for, they come by their time."""
    # Far apart: a busy machine may stand still between two askings.
    assert rung(clock, 0.3, 0.1, 0.2) == [0.1, 0.2, 0.3]
    assert ended(clock)


def test_equal_times_ring_as_asked(clock: SystemClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Callbacks for the same moment come in the order in which they were asked for."""
    now = time.monotonic()
    monkeypatch.setattr(clock, "now", lambda: now)

    order: list[int] = []
    over = threading.Event()
    for number in range(5):
        clock.call_later(0, lambda number=number: order.append(number))  # type: ignore[misc]
    clock.call_later(0, over.set)

    assert over.wait(SOON)
    assert order == [0, 1, 2, 3, 4]
    assert ended(clock)


def test_never_early(clock: SystemClock) -> None:
    """A callback comes when its time has passed, on a thread of the clock's own."""
    rang: list[tuple[float, str]] = []
    over = threading.Event()
    started = clock.now()

    clock.call_later(0.02, lambda: (rang.append((clock.now(), threading.current_thread().name)), over.set()))

    assert over.wait(SOON)
    assert rang[0][0] >= started + 0.02
    assert rang[0][1] == "interpose-clock"
    assert ended(clock)


def test_the_thread_lives_while_something_is_due(clock: SystemClock) -> None:
    """There is no thread before the first callback is due, none after the last, and a new one for the next."""
    assert clock._thread is None
    rung(clock, 0.0)
    assert ended(clock)
    rung(clock, 0.0)
    assert ended(clock)


def test_a_cancelled_alarm_does_not_ring(clock: SystemClock) -> None:
    """Others go on; if it was all that was due, the thread ends at once."""
    rang: list[str] = []
    alarm = clock.call_later(FAR, lambda: rang.append("cancelled"))
    first = clock.call_later(0.01, lambda: rang.append("cancelled too"))
    first.cancel()

    assert rung(clock, 0.02) == [0.02]
    alarm.cancel()
    assert ended(clock)
    assert rang == []


def test_cancelling_twice_or_late_does_nothing(clock: SystemClock) -> None:
    """An alarm that rang or was cancelled may be cancelled again."""
    over = threading.Event()
    alarm = clock.call_later(0, over.set)
    assert over.wait(SOON)

    alarm.cancel()
    alarm.cancel()

    assert ended(clock)


def test_an_earlier_alarm_wakes_the_clock(clock: SystemClock) -> None:
    """An alarm that is due before the one which is waited for rings in time."""
    late = clock.call_later(FAR, lambda: None)

    assert rung(clock, 0.0) == [0.0]
    late.cancel()
    assert ended(clock)


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_a_callback_that_raises(
    clock: SystemClock, error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, and the others ring."""

    def breaks() -> None:
        raise error

    clock.call_later(0, breaks)

    assert rung(clock, 0.0) == [0.0]
    assert ended(clock)
    assert "a timer's callback failed" in caplog.text


def test_a_callback_may_ask_for_another(clock: SystemClock) -> None:
    """On the clock's own thread too."""
    over = threading.Event()

    clock.call_later(0, lambda: clock.call_later(0, lambda: clock.call_later(0, over.set)))

    assert over.wait(SOON)
    assert ended(clock)


def test_many_threads_ask(clock: SystemClock) -> None:
    """Each callback comes once, whoever asks."""
    counted: list[int] = []
    over = threading.Semaphore(0)
    threads = [
        threading.Thread(
            target=lambda: [clock.call_later(0.001, lambda: (counted.append(1), over.release())) for _ in range(50)]
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON)

    assert all(over.acquire(timeout=SOON) for _ in range(200))
    assert len(counted) == 200
    assert ended(clock)


def test_sleep_is_cut_short(clock: SystemClock) -> None:
    """A sleeper wakes when its event is set."""
    woken = threading.Event()
    started = clock.now()
    clock.call_later(0, woken.set)

    clock.sleep(SOON, woken)

    assert clock.now() - started < SOON
    assert ended(clock)


def test_sleep_ends(clock: SystemClock) -> None:
    """Nobody need wake it."""
    started = clock.now()

    clock.sleep(0.01, threading.Event())

    assert clock.now() >= started + 0.009


FORKS = """
import os, sys, threading, warnings
from interpose._clock import SystemClock

clock = SystemClock()
clock.call_later(3600, print)
warnings.simplefilter("ignore")
child = os.fork()
if child == 0:
    over = threading.Event()
    clock.call_later(0, over.set)
    os._exit(0 if over.wait(10) else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="this system has no fork")
def test_a_child_has_a_clock_that_rings() -> None:
    """After a fork the thread has stayed behind, and what was due there is not due here; the clock begins anew."""
    done = subprocess.run([sys.executable, "-c", FORKS], check=False, timeout=60)

    assert done.returncode == 0
