"""The arithmetic: nothing is lost among threads, and quantiles are Prometheus' own."""

import gc
import math
import sys
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from interpose import Kind, Method, Side
from interpose.contrib.prometheus import BUCKETS, MethodState, PrometheusMetrics
from interpose.contrib.prometheus.counts import CountsInTurns, MethodCounts
from interpose.testing import FakeClock, ok, play
from tests.contrib.prometheus.reading import series_of, shown, total
from tests.interceptors.driving import failing, incoming, outgoing
from tests.protos.compiled import Generated

Code = grpc.StatusCode
UNARY = ("unary", "a.B", "C")


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads that are switched as often as can be."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("kind", [MethodCounts, CountsInTurns])
def test_nothing_is_lost_among_threads(kind: type[MethodCounts]) -> None:
    """Eight threads that begin and end RPCs at once: each is counted."""
    counts = kind(UNARY, None, BUCKETS)
    times = 5_000 if kind is MethodCounts else 1_000
    codes = list(Code)

    def work() -> None:
        for turn in range(times):
            counts.begun()
            counts.request_passed(None)
            counts.response_passed(None)
            counts.ended(codes[turn % 17], 0.001 * turn, turn % 3, None)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert counts.started == counts.handled == counts.requests == counts.responses == 8 * times
    assert counts.seconds == pytest.approx(8 * 0.001 * times * (times - 1) / 2)
    assert counts.attempts == 8 * sum(turn % 3 for turn in range(times))
    assert counts.buckets()[-1] == 8 * times


def test_an_end_in_the_middle_of_a_scrape() -> None:
    """The garbage collector may end an RPC on the thread that is collecting: nothing stands still, and nothing is lost."""
    registry = CollectorRegistry()
    metrics = PrometheusMetrics(registry=registry, histogram=True)
    play(metrics, [failing(Code.ABORTED)], **incoming())

    class Dropped:
        def __del__(self) -> None:
            play(metrics, [failing(Code.NOT_FOUND)], **incoming())

    for sample in registry.collect():
        dropped: Any = Dropped()
        dropped.itself = dropped
        del dropped
        gc.collect()
        assert sample

    families = len(list(registry.collect()))
    assert total(registry, "grpc_server_handled_total") == 1 + families
    assert total(registry, "grpc_server_started_total") == 1 + families


def test_what_is_scraped_fits_together() -> None:
    """Never more ends than starts, whenever it is looked at; and none in flight when all have ended."""
    registry = CollectorRegistry()
    metrics = PrometheusMetrics(registry=registry, histogram=True)
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            play(metrics, [failing(Code.ABORTED)], **incoming())

    thread = threading.Thread(target=work)
    thread.start()
    try:
        scrapes = [series_of(registry) for _ in range(200)]
    finally:
        stop.set()
        thread.join()

    for samples in scrapes:
        values = {
            sample.name: sample.value for sample in samples if sample.labels.get("grpc_code", "Aborted") == "Aborted"
        }
        if values:
            assert values["grpc_server_handled_total"] <= values["grpc_server_started_total"]
            assert values["interpose_server_rpcs_in_flight"] >= 0
    assert total(registry, "interpose_server_rpcs_in_flight") == 0


@given(
    st.lists(st.floats(0, 20), min_size=1, max_size=30),
    st.lists(st.floats(0.001, 15), min_size=1, max_size=6, unique=True).map(sorted),
)
def test_buckets_count_what_is_at_most_their_bound(seconds: list[float], bounds: list[float]) -> None:
    """As prometheus_client's own histogram does."""
    counts = MethodCounts(UNARY, Kind.UNARY_UNARY, tuple(bounds))
    for one in seconds:
        counts.ended(Code.OK, one, 1, None)

    assert counts.buckets() == [sum(one <= bound for one in seconds) for bound in (*bounds, float("inf"))]


# --- without Prometheus ---------------------------------------------------------------------------------------------


def state_of(*seconds: float, bounds: tuple[float, ...] = (1.0, 2.0, 4.0)) -> MethodState:
    """The snapshot after RPCs that took so long."""
    clock = FakeClock()
    metrics = PrometheusMetrics(registry=CollectorRegistry(), histogram=bounds)
    for one in seconds:
        play(metrics, [ok(delay=one)], clock=clock, **outgoing())
    [state] = metrics.snapshot()
    return state


