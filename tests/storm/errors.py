"""Calls that a server refuses, by chance and before it executes them: what retries make of 1 % and of 30 %."""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from typing import NamedTuple

from interpose.interceptors import BY_CONVENTION, Deadline, Retry
from interpose.mechanisms.backoff import exponential
from interpose.mechanisms.budget import Unlimited
from tests.storm.backend import Backend
from tests.storm.book import Book
from tests.storm.fleet import Fleet
from tests.storm.rows import Findings, Row, Scale

LIMIT = 30.0  # seconds: no call ends by its deadline here
CASES = ((1, 4), (30, 4), (30, 6), (30, 7))  # per cent refused, attempts
ENOUGH = 0.999  # of all calls


class Errors(NamedTuple):
    """What came of a run. early: calls that failed although attempts were left. doubles: that were executed twice."""

    calls: int
    sent: int
    failed: int
    early: int
    doubles: int
    broken: int

    @property
    def share(self) -> float:
        """Of the calls that were answered well."""
        return 1 - self.failed / self.calls


def run(percent: float, attempts: int, calls: int, sort: str = "async") -> Errors:
    """Calls of all kinds, none of which says that it may be executed twice, to a server that keeps to the convention."""
    retry = Retry(attempts, backoff=exponential(0.002, cap=0.02), budget=Unlimited(), safe=BY_CONVENTION)
    with tempfile.TemporaryDirectory() as folder, Backend(folder, sort) as backend:
        backend.spoil(abort_percent=percent)
        book = Book(LIMIT)
        with Fleet(backend.target, Deadline(LIMIT), retry) as fleet:
            fleet.call(book, calls)
        executions = backend.executions()
        sent = Counter(arrival.number for arrival in backend.arrivals())
    verdict = book.verdict(executions)
    failed = [entry for entry in book.entries if not entry.ok]
    early = sum(sent[entry.number] != attempts for entry in failed)
    return Errors(len(book.entries), sent.total(), len(failed), early, verdict.doubles.total(), verdict.broken)


def most_failures(percent: float, attempts: int, calls: int) -> float:
    """How many calls may fail if chance is fair: all attempts of a call refused, and five standard deviations."""
    expected = calls * (percent / 100) ** attempts
    return expected + 5 * math.sqrt(expected)


def findings(scale: Scale) -> Findings:
    """All cases, in turns on both sorts of server."""
    found = Findings()
    for number, (percent, attempts) in enumerate(CASES):
        errors = run(percent, attempts, scale.calls, ("async", "plain")[number % 2])
        least = 1 - most_failures(percent, attempts, scale.calls) / scale.calls
        enough = min(least, ENOUGH)
        wrong = errors.broken + errors.early + errors.doubles
        found.rows += [
            Row(
                "answered well",
                f"{errors.calls:,} calls",
                f"{errors.share:.3%}",
                f"{enough:.2%}",
                errors.share >= enough,
                f"{percent} % refused, {attempts} attempts",
            ),
            Row(
                "lost, hung, answered or executed twice, given up early",
                f"{errors.calls:,} calls",
                str(wrong),
                "0",
                wrong == 0,
                f"{percent} % refused, {attempts} attempts",
            ),
        ]
    return found
