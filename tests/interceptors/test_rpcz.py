"""Rpcz: what it counts, in all places and for every ending, and what it shows of that."""

import asyncio
import gc
import json
import logging
import threading
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interpose import Call, Flow, Kind, Side, chain, errors, intercept_channel
from interpose.interceptors import AccessLog, CircuitBreaker, RequestId, Retry, Rpcz, RpczState
from interpose.interceptors.method_records import DETAILED, OTHERS
from interpose.interceptors.rpcz_state import Row
from interpose.testing import Echo, FakeClock, Place, Stub, failed, incoming, ok, play
from tests.facts.serving import serving
from tests.interceptors.driving import Told, is_server, requests

Code = grpc.StatusCode
METHOD = "/pay.v1.Cards/Charge"
EPOCH = 1_790_000_000.0
MANY = 40  # RPCs of one method, in each of which something else happens


def only(state: RpczState) -> Row:
    """The one method that is there."""
    [row] = state["methods"]
    return row


def taking(clock: FakeClock, seconds: float) -> Callable[[Call], Flow]:
    """An interceptor further in that takes its time."""

    def take(call: Call) -> Flow:
        clock.advance(seconds)
        yield call

    return take


def made(clock: FakeClock, **options: Any) -> Rpcz:
    return Rpcz(clock=clock, wall=lambda: EPOCH + clock.now(), **options)


# --- in all places --------------------------------------------------------------------------------------------------


def test_an_answer_counts_once(place: Place) -> None:
    """Under its method and side, with its kind."""
    rpcz = Rpcz()
    with place.open(rpcz) as rpc:
        rpc.call(*requests(place), timeout=30)

    row = only(rpcz.snapshot())
    assert (row["side"], row["kind"]) == (place.side.value, place.kind.value)
    assert (row["ended"], row["failed"], row["in_flight"], row["codes"]) == (1, 0, 0, {})


def test_a_failure_counts_by_its_code(place: Place) -> None:
    """As the other side sees it."""
    rpcz = Rpcz()
    with place.open(rpcz, script=[failed(Code.NOT_FOUND), ...]) as rpc:
        rpc.call(*requests(place))
        rpc.call(*requests(place))

    assert only(rpcz.snapshot())["codes"] == {"NOT_FOUND": 2}


def test_what_runs_is_in_flight_until_it_ends(place: Place) -> None:
    """With its age and what is left of its deadline; a page that is read meanwhile changes nothing."""
    rpcz, states = Rpcz(), []

    def look(call: Call) -> Flow:
        states.append(rpcz.snapshot())
        yield call
        states.append(rpcz.snapshot())

    with place.open(rpcz, look) as rpc:
        rpc.call(*requests(place), timeout=30)

    for state in states:
        [flying] = state["in_flight"]
        assert flying["side"] == place.side.value
        assert flying["left"] is not None and 0 < flying["left"] < 31  # grpc rounds it up
        assert 0 <= flying["age"] < 30
        assert (flying["peer"] is not None) == is_server(place)
        assert only(state)["in_flight"] == state["totals"]["in_flight"] == 1
        assert only(state)["ended"] == 0
    assert rpcz.snapshot()["in_flight"] == []


def test_a_stream_that_is_dropped_has_ended() -> None:
    """Nobody reads it to its end: it counts as cancelled, and is in flight no more."""
    rpcz, told = Rpcz(), Told()
    with Echo([ok("a", "b", "c")]).serve() as target, grpc.insecure_channel(target) as bare:
        stream = Stub(intercept_channel(bare, told, rpcz)).unary_stream("hello")
        next(stream)
        assert len(rpcz.snapshot()["in_flight"]) == 1
        del stream
        gc.collect()
        assert told.ended.acquire(timeout=10)

        left_by_the_client(rpcz)


@pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.value)
async def test_an_asyncio_call_that_is_cancelled_has_ended(kind: Kind) -> None:
    """Before its answer: it counts as cancelled, and is in flight no more."""
    rpcz, told = Rpcz(), Told()
    async with Echo([ok(hang=True)]).serve_aio() as target, grpc.aio.insecure_channel(target) as bare:
        stub = Stub(intercept_channel(bare, told, rpcz))
        call = getattr(stub, kind.value)(["hello"] if kind.request_streaming else "hello")
        call.cancel()
        assert await asyncio.to_thread(told.ended.acquire, timeout=10)

    left_by_the_client(rpcz)


