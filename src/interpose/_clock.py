"""Time, handed in: what tells the hour and what rings later. Tests hand in another."""

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

FOREVER = 1e8  # seconds; grpc reads anything longer (9e9, inf, nan) as a deadline that has passed


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
        changed = self.clock._changed  # after a fork another than when this was made
        with changed:
            changed.notify()  # so that the thread ends now if this was all it waited for


class SystemClock:
    """The machine's monotonic clock. One daemon thread rings; it exists only while something is due."""

    now = staticmethod(time.monotonic)

    def __init__(self) -> None:
        self._reset()
        os.register_at_fork(after_in_child=self._reset)  # the thread and its lock stay behind in the parent

    def _reset(self) -> None:
        self._due: list[tuple[float, int, _Entry]] = []
        self._order = itertools.count()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Alarm:
        """Call back once, on the clock's thread, in `seconds`; callbacks must not block."""
        entry, begun = _Entry(callback, self), None
        with self._changed:
            heapq.heappush(self._due, (self.now() + seconds, next(self._order), entry))
            if self._thread is None:
                begun = self._thread = threading.Thread(target=self._run, name="interpose-clock", daemon=True)
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
        with self._changed:
            while self._due:
                at, _, entry = self._due[0]
                if entry.callback is not None and at > self.now():
                    self._changed.wait(at - self.now())
                    continue
                heapq.heappop(self._due)
                if entry.callback is not None:
                    return entry.callback
            self._thread = None
            return None


SYSTEM = SystemClock()
