"""What `Rpcz` shows, as data: the types of the JSON twin, and how they are filled from what is known of the methods."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple, TypeAlias, TypedDict

from interpose._method import Side
from interpose.interceptors.method_records import MINUTE, Detail, Record, Records, Rpc
from interpose.interceptors.watched import Card
from interpose.mechanisms.json_lines import rfc3339
from interpose.mechanisms.options import insist, is_whole
from interpose.mechanisms.redaction import without_secrets
from interpose.mechanisms.rolling import quantiles, summed
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
    everything = list(records.all())
    found = [
        (record, flying)
        for record, flying in everything
        if asked.filter in f"{record.side.value} {record.name}".lower()
    ]
    found.sort(key=lambda pair: (-_lately(pair[0].detail, now), -pair[1], -pair[0].ended, pair[0].name))
    chosen = records.by_side[Side(asked.side)].get(asked.method)
    return {
        "version": VERSION,
        "title": title,
        "pid": os.getpid(),
        "at": rfc3339(epoch + now),
        "uptime": _rounded(now - began),
        "totals": _totals(everything, now),
        "found": len(found),
        "methods": [_row(record, flying, now) for record, flying in found[: asked.limit]],
        "chosen": None if chosen is None else _chosen(chosen, dict(everything).get(chosen, 0), now, epoch),
        "in_flight": [_in_flight(rpc, now) for rpc in records.flying()[:MOST_IN_FLIGHT]],
        "watched": watched,
    }


def _totals(everything: list[tuple[Record, int]], now: float) -> Totals:
    details = [record.detail for record, _ in everything if record.detail is not None]
    seconds = [summed(cells, 2) for cells in zip(*(detail.seconds.rows(now) for detail in details), strict=True)]
    seconds = seconds or [[0, 0]] * int(MINUTE)
    return {
        "methods": len(everything),
        "ended": sum(record.ended for record, _ in everything),
        "failed": sum(sum(record.failures.values()) for record, _ in everything),
        "in_flight": sum(flying for _, flying in everything),
        "rate": _rate(seconds),
        "latency": _latency(summed(row for detail in details for row in detail.minute.rows(now))),
        "seconds": seconds,
    }


def _row(record: Record, flying: int, now: float) -> Row:
    codes, detail = record.failures, record.detail
    seconds = None if detail is None else [list(cells) for cells in detail.seconds.rows(now)]
    return {
        "side": record.side.value,
        "method": one_line(record.name, MAX_TEXT),
        "kind": None if record.kind is None else record.kind.value,
        "ended": record.ended,
        "failed": sum(codes.values()),
        "codes": codes,
        "in_flight": flying,
        "rate": None if seconds is None else _rate(seconds),
        "latency": None if detail is None else _latencies(detail, now),
        "seconds": seconds,
    }


def _chosen(record: Record, flying: int, now: float, epoch: float) -> Chosen:
    detail = record.detail
    recent, failures, slow = ([], [], []) if detail is None else (detail.recent, detail.failures, detail.slow_at(now))
    return {
        **_row(record, flying, now),
        "recent": [_sample(rpc, epoch) for rpc in reversed(list(recent))],
        "failures": [_sample(rpc, epoch) for rpc in reversed(list(failures))],
        "slow": [_sample(rpc, epoch) for rpc in slow],
    }


def _lately(detail: Detail | None, now: float) -> int:
    """How many RPCs ended in the last minute."""
    return 0 if detail is None else sum(map(sum, detail.seconds.rows(now)))


def _rate(seconds: Seconds) -> float:
    return sum(map(sum, seconds[-LATELY - 1 : -1])) / LATELY


def _latencies(detail: Detail, now: float) -> dict[str, Latency | None]:
    return {
        "1m": _latency(summed(detail.minute.rows(now))),
        "10m": _latency(summed(detail.ten_minutes.rows(now))),
        "all": _latency(list(detail.total)),
    }


def _latency(counts: list[int]) -> Latency | None:
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
