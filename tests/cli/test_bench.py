"""`interpose bench`: closed and open loop, what is counted, and what is said of it."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interpose.cli import bench
from interpose.cli.bench_report import Plan, as_text
from interpose.cli.latencies import SHARES, Latencies, bars
from interpose.cli.load import MAX_MESSAGES, End, Tally, closed, opened
from tests.cli.conftest import HERE, Ended, Served
from tests.cli.till import SERVICE

Run = Callable[..., Ended]


@pytest.mark.parametrize(
    ("method", "data"),
    [
        ("Ring", '{"name": "tea"}'),
        ("Watch", '{"name": "tea", "count": 2}'),
        ("Sum", '{"name": "tea"} {"name": "cup"}'),
        ("Trade", '{"name": "tea"} {"name": "cup"}'),
    ],
)
def test_a_closed_loop_of_each_kind(served: Served, run: Run, method: str, data: str) -> None:
    """As many calls as were asked for, each to its end."""
    ended = run("bench", served.target, f"{SERVICE}/{method}", data, "-n", 30, "-c", 4, "--connections", 2, "--json")

    told = json.loads(ended.out)
    assert (ended.status, ended.err) == (0, "")
    assert (told["loop"], told["calls"], told["concurrency"]) == ("closed", 30, 4)
    assert told["codes"]["OK"]["calls"] == 30
    assert len(served.till.seen) == 30 * (1 if method == "Ring" else 2)


def test_an_open_loop(served: Served, run: Run) -> None:
    """Its calls go out at their rate; the report says from when they are counted."""
    ended = run("bench", served.target, f"{SERVICE}/Ring", "-r", 500, "-n", 20)

    assert (ended.status, ended.err) == (0, "")
    assert "Open loop, 500 calls per second. A call's time counts from when it was to be sent." in ended.out
    assert "Latency of the 20 calls that ended with OK" in ended.out
    assert len(served.till.seen) == 20


def test_failures_are_counted_by_code(shop: Served, run: Run) -> None:
    """With the server's text, made fit for a terminal; the status is 1."""
    ended = run("bench", shop.target, f"{SERVICE}/Ring", '{"name": "fail"}', "-n", 10)

    assert ended.status == 1
    assert "  NOT_FOUND                 10  mean" in ended.out
    assert "  10 times NOT_FOUND: no such item\\x1b[2J\\x9b31m" in ended.out
    assert "Histogram" not in ended.out


def test_it_stops_in_time(shop: Served, run: Run) -> None:
    """With --duration there is no number of calls."""
    told = json.loads(run("bench", shop.target, f"{SERVICE}/Ring", "-z", "50ms", "-c", 2, "--json").out)

    assert told["calls"] > 0
    assert told["seconds"] >= 0.05


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["127.0.0.1:1", f"{SERVICE}/Ring", "--proto", HERE / "till.proto"], 78, "127.0.0.1:1 cannot be reached; is"),
        (["127.0.0.1:1", f"{SERVICE}/Ring", "{}", "-d", "{}"], 2, "give the message once"),
        (["127.0.0.1:1", f"{SERVICE}/Ring", "{", "--proto", HERE / "till.proto"], 2, "this is no JSON"),
        (["127.0.0.1:1", f"{SERVICE}/Ring", "--rate", "0"], 2, "--rate"),
        (["127.0.0.1:1", f"{SERVICE}/Ring", "-c", "0"], 2, "-c"),
    ],
)
def test_what_makes_no_sense(run: Run, arguments: list[Any], status: int, said: str) -> None:
    """One line, and nothing is measured."""
    ended = run("bench", *arguments)

    assert (ended.status, ended.out, ended.err.count("\n")) == (status, "", 1)
    assert said in ended.err


