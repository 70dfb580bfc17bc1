"""PrometheusMetrics: each RPC counts once, however it ends."""

import asyncio
import gc
import logging
import threading
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry

from interpose import Call, Flow, Kind, Method, Outcome, Side, chain, errors, intercept_channel
from interpose.contrib.prometheus import PrometheusMetrics
from interpose.interceptors import CircuitBreaker, Hedge, Retry
from interpose.mechanisms.budget import Unlimited
from interpose.testing import PLACES, Echo, FakeClock, Place, Stub, failed, ok, play
from tests.contrib.prometheus.reading import WHERE, codes, shown, total
from tests.facts.serving import serving
from tests.interceptors.driving import failing, incoming, is_server, outgoing, requests
from tests.support.patience import PATIENCE

Code = grpc.StatusCode
TYPES = {
    Kind.UNARY_UNARY: "unary",
    Kind.STREAM_UNARY: "client_stream",
    Kind.UNARY_STREAM: "server_stream",
    Kind.STREAM_STREAM: "bidi_stream",
}


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> PrometheusMetrics:
    return PrometheusMetrics(registry=registry, histogram=True)


class Ended:
    """An interceptor outside of the metrics, which says when an RPC has ended."""

    def __init__(self) -> None:
        self.came = threading.Semaphore(0)

    def __call__(self, call: Call) -> Flow:
        yield call
        self.came.release()


# --- in all places --------------------------------------------------------------------------------------------------


def test_an_answer(place: Place, registry: CollectorRegistry, metrics: PrometheusMetrics) -> None:
    """Started and handled once, with its messages, its time, and nothing left in flight."""
    with place.open(metrics) as rpc:
        reply = rpc.call(*requests(place))

    side = place.side.value
    labels = f"{TYPES[place.kind]} interpose.testing.Echo {place.kind.value}"
    sent, received = len(requests(place)), len(reply.messages)
    if is_server(place):
        sent, received = received, sent
    assert shown(registry, f"grpc_{side}_started_total", *WHERE) == {labels: 1}
    assert shown(registry, f"grpc_{side}_handled_total", *WHERE, "grpc_code") == {f"{labels} OK": 1}
    assert shown(registry, f"grpc_{side}_msg_received_total", *WHERE) == {labels: received}
    assert shown(registry, f"grpc_{side}_msg_sent_total", *WHERE) == {labels: sent}
    assert shown(registry, f"interpose_{side}_rpcs_in_flight", *WHERE) == {labels: 0}
    assert shown(registry, f"interpose_{side}_refused_total", *WHERE) == {labels: 0}
    assert shown(registry, f"grpc_{side}_handling_seconds_count", *WHERE) == {labels: 1}
    assert 0 < shown(registry, f"grpc_{side}_handling_seconds_sum", *WHERE)[labels] < 30


def test_a_failure(place: Place, registry: CollectorRegistry, metrics: PrometheusMetrics) -> None:
    """With its code, as Go writes it; a success shows too, at zero, so that a first one is an increase."""
    with place.open(metrics, script=[failed(Code.DATA_LOSS)]) as rpc:
        rpc.call(*requests(place))

    side = place.side.value
    assert codes(registry, side) == {"DataLoss": 1}
    assert shown(registry, f"grpc_{side}_handled_total", "grpc_code") == {"DataLoss": 1, "OK": 0}
    assert total(registry, f"grpc_{side}_started_total") == 1
    assert total(registry, f"interpose_{side}_rpcs_in_flight") == 0
    assert total(registry, f"grpc_{side}_handling_seconds_count") == 1


def test_a_refusal_further_in(place: Place, registry: CollectorRegistry, metrics: PrometheusMetrics) -> None:
    """It counts like any other end, and as refused: nothing was sent, or no handler ran."""

    def refuse(call: Call) -> Flow:
        raise errors.PermissionDenied("not you")
        yield call

    with place.open(metrics, refuse) as rpc:
        rpc.call(*requests(place))

    side = place.side.value
    assert codes(registry, side) == {"PermissionDenied": 1}
    assert total(registry, f"interpose_{side}_refused_total") == 1
    if not is_server(place):
        assert total(registry, "interpose_client_attempts_total") == 0


