"""Leak checks: nothing of an RPC may be left behind — no thread, no task, no generator of a flow."""

from __future__ import annotations

import gc
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from interpose._flow import Driver

PATIENCE = 5.0  # seconds that threads have to end after the work has


class Leak(AssertionError):
    """Something was left behind."""


@contextmanager
def no_leaks(ignore: Callable[[str], bool] = lambda name: False) -> Generator[None]:
    """Raise `Leak` if threads or suspended interceptor flows are left that were not there before.

    ignore: names of threads that may stay.
    """
    threads = set(threading.enumerate())
    flows = set(map(id, _flows()))
    yield
    _settle(lambda: not _left(threads, ignore), "threads", lambda: _left(threads, ignore))
    _settle(lambda: not _new(flows), "flows", lambda: _new(flows))


def _left(before: set[threading.Thread], ignore: Callable[[str], bool]) -> list[str]:
    return [
        f"{thread.name} at {_place(thread)}"
        for thread in threading.enumerate()
        if thread not in before
        and thread.is_alive()
        and not ignore(thread.name)
        and not _of_grpc(thread.name)
        and not _waits_for_itself(thread)
    ]


def _waits_for_itself(thread: threading.Thread) -> bool:
    """Is it a channel's own thread that closes the channel, in grpcio's finalizer of it? It never comes back from there.

    Seen when a channel is dropped while the ends of several of its calls are still on their way to that thread.
    """
    frame = sys._current_frames().get(thread.ident or 0)
    return any(at.name == "__del__" and "grpc" in at.filename for at in traceback.extract_stack(frame))


def _place(thread: threading.Thread) -> str:
    """Where a thread stands, innermost frame first."""
    frame = sys._current_frames().get(thread.ident or 0)
    return " < ".join(f"{entry.name}:{entry.lineno}" for entry in reversed(traceback.extract_stack(frame, 8)))


def _of_grpc(name: str) -> bool:
    """Threads of grpcio's own, which end on their own time: asyncio's poller, a channel's and a server's event loop.

    "Dummy-": a thread of its core that asked a Python plugin for call credentials.
    """
    names = ("_poll_wrapper", "channel_spin", "_serve", "cancel_all_calls", "_delivery", "Dummy-")
    return any(own in name for own in names)


def _flows() -> list[Any]:
    """The drivers of RPCs that have not ended."""
    return [found for found in gc.get_objects() if type(found) is Driver and found.frames]


def _new(before: set[int]) -> list[Any]:
    left = [flow for flow in _flows() if id(flow) not in before]
    if left:  # collecting takes longer than most tests, so only if it matters
        del left
        gc.collect()
        left = [flow for flow in _flows() if id(flow) not in before]
    return left


def _settle(clean: Callable[[], bool], what: str, left: Callable[[], list[Any]]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not clean():
        if time.monotonic() > deadline:
            raise Leak(f"{what} left behind: {left()}")
        time.sleep(0.002)
