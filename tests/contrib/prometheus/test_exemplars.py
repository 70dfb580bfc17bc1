"""Exemplars: from a bucket to a trace; and never a reason to fail or miscount an RPC."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from opentelemetry import trace
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest

from interpose import Call, Flow
from interpose.contrib.prometheus import PrometheusMetrics
from interpose.testing import FakeClock, Place, ok, play
from tests.contrib.prometheus.reading import series_of, total
from tests.interceptors.driving import failing, incoming, requests

Code = grpc.StatusCode
IDS = {"trace_id": "0" * 30 + "ab", "span_id": "0" * 14 + "cd"}


@contextmanager
def spanned(sampled: bool = True) -> Iterator[None]:
    """A span is current, as OpenTelemetry's API has it."""
    flags = trace.TraceFlags(trace.TraceFlags.SAMPLED if sampled else trace.TraceFlags.DEFAULT)
    span = trace.NonRecordingSpan(trace.SpanContext(0xAB, 0xCD, False, flags))
    with trace.use_span(span):
        yield


def in_span(call: Call) -> Flow:
    """What stands outside of the metrics and traces."""
    with spanned():
        yield call


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def exemplars(registry: CollectorRegistry) -> dict[str, Any]:
    """The samples that have one, by name and bucket or code."""
    found = {}
    for sample in series_of(registry):
        if sample.exemplar is not None:
            found[f"{sample.name} {sample.labels.get('le') or sample.labels.get('grpc_code')}"] = sample.exemplar
    return found


def test_the_current_span(registry: CollectorRegistry) -> None:
    """Its ids, beside the seconds and the date: in the bucket that the RPC fell into, and on the counter of its code."""
    clock = FakeClock()
    metrics = PrometheusMetrics(registry=registry, histogram=(1.0, 2.0), wall=lambda: 1_700_000_000.0)
    with spanned():
        play(metrics, [ok(delay=1.5)], clock=clock, **incoming())

    found = exemplars(registry)
    assert set(found) == {"grpc_server_handled_total OK", "grpc_server_handling_seconds_bucket 2.0"}
    assert {str(exemplar.labels) for exemplar in found.values()} == {str(IDS)}
    assert found["grpc_server_handling_seconds_bucket 2.0"].value == 1.5
    assert found["grpc_server_handled_total OK"].value == 1.0
    assert {exemplar.timestamp for exemplar in found.values()} == {1_700_000_000.0}


def test_the_format_of_a_scrape(registry: CollectorRegistry) -> None:
    """OpenMetrics, as Prometheus asks for it."""
    metrics = PrometheusMetrics(registry=registry, histogram=(1.0,), wall=lambda: 7.5)
    with spanned():
        play(metrics, [failing(Code.ABORTED)], **incoming())

    text = generate_latest(registry).decode()

    assert f'le="1.0"}} 1.0 # {{span_id="{IDS["span_id"]}",trace_id="{IDS["trace_id"]}"}} 0.0 7.5' in text
    assert text.endswith("# EOF\n")


def test_the_last_one_counts(registry: CollectorRegistry) -> None:
    """Of a bucket, whatever the codes were; of a code, whatever the buckets were."""
    seen = iter([{"trace_id": "one"}, {"trace_id": "two"}, {"trace_id": "three"}])
    dates = iter([1.0, 2.0, 3.0])
    metrics = PrometheusMetrics(
        registry=registry, histogram=(1.0,), exemplars=lambda: next(seen), wall=lambda: next(dates)
    )
    for outcome in (failing(Code.ABORTED), failing(Code.NOT_FOUND), failing(Code.ABORTED)):
        play(metrics, [outcome], **incoming())

    told = {place: exemplar.labels["trace_id"] for place, exemplar in exemplars(registry).items()}
    assert told == {
        "grpc_server_handled_total Aborted": "three",
        "grpc_server_handled_total NotFound": "two",
        "grpc_server_handling_seconds_bucket 1.0": "three",
    }


def test_in_all_places(place: Place, registry: CollectorRegistry) -> None:
    """The span that an interceptor further out has made current."""
    metrics = PrometheusMetrics(registry=registry, histogram=True)

    with place.open(in_span, metrics) as rpc:
        assert rpc.call(*requests(place)).ok

    assert {str(exemplar.labels) for exemplar in exemplars(registry).values()} == {str(IDS)}


@pytest.mark.parametrize("sampled", [True, False])
def test_a_span_that_leads_nowhere(sampled: bool, registry: CollectorRegistry) -> None:
    """One that is not sampled is in no store of traces; and none may be asked for."""
    metrics = PrometheusMetrics(registry=registry, exemplars=not sampled)
    with spanned(sampled):
        play(metrics, [failing(Code.ABORTED)], **incoming())
    play(metrics, [failing(Code.ABORTED)], **incoming())

    assert not exemplars(registry)


def test_without_opentelemetry(registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not imported for this."""
    monkeypatch.delitem(sys.modules, "opentelemetry.trace")
    play(PrometheusMetrics(registry=registry), [failing(Code.ABORTED)], **incoming())

    assert "opentelemetry.trace" not in sys.modules
    assert not exemplars(registry)


def broken() -> Any:
    raise RuntimeError("no trace today")


@pytest.mark.parametrize(
    "given",
    [
        {"trace_id": "x" * 120, "y": ""},
        {"trace_id": 7},
        {7: "x"},
        {"trace id": "x"},
        "no labels",
        {},
        None,
        7,
    ],
    ids=str,
)
def test_labels_that_prometheus_would_refuse(given: Any, registry: CollectorRegistry) -> None:
    """More than 128 characters, or no texts: left out, and the RPC is counted once."""
    metrics = PrometheusMetrics(registry=registry, histogram=True, exemplars=lambda: given)

    played = play(metrics, [failing(Code.ABORTED)], **incoming())

    assert played.outcome.code is Code.ABORTED
    assert total(registry, "grpc_server_handled_total") == 1
    assert not exemplars(registry)
    generate_latest(registry)


def test_labels_of_128_characters(registry: CollectorRegistry) -> None:
    """Are just not too many, names included."""
    metrics = PrometheusMetrics(registry=registry, exemplars=lambda: {"trace_id": "x" * 120})

    play(metrics, [failing(Code.ABORTED)], **incoming())

    assert len(exemplars(registry)) == 1


def test_a_function_that_fails(registry: CollectorRegistry) -> None:
    """An RPC without an exemplar is no harm."""
    metrics = PrometheusMetrics(registry=registry, exemplars=broken)

    play(metrics, [failing(Code.ABORTED)], **incoming())

    assert total(registry, "grpc_server_started_total") == total(registry, "grpc_server_handled_total") == 1
    assert not exemplars(registry)


class Broken(trace.NonRecordingSpan):
    def get_span_context(self) -> trace.SpanContext:
        raise RuntimeError("no ids today")


def test_a_span_that_fails(registry: CollectorRegistry) -> None:
    """Nor is one of a span that is somebody's own."""
    with trace.use_span(Broken(trace.INVALID_SPAN_CONTEXT)):
        play(PrometheusMetrics(registry=registry), [failing(Code.ABORTED)], **incoming())

    assert total(registry, "grpc_server_handled_total") == 1
    assert not exemplars(registry)