def test_retries_further_in(place: Place, registry: CollectorRegistry, metrics: PrometheusMetrics) -> None:
    """One RPC for the caller; on a client the attempts are counted beside it."""
    script = [failed(Code.UNAVAILABLE, unread=is_server(place)), ok()]

    with place.open(metrics, Retry(safe=True, backoff=lambda _: 0.0), script=script) as rpc:
        rpc.call(*requests(place))

    side = place.side.value
    assert codes(registry, side) == {"OK": 1}
    assert total(registry, f"grpc_{side}_started_total") == 1
    if not is_server(place):
        assert total(registry, "interpose_client_attempts_total") == 2


def test_what_peers_send_is_in_no_label(place: Place, registry: CollectorRegistry, metrics: PrometheusMetrics) -> None:
    """No message, no metadata, no details."""
    with place.open(metrics, script=[failed(Code.NOT_FOUND, "hunter2")]) as rpc:
        rpc.call(*["hunter2"] * len(requests(place)), metadata=(("authorization", "hunter2"), ("hunter2", "x")))

    assert "hunter2" not in str(list(registry.collect()))


# --- clients that leave ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [place for place in PLACES if not place.asyncio and not is_server(place)], ids=str)
def test_a_call_that_its_client_cancels(place: Place, registry: CollectorRegistry, metrics: PrometheusMetrics) -> None:
    """Canceled, once."""
    ended = Ended()
    with place.open(ended, metrics, script=[ok(hang=True)]) as rpc:
        stub = getattr(rpc.channel, place.kind.value)(f"/interpose.testing.Echo/{place.kind.value}")
        argument = iter([b"a"]) if place.kind.request_streaming else b"a"
        call = stub(argument) if place.kind.response_streaming else stub.future(argument)
        rpc.echo.wait_begun()
        assert total(registry, "interpose_client_rpcs_in_flight") == 1
        call.cancel()
        assert ended.came.acquire(timeout=PATIENCE)

    assert codes(registry, "client") == {"Canceled": 1}
    assert total(registry, "interpose_client_rpcs_in_flight") == 0


@pytest.mark.parametrize("kind", [Kind.UNARY_STREAM, Kind.STREAM_STREAM])
@pytest.mark.parametrize("leave", ["cancel", "drop"])
async def test_an_asyncio_stream_that_is_left(
    leave: str, kind: Kind, registry: CollectorRegistry, metrics: PrometheusMetrics
) -> None:
    """Cancelled, or dropped without a word: Canceled, once, with the messages that came."""
    ended = Ended()
    async with Echo([ok("a", "b", "c")]).serve_aio() as target, grpc.aio.insecure_channel(target) as bare:
        stub = getattr(Stub(intercept_channel(bare, ended, metrics)), kind.value)
        call = stub(["hello"] if kind.request_streaming else "hello")
        assert [await call.read(), await call.read()] == ["a", "b"]
        if leave == "cancel":
            call.cancel()
        del call
        gc.collect()
        assert await asyncio.to_thread(ended.came.acquire, timeout=PATIENCE)

    assert codes(registry, "client") == {"Canceled": 1}
    assert total(registry, "grpc_client_msg_received_total") == 2


@pytest.mark.parametrize("kind", ["unary_stream", "stream_stream"])
def test_a_sync_stream_that_is_dropped(kind: str, registry: CollectorRegistry, metrics: PrometheusMetrics) -> None:
    """Canceled, once."""
    ended = Ended()
    with Echo([ok("a", "b", "c")]).serve() as target, grpc.insecure_channel(target) as bare:
        call = getattr(Stub(intercept_channel(bare, ended, metrics)), kind)("hello")
        next(call)
        del call
        gc.collect()
        assert ended.came.acquire(timeout=PATIENCE)

    assert codes(registry, "client") == {"Canceled": 1}