@pytest.mark.parametrize("sort", ["sync", "async"])
def test_a_stream_whose_client_leaves_has_ended_on_the_server(sort: str) -> None:
    """With the client's address and the id, which grpc itself no longer knows by then."""

    def endless(_: Any, native: Any) -> Any:
        while True:
            yield "x" * 100_000

    async def endless_later(_: Any, native: Any) -> Any:
        while True:
            yield "x" * 100_000

    rpcz, told = Rpcz(), Told()
    handlers = {"unary_stream": endless if sort == "sync" else endless_later}
    with serving(sort, handlers, told, rpcz, RequestId()) as client:
        call = client.start(kind="unary_stream")
        next(call)
        call.cancel()
        assert told.ended.acquire(timeout=10)

    left_by_the_client(rpcz)
    chosen = rpcz.snapshot(method=only(rpcz.snapshot())["method"])["chosen"]
    assert chosen is not None
    [sample] = chosen["failures"]
    assert (sample["peer"] or "").startswith("ipv4:127.0.0.1:") and sample["request_id"]


def left_by_the_client(rpcz: Rpcz) -> None:
    """Its one RPC counts as cancelled, and is in flight no more."""
    state = rpcz.snapshot()
    assert (only(state)["ended"], only(state)["codes"]) == (1, {"CANCELLED": 1})
    assert (state["totals"]["in_flight"], state["in_flight"]) == (0, [])


# --- played by hand -------------------------------------------------------------------------------------------------


def test_latencies_are_known_for_three_windows() -> None:
    """What is older than a window is not in it; "all" forgets nothing."""
    clock = FakeClock()
    rpcz = made(clock)
    for seconds, pause in ((1.0, 700), (0.1, 100), (0.01, 0)):
        play(chain(rpcz, taking(clock, seconds)), [ok()], clock=clock)
        clock.advance(pause)

    latency = only(rpcz.snapshot())["latency"]
    assert latency is not None
    for window, slowest in (("1m", 0.01), ("10m", 0.1), ("all", 1.0)):
        known = latency[window]
        assert known is not None and known["p99"] == pytest.approx(slowest, rel=0.091)

    clock.advance(1000)
    latency = only(rpcz.snapshot())["latency"]
    assert latency is not None and latency["1m"] is latency["10m"] is None and latency["all"] is not None


def test_a_rate_is_that_of_the_last_ten_seconds() -> None:
    """Of those that are over: 20 RPCs in one of them are 2 a second. The series has each second."""
    clock = FakeClock()
    rpcz = made(clock)
    for number in range(20):
        play(rpcz, [failed(Code.ABORTED) if number < 5 else ok()], clock=clock)
    assert only(rpcz.snapshot())["rate"] == 0  # the second that runs is not over
    clock.advance(3)

    state = rpcz.snapshot()
    row = only(state)
    assert row["rate"] == state["totals"]["rate"] == 2.0
    assert row["seconds"] == state["totals"]["seconds"] == [*[[0, 0]] * 56, [15, 5], *[[0, 0]] * 3]
    clock.advance(7)
    assert only(rpcz.snapshot())["rate"] == 2.0
    clock.advance(1)
    assert only(rpcz.snapshot())["rate"] == 0
    clock.advance(60)
    assert rpcz.snapshot()["totals"]["seconds"] == [[0, 0]] * 60


def test_samples_are_the_last_the_failed_and_the_slow() -> None:
    """A few of each; the slow ones of the last ten minutes, so that an old one makes room."""
    clock = FakeClock()
    rpcz = made(clock, details=True)

    def one(seconds: float, act: Any) -> None:
        play(
            chain(RequestId(make=lambda: f"took-{seconds:g}"), rpcz, taking(clock, seconds)),
            [act],
            method=METHOD,
            clock=clock,
        )

    one(99.0, ok())
    one(7.0, failed(Code.ABORTED, "in\nuse"))
    for tenths in range(1, 9):
        one(tenths / 10, ok())

    chosen = rpcz.snapshot(method=METHOD, side="client")["chosen"]
    assert chosen is not None
    ids = {name: [sample["request_id"] for sample in chosen[name]] for name in ("recent", "failures", "slow")}
    assert ids["recent"] == ["took-0.8", "took-0.7", "took-0.6", "took-0.5", "took-0.4"]
    assert ids["slow"] == ["took-99", "took-7", "took-0.8", "took-0.7", "took-0.6"]
    [failure] = chosen["failures"]
    assert (failure["code"], failure["details"], failure["seconds"]) == ("ABORTED", "in\\nuse", 7.0)
    assert failure["at"].startswith("2026-09-21T") and failure["requests"] == failure["responses"] + 1 == 1

    clock.advance(598)
    one(0.05, ok())
    chosen = rpcz.snapshot(method=METHOD, side="client")["chosen"]
    assert chosen is not None and [sample["request_id"] for sample in chosen["slow"]] == [
        *("took-0.8", "took-0.7", "took-0.6"),
        "took-0.05",
    ]


