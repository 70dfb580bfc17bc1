"""Work beside the RPCs, one piece at a time: in a thread of its own that ends with it, or in a task of the running loop."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from contextvars import Context
from typing import Generic, TypeVar

T = TypeVar("T")


class _Running(Generic[T]):
    """A piece that runs, and the loop that it runs on."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self.loop = loop
        self.task: asyncio.Task[None] | None = None
        self.future: Future[T | None] = Future()
        self.future.set_running_or_notify_cancel()  # so that one of those who wait for it cannot cancel it for all


class Background(Generic[T]):
    """Runs one piece of work at a time; a call that comes while it runs is given the Future of the same piece.

    There is no thread and no task until then, and none afterwards. A process that was forked begins anew. The work runs in
    a context of its own: it belongs to no RPC.
    """

    __slots__ = ("_name", "_running")

    def __init__(self, name: str) -> None:
        self._name = name
        self._running: dict[int, _Running[T]] = {}  # by process: a thread does not come along into a child

    def start(self, work: Callable[[], T]) -> Future[T | None]:
        """Run `work` on a daemon thread, unless another piece runs already; gives what the one that runs will give."""
        mine: _Running[T] = _Running()
        running = self._running.setdefault(os.getpid(), mine)
        if running is mine:
            try:
                threading.Thread(
                    target=Context().run, args=(self._run, work, mine), name=self._name, daemon=True
                ).start()
            except BaseException:  # no more threads, or the interpreter shuts down
                del self._running[os.getpid()]
                raise
        return running.future

    def start_task(self, work: Callable[[], Awaitable[T]]) -> Future[T | None]:
        """Await `work` in a task of the running loop, unless another piece runs already; None if the loop ends before it."""
        self.running()
        mine: _Running[T] = _Running(asyncio.get_running_loop())
        running = self._running.setdefault(os.getpid(), mine)
        if running is mine:
            made = asyncio.get_running_loop().create_task(self._await(work, mine), name=self._name, context=Context())
            mine.task = made  # a loop keeps no task alive: this does
        return running.future

    def running(self) -> Future[T | None] | None:
        """The Future of the piece that runs."""
        running = self._running.get(os.getpid())
        if running is None:
            return None
        if running.loop is not None and not running.loop.is_running():  # its loop was left in the middle of it
            self._end(running, None)
            return None
        return running.future

    def _run(self, work: Callable[[], T], mine: _Running[T]) -> None:
        try:
            result = work()
        except BaseException as error:
            self._end(mine, None, error)
        else:
            self._end(mine, result)

    async def _await(self, work: Callable[[], Awaitable[T]], mine: _Running[T]) -> None:
        try:
            result = await work()
        except Exception as error:
            self._end(mine, None, error)
        except BaseException:  # the loop is about to end
            self._end(mine, None)
            raise
        else:
            self._end(mine, result)

    def _end(self, mine: _Running[T], result: T | None, error: BaseException | None = None) -> None:
        """It has ended. The result comes last: a caller that is given it may start the next piece."""
        if self._running.get(os.getpid()) is mine:
            del self._running[os.getpid()]
        with suppress(InvalidStateError):  # of a piece that was given up
            mine.future.set_result(result) if error is None else mine.future.set_exception(error)
