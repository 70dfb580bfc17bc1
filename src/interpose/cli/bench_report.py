"""What a bench has measured, as text and as JSON, with what the numbers count."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from interpose.cli.durations import shown
from interpose.cli.latencies import SHARES, Latencies, bars
from interpose.cli.load import End, Tally

WIDTH = 40  # characters of the longest bar
LATE = 0.005  # seconds behind the plan from which it is said: more than a busy event loop takes for a turn


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured. rate: calls per second of an open loop; None for a closed one, of `concurrency` callers."""

    method: str
    target: str
    end: End
    rate: float | None
    concurrency: int
    connections: int
    max_in_flight: int


def as_json(plan: Plan, tally: Tally) -> dict[str, Any]:
    """All numbers; times in seconds."""
    return {
        "method": plan.method,
        "target": plan.target,
        "loop": "closed" if plan.rate is None else "open",
        "rate": plan.rate,
        "concurrency": plan.concurrency if plan.rate is None else None,
        "connections": plan.connections,
        "counted_from": "the send" if plan.rate is None else "the intended send",
        "seconds": tally.seconds,
        "calls": tally.calls,
        "calls_per_second": _per_second(tally.calls, tally),
        "ok_per_second": _per_second(tally.ok.count, tally),
        "late": tally.late,
        "unsent": tally.unsent,
        "codes": {code: _figures(latencies) for code, latencies in _by_number(tally)},
        "errors": dict(tally.messages.most_common()),
        "histogram": [{"to": end, "calls": count} for end, count in tally.ok.histogram()],
    }


def _figures(latencies: Latencies) -> dict[str, Any]:
    return {
        "calls": latencies.count,
        "fastest": latencies.fastest,
        "mean": latencies.mean,
        "slowest": latencies.slowest,
        "quantiles": {f"{share:g}": latencies.quantile(share) for share in SHARES},
    }


def _per_second(count: int, tally: Tally) -> float:
    return count / tally.seconds if tally.seconds else 0.0


def _by_number(tally: Tally) -> list[tuple[str, Latencies]]:
    """The codes, the most frequent first."""
    return sorted(tally.by_code.items(), key=lambda item: -item[1].count)


def as_text(plan: Plan, tally: Tally) -> str:
    """The same for people."""
    parts = (_head(plan), _summary(tally), _quantiles(tally.ok), _histogram(tally.ok), _codes(tally), _warnings(tally))
    return "\n\n".join("\n".join(lines) for part in parts if (lines := list(part)))


def _head(plan: Plan) -> Iterator[str]:
    connections = f"{plan.connections} connection{'' if plan.connections == 1 else 's'}"
    yield f"{plan.method} at {plan.target}, {connections}"
    if plan.rate is None:
        yield f"Closed loop, {plan.concurrency} callers. A call's time counts from its send: while the server is slow it is"
        yield "asked less, so these are not the times that users feel (coordinated omission). --rate measures those."
    else:
        yield f"Open loop, {plan.rate:g} calls per second. A call's time counts from when it was to be sent."


def _summary(tally: Tally) -> Iterator[str]:
    yield "Summary"
    yield f"  calls    {tally.calls} in {shown(tally.seconds)}, {_per_second(tally.calls, tally):.1f} per second"
    if tally.ok.count:
        yield f"  fastest  {shown(tally.ok.fastest)}"
        yield f"  mean     {shown(tally.ok.mean)}"
        yield f"  slowest  {shown(tally.ok.slowest)}"


def _quantiles(ok: Latencies) -> Iterator[str]:
    if ok.count:
        yield f"Latency of the {ok.count} calls that ended with OK"
        for share in SHARES:
            yield f"  {100 * share:>5g} % within {shown(ok.quantile(share)):>8}"


def _histogram(ok: Latencies) -> Iterator[str]:
    rows = ok.histogram()
    if rows:
        yield "Histogram"
        for (end, count), bar in zip(rows, bars([count for _, count in rows], WIDTH), strict=True):
            yield f"  to {shown(end):>8} {count:>8} {bar}".rstrip()


def _codes(tally: Tally) -> Iterator[str]:
    if tally.calls:
        yield "Codes"
        for code, latencies in _by_number(tally):
            yield f"  {code:<19} {latencies.count:>8}  mean {shown(latencies.mean)}, slowest {shown(latencies.slowest)}"
    for text, count in tally.messages.most_common():
        yield f"  {count} times {text}"


def _warnings(tally: Tally) -> Iterator[str]:
    if tally.late > LATE:
        yield f"This program was up to {shown(tally.late)} behind its plan, which counts in the latencies: where that"
        yield "is not the machine's load, use a lower rate, or several of this program."
    if tally.unsent:
        yield f"{tally.unsent} calls were due and not sent: --max-in-flight calls had not ended. The latencies lack them."