def test_a_sample_knows_its_client_and_its_attempts() -> None:
    """On a server the peer, unless it is not wanted; outside of `Retry` how often it was sent."""
    clock = FakeClock()
    rpcz, quiet = made(clock), made(clock, peers=False)
    down = failed(Code.UNAVAILABLE)
    play(chain(rpcz, quiet), [ok()], side=Side.SERVER, method=METHOD, peer="ipv4:192.0.2.1:5", clock=clock)
    play(chain(rpcz, Retry(safe=True)), [down, down, ok()], method=METHOD, clock=clock)

    [served], [called], [hidden] = (
        watcher.snapshot(method=METHOD, side=side)["chosen"]["recent"]  # type: ignore[index]  # it is there
        for watcher, side in ((rpcz, "server"), (rpcz, "client"), (quiet, "server"))
    )
    assert served["peer"] == "ipv4:192.0.2.1:5"
    assert (called["peer"], called["attempts"]) == (None, 3)
    assert hidden["peer"] is None


@pytest.mark.parametrize("details", [True, False])
def test_details_of_failures_are_shown_only_by_choice(details: bool) -> None:
    """And then without what looks like a secret, on one line, and cut."""
    rpcz = Rpcz(details=details)
    text = "card token=tok_4711 is bad; Bearer abc.def.ghi; " + "x" * 1000
    play(rpcz, [failed(Code.ABORTED, text)], side=Side.SERVER, method=METHOD)

    chosen = rpcz.snapshot(method=METHOD)["chosen"]
    assert chosen is not None
    [sample] = chosen["failures"]
    if details:
        assert sample["details"].startswith("card token=[REDACTED] is bad; Bearer [REDACTED]; xxx")
        assert len(sample["details"]) < 260
    else:
        assert sample["details"] == ""


def test_a_message_is_not_kept() -> None:
    """Once an RPC has ended, neither its request nor its response is held by what counted it."""

    class Message:
        pass

    rpcz, message = Rpcz(), Message()
    play(rpcz, [ok(message)], requests=[message])
    play(rpcz, [ok(message)], requests=[message])
    held = {id(one) for one in gc.get_referrers(message)}

    assert not held & {id(part) for part in reachable(rpcz)}


def reachable(start: object) -> list[object]:
    """All that an object leads to, modules and classes aside."""
    seen: dict[int, object] = {}
    left = [start]
    while left:
        one = left.pop()
        if id(one) not in seen and not isinstance(one, (type, type(json), type(reachable))):
            seen[id(one)] = one
            left += gc.get_referents(one)
    return list(seen.values())


def test_the_filter_and_the_limit() -> None:
    """By a part of side and name, in any case; the busiest first."""
    rpcz = Rpcz()
    for times, name in ((1, "/a.A/One"), (3, "/a.A/Two"), (2, "/b.B/One")):
        for _ in range(times):
            play(rpcz, [ok()], method=name, side=Side.SERVER)
    play(rpcz, [ok()], method="/a.A/One")

    def found(text: str = "", **options: Any) -> list[str]:
        return [f"{row['side']} {row['method']}" for row in rpcz.snapshot(text, **options)["methods"]]

    assert found() == ["server /a.A/Two", "server /b.B/One", "client /a.A/One", "server /a.A/One"]
    assert found(" a.a/ONE ") == ["client /a.A/One", "server /a.A/One"]
    assert found("server /b") == ["server /b.B/One"]
    assert found(limit=1) == ["server /a.A/Two"]
    assert (rpcz.snapshot(limit=1)["found"], rpcz.snapshot("none")["found"]) == (4, 0)
    assert rpcz.snapshot(method="/no.No/No")["chosen"] is None