def endless(_: Any, context: Any) -> Any:
    while True:
        yield "x" * 100_000


async def endless_later(_: Any, context: Any) -> Any:
    while True:
        yield "x" * 100_000


@pytest.mark.parametrize("kind", ["unary_stream", "stream_stream"])
@pytest.mark.parametrize(("sort", "handler"), [("sync", endless), ("async", endless_later)])
def test_a_server_whose_client_leaves_a_stream(
    sort: str, handler: Any, kind: str, registry: CollectorRegistry, metrics: PrometheusMetrics
) -> None:
    """Canceled, once, and nothing in flight: a stream that ran counts its messages while it runs."""
    ended = Ended()
    with serving(sort, {kind: handler}, ended, metrics) as client:
        call = client.start(kind=kind)
        next(call)
        assert total(registry, "grpc_server_msg_sent_total") >= 1
        assert total(registry, "interpose_server_rpcs_in_flight") == 1
        call.cancel()
        assert ended.came.acquire(timeout=PATIENCE)

    assert codes(registry, "server") == {"Canceled": 1}
    assert total(registry, "interpose_server_rpcs_in_flight") == 0


@pytest.mark.parametrize("sort", ["sync", "plain", "async"])
def test_a_bug_in_a_handler(sort: str, registry: CollectorRegistry, metrics: PrometheusMetrics) -> None:
    """Unknown, as the client sees it."""

    def broken(request: str, context: Any) -> str:
        raise ValueError("a bug")

    async def broken_later(request: str, context: Any) -> str:
        raise ValueError("a bug")

    with serving(sort, {"unary_unary": broken_later if sort == "async" else broken}, metrics) as client:
        client.call()

    assert codes(registry, "server") == {"Unknown": 1}


def test_a_deadline_that_passes(registry: CollectorRegistry, metrics: PrometheusMetrics) -> None:
    """DeadlineExceeded, once."""
    place = Place(asyncio=False, side=Side.CLIENT, kind=Kind.UNARY_UNARY)
    with place.open(metrics, script=[ok(hang=True)]) as rpc:
        rpc.call("a", timeout=0.05)

    assert codes(registry, "client") == {"DeadlineExceeded": 1}


def test_a_flow_that_is_closed(registry: CollectorRegistry, metrics: PrometheusMetrics) -> None:
    """Of an RPC that was under way when its loop was closed: it is in flight no more."""
    place = Place(asyncio=False, side=Side.CLIENT, kind=Kind.UNARY_UNARY)
    calls: list[Call] = []

    def keep(call: Call) -> Flow:
        calls.append(call)
        yield call

    with place.open(keep) as rpc:
        rpc.call("a")
    flow = metrics(calls[0])
    next(flow)
    assert total(registry, "interpose_client_rpcs_in_flight") == 1

    flow.close()

    assert codes(registry, "client") == {"Canceled": 1}
    assert total(registry, "interpose_client_rpcs_in_flight") == 0


# --- time and attempts ----------------------------------------------------------------------------------------------


def test_the_time_of_all_attempts_and_pauses(registry: CollectorRegistry) -> None:
    """It is measured around everything further in: what the caller waited."""
    clock = FakeClock(auto=True)
    metrics = PrometheusMetrics(registry=registry, histogram=(1.0, 2.0, 4.0))
    retry = Retry(safe=True, backoff=lambda _: 3.0, budget=Unlimited())
    place = Place(asyncio=False, side=Side.CLIENT, kind=Kind.UNARY_UNARY)

    with place.open(metrics, retry, script=[failed(Code.UNAVAILABLE), ok()], clock=clock) as rpc:
        rpc.call("a")

    buckets = shown(registry, "grpc_client_handling_seconds_bucket", "le")
    assert buckets == {"1.0": 0, "2.0": 0, "4.0": 1, "+Inf": 1}
    assert shown(registry, "grpc_client_handling_seconds_sum", "grpc_method") == {"unary_unary": 3.0}


