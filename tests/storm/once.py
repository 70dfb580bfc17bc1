"""Rolling restarts, under calls that nobody has declared safe: as many executions as calls, and no more.

What an orchestrator does: SIGTERM, upon which the server says GOAWAY and gives its calls some grace; SIGKILL, before the
slowest of them have ended; and a successor on the same port. Handlers execute a call at once and answer later, so at each
restart many calls have been executed and never answered.
"""

from __future__ import annotations

import math
import socket
import tempfile
import time
from collections.abc import Callable
from typing import NamedTuple

import grpc

from interpose import Interceptor
from interpose.interceptors import Hedge, Retry
from interpose.mechanisms.backoff import exponential
from interpose.mechanisms.budget import Unlimited
from tests.storm.backend import Backend
from tests.storm.book import Book
from tests.storm.fleet import Fleet
from tests.storm.rows import Findings, Row, Scale
from tests.storm.server import WRITES

LIMIT = 60.0  # seconds that a call may take: it has no deadline, and a busy machine is slow to start a server
WORK = 0.1  # seconds that a handler takes for each message of its answer
CALM = 0.4  # seconds with calls, before each restart
GRACE = 0.15  # seconds between SIGTERM and SIGKILL
BEHIND = 64  # calls behind the storm, which have to succeed

CODES = frozenset(grpc.StatusCode) - {grpc.StatusCode.OK}


def retry() -> Retry:
    """As it comes, but eager: whatever a server says is worth another attempt, as often as it takes."""
    return Retry(100, codes=CODES, backoff=exponential(0.05, cap=0.2), budget=Unlimited())


def hedge() -> Hedge:
    """The same: a copy at once, another one for each failure."""
    return Hedge(4, codes=CODES, delay=0.0, budget=Unlimited())


STACKS: dict[str, Callable[[], list[Interceptor]]] = {
    "Retry()": lambda: [retry()],
    "Hedge()": lambda: [hedge()],
    "both": lambda: [retry(), hedge()],
}


class Run(NamedTuple):
    """What came of a run. unanswered: calls that were executed, and failed."""

    restarts: int
    calls: int
    unanswered: int
    again: int
    doubles: int
    broken: int


def run(stack: str, sort: str, restarts: int) -> Run:
    """So many restarts of one server, under a fleet that calls without a pause."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    with (
        tempfile.TemporaryDirectory() as folder,
        Backend(folder, sort, target=f"127.0.0.1:{port}", work=WORK) as backend,
        Fleet(backend.target, *STACKS[stack](), pace=WORK / 2) as fleet,
    ):
        book = Book(LIMIT, services=(WRITES,))
        with fleet.calling(book):
            for _ in range(restarts):
                time.sleep(CALM)
                backend.begin_to_stop()
                time.sleep(GRACE)
                backend.kill()
                backend.start()
        fleet.call(book, BEHIND)
        executions = backend.executions()
        again = sum(arrival.attempt > 0 for arrival in backend.arrivals())
    verdict = book.verdict(executions)
    unanswered = sum(executions[entry.number] > 0 and not entry.ok for entry in book.entries)
    return Run(restarts, len(book.entries), unanswered, again, verdict.doubles.total(), verdict.broken)


def findings(scale: Scale) -> Findings:
    """All restarts, shared among the stacks and both sorts of servers."""
    each = math.ceil(scale.restarts / (2 * len(STACKS)))
    rows = []
    for stack in STACKS:
        runs = [run(stack, sort, each) for sort in ("async", "plain")]
        calls, restarts = sum(run.calls for run in runs), sum(run.restarts for run in runs)
        wrong = sum(run.doubles + run.broken for run in runs)
        size = f"{restarts} restarts, {calls:,} calls"
        rows += [
            Row(f"{stack}: executed twice, lost, hung or answered twice", size, str(wrong), "0", wrong == 0),
            Row("… executed and never answered", "", str(sum(run.unanswered for run in runs))),
            Row("… sent again, and executed once", "", str(sum(run.again for run in runs))),
        ]
    return Findings([row._replace(scenario="rolling restarts") for row in rows])