def test_interrupted_it_shows_what_it_has(shop: Served, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends the measuring, not the report."""

    async def interrupted(call: Any, concurrency: int, end: End, tally: Tally) -> None:
        await closed(call, 1, End(calls=3), tally)
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "closed", interrupted)

    ended = run("bench", shop.target, f"{SERVICE}/Ring")

    assert ended.status == 130
    assert "  calls    3 in" in ended.out


# --- the loops --------------------------------------------------------------------------------------------------------


async def test_an_open_loop_counts_from_when_a_call_was_to_be_sent() -> None:
    """The first call keeps the loop busy, so all others go out late: they are slow, though the server was quick."""
    begun: list[float] = []

    async def call() -> None:
        begun.append(time.perf_counter())
        if len(begun) == 1:
            time.sleep(0.03)  # noqa: ASYNC251  that is the point

    tally = Tally()
    await opened(call, 1000, 100, End(calls=10), tally)

    assert tally.late >= 0.02
    assert tally.ok.count == 10
    assert tally.ok.quantile(0.5) >= 0.02  # a loop that counts from the send would have them near 0
    assert "behind its plan" in as_text(Plan("a.B/C", "x", End(), 1000, 50, 1, 100), tally)


async def test_an_open_loop_leaves_out_what_is_too_much() -> None:
    """Memory is bounded when a server answers nothing: what is due beyond that is counted."""
    go = asyncio.Event()
    under_way = 0

    async def call() -> None:
        nonlocal under_way
        under_way += 1
        if under_way == 3:
            asyncio.get_running_loop().call_later(0.02, go.set)
        await go.wait()

    tally = Tally()
    await opened(call, 1e6, 3, End(calls=10), tally)

    assert (tally.ok.count, tally.unsent) == (3, 7)
    assert "7 calls were due and not sent" in as_text(Plan("a.B/C", "x", End(), 1e6, 50, 1, 3), tally)


async def test_a_closed_loop_has_so_many_in_flight() -> None:
    """Never more, and no call is begun beyond the number that was asked for."""
    now = most = 0

    async def call() -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0)
        now -= 1

    tally = Tally()
    await closed(call, 4, End(calls=21), tally)

    assert (tally.ok.count, most) == (21, 4)


def test_texts_of_failures_are_bounded() -> None:
    """A server that says something new each time fills no memory."""
    tally = Tally()
    for number in range(100):
        tally.ended(0.001, Failure(f"number {number}"))

    assert (tally.calls, len(tally.messages)) == (100, MAX_MESSAGES)


class Failure(grpc.RpcError):
    """An error with this text."""

    def __init__(self, text: str) -> None:
        self._text = text

    def code(self) -> grpc.StatusCode:
        """Always the same."""
        return grpc.StatusCode.INTERNAL

    def details(self) -> str:
        """The text."""
        return self._text


# --- latencies --------------------------------------------------------------------------------------------------------

TIMES = st.lists(st.floats(1e-6, 1e4), min_size=1, max_size=200)


@given(TIMES, st.sampled_from(SHARES))
def test_a_quantile_is_off_by_half_a_percent_at_most(times: list[float], share: float) -> None:
    """Compared with that of all times, sorted."""
    latencies = Latencies()
    for seconds in times:
        latencies.add(seconds)

    exact = sorted(times)[math.ceil(share * len(times)) - 1]
    assert math.isclose(latencies.quantile(share), exact, rel_tol=0.0051)


@given(TIMES)
def test_a_histogram_holds_all(times: list[float]) -> None:
    """Each call is in one row, and the last row ends with the slowest."""
    latencies = Latencies()
    for seconds in times:
        latencies.add(seconds)

    rows = latencies.histogram()
    assert sum(count for _, count in rows) == len(times)
    assert math.isclose(rows[-1][0], max(times))
    assert [end for end, _ in rows] == sorted(end for end, _ in rows)


def test_nothing_was_measured() -> None:
    """No numbers are made up."""
    assert (Latencies().mean, Latencies().quantile(0.5), Latencies().histogram()) == (0.0, 0.0, [])


def test_bars() -> None:
    """The longest is as wide as asked for, and what is not nothing is seen."""
    assert bars([0, 1, 400], 4) == ["", "∎", "∎∎∎∎"]