def test_copies_are_attempts(registry: CollectorRegistry, metrics: PrometheusMetrics) -> None:
    """Also those that were cancelled because another one was quicker."""
    place = Place(asyncio=False, side=Side.CLIENT, kind=Kind.UNARY_UNARY)

    with place.open(metrics, Hedge(2, delay=0.0, safe=True), script=[ok(hang=True), ok()]) as rpc:
        rpc.call("a")

    assert codes(registry, "client") == {"OK": 1}
    assert total(registry, "interpose_client_attempts_total") == 2


def test_what_a_breaker_refuses_was_not_sent(registry: CollectorRegistry, metrics: PrometheusMetrics) -> None:
    """It is a refused RPC without an attempt."""
    breaker = CircuitBreaker()
    breaker.force_open()

    play_each(metrics, breaker)

    assert total(registry, "interpose_client_refused_total") == 1
    assert total(registry, "interpose_client_attempts_total") == 0


def test_what_a_cache_answers_was_neither_sent_nor_refused(
    registry: CollectorRegistry, metrics: PrometheusMetrics
) -> None:
    """An answer without an attempt."""

    def cached(call: Call) -> Flow:
        return Outcome.success("yesterday")
        yield call

    play_each(metrics, cached)

    assert codes(registry, "client") == {"OK": 1}
    assert total(registry, "interpose_client_attempts_total") == 0
    assert total(registry, "interpose_client_refused_total") == 0


def play_each(*stack: Any) -> None:
    """One RPC through a stack, that nothing must be sent of."""
    place = Place(asyncio=False, side=Side.CLIENT, kind=Kind.UNARY_UNARY)
    with place.open(*stack) as rpc:
        rpc.call("a")
    assert not rpc.attempts


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("given", [outgoing, incoming])
def test_the_outcome_is_left_as_it_is(given: Callable[..., Any], kind: Kind, metrics: PrometheusMetrics) -> None:
    """The caller is given the very outcome."""
    played = play(metrics, [failing(Code.ABORTED)], **given(kind))

    assert played.outcome is played.sent[0].outcome


# --- broken things --------------------------------------------------------------------------------------------------


class Anything(BaseException):
    """What nobody expects."""


class BrokenClock:
    """Raises from its n-th question on."""

    def __init__(self, answers: int) -> None:
        self._answers = answers

    def now(self) -> float:
        self._answers -= 1
        if self._answers < 0:
            raise Anything("hunter2")
        return 1.0


@pytest.mark.parametrize("answers", [0, 1])
@pytest.mark.parametrize("place", [place for place in PLACES if place.kind is Kind.UNARY_UNARY], ids=str)
def test_a_clock_that_breaks(
    answers: int, place: Place, registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    """The RPC is answered, and the failure is logged once."""
    metrics = PrometheusMetrics(registry=registry)

    def breaks(call: Call) -> Flow:  # for what is further in: the RPC itself needs a clock that works
        broken = Method(call.method.full_name, call.kind, clock=BrokenClock(answers))  # type: ignore[arg-type]
        yield call._copy("_method", broken)

    with place.open(chain(breaks, metrics)) as rpc:
        replies = [rpc.call("a") for _ in range(3)]

    assert all(reply.ok for reply in replies)
    assert len(rpc.attempts) == 3
    told = [record for record in caplog.records if record.name == "interpose" and record.levelno >= logging.ERROR]
    assert [record.getMessage() for record in told] == [
        "PrometheusMetrics could not count an RPC; its later failures are not logged"
    ]


def test_a_registry_that_breaks_later(place: Place) -> None:
    """It is not asked again: RPCs pass, and are counted."""
    registry = CollectorRegistry()
    metrics = PrometheusMetrics(registry=registry)
    vars(registry).clear()

    with place.open(metrics) as rpc:
        assert rpc.call(*requests(place)).ok

    assert [state.requests for state in metrics.snapshot()] == [1]
