"""Leak checks: nothing of an RPC may be left behind — no thread, no task, no suspended generator, no unfinished flow.

with no_leaks():
    ...                                     threads, unfinished RPCs
async with no_task_leaks():
    ...                                     tasks of this loop
with no_generator_leaks():
    ...                                     generators that were begun, are not at their end, and not held by any code

What is found raises `Leak`, after a time in which it may still end.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import sys
import threading
import time
import traceback
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from types import AsyncGeneratorType, GeneratorType
from typing import Any, cast
from weakref import ref

from interpose._call import Call
from interpose._clock import SYSTEM
from interpose._flow import Driver, Step

LEAK_TIMEOUT = 5.0  # seconds that what was begun has to end after the work has


class Leak(AssertionError):
    """Something was left behind."""


def _nothing(name: str) -> bool:
    return False


@contextmanager
def no_leaks(ignore: Callable[[str], bool] = _nothing) -> Generator[None]:
    """Raise `Leak` if threads or unfinished RPCs are left that were not there before.

    ignore: which names of threads may stay. It runs on this thread, which gets what it raises.
    """
    with no_thread_leaks(ignore), no_rpc_leaks():
        yield


# --- threads ----------------------------------------------------------------------------------------------------------


@contextmanager
def no_thread_leaks(ignore: Callable[[str], bool] = _nothing) -> Generator[None]:
    """Raise `Leak`, saying where they are, if threads are left that were not there before.

    ignore: which names of threads may stay. It runs on this thread, which gets what it raises. Threads of grpcio's own are
        never counted: they end on their own time.
    """
    threads = set(threading.enumerate())
    yield
    _settle("threads", lambda: _threads(threads, ignore))


def _threads(before: set[threading.Thread], ignore: Callable[[str], bool]) -> list[str]:
    return [
        f"{thread.name} at {_place(thread)}"
        for thread in threading.enumerate()
        if thread not in before
        and thread.is_alive()
        and not ignore(thread.name)
        and not _of_grpc(thread.name)
        and not SYSTEM.is_idle(thread)
        and not _waits_for_itself(thread)
    ]


def _waits_for_itself(thread: threading.Thread) -> bool:
    """Is it a channel's own thread, in grpcio's finalizer of that channel? Such threads stood still (grpcio 1.85.1)."""
    frame = sys._current_frames().get(thread.ident or 0)
    return any(at.name == "__del__" and "grpc" in at.filename for at in traceback.extract_stack(frame))


def _place(thread: threading.Thread) -> str:
    """Where a thread is, innermost frame first."""
    frame = sys._current_frames().get(thread.ident or 0)
    return " < ".join(f"{entry.name}:{entry.lineno}" for entry in reversed(traceback.extract_stack(frame, 8)))


def _of_grpc(name: str) -> bool:
    """Threads of grpcio's own: asyncio's poller, a channel's and a server's event loop.

    "Dummy-": a thread of its core that asked a Python plugin for call credentials.
    """
    names = ("_poll_wrapper", "channel_spin", "_serve", "cancel_all_calls", "_delivery", "Dummy-")
    return any(own in name for own in names)


# --- tasks ------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def no_task_leaks(ignore: Callable[[str], bool] = _nothing) -> AsyncGenerator[None]:
    """Raise `Leak`, saying where they are, if tasks of this loop are left that were not there before.

    ignore: which names of tasks may stay. It runs in this loop, and what it raises is raised here. Tasks of grpc.aio's own
        servers are never counted.
    """
    before = asyncio.all_tasks()
    yield
    end = time.monotonic() + LEAK_TIMEOUT
    while left := [task for task in asyncio.all_tasks() - before if not (ignore(task.get_name()) or _serves(task))]:
        if time.monotonic() > end:
            raise Leak(f"tasks left behind: {[_task(task) for task in left]}")
        await asyncio.sleep(0.002)


def _serves(task: asyncio.Task[Any]) -> bool:
    """Is it grpc.aio's, for as long as its server lives?"""
    return "AioServer" in _name(task)


def _task(task: asyncio.Task[Any]) -> str:
    stack = task.get_stack(limit=1)
    return f"{_name(task)}:{stack[0].f_lineno}" if stack else _name(task)


def _name(task: asyncio.Task[Any]) -> str:
    coroutine = task.get_coro()
    return getattr(coroutine, "__qualname__", None) or repr(coroutine)  # None where the collector has begun with it


# --- generators and flows ---------------------------------------------------------------------------------------------


@contextmanager
def no_generator_leaks(ignore: Callable[[str], bool] = _nothing) -> Generator[None]:
    """Raise `Leak` if generators, plain or async, are left suspended that were not there before.

    ignore: which qualified names of generator functions may leave some. It runs on this thread, which gets what it raises.
    """
    before = {id(found) for found in gc.get_objects() if _is_suspended(found)}
    yield
    _settle("generators", lambda: _generators(before, ignore))


def _generators(before: set[int], ignore: Callable[[str], bool]) -> list[str]:
    gc.collect()
    return [
        found.__qualname__
        for found in gc.get_objects()
        if _is_suspended(found) and id(found) not in before and not ignore(found.__qualname__)
    ]


def _is_suspended(found: Any) -> bool:
    kind = type(found)
    if kind is GeneratorType:
        return inspect.getgeneratorstate(found) == inspect.GEN_SUSPENDED
    return (
        kind is AsyncGeneratorType
        and found.ag_frame is not None
        and found.ag_frame.f_lasti > 0
        and not found.ag_running
    )


@contextmanager
def no_rpc_leaks() -> Generator[None]:
    """Raise `Leak`, naming their flows, if RPCs that began in the block are left whose interceptors never got the outcome."""
    begun: list[ref[Driver]] = []
    _watch(begun)
    try:
        yield
    finally:
        _unwatch(begun)
    _settle("unfinished RPCs", lambda: _rpcs(begun))


def _rpcs(begun: list[ref[Driver]]) -> list[str]:
    if not _open(begun):
        return []
    gc.collect()  # takes longer than most tests, so only if it matters
    return [repr(driver) for driver in _open(begun)]


def _open(begun: list[ref[Driver]]) -> list[Driver]:
    return [driver for entry in begun if (driver := entry()) is not None and driver.frames]


# Drivers are noted as they start, and only while somebody watches: to look through all objects of a process takes as long
# as many tests.

_watching: list[list[ref[Driver]]] = []
_start = Driver.start


def _noted(self: Driver, call: Call) -> Step:
    for begun in _watching:
        begun.append(ref(self))
    return _start(self, call)


def _watch(begun: list[ref[Driver]]) -> None:
    _watching.append(begun)
    cast(Any, Driver).start = _noted


def _unwatch(begun: list[ref[Driver]]) -> None:
    _watching[:] = [other for other in _watching if other is not begun]
    if not _watching:
        cast(Any, Driver).start = _start


def _settle(what: str, left: Callable[[], list[str]]) -> None:
    """Wait until nothing is left."""
    end = time.monotonic() + LEAK_TIMEOUT
    while found := left():
        if time.monotonic() > end:
            raise Leak(f"{what} left behind: {found}")
        time.sleep(0.002)