@given(st.lists(st.sampled_from(["begin", "end", "fail", "drop", "look"]), max_size=40))
def test_what_began_has_ended_or_is_in_flight(steps: list[str]) -> None:
    """However RPCs begin and end, also those that end without an outcome, and whenever somebody looks."""
    rpcz, flying, ended, codes = Rpcz(), list[Flow](), 0, 0
    for step in steps:
        if step == "begin":
            flying.append(rpcz(incoming()))
            flying[-1].send(None)
        elif step != "look" and flying:
            flow = flying.pop(0)
            if step == "drop":
                flow.close()
            else:
                outcome = ok("hi") if step == "end" else failed(Code.ABORTED)
                ended, codes = ended + 1, codes + (step == "fail")
                with pytest.raises(StopIteration):
                    flow.send(play(chain(), [outcome]).outcome)
        state = rpcz.snapshot()
        totals = state["totals"]
        assert (totals["in_flight"], totals["ended"], totals["failed"]) == (len(flying), ended, codes)
        assert len(state["in_flight"]) == len(flying)
    for flow in flying:
        flow.close()


# --- bounds ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_ten_thousand_methods_take_less_than_eight_megabytes() -> None:
    """With all codes and latencies that there are for those of which they are kept, and fresh texts in each sample."""
    clock = FakeClock()
    rpcz = made(clock, details=True)
    endings = [play(chain(), [failed(code, "as it was") if code is not Code.OK else ok()]).outcome for code in Code]

    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for place in range(10_500):
            name, peer = f"/shop.v{place}.InventoryService/ListReservations", f"ipv4:192.0.2.17:{place}"
            call = incoming(method=name, peer=peer, clock=clock)
            for number in range(MANY if place < DETAILED else 2):
                flow = rpcz(call)
                flow.send(None)
                clock._time += 1.6 ** (number % MANY) * 1e-4
                with suppress(StopIteration):
                    flow.send(endings[number % len(endings)])
            clock._time = 1000.0 + place / 100
        state = rpcz.snapshot()
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert state["totals"]["methods"] == 10_001  # with "other methods"
    assert state["totals"]["ended"] == 2 * 10_500 + DETAILED * (MANY - 2)
    assert after - before < 8 * 10**6


def test_names_beyond_the_number_and_beyond_all_measure_count_together() -> None:
    """As "other methods": nothing is lost, and nothing is kept of what a stranger chooses."""
    rpcz = Rpcz(methods=2)
    for name in ("/a.A/One", "/a.A/Two", "/a.A/Three", "/a.A/Four", "/" + "x" * 5000):
        play(rpcz, [ok()], method=name)

    assert {row["method"]: row["ended"] for row in rpcz.snapshot()["methods"]} == {
        "/a.A/One": 1,
        "/a.A/Two": 1,
        OTHERS: 3,
    }
    assert only(rpcz.snapshot(OTHERS))["kind"] is None

    rpcz = Rpcz()
    play(rpcz, [ok()], method="/" + "x" * 5000)
    assert only(rpcz.snapshot())["method"] == OTHERS


def test_an_idle_method_gives_up_its_latencies() -> None:
    """After ten minutes, to one that is called; until then later methods have counts and errors only."""
    clock = FakeClock()
    rpcz = made(clock)
    for number in range(DETAILED + 1):
        play(rpcz, [ok()], method=f"/a.A/M{number}", clock=clock)

    def has_latency(number: int) -> bool:
        [row] = [row for row in rpcz.snapshot(limit=1000)["methods"] if row["method"] == f"/a.A/M{number}"]
        assert (row["seconds"] is None) == (row["latency"] is None) == (row["rate"] is None)
        return row["latency"] is not None

    assert has_latency(0) and not has_latency(DETAILED)
    clock.advance(599)
    play(rpcz, [ok()], method=f"/a.A/M{DETAILED}", clock=clock)
    assert has_latency(0) and not has_latency(DETAILED)
    clock.advance(2)
    play(rpcz, [ok()], method=f"/a.A/M{DETAILED}", clock=clock)
    assert not has_latency(0) and has_latency(DETAILED)
    chosen = rpcz.snapshot(method="/a.A/M0", side="client")["chosen"]
    assert chosen is not None and (chosen["ended"], chosen["recent"], chosen["slow"]) == (1, [], [])


