"""A server that refuses everything for a while: what retries add to its load, what a breaker takes off, and who comes back."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from interpose import Interceptor
from interpose.interceptors import BY_CONVENTION, CircuitBreaker, Deadline, Retry
from interpose.mechanisms.backoff import exponential
from interpose.mechanisms.budget import RetryBudget, Unlimited
from interpose.mechanisms.window import calls
from tests.storm.backend import Backend
from tests.storm.book import Book
from tests.storm.fleet import Fleet
from tests.storm.pictures import AMBER, BLUE, SLATE, Axis, Band, Chart, Line, whole
from tests.storm.rows import Findings, Row, Scale

LIMIT = 5.0
CALLERS, PACE = 12, 0.1  # each makes a call every so many seconds: 120 a second in all
OPEN_FOR = 0.5  # seconds between the probes of the breaker
SETTLED = 0.5  # seconds after which clients have noticed
SLACK = 5.0  # seconds; the machine may be busy
SLICE = 0.4  # seconds of a point in the pictures


@dataclass
class Outage:
    """What a server saw and what its callers got. began, ended: when it was down."""

    began: float
    ended: float
    arrivals: Sequence[float]
    book: Book
    broken: int
    recovery: float = field(init=False)

    def __post_init__(self) -> None:
        self.recovery = _first_answer(self.book, self.ended) - self.ended

    def made(self, since: float, until: float) -> int:
        """Calls that callers made."""
        return sum(since <= entry.began < until for entry in self.book.entries)

    def came(self, since: float, until: float) -> int:
        """Calls that reached the server."""
        return sum(since <= at < until for at in self.arrivals)

    def load(self) -> float:
        """Calls that reached the server for each that was made, while it was down and that had been noticed."""
        since = self.began + SETTLED
        return self.came(since, self.ended) / max(self.made(since, self.ended), 1)


def _first_answer(book: Book, since: float) -> float:
    """When a call was answered well for the first time since then; infinity if none was."""
    good = [entry.ended for entry in list(book.entries) if entry.ok and entry.ended and entry.ended > since]
    return min(good, default=math.inf)


def _wait_for_an_answer(book: Book, since: float) -> None:
    end = time.monotonic() + OPEN_FOR + SLACK
    while _first_answer(book, since) == math.inf and time.monotonic() < end:
        time.sleep(0.05)


def run(duration: float, *stack: Interceptor) -> Outage:
    """A third of the time all is well, a third the server is down, a third all is well again."""
    with tempfile.TemporaryDirectory() as folder, Backend(folder) as backend:
        book = Book(LIMIT)
        with (
            Fleet(
                backend.target, Deadline(LIMIT), *stack, threads=CALLERS // 3, tasks=2 * CALLERS // 3, pace=PACE
            ) as fleet,
            fleet.calling(book),
        ):
            time.sleep(duration / 3)
            backend.spoil(abort_percent=100)
            began = time.monotonic()
            time.sleep(max(duration / 3, 2 * SETTLED))
            backend.spoil()
            ended = time.monotonic()
            time.sleep(duration / 3)
            _wait_for_an_answer(book, ended)
        arrivals = [arrival.at for arrival in backend.arrivals()]
        return Outage(began, ended, arrivals, book, book.verdict(backend.executions()).broken)


def breaker() -> CircuitBreaker:
    """One that opens after a few failures, and asks with one call at a time."""
    return CircuitBreaker(minimum=10, window=calls(20), open_for=OPEN_FOR, probes=1)


def retry(budget: RetryBudget | Unlimited) -> Retry:
    return Retry(4, backoff=exponential(0.02, cap=0.2), budget=budget, safe=BY_CONVENTION)


def findings(scale: Scale) -> Findings:
    """Without help, with retries, with a budget for them, and with a breaker."""
    duration = scale.seconds / 2
    bare, storm = run(duration), run(duration, retry(Unlimited()))
    budgeted, broken = run(duration, retry(RetryBudget())), run(duration, breaker())
    off = 1 - broken.load() / bare.load()
    wrong = sum(outage.broken for outage in (bare, storm, budgeted, broken))
    rows = [
        Row("calls at the server for each made: no interceptor", "", f"{bare.load():.2f}"),
        Row("… 4 attempts without a budget", "", f"{storm.load():.2f}"),
        Row("… 4 attempts and the default budget", "", f"{budgeted.load():.2f}", "1.10", budgeted.load() <= 1.1),
        Row("… a breaker: load taken off", "", f"{off:.1%}", "95 %", off >= 0.95),
        Row(
            "first good answer after the end, with the breaker",
            f"probes every {OPEN_FOR:g} s",
            f"{broken.recovery:.2f} s",
            f"{OPEN_FOR + PACE + 0.1:g} s",
            broken.recovery <= OPEN_FOR + PACE + 0.1,
        ),
        Row("lost, hung, answered twice, or by nobody", "", str(wrong), "0", wrong == 0),
    ]
    pictures = {"amplification": amplification(bare, storm, budgeted), "breaker": relief(bare, broken)}
    return Findings([row._replace(scenario="a server that refuses all") for row in rows], pictures)


# --- pictures ---------------------------------------------------------------------------------------------------------


def _slices(outage: Outage) -> list[float]:
    """When each slice of the run begins."""
    first = min(entry.began for entry in outage.book.entries) + SETTLED / 2
    last = max(entry.began for entry in outage.book.entries) - SLICE
    return [first + SLICE * number for number in range(int((last - first) / SLICE))]


def _per_call(outage: Outage) -> list[tuple[float, float]]:
    return [
        (at + SLICE / 2 - outage.began, outage.came(at, at + SLICE) / max(outage.made(at, at + SLICE), 1))
        for at in _slices(outage)
    ]


def _per_second(outage: Outage) -> list[tuple[float, float]]:
    return [(at + SLICE / 2 - outage.began, outage.came(at, at + SLICE) / SLICE) for at in _slices(outage)]


def _time(outage: Outage) -> tuple[Axis, Band]:
    points = _slices(outage)
    low, high = points[0] - outage.began, points[-1] + SLICE - outage.began
    label = "seconds since the server went down"
    axis = Axis(label, low, high, [tick for tick in whole(-20, 40, 1) if low <= tick[0] <= high])
    return axis, Band("the server refuses all", 0, outage.ended - outage.began)


def amplification(bare: Outage, storm: Outage, budgeted: Outage) -> str:
    """Attempts for each call over time."""
    x, band = _time(storm)
    lines = [
        Line("4 attempts, no budget", AMBER, _per_call(storm), (band.ends / 2, 3.2), "middle"),
        Line("4 attempts, default budget", BLUE, _per_call(budgeted), (band.ends / 2, 1.45), "middle"),
        Line("no retries", SLATE, _per_call(bare), (band.ends / 2, 0.62), "middle"),
    ]
    title, words = (
        "What retries add to an outage",
        f"{CALLERS / PACE:.0f} calls a second. The budget is gRPC's own (A6).",
    )
    return Chart(
        title, words, x, Axis("calls at the server for each made", 0, 5, whole(0, 5, 1, "×")), lines, band
    ).svg()


def relief(bare: Outage, broken: Outage) -> str:
    """Calls at the server over time."""
    x, band = _time(broken)
    most = int(1.4 * CALLERS / PACE) // 20 * 20
    lines = [
        Line("without a breaker", AMBER, _per_second(bare), (band.ends / 2, 1.14 * CALLERS / PACE), "middle"),
        Line("with a breaker", BLUE, _per_second(broken), (band.ends / 2, 14), "middle"),
    ]
    words = f"{CALLERS / PACE:.0f} calls a second. One probe every {OPEN_FOR:g} s finds out when it is back."
    return Chart(
        "What a breaker takes off a server that is down",
        words,
        x,
        Axis("calls a second at the server", 0, most, whole(0, most, 40)),
        lines,
        band,
    ).svg()
