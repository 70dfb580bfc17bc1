"""Signals that stop a server: the first drains it, the second shortens that, the third kills."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

STOPPING = (signal.SIGINT, signal.SIGTERM)
CLOSED: signal.Signals | None = getattr(signal, "SIGHUP", None)  # its terminal is closed, where there is such a signal
KILLING = 3  # the signal of this number ends the process at once


@contextmanager
def stop_signals(tell: Callable[[], object]) -> Generator[None]:
    """Call `tell` at each of the first two signals that stop. RuntimeError outside of the main thread.

    SIGHUP is one of them, unless it means something else here, or is ignored, as under nohup.

    It is called between two steps of the main thread, whatever that is doing, so it must not take a lock.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("serve() must be called in the main thread: no other can hear signals")
    count = 0

    def hear(number: int, _: FrameType | None) -> None:
        nonlocal count
        count += 1
        if count >= KILLING:
            os._exit(128 + number)  # as a shell shows it
        tell()

    closed = [CLOSED] if CLOSED is not None and signal.getsignal(CLOSED) is signal.SIG_DFL else []
    before = {number: signal.signal(number, hear) for number in (*STOPPING, *closed)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def wakes(loop: asyncio.AbstractEventLoop) -> None:
    """Let signals wake an event loop that waits, so that `tell` is called at once."""
    for number in STOPPING:
        hear = signal.getsignal(number)
        loop.add_signal_handler(number, _nothing)
        signal.signal(number, hear)


def _nothing() -> None:
    pass


@contextmanager
def renewing(tell: Callable[[], object]) -> Generator[None]:
    """Call `tell` at each SIGHUP, where there is such a signal. As with `stop_signals`, it must not take a lock."""
    if CLOSED is None:
        yield
        return
    before = signal.signal(CLOSED, lambda *_: tell())
    try:
        yield
    finally:
        signal.signal(CLOSED, before)
