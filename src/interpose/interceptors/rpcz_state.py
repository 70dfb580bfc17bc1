"""What `Rpcz` shows, as data: the types of the JSON twin, and how they are filled from what is known of the methods."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias, TypedDict

from interpose._method import Side
from interpose.interceptors.method_records import MINUTE, Record, Records, Rpc
from interpose.interceptors.watched import Card
from interpose.mechanisms.json_lines import rfc3339
from interpose.mechanisms.options import insist, is_whole
from interpose.mechanisms.redaction import without_secrets
from interpose.mechanisms.rolling import BUCKETS, quantiles, summed
from interpose.mechanisms.text import one_line

VERSION = 1  # of the JSON: it grows when a field changes its meaning or goes
ROWS = 100  # methods that are shown unless more are asked for
MOST_ROWS = 10_000
MOST_IN_FLIGHT = 100  # RPCs that are shown, the oldest
MAX_TEXT = 256  # characters of a name, a peer, an id, or the details of a failure
SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
LATELY = 10  # seconds over which a rate is taken; those that have passed, not the one that runs

Latency: TypeAlias = "dict[str, float]"  # "p50", "p90", "p99" in seconds
Seconds: TypeAlias = "list[list[int]]"  # of the last minute, oldest first: RPCs that ended well, and others


class Sample(TypedDict):
    """One RPC that has ended. at: RFC 3339. seconds: how long it took. requests, responses: messages."""

    at: str
    code: str
    details: str
    seconds: float
    attempts: int
    requests: int
    responses: int
    peer: str | None
    request_id: str | None


class InFlight(TypedDict):
    """One RPC that has not ended. age, left: seconds since it began, and until its deadline; None without one."""

    side: str
    method: str
    age: float
    left: float | None
    peer: str | None
    request_id: str | None


class Row(TypedDict):
    """One method. rate: RPCs per second, of the last ten. latency: by "1m", "10m" and "all"; None where no RPC ended.

    rate, latency and seconds are None for a method beyond the 256 of which they are kept.
    """

    side: str
    method: str
    kind: str | None
    ended: int
    failed: int
    codes: dict[str, int]
    in_flight: int
    rate: float | None
    latency: dict[str, Latency | None] | None
    seconds: Seconds | None


class Chosen(Row):
    """The method that was asked for, with samples: the last RPCs, the last failures, and the slowest of ten minutes."""

    recent: list[Sample]
    failures: list[Sample]
    slow: list[Sample]


class Totals(TypedDict):
    """All methods together; rate, latency and seconds: of the last minute."""

    methods: int
    ended: int
    failed: int
    in_flight: int
    rate: float
    latency: Latency | None
    seconds: Seconds


class RpczState(TypedDict):
    """What `Rpcz` shows at a moment; the JSON twin of the page.

    found: methods that match the filter, of which `methods` has the busiest. in_flight: the oldest RPCs.
    """

    version: int
    title: str
    pid: int
    at: str
    uptime: float
    totals: Totals
    found: int
    methods: list[Row]
    chosen: Chosen | None
    in_flight: list[InFlight]
    watched: list[Card]


# --- what is asked --------------------------------------------------------------------------------------------------


class Asked(NamedTuple):
    """What somebody wants to see."""

    filter: str
    limit: int
    method: str
    side: str


def query(asked: Mapping[str, str]) -> Asked:
    """What the fields of a query ask for; others are ignored. ValueError for what makes no sense, with what to write."""
    limit, side = asked.get("limit", str(ROWS)), asked.get("side", Side.SERVER.value)
    number = int(limit) if limit.isascii() and limit.isdigit() and len(limit) < 10 else -1
    insist(
        "rpcz",
        (is_whole(number, 0, MOST_ROWS), f"limit must be a whole number from 0 to {MOST_ROWS}, not {limit!r:.20}"),
        (side in {"server", "client"}, f"side must be 'server' or 'client', not {side!r:.20}"),
    )
    return Asked(asked.get("filter", "").strip().lower(), number, asked.get("method", ""), side)


# --- what is answered -----------------------------------------------------------------------------------------------


def state_of(
    records: Records, asked: Asked, now: float, *, epoch: float, began: float, title: str, watched: list[Card]
) -> RpczState:
    """What there is to see. epoch: what the wall clock shows when the other one shows 0."""
    everything = [_Seen(record, flying, now) for record, flying in records.all()]
    found = sorted(
        seen for seen in everything if asked.filter in f"{seen.record.side.value} {seen.record.name}".lower()
    )
    chosen = records.by_side[Side(asked.side)].get(asked.method)
    return {
        "version": VERSION,
        "title": title,
        "pid": os.getpid(),
        "at": rfc3339(epoch + now),
        "uptime": _rounded(now - began),
        "totals": _totals(everything, now),
        "found": len(found),
        "methods": [_row(seen, now) for seen in found[: asked.limit]],
        "chosen": next((_chosen(seen, now, epoch) for seen in everything if seen.record is chosen), None),
        "in_flight": [_in_flight(rpc, now) for rpc in records.flying()[:MOST_IN_FLIGHT]],
        "watched": watched,
    }


class _Seen:
    """A method at this moment. seconds, minute: the cells of the last minute, and its latencies, if they are kept."""

    __slots__ = ("_busy", "detail", "flying", "minute", "record", "seconds")

    def __init__(self, record: Record, flying: int, now: float) -> None:
        self.record = record
        self.flying = flying
        self.detail = record.detail  # looked at once: it may be given up meanwhile
        self.seconds = None if self.detail is None else self.detail.seconds.cells(now)
        self.minute = None if self.detail is None else self.detail.minute.sums(now)
        self._busy = 0 if self.seconds is None else sum(self.seconds), flying, record.ended

    def __lt__(self, other: _Seen) -> bool:
        """The busier one comes first."""
        return (other._busy, self.record.name) < (self._busy, other.record.name)


def _totals(everything: list[_Seen], now: float) -> Totals:
    seconds = _pairs(summed((seen.seconds for seen in everything if seen.seconds is not None), 2 * int(MINUTE)))
    latencies = (seen.minute for seen in everything if seen.minute is not None)
    return {
        "methods": len(everything),
        "ended": sum(seen.record.ended for seen in everything),
        "failed": sum(seen.record.failed for seen in everything),
        "in_flight": sum(seen.flying for seen in everything),
        "rate": _rate(seconds),
        "latency": _latency(summed(latencies, BUCKETS)),
        "seconds": seconds,
    }


def _row(seen: _Seen, now: float) -> Row:
    record = seen.record
    seconds = None if seen.seconds is None else _pairs(seen.seconds)
    return {
        "side": record.side.value,
        "method": one_line(record.name, MAX_TEXT),
        "kind": None if record.kind is None else record.kind.value,
        "ended": record.ended,
        "failed": record.failed,
        "codes": record.failures,
        "in_flight": seen.flying,
        "rate": None if seconds is None else _rate(seconds),
        "latency": _latencies(seen, now),
        "seconds": seconds,
    }


def _chosen(seen: _Seen, now: float, epoch: float) -> Chosen:
    detail = seen.detail
    recent, failures, slow = ([], [], []) if detail is None else (detail.recent, detail.failures, detail.slow_at(now))
    return {
        **_row(seen, now),
        "recent": [_sample(rpc, epoch) for rpc in reversed(list(recent))],
        "failures": [_sample(rpc, epoch) for rpc in reversed(list(failures))],
        "slow": [_sample(rpc, epoch) for rpc in slow],
    }


def _pairs(cells: Sequence[int]) -> Seconds:
    return list(map(list, zip(cells[::2], cells[1::2], strict=True)))


def _rate(seconds: Seconds) -> float:
    return sum(map(sum, seconds[-LATELY - 1 : -1])) / LATELY


def _latencies(seen: _Seen, now: float) -> dict[str, Latency | None] | None:
    if seen.detail is None or seen.minute is None:
        return None
    return {
        "1m": _latency(seen.minute),
        "10m": _latency(seen.detail.ten_minutes.sums(now)),
        "all": _latency(seen.detail.total),
    }


def _latency(counts: Sequence[int]) -> Latency | None:
    found = quantiles(counts, SHARES.values())
    return None if found is None else dict(zip(SHARES, map(_rounded, found), strict=True))


def _sample(rpc: Rpc, epoch: float) -> Sample:
    return {
        "at": rfc3339(epoch + rpc.ended),
        "code": rpc.code.name,
        "details": _text(rpc.details),
        "seconds": _rounded(rpc.elapsed),
        "attempts": rpc.attempts,
        "requests": rpc.requests,
        "responses": rpc.responses,
        "peer": _text_or_none(rpc.peer),
        "request_id": _text_or_none(rpc.request_id),
    }


def _in_flight(rpc: Rpc, now: float) -> InFlight:
    return {
        "side": rpc.record.side.value,
        "method": one_line(rpc.record.name, MAX_TEXT),
        "age": _rounded(now - rpc.started),
        "left": None if rpc.deadline is None else _rounded(rpc.deadline - now),
        "peer": _text_or_none(rpc.peer),
        "request_id": _text_or_none(rpc.request_id),
    }


def _rounded(seconds: float) -> float:
    return round(seconds, 6)


def _text(text: str) -> str:
    return one_line(without_secrets(text), MAX_TEXT)


def _text_or_none(text: str | None) -> str | None:
    return None if text is None else _text(text)
