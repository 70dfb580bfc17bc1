"""What the demo prints: some of the access log, a table of the sixteen places, and a line that sums it up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import grpc

from interpose import Kind, Side
from interpose.demo.claims import Claim, failed
from interpose.demo.interceptors import Fate, Faults
from interpose.demo.load import Answer
from interpose.demo.logbook import Line
from interpose.demo.run import STACKS, Leg, Place, Story
from interpose.demo.stack import ATTEMPTS, SHARE

QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}

HEADINGS = ("place", "kind", "calls", "failed", "failed", "attempts", "messages", "p50", "p95", "p99")
SECOND = ("", "", "", "without", "with", "", "", "ms", "ms", "ms")
WIDTHS = (-15, -14, 6, 8, 6, 9, 9, 7, 7, 7)  # negative: to the left
LEGEND = (
    "calls and failures are the callers'; attempts were sent by a client, received by a server;",
    "latency is of whole calls at a client, of single attempts at a server",
)


@dataclass(frozen=True)
class Row:
    """One of the sixteen places.

    calls, failures: of the callers who went through this place.
    attempts: sent by a client, received by a server.
    messages: both directions; of each RPC's last attempt at a client, of every attempt at a server.
    latency: of a whole call with its pauses at a client, of one attempt at a server; milliseconds.
    """

    stack: str
    side: str
    kind: str
    calls: int
    failures_without: int
    failures_with: int
    attempts: int
    messages: int
    latency_ms: dict[str, float]


def rows(story: Story) -> list[Row]:
    """The sixteen places: two stacks, two sides, four kinds."""
    return [_row(story, (stack, side), kind) for stack in STACKS for side in Side for kind in Kind]


def as_text(story: Story, claims: list[Claim]) -> Iterator[str]:
    """The report as lines of at most 100 characters."""
    excerpt = _excerpt(story)
    yield "Access log: time, place, request id, method, code, milliseconds"
    yield ""
    yield from map(str, excerpt)
    yield f"... and {len(story.log.lines) - len(excerpt)} lines more"
    yield ""
    yield _cells(*HEADINGS)
    yield _cells(*SECOND)
    for row in rows(story):
        latency = (f"{value:.1f}" for value in row.latency_ms.values())
        numbers = (row.calls, row.failures_without, row.failures_with, row.attempts, row.messages)
        yield _cells(f"{row.stack} {row.side}", row.kind.replace("_", "-"), *map(str, numbers), *latency)
    yield ""
    yield from LEGEND
    yield ""
    yield from (f"NOT SO: {claim.text}: {claim.against}" for claim in claims if not claim.holds)
    yield summary(story, claims)


def as_json(story: Story, claims: list[Claim]) -> dict[str, Any]:
    """The report as one document."""
    return {
        "holds": all(claim.holds for claim in claims),
        "summary": summary(story, claims),
        "seed": story.seed,
        "fault_share": SHARE,
        "attempts": ATTEMPTS,
        "seconds": round(story.seconds, 3),
        "places": [asdict(row) for row in rows(story)],
        "claims": [asdict(claim) | {"holds": claim.holds} for claim in claims],
        "access_log": {
            "lines": len(story.log.lines),
            "excerpt": [line.as_json() for line in _excerpt(story)],
        },
    }


def summary(story: Story, claims: list[Claim]) -> str:
    """One line: what was shown, or that it was not."""
    if not all(claim.holds for claim in claims):
        return "Not shown: what is listed as NOT SO speaks against it."
    calls = sum(len(leg.answers) for leg in story.within)
    without, within = failed(story.without), failed(story.within)
    return (
        f"Shown in sixteen places: with {SHARE:.0%} of attempts refused, {without} of {calls} calls"
        f" failed without the stack, {within} with it"
        f" ({ATTEMPTS} attempts leave {calls * SHARE**ATTEMPTS:.1f} to chance)."
    )


def quantile(values: list[float], share: float) -> float:
    """The value that `share` of the values do not exceed; 0 if there are none."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0.0


def _row(story: Story, place: Place, kind: Kind) -> Row:
    stack, side = place
    samples = [sample for sample in story.meters[place].samples() if sample.kind is kind]
    within = _through(story.within, place, kind)
    return Row(
        stack=stack,
        side=side.value,
        kind=kind.value,
        calls=len(within),
        failures_without=sum(not answer.right for answer in _through(story.without, place, kind)),
        failures_with=sum(not answer.right for answer in within),
        attempts=sum(sample.attempts for sample in samples),
        messages=sum(sample.requests + sample.responses for sample in samples),
        latency_ms={
            name: round(1000 * quantile([sample.seconds for sample in samples], share), 2)
            for name, share in QUANTILES.items()
        },
    )


def _through(legs: list[Leg], place: Place, kind: Kind) -> list[Answer]:
    return [answer for leg in legs if leg.at(place) for answer in leg.answers if answer.job.kind is kind]


def _excerpt(story: Story) -> list[Line]:
    """All lines of one call per leg, each of another kind; if possible one served at its second attempt."""
    faults = Faults(story.seed, SHARE)

    def interest(answer: Answer) -> tuple[bool, bool]:
        sent_twice = faults.foretell(answer.request_id, 3) == Fate(2, served=True)
        return sent_twice, answer.code is grpc.StatusCode.NOT_FOUND

    chosen = [
        max((answer for answer in leg.answers if answer.job.kind is kind), key=interest).request_id
        for leg, kind in zip(story.within, Kind, strict=True)
    ]
    return story.log.excerpt(chosen)


def _cells(*texts: str) -> str:
    return " ".join(
        text.ljust(-width) if width < 0 else text.rjust(width) for text, width in zip(texts, WIDTHS, strict=True)
    ).rstrip()
