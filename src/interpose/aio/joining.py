"""How the asyncio shell waits for what a flow asked: an awaitable, or a Future that another RPC may set on any thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from interpose._clock import FOREVER, SYSTEM, Alarm, Clock
from interpose._flow import Wait
from interpose._shell.native import locally_cancelled, wait_of, wait_timed_out
from interpose._shell.owner import Owner
from interpose._shell.pending import Pending


def call_later(clock: Clock, loop: asyncio.AbstractEventLoop, seconds: float, callback: Callable[[], object]) -> Alarm:
    """Call back on the loop, by this clock."""
    if clock is SYSTEM:
        return loop.call_later(seconds, callback)
    return clock.call_later(seconds, lambda: loop.call_soon_threadsafe(callback))


async def joined(step: Wait, deadline: float | None, clock: Clock) -> Any:
    """What it gives, or raises; a Future is waited for until the deadline, and never cancelled: others wait for it too."""
    future = step.awaitable
    if not isinstance(future, Future):
        return await future
    loop = asyncio.get_running_loop()
    came = loop.create_future()

    def wake() -> None:
        if not came.done():
            came.set_result(None)

    def tell(_: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed: no task waits any more
            loop.call_soon_threadsafe(wake)

    future.add_done_callback(tell)
    seconds = wait_of(step, deadline, clock.now())
    alarm = call_later(clock, loop, seconds, wake) if seconds < FOREVER else None
    try:
        await came
    finally:
        if alarm is not None:
            alarm.cancel()
    if not future.done():
        raise wait_timed_out()
    return future.result()


class Awaited(Pending):
    """A flow on a client that waits for an awaitable, in a task of its own."""

    __slots__ = ("_loop", "_step", "_task")

    def __init__(self, owner: Owner, step: Wait, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(owner)
        self._step = step
        self._loop = loop
        self._task: asyncio.Task[Any] | None = None

    def _set(self) -> None:
        # In the flow's own context, so that what it set is there, and what the awaitable sets is there later.
        self._task = self._loop.create_task(self._given(), context=self._owner.context)
        self._task.add_done_callback(self._come)

    async def _given(self) -> tuple[Any, BaseException | None]:
        """What it gives, or raises: a task that raised SystemExit would stop the loop."""
        try:
            return await self._step.awaitable, None  # type: ignore[misc]  # a Future is joined
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            return None, error

    def _is_unwanted(self) -> bool:
        return False  # a flow may await something to the end although its RPC is cancelled: to give back what it has

    def _come(self, task: asyncio.Task[Any]) -> None:
        driver = self._owner.driver
        if not self._claim():
            return
        if task.cancelled():
            close = getattr(self._step.awaitable, "close", None)
            if close is not None:
                close()  # cancelled before it began, it would complain of never having been awaited
            self._owner.turn(driver.fail, locally_cancelled())
            return
        value, error = task.result()
        if error is not None:
            self._owner.turn(driver.fail, error)
        else:
            self._owner.turn(driver.answer, value)

    def cancel(self) -> None:
        if self._task is not None:
            self._loop.call_soon(self._task.cancel)  # a step that was only just asked for has begun by then
