"""What the demo prints: some of the access log, a table of the sixteen places, an order's way through three services,
what clients learn of a refused one, how three clients meet an outage, what guards keep out, and a line that sums it up.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import grpc
from google.protobuf import json_format, text_format

from interpose import Kind, Side
from interpose.demo import guards
from interpose.demo.chain import MARGIN, TIME, Trip
from interpose.demo.claims import Claim, failed
from interpose.demo.delivery import CARRIER, NOWHERE, SHOP, WAREHOUSE, Visit
from interpose.demo.interceptors import Fate, Faults
from interpose.demo.load import Answer
from interpose.demo.logbook import Line
from interpose.demo.messages import BadRequest
from interpose.demo.outage import DURING, EVERY, PHASES, SLOW, Passage
from interpose.demo.refusals import Refusal
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

HOP_HEADINGS = ("client", "service", "runs", "request id", "left s", "stopped ms")
HOP_WIDTHS = (-8, -10, -17, -18, 7, 11)
RUNS = {SHOP: "sync", WAREHOUSE: "asyncio", CARRIER: "plain on asyncio"}

OUTAGE = (
    f"An outage: first a server refuses one call in {EVERY} and is slow with another ({1000 * SLOW:.0f} ms), then it refuses",
    "all, then it is well again. Retry and Hedge hide the small faults, and their budgets keep them from",
    "adding to the large one. The circuit breaker spares the failing server most calls, at the price of",
    "a few more that fail, until its next probe finds the server well.",
)
OUTAGE_HEADINGS = ("client", "calls", *PHASES, "p50", "p99", "attempts", "per call", "normal")
OUTAGE_SECOND = ("", "", "%", "%", "%", "ms", "ms", "", "", "ms")
OUTAGE_WIDTHS = (-30, 6, 7, 7, 6, 6, 7, 8, 8, 6)
OUTAGE_LEGEND = (
    "before, during, after: how many calls were answered; p50 and p99 of the time that those took;",
    "attempts that reached the server during the outage; normal: from its recovery to the last failure",
)

# A client of a server with guards, in a few words.
MET = {
    guards.STRANGER: "a caller without a token",
    guards.GUEST: "a guest, who may not see orders",
    guards.HASTY: f"a hasty one: {guards.AN_HOUR} calls an hour may pass",
    guards.CROWD: f"a crowd: {guards.AT_ONCE} streams at once can be served",
    guards.GOOD: "a good one, afterwards",
}
MET_HEADINGS = ("client", "calls", "sync", "asyncio", "refused with", "handlers", "back in")
MET_WIDTHS = (-40, 5, 5, 8, -20, 8, 7)
MET_LEGEND = (
    "calls to each server; sync, asyncio: how many of them it answered; handlers: how many ran, on both;",
    "back in: when a client that was refused may come again",
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


@dataclass(frozen=True)
class Hop:
    """One service on an order's way.

    request_id, left: of the order that was delivered, as the handler saw them; `left` in seconds.
    stopped_ms: how long after its client's cancel the handler of the next order was stopped; milliseconds.
    """

    client: str
    service: str
    runs: str
    request_id: str | None
    left: float | None
    stopped_ms: float | None


def rows(story: Story) -> list[Row]:
    """The sixteen places: two stacks, two sides, four kinds."""
    return [_row(story, (stack, side), kind) for stack in STACKS for side in Side for kind in Kind]


def hops(story: Story) -> list[Hop]:
    """Three services on the way from each client."""
    cancelled = {trip.client: trip for trip in story.trips if trip.cancelled is not None}
    return [
        _hop(visit, trip.client, cancelled.get(trip.client))
        for trip in story.trips
        if trip.cancelled is None
        for visit in trip.visits
    ]


@dataclass(frozen=True)
class Survivor:
    """How one client met the outage.

    answered: percent of its calls, in each phase. latency_ms: of the calls that were answered.
    attempts, load: what reached its server during the outage, in all and per call.
    normal_ms: from the server's recovery to the client's last failed call; 0 if no call failed any more.
    """

    client: str
    calls: int
    answered: dict[str, float]
    latency_ms: dict[str, float]
    attempts: int
    load: float
    normal_ms: float


def survivors(story: Story) -> list[Survivor]:
    """The three clients."""
    return [_survivor(passage) for passage in story.passages]


def as_text(story: Story, claims: list[Claim]) -> Iterator[str]:
    """The report as lines of at most 100 characters."""
    excerpt = _excerpt(story)
    yield "Access log: time, place, request id, method, code, milliseconds"
    yield ""
    yield from map(str, excerpt)
    yield f"... and {len(story.log.lines) - len(excerpt)} lines more"
    yield ""
    yield _cells(WIDTHS, *HEADINGS)
    yield _cells(WIDTHS, *SECOND)
    for row in rows(story):
        latency = (f"{value:.1f}" for value in row.latency_ms.values())
        numbers = (row.calls, row.failures_without, row.failures_with, row.attempts, row.messages)
        yield _cells(WIDTHS, f"{row.stack} {row.side}", row.kind.replace("_", "-"), *map(str, numbers), *latency)
    yield ""
    yield from LEGEND
    yield ""
    yield from _chain(story)
    yield ""
    yield from _refusal(story)
    yield ""
    yield from _outage(story)
    yield ""
    yield from _guarded(story)
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
        "hops": [asdict(hop) for hop in hops(story)],
        "refusals": [_refusal_as_json(refusal) for refusal in story.refusals],
        "outage": [asdict(survivor) for survivor in survivors(story)],
        "guards": _guarded_as_json(story),
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


def _chain(story: Story) -> Iterator[str]:
    yield f"Calls that make calls: an order with {TIME:.0f} s to go, of which each service keeps {MARGIN} for itself;"
    yield f"the next order is for {NOWHERE} and is cancelled at the top while the carrier looks for it"
    yield ""
    yield _cells(HOP_WIDTHS, *HOP_HEADINGS)
    for hop in hops(story):
        yield _cells(
            HOP_WIDTHS,
            hop.client,
            hop.service,
            hop.runs,
            str(hop.request_id),
            "never" if hop.left is None else f"{hop.left:.2f}",
            "never" if hop.stopped_ms is None else f"{hop.stopped_ms:.1f}",
        )


def _refusal_as_json(refusal: Refusal) -> dict[str, Any]:
    return {
        "client": refusal.client,
        "server": refusal.server,
        "code": refusal.code.name,
        "details": refusal.details,
        "error_details": [
            {"type": message.DESCRIPTOR.full_name} | json_format.MessageToDict(message) for message in refusal.messages
        ],
    }


def _hop(visit: Visit, client: str, cancelled: Trip | None) -> Hop:
    seconds = cancelled.stopped_after(visit.service) if cancelled else None
    return Hop(
        client=client,
        service=visit.service,
        runs=RUNS[visit.service],
        request_id=visit.request_id,
        left=None if visit.left is None else round(visit.left, 3),
        stopped_ms=None if seconds is None else round(1000 * seconds, 2),
    )


def _refusal(story: Story) -> Iterator[str]:
    """What the first client got; the claims see to it that the others got the same."""
    if not story.refusals:
        return
    refusal = story.refusals[0]
    yield f"An order that is refused with {refusal.code.name}: what both clients find in error.error_details"
    yield ""
    for message in refusal.messages:
        for text in _parts(message):
            yield f"{type(message).__name__:<11} {text}"


def _parts(message: Any) -> Iterator[str]:
    if isinstance(message, BadRequest):
        yield from (f"{violation.field:<12} {violation.description}" for violation in message.field_violations)
    else:
        yield text_format.MessageToString(message, as_one_line=True)


def _survivor(passage: Passage) -> Survivor:
    waits = passage.waits()
    return Survivor(
        client=passage.client,
        calls=len(passage.asks),
        answered={phase: round(100 * passage.answered(phase), 1) for phase in PHASES},
        latency_ms={name: round(1000 * quantile(waits, QUANTILES[name]), 2) for name in ("p50", "p99")},
        attempts=passage.attempts[DURING],
        load=round(passage.load(), 3),
        normal_ms=round(1000 * passage.normal_after(), 1),
    )


def _outage(story: Story) -> Iterator[str]:
    yield from OUTAGE
    yield ""
    yield _cells(OUTAGE_WIDTHS, *OUTAGE_HEADINGS)
    yield _cells(OUTAGE_WIDTHS, *OUTAGE_SECOND)
    for survivor in survivors(story):
        times = (*survivor.answered.values(), *survivor.latency_ms.values())
        numbers = (*(f"{value:.1f}" for value in times), str(survivor.attempts), f"{survivor.load:.2f}")
        yield _cells(OUTAGE_WIDTHS, survivor.client, str(survivor.calls), *numbers, f"{survivor.normal_ms:.0f}")
    yield ""
    yield from OUTAGE_LEGEND


def _guarded(story: Story) -> Iterator[str]:
    if story.guarded is None:
        return
    yield "Guards: Authenticate, Authorize, RateLimit and ConcurrencyLimit guard two servers."
    yield f"Calls are counted {story.guarded.counts}."
    yield ""
    yield _cells(MET_WIDTHS, *MET_HEADINGS)
    for client, words in MET.items():
        met = story.guarded.of(client)
        refused = sum((one.refused for one in met), Counter[grpc.StatusCode]())
        back = max((seconds for one in met for seconds in one.back), default=None)
        yield _cells(
            MET_WIDTHS,
            words,
            str(guards.CALLS[client]),
            *(str(one.answered) for one in met),
            f"  {', '.join(code.name for code in refused)}",
            str(sum(one.runs for one in met)),
            "" if back is None else _rounded(back),
        )
    yield ""
    yield from MET_LEGEND


def _rounded(seconds: float) -> str:
    """Up to whole seconds, or minutes."""
    return f"{math.ceil(seconds / 60)} min" if seconds > 60 else f"{math.ceil(seconds)} s"


def _guarded_as_json(story: Story) -> dict[str, Any]:
    guarded = story.guarded
    return {
        "counts": "" if guarded is None else guarded.counts,
        "shared": guarded is not None and guarded.shared,
        "clients": [
            {
                "client": one.client,
                "server": one.server,
                "calls": len(one.codes),
                "answered": one.answered,
                "refused": {code.name: count for code, count in one.refused.items()},
                "handlers": one.runs,
                "back_in": [round(seconds, 3) for seconds in one.back],
            }
            for one in ([] if guarded is None else guarded.encounters)
        ],
    }


def _cells(widths: Sequence[int], *texts: str) -> str:
    return " ".join(
        text.ljust(-width) if width < 0 else text.rjust(width) for text, width in zip(texts, widths, strict=True)
    ).rstrip()
