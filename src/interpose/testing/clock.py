"""A clock that a test moves: for policies, sleeps and timers, of sync and asyncio channels and servers alike."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import threading
from collections.abc import Callable

from interpose._clock import SYSTEM

HANG_TIMEOUT = 20.0  # real seconds after which a wait or a call in a test counts as hung


class _Alarm:
    """Something that will ring."""

    def __init__(self, clock: FakeClock, callback: Callable[[], object]) -> None:
        self._clock = clock
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        self.callback = None
        self._clock._drop()


class FakeClock:
    """Time that passes only when a test moves it; hand it to `intercept_channel`, `intercept_server` and `play`.

    clock = FakeClock()
    channel = intercept_channel(channel, Cache(ttl=30), clock=clock)
    clock.advance(30)

    start: the time that it shows at first, in seconds.
    auto: code that sleeps, or sets a timer, moves it on by that much at once and goes on. A test of backoffs then needs
        no second thread. Not for hedged calls, whose copies would all leave at once, nor for timeouts on an asyncio
        server, which would be over at once.

    A deadline that grpc itself has runs in real time all the same.
    """

    def __init__(self, start: float = 1000.0, *, auto: bool = False) -> None:
        self._time = start
        self._auto = auto
        self._due: list[tuple[float, int, _Alarm]] = []
        self._order = itertools.count()
        # Re-entrant: a finalizer may cancel an alarm in the middle of anything.
        self._changed = threading.Condition(threading.RLock())
        self.pauses: list[float] = []

    def now(self) -> float:
        """The time, in seconds."""
        return self._time

    def call_later(self, seconds: float, callback: Callable[[], object]) -> _Alarm:
        """Ring after that number of seconds, when `advance` gets there; or at once, on a thread of the system's clock.

        The callback runs on the thread that calls `advance`, which gets what it raises.
        """
        alarm = _Alarm(self, callback)
        if seconds <= 0:
            SYSTEM.call_later(0, callback)
            return alarm
        with self._changed:
            self.pauses.append(seconds)
            heapq.heappush(self._due, (self._time + seconds, next(self._order), alarm))
            self._changed.notify_all()
        if self._auto:
            SYSTEM.call_later(0, lambda: self._ring_early(alarm, seconds))
        return alarm

    def sleep(self, seconds: float, woken: threading.Event) -> None:
        """Block this thread until `advance` has moved the time by `seconds`, or `woken` is set."""
        if not self._auto:
            self.call_later(seconds, woken.set)
            woken.wait()
        elif not woken.is_set():
            self.pauses.append(seconds)
            self._time += seconds

    def advance(self, seconds: float) -> None:
        """Move the time by seconds, stopping at each timer on the way; they ring on this thread. ValueError for less than 0."""
        if seconds < 0:
            raise ValueError(f"advance: time goes forwards, not by {seconds!r} seconds")
        end = self._time + seconds
        while (alarm := self._next(end)) is not None:
            alarm()
        self._time = end

    @property
    def waiting(self) -> int:
        """How many sleep, or have set a timer, right now."""
        with self._changed:
            return sum(alarm.callback is not None for _, _, alarm in self._due)

    def wait_for(self, waiting: int = 1) -> None:
        """Block until that many sleep or have set a timer: then is the time to `advance`. TimeoutError after 20 s."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.waiting >= waiting, HANG_TIMEOUT):
                raise TimeoutError(f"{self.waiting} wait on the clock, not {waiting}")

    async def reached(self, waiting: int = 1) -> None:
        """The same for a test that shares its loop with what it tests: `await clock.reached()`."""
        async with asyncio.timeout(HANG_TIMEOUT):
            while self.waiting < waiting:  # noqa: ASYNC110  timers are set by any thread
                await asyncio.sleep(0)

    def _next(self, end: float) -> Callable[[], object] | None:
        """What rings next, until `end`; the time moves to it."""
        with self._changed:
            while self._due and self._due[0][0] <= end:
                at, _, alarm = heapq.heappop(self._due)
                callback, alarm.callback = alarm.callback, None
                if callback is not None:
                    self._time = max(self._time, at)
                    return callback
        return None

    def _ring_early(self, alarm: _Alarm, seconds: float) -> None:
        callback, alarm.callback = alarm.callback, None
        self._drop()
        if callback is not None:
            self._time += seconds
            callback()

    def _drop(self) -> None:
        """Forget the alarms that will not ring."""
        with self._changed:
            while self._due and self._due[0][2].callback is None:
                heapq.heappop(self._due)
