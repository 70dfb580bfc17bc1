"""Blocking work beside the RPCs: in a thread of its own, which ends with it. One piece at a time."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class Background(Generic[T]):
    """Runs one piece of work at a time; a call that comes while it runs is given the Future of the same piece.

    There is no thread until then, and none afterwards. A process that was forked begins anew.
    """

    __slots__ = ("_name", "_running")

    def __init__(self, name: str) -> None:
        self._name = name
        self._running: dict[int, Future[T]] = {}  # by process: a thread does not come along into a child

    def start(self, work: Callable[[], T]) -> Future[T]:
        """Run `work` on a daemon thread, unless another piece runs already; gives what the one that runs will give."""
        mine: Future[T] = Future()
        running = self._running.setdefault(os.getpid(), mine)
        if running is mine:
            try:
                threading.Thread(target=self._run, args=(work, mine), name=self._name, daemon=True).start()
            except BaseException:  # no more threads, or the interpreter shuts down
                del self._running[os.getpid()]
                raise
        return running

    def running(self) -> Future[T] | None:
        """The Future of the piece that runs."""
        return self._running.get(os.getpid())

    def _run(self, work: Callable[[], T], future: Future[T]) -> None:
        try:
            result = work()
        except BaseException as error:
            self._end()
            future.set_exception(error)
        else:
            self._end()
            future.set_result(result)

    def _end(self) -> None:
        """First this, then the result: a caller that is given the result may start the next piece."""
        del self._running[os.getpid()]
