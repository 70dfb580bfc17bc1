"""Round after round of the same storm: what there is between two of them, in the clients' process and in the server's."""

from __future__ import annotations

import asyncio
import gc
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Callable
from typing import NamedTuple

from interpose._flow import Driver
from interpose.testing import FaultProxy
from tests.storm.backend import Backend
from tests.storm.book import Book
from tests.storm.faults import LIMIT, stack
from tests.storm.fleet import Fleet
from tests.storm.rows import Findings, Row, Scale
from tests.torture.storm import memory

ROUNDS = 5  # behind a first one, after which pools and memory have their size
RESETS = 3  # in each of them
LEAVING_LIMIT = 10.0  # seconds in which all that is about to go has gone
GROWTH = 256  # KiB that Python's objects may have grown by, over all rounds
SERVER_GROWTH = 16 * 1024  # KiB that the server's process may have grown by: allocators keep what they have


class Rest(NamedTuple):
    """What there is while nothing happens. objects and server: KiB of Python's objects here, and of the server's process."""

    threads: int
    tasks: int
    flows: int
    objects: int
    server: int
    server_threads: int


def run(rounds: int, calls: int) -> tuple[list[Rest], int]:
    """What there is after each round, and how many calls broke a law."""
    rests: list[Rest] = []
    broken = first = 0
    tracemalloc.start()
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            Backend(folder) as backend,
            FaultProxy(backend.target) as proxy,
            Fleet(proxy.target, *stack()) as fleet,
        ):
            for _ in range(rounds + 1):
                book = Book(LIMIT, first=first)
                _blow(fleet, backend, proxy, book, calls)
                broken += book.verdict(backend.executions()).broken
                first += len(book.entries)
                del book
                rests.append(_settled(fleet, backend, rests[0] if rests else None))
    finally:
        tracemalloc.stop()
    return rests, broken


def _blow(fleet: Fleet, backend: Backend, proxy: FaultProxy, book: Book, calls: int) -> None:
    """Refusals and resets, and calm at the end."""
    backend.spoil(abort_percent=10)
    for _ in range(RESETS):
        with fleet.calling(book, calls // RESETS):
            time.sleep(0.05)
            proxy.reset()
    backend.spoil()
    fleet.call(book, 64)


def _settled(fleet: Fleet, backend: Backend, before: Rest | None) -> Rest:
    """What is left once all has gone that is about to go."""
    end = time.monotonic() + LEAVING_LIMIT
    while True:
        rest = _rest(fleet, backend)
        gone = before is None or (rest.threads <= before.threads and rest.tasks <= before.tasks)
        if (gone and rest.flows == 0) or time.monotonic() > end:
            return rest
        time.sleep(0.05)


def _rest(fleet: Fleet, backend: Backend) -> Rest:
    objects = memory().objects
    flows = sum(type(found) is Driver and bool(found.frames) for found in gc.get_objects())
    size, threads = backend.footprint()
    return Rest(threading.active_count(), len(asyncio.all_tasks(fleet.loop)), flows, objects, size, threads)


def findings(scale: Scale) -> Findings:
    """The first rest beside the largest later one."""
    calls = scale.calls // 10
    rests, broken = run(ROUNDS, calls)
    base, later = rests[0], rests[1:]

    def most(of: Callable[[Rest], int]) -> int:
        return max(map(of, later))

    def row(what: str, of: Callable[[Rest], int], limit: int, unit: str = "") -> Row:
        measured = f"{of(base):,} → {most(of):,}{unit}"
        return Row(what, f"{ROUNDS} × {calls:,} calls", measured, f"{limit:,}{unit}", most(of) <= limit)

    rows = [
        row("threads", lambda rest: rest.threads, base.threads),
        row("tasks", lambda rest: rest.tasks, base.tasks),
        row("flows that have not ended", lambda rest: rest.flows, 0),
        row("Python's objects", lambda rest: rest.objects, base.objects + GROWTH, " KiB"),
        row("the server's process", lambda rest: rest.server, base.server + SERVER_GROWTH, " KiB"),
        row("the server's threads", lambda rest: rest.server_threads, base.server_threads + 2),
        Row("lost, hung, answered twice, or by nobody", "", str(broken), "0", broken == 0),
    ]
    return Findings([row._replace(scenario="nothing grows") for row in rows])