def test_threads_lose_no_count() -> None:
    """Four threads and one that reads all the time: each RPC counts once."""
    rpcz, ending, over = Rpcz(), play(chain(), [failed(Code.ABORTED)]).outcome, threading.Event()

    def work() -> None:
        for _ in range(1000):
            flow = rpcz(incoming(method=METHOD))
            flow.send(None)
            with pytest.raises(StopIteration):
                flow.send(ending)

    def read() -> None:
        while not over.is_set():
            rpcz.snapshot(method=METHOD)

    threads, reader = [threading.Thread(target=work) for _ in range(4)], threading.Thread(target=read)
    for thread in (*threads, reader):
        thread.start()
    for thread in threads:
        thread.join()
    over.set()
    reader.join()

    state = rpcz.snapshot()
    assert (state["totals"]["ended"], only(state)["codes"]) == (4000, {"ABORTED": 4000})
    assert sum(map(sum, state["totals"]["seconds"])) <= 4000 == sum(rpcz._servers[METHOD].detail.total)  # type: ignore[union-attr]


def test_what_is_in_flight_may_change_while_it_is_read() -> None:
    """Without a GIL a set says so, and is read again."""

    class Changing(set[Any]):
        changes = 1

        def __iter__(self) -> Any:
            if self.changes:
                self.changes -= 1
                raise RuntimeError("Set changed size during iteration")
            return super().__iter__()

    rpcz = Rpcz()
    rpcz._records.in_flight = Changing()
    flow = rpcz(incoming())
    flow.send(None)

    assert len(rpcz.snapshot()["in_flight"]) == 1
    flow.close()


# --- what fails does not touch an RPC -------------------------------------------------------------------------------


class Broken:
    """A clock that fails after some looks."""

    def __init__(self, after: int) -> None:
        self.left = after

    def now(self) -> float:
        self.left -= 1
        if self.left < 0:
            raise SystemError("the clock is broken")
        return 1.0


@pytest.mark.parametrize("after", [1, 2])
def test_a_fault_of_its_own_does_not_touch_an_rpc(after: int, caplog: pytest.LogCaptureFixture) -> None:
    """At the begin and at the end: the RPC goes on, nothing stays in flight, and the log has it once."""
    rpcz: Any = Rpcz(clock=Broken(after))  # type: ignore[arg-type]  # a clock as somebody may have one
    with caplog.at_level(logging.ERROR, "interpose"):
        for _ in range(3):
            assert play(rpcz, [ok("hello")]).outcome.response == "hello"

    assert [record.message for record in caplog.records] == [
        "Rpcz could not count an RPC; its later failures are not logged"
    ]
    assert not rpcz._records.in_flight


def test_an_error_passes_through() -> None:
    """What a flow further in raises reaches the caller as it was, and counts."""
    rpcz = Rpcz()

    def refusing(call: Call) -> Flow:
        raise errors.PermissionDenied("no")
        yield call

    assert play(chain(rpcz, refusing), []).outcome.code is Code.PERMISSION_DENIED
    assert only(rpcz.snapshot())["codes"] == {"PERMISSION_DENIED": 1}


def test_it_prints_as_it_was_made() -> None:
    """Without its text."""
    assert repr(Rpcz([AccessLog()], title="secret", methods=10)).startswith("Rpcz(watch=[AccessLog()], title=")
    assert "secret" not in repr(Rpcz(title="secret"))


# --- options --------------------------------------------------------------------------------------------------------


def test_every_fault_is_told() -> None:
    """With what to write instead."""
    with pytest.raises(ValueError, match="Rpcz: ") as caught:
        Rpcz([7, CircuitBreaker], title=1, details="yes", peers=2, methods=0, clock=3, wall=4)  # type: ignore[arg-type]

    faults = str(caught.value).split("; ")
    assert len(faults) == 8
    assert all(name in str(caught.value) for name in ("watch", "title", "details", "peers", "methods", "clock", "wall"))
    with pytest.raises(ValueError, match="watch must be a stack, or a list, not 7"):
        Rpcz(7)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"limit": -1}, {"limit": 10_001}, {"side": "peer"}, {"limit": "many"}], ids=str)
def test_what_cannot_be_asked(options: Any) -> None:
    """A ValueError with what can."""
    with pytest.raises(ValueError, match=r"limit must be a whole number from 0 to 10000|side must be 'server' or"):
        Rpcz().snapshot(**options)


def test_kinds_are_named() -> None:
    """As everywhere."""
    rpcz = Rpcz()
    play(rpcz, [ok("a")], kind=Kind.STREAM_STREAM)

    assert only(rpcz.snapshot())["kind"] == "stream_stream"
