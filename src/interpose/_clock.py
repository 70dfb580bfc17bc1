"""The clock: monotonic time and timers, injected so that tests can replace it."""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Protocol

_log = logging.getLogger("interpose")

LINGER = 0.05  # seconds that the clock's thread stays when nothing is due: to start another costs 0.3 ms
FOREVER = 1e8  # seconds; grpc reads anything longer (9e9, inf, nan) as a deadline that has passed

# Seconds before the deadline: a client that goes then has run out of time, by a clock that is ahead of ours by what the
# request took to come.
DEADLINE_TOLERANCE = 0.01


class Alarm(Protocol):
    """Something that will ring, unless cancelled before."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """Monotonic time in seconds, callbacks at a later time, and sleep that can be cut short."""

    def now(self) -> float: ...

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Alarm: ...

    def sleep(self, seconds: float, woken: threading.Event) -> None: ...


class _Entry:
    __slots__ = ("callback", "clock")

    def __init__(self, callback: Callable[[], object], clock: SystemClock) -> None:
        self.callback: Callable[[], object] | None = callback
        self.clock = clock

    def cancel(self) -> None:
        self.callback = None
        self.clock._cancelled()


class SystemClock:
    """The machine's monotonic clock. One daemon thread rings; it exists while something is due, and a moment longer."""

    now = staticmethod(time.monotonic)

    def __init__(self) -> None:
        self._reset()
        os.register_at_fork(after_in_child=self._reset)  # the thread and its lock stay behind in the parent

    def _reset(self) -> None:
        self._due: list[tuple[float, int, _Entry]] = []
        self._order = itertools.count()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._wakes = 0.0  # when the thread will look again by itself

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Alarm:
        """Call back once, on the clock's thread, in `seconds`; callbacks must not block."""
        entry, begun, at = _Entry(callback, self), None, self.now() + seconds
        with self._changed:
            heapq.heappush(self._due, (at, next(self._order), entry))
            if self._thread is None:
                begun = self._thread = threading.Thread(target=self._run, name="interpose-clock", daemon=True)
            elif at < self._wakes:
                self._changed.notify()
        if begun is not None:
            # Not under the lock: this waits for the new thread, which may collect garbage first, whose finalizers come here.
            begun.start()
        return entry

    def sleep(self, seconds: float, woken: threading.Event) -> None:
        """Block this thread for `seconds`, or until `woken` is set."""
        woken.wait(seconds)

    def _run(self) -> None:
        while callback := self._next():
            try:
                callback()
            except BaseException:  # also of a done callback that calls sys.exit(): others wait for this thread
                _log.exception("a timer's callback failed")

    def _next(self) -> Callable[[], object] | None:
        """Wait for the next callback that is due; None when nothing is left to wait for."""
        lingered = False
        with self._changed:
            while True:
                self._forget_cancelled()
                now = self.now()
                if not self._due and lingered:
                    self._thread = None
                    return None
                lingered = not self._due
                left = LINGER if lingered else self._due[0][0] - now
                if left > 0:
                    self._wakes = now + left
                    self._changed.wait(left)
                elif (callback := heapq.heappop(self._due)[2].callback) is not None:
                    return callback

    def _cancelled(self) -> None:
        """One of them need not ring. If it was the last, the thread has nothing to wait for, and may be asleep for long."""
        with self._changed:
            self._forget_cancelled()
            if not self._due and self._wakes - self.now() > LINGER:
                self._changed.notify()

    def _forget_cancelled(self) -> None:
        while self._due and self._due[0][2].callback is None:
            heapq.heappop(self._due)

    def is_idle(self, thread: threading.Thread) -> bool:
        """Is this the clock's thread, with nothing left to do, and about to end?"""
        return thread is self._thread and not any(entry.callback for _, _, entry in self._due)


SYSTEM = SystemClock()