def test_a_snapshot() -> None:
    """Requests, errors, messages and latency of each method, on each side, without a scrape."""
    clock = FakeClock()
    metrics = PrometheusMetrics(registry=CollectorRegistry())
    play(metrics, [ok(delay=2.0)], clock=clock, **outgoing())
    play(metrics, [failing(Code.ABORTED)], clock=clock, **outgoing())
    play(metrics, [failing(Code.NOT_FOUND)], clock=clock, **incoming(Kind.UNARY_STREAM, name="/a.B/C"))

    server, client = sorted(metrics.snapshot(), key=lambda state: state.side.value, reverse=True)

    assert (client.side, client.service, client.name) == (Side.CLIENT, "pay.v1.Cards", "Charge")
    assert (client.requests, client.in_flight, client.errors) == (2, 0, 1)
    assert client.codes == {Code.OK: 1, Code.ABORTED: 1}
    assert (client.messages_sent, client.messages_received) == (2, 2)
    assert (client.seconds, client.mean) == (2.0, 1.0)
    assert (server.side, server.service, server.name) == (Side.SERVER, "a.B", "C")
    assert (server.messages_received, server.messages_sent) == (1, 0)


def test_a_snapshot_of_nothing() -> None:
    """Before an RPC there is no method; while one is in flight there is no latency."""
    metrics = PrometheusMetrics(registry=CollectorRegistry())
    assert metrics.snapshot() == []

    metrics.preregister(Method("/a.B/C", Kind.UNARY_UNARY))

    [state] = metrics.snapshot()
    assert (state.requests, state.codes, state.mean, state.latency(0.5)) == (0, {}, None, None)


def test_latency_by_buckets() -> None:
    """As histogram_quantile: linear within a bucket, and no more than the last bound."""
    state = state_of(0.5, 1.5, 1.5, 3.0)

    assert state.latency(0.0) == 0.0
    assert state.latency(0.25) == 1.0
    assert state.latency(0.5) == 1.5
    assert state.latency(0.75) == 2.0
    assert state.latency(1.0) == 4.0
    assert state_of(100.0).latency(0.5) == 4.0
    with pytest.raises(ValueError, match="quantile must be from 0 to 1, not 2"):
        state.latency(2)


@given(st.lists(st.floats(0, 3.9), min_size=1, max_size=20), st.floats(0, 1))
def test_latency_is_in_the_bucket_of_the_one_it_speaks_of(seconds: list[float], quantile: float) -> None:
    """It is never off by more than the bucket's width."""
    bounds = (1.0, 2.0, 4.0)
    latency = state_of(*seconds, bounds=bounds).latency(quantile)

    exact = sorted(seconds)[max(math.ceil(quantile * len(seconds)) - 1, 0)]
    high = next(bound for bound in bounds if exact <= bound)
    assert latency is not None
    assert high / 2 - 1 <= latency <= high


# --- at zero --------------------------------------------------------------------------------------------------------


def test_methods_at_zero(generated: Generated) -> None:
    """All series of a service, with each of the 17 codes, before any RPC."""
    registry = CollectorRegistry()
    metrics = PrometheusMetrics(registry=registry, histogram=True)

    metrics.preregister(generated("features_pb2"))

    assert {sample.value for sample in series_of(registry)} == {0}
    handled = shown(registry, "grpc_server_handled_total", "grpc_method", "grpc_code")
    assert len(handled) == 4 * 17
    assert shown(registry, "grpc_server_started_total", "grpc_type", "grpc_method") == {
        "unary Ask": 0,
        "server_stream List": 0,
        "client_stream Collect": 0,
        "bidi_stream Chat": 0,
    }


def test_how_long_a_scrape_gets(generated: Generated) -> None:
    """What docs/prometheus.md says of nine methods: 36 lines each with a histogram, 22 without."""
    for histogram, lines in ((True, 36), (False, 22)):
        registry = CollectorRegistry()
        metrics = PrometheusMetrics(registry=registry, histogram=histogram)
        metrics.preregister(*(Method(f"/a.B/Name{number}", Kind.UNARY_UNARY) for number in range(9)))

        assert len(series_of(registry)) == 9 * lines


def test_methods_of_a_client_at_zero(generated: Generated) -> None:
    """By choice; also by the descriptor of one service, or of a file."""
    described = generated("features_pb2").DESCRIPTOR
    for one in (described, *described.services_by_name.values()):
        registry = CollectorRegistry()
        metrics = PrometheusMetrics(registry=registry)

        metrics.preregister(one, side=Side.CLIENT)

        assert len(shown(registry, "grpc_client_handled_total", "grpc_method", "grpc_code")) == 4 * 17
        assert not shown(registry, "grpc_server_handled_total")


def test_what_cannot_be_declared() -> None:
    """TypeError, which says what can."""
    metrics = PrometheusMetrics(registry=CollectorRegistry())

    with pytest.raises(TypeError, match="give a module that protoc made, like orders_pb2, a descriptor or a Method"):
        metrics.preregister("/a.B/C")
