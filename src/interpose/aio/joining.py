"""How the asyncio shell waits for what a flow asked: an awaitable, or a Future that another RPC may set on any thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from interpose._clock import SYSTEM, Alarm, Clock
from interpose._flow import Wait
from interpose._native import in_vain, waits_until


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
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(wake)

    future.add_done_callback(tell)
    until = waits_until(step, deadline)
    alarm = None if until is None else call_later(clock, loop, max(until - clock.now(), 0.0), wake)
    try:
        await came
    finally:
        if alarm is not None:
            alarm.cancel()
    if not future.done():
        raise in_vain()
    return future.result()
