"""A queue of work that is done in order and one piece at a time, without a lock.

The garbage collector may end an abandoned call in the middle of anything, on the very thread that would hold the lock.
Here such an end only puts down what is to be done, and the thread that it interrupted does it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable


class SerialQueue:
    """Work done in order and one piece at a time, by the thread that comes by. No thread waits for another."""

    __slots__ = ("_free", "_waiting")

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], object]] = deque()
        self._free = [True]  # the thread that pops it does the work

    def add(self, work: Callable[[], object]) -> None:
        """Put it last; it is done by the next `run`."""
        self._waiting.append(work)

    def run(self) -> None:
        """Do what waits; if another thread is at it already, it is done by that thread."""
        while self._waiting:
            try:
                self._free.pop()
            except IndexError:
                return  # that thread looks again when it has finished
            try:
                self._work()
            finally:
                self._free.append(True)

    def _work(self) -> None:
        while True:
            try:
                work = self._waiting.popleft()
            except IndexError:
                return
            work()
