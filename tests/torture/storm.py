"""The cancellation storm: thousands of calls that are cancelled or run out of time at random moments, and what is left of them.

Nothing may be: no thread, task, suspended flow, callback or file descriptor, and no memory that grows. The next calls succeed.
"""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import random
import threading
import time
import tracemalloc
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from interpose._flow import Driver
from tests.support.patience import PATIENCE
from tests.torture.book import FLAT, TALL, Plan
from tests.torture.field import Field
from tests.torture.ledger import PLACES, SPAN, rounds
from tests.torture.quiet import quiet, tell

LONG = 10_000  # calls that are cancelled or time out
WARM_UP = 2_000  # such calls before the first count: pools have their threads then, and memory its size
AFTER = 100  # calls that have to succeed when it is over
GROWTH = 5 * 1024  # KiB that Python's objects may have grown by

FDS = Path("/proc/self/fd")
STATUS = Path("/proc/self/status")


def plans(seed: int, count: int) -> list[Plan]:
    """The calls of a storm, and those behind it; the same for the same seed."""
    chance = random.Random(seed)
    return [_plan(chance, number, number < count) for number in range(count + AFTER)]


def _plan(chance: random.Random, number: int, stormy: bool) -> Plan:
    client, server, kind = PLACES[number % len(PLACES)]
    plan = Plan(
        number,
        client,
        server,
        kind,
        chance.choice((FLAT, TALL)),
        chance.choices(("answer", "abort", "fail once"), (8, 1, 1))[0],
        chance.uniform(0, 2 * SPAN),
        chance.randint(0, 4),
        chance.randint(1, 4),
        chance.choice((0, 0.001, 0.005)),
        chance.random() < 0.5,
        chance.choice(("cancel", "deadline")),
        chance.uniform(0.0001, SPAN),
        0,
    )
    return plan if stormy else dataclasses.replace(plan, act="answer", ending="wait", delay=0)


# --- what may be left -------------------------------------------------------------------------------------------------


def _threads(_: Field) -> int:
    """Threads but for those of the field's own pools, and grpc's, which end in their own time."""
    own = ("field", "_poll_wrapper", "channel_spin", "_serve", "cancel_all_calls", "_delivery", "Dummy-")
    return sum(not any(name in thread.name for name in own) for thread in threading.enumerate())


def _tasks(field: Field) -> int:
    return field.tasks()


def _flows(_: Field) -> int:
    """Drivers of RPCs that have not ended."""
    return sum(type(found) is Driver and bool(found.frames) for found in gc.get_objects())


def _generators(field: Field) -> int:
    """Frames of interceptors."""
    return len(field.book.marks)


def _callbacks(field: Field) -> int:
    """Owners of callbacks that somebody still holds."""
    return len(field.book.owners)


def _descriptors(_: Field) -> int:
    """Open files and sockets; 0 where the system does not tell."""
    return len(list(FDS.iterdir())) if FDS.exists() else 0


LEFT: dict[str, Callable[[Field], int]] = {
    "threads": _threads,
    "tasks": _tasks,
    "flows": _flows,
    "generators": _generators,
    "callbacks": _callbacks,
    "file descriptors": _descriptors,
}


def count(field: Field) -> dict[str, int]:
    """What there is now."""
    gc.collect()
    return {name: counted(field) for name, counted in LEFT.items()}


def grown(field: Field, before: dict[str, int]) -> list[str]:
    """What there is more of than before, once all that is about to go has gone."""
    deadline = time.monotonic() + PATIENCE / 2
    while (now := count(field)) and any(now[name] > before[name] for name in LEFT):
        if time.monotonic() > deadline:
            break
        threading.Event().wait(0.01)  # nobody tells when a thread of a pool has let go of its last job
    return [f"{now[name] - before[name]} {name} left" for name in LEFT if now[name] > before[name]]


class Memory(NamedTuple):
    """Memory, in KiB. objects: of Python, held to a limit; process: all, with what allocators keep, which is shown."""

    objects: int
    process: int


def resident() -> int:
    """How large the process is, in KiB; 0 where the system does not tell."""
    if not STATUS.exists():
        return 0
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # glibc keeps what was freed, an arena for each thread
    return next(int(line.split()[1]) for line in STATUS.read_text().splitlines() if line.startswith("VmRSS"))


def memory() -> Memory:
    """How much is taken now."""
    gc.collect()
    return Memory(tracemalloc.get_traced_memory()[0] // 1024, resident())


# --- the storm --------------------------------------------------------------------------------------------------------


def blow(seed: int, calls: int, warm_up: int) -> tuple[list[str], int]:
    """Let it blow; gives what is wrong afterwards, a line each, and by how many KiB the process has grown."""
    planned = plans(seed, warm_up + calls)
    before, storm, after = planned[:warm_up], planned[warm_up:-AFTER], planned[-AFTER:]
    tracemalloc.start()
    try:
        with quiet() as complaints, Field(planned) as field:
            found = _perform(field, before) + _perform(field, after)
            there, size = count(field), memory()
            found += _perform(field, storm)
            # First the calls behind it: a server takes up in order what waits, also what was cancelled meanwhile.
            found += [f"afterwards: {line}" for line in _perform(field, after)]
            found += grown(field, there)
            # Only now: grpc's core frees what cancelled calls had when a connection is used again.
            now = memory()
            if (growth := now.objects - size.objects) > GROWTH:
                found.append(f"Python's objects have grown by {growth} KiB")
    finally:
        tracemalloc.stop()
    found += field.book.settle(0)
    return [f"seed {seed}: {line}" for line in [*found, *complaints.lines]], now.process - size.process


def _perform(field: Field, planned: Sequence[Plan]) -> list[str]:
    return [line for group in rounds(planned) for line in field.perform(group)]


def table_rows(calls: int = LONG, seed: int = 1) -> list[tuple[str, str, int]]:
    """The long form, for the table of `make torture`."""
    found, grew = blow(seed, calls, WARM_UP)
    tell("storm", found)
    return [("cancellation storm: nothing is left", f"{calls:,} calls (process {grew / 1024:+.1f} MiB)", len(found))]
