"""One call in twenty is slow: what a hedge makes of the slowest, and how many calls more it costs."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import NamedTuple

from interpose import Interceptor, Kind
from interpose.interceptors import Deadline, Hedge
from interpose.interceptors.hedge import quantile
from interpose.mechanisms.budget import RatioBudget
from tests.storm.backend import Backend
from tests.storm.book import Book
from tests.storm.fleet import Fleet
from tests.storm.pictures import AMBER, BLUE, Axis, Chart, Line, thin
from tests.storm.rows import Findings, Row, Scale

SLOW, PERCENT = 0.5, 5  # seconds, and how many calls take so long
LIMIT = 10.0
THREADS, TASKS, PACE = 3, 5, 0.1  # callers, and seconds from call to call of each: 80 a second, with and without
WARM = 100  # calls that go before
TIMES_BETTER = 5
MORE_CALLS = 0.10
KINDS = (Kind.UNARY_UNARY, Kind.STREAM_UNARY)


class Tail(NamedTuple):
    """Latencies in seconds, sorted, and how many calls the server got for each that was made."""

    latencies: Sequence[float]
    load: float
    broken: int

    def quantile(self, share: float) -> float:
        """The latency that this share of the calls stayed below."""
        return self.latencies[min(int(share * len(self.latencies)), len(self.latencies) - 1)]


def hedge() -> Hedge:
    """A second copy for the slowest 6 %, never more than the budget says."""
    return Hedge(2, delay=quantile(0.94), safe=True, budget=RatioBudget(MORE_CALLS, minimum=3))


def run(calls: int, *stack: Interceptor, pace: float = PACE) -> Tail:
    """Calls with and without a request stream, at a steady pace."""
    with tempfile.TemporaryDirectory() as folder, Backend(folder) as backend:
        with Fleet(backend.target, Deadline(LIMIT), *stack, threads=THREADS, tasks=TASKS, pace=pace) as fleet:
            fleet.call(Book(LIMIT, KINDS), WARM)  # connections are there, and there is something to observe
            backend.spoil(delay=SLOW, delay_percent=PERCENT)
            book = Book(LIMIT, KINDS, first=WARM)
            fleet.call(book, calls)
        verdict = book.verdict(backend.executions())
        load = len(backend.arrivals()) / (WARM + len(book.entries))  # of all: the budget knows no beginning
    return Tail(sorted(entry.took for entry in book.entries), load, verdict.broken)


def findings(scale: Scale) -> Findings:
    """Without and with a hedge, and a picture of both."""
    calls = scale.calls // 10
    without, with_hedge = run(calls), run(calls, hedge())
    better = without.quantile(0.99) / with_hedge.quantile(0.99)
    more, broken = with_hedge.load - 1, without.broken + with_hedge.broken
    rows = [
        Row("99th percentile without a hedge", f"{calls:,} calls", f"{1e3 * without.quantile(0.99):.0f} ms"),
        Row("99th percentile with a hedge", f"{calls:,} calls", f"{1e3 * with_hedge.quantile(0.99):.0f} ms"),
        Row("times better", "", f"{better:.1f}", f"{TIMES_BETTER}", better >= TIMES_BETTER),
        Row("more calls at the server", "", f"{more:.1%}", f"{MORE_CALLS:.0%}", more <= MORE_CALLS + 3 / calls),
        Row("lost, hung, answered twice, or by nobody", f"{2 * calls:,} calls", str(broken), "0", broken == 0),
    ]
    scenario = f"{PERCENT} % take {SLOW:g} s more"
    return Findings([row._replace(scenario=scenario) for row in rows], {"latency": picture(without, with_hedge)})


def picture(without: Tail, with_hedge: Tail) -> str:
    """Both distributions, from the ninetieth percentile up: below that they are alike."""
    ticks = [(x, f"{x} ms" if x < 1000 else "1 s") for x in (2, 5, 10, 20, 50, 100, 200, 500, 1000)]
    return Chart(
        "The slowest calls, with and without a hedge",
        f"One call in twenty takes {1e3 * SLOW:.0f} ms more. The hedge sends {100 * (with_hedge.load - 1):.1f} % more calls.",
        Axis("latency (logarithmic)", 2, 1000, ticks, logarithmic=True),
        Axis("calls that took no longer", 90, 100, [(y, f"{y} %") for y in range(90, 101, 2)]),
        [
            Line("without", AMBER, _curve(without), (300, 95.7), "middle"),
            Line("with a hedge", BLUE, _curve(with_hedge), (_ms(with_hedge, 0.985) * 1.15, 98.2)),
        ],
    ).svg()


def _ms(tail: Tail, share: float) -> float:
    return 1e3 * tail.quantile(share)


def _curve(tail: Tail) -> list[tuple[float, float]]:
    count = len(tail.latencies)
    points = [(1e3 * latency, 100 * (place + 1) / count) for place, latency in enumerate(tail.latencies)]
    return thin([point for point in points if point[1] >= 90])
