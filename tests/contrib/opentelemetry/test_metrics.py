"""OtelMetrics: how long RPCs take, by method and code, as a reader of the SDK sees it."""

import logging
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from opentelemetry import metrics as api
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider

from interpose import Call, Flow, Kind
from interpose.contrib.opentelemetry import OtelMetrics, Tracing
from interpose.contrib.opentelemetry.metrics import MAX_SETS
from interpose.testing import FakeClock, Place, failed, ok, play, raised
from tests.contrib.opentelemetry.driving import traced
from tests.interceptors.driving import incoming, is_server, outgoing, requests

Code = grpc.StatusCode


class Metered:
    """A provider of the SDK and its reader."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self.provider = MeterProvider([self._reader], shutdown_on_exit=False)

    def points(self, name: str) -> list[Any]:
        """What a metric has by now."""
        data = self._reader.get_metrics_data()
        found = [
            metric
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
        ]
        assert len(found) <= 1
        self.unit = found[0].unit if found else ""
        return list(found[0].data.data_points) if found else []


@pytest.fixture
def metered() -> Iterator[Metered]:
    metered = Metered()
    yield metered
    metered.provider.shutdown()


def side_of(place: Place) -> str:
    return f"rpc.{place.side.value}.call.duration"


def test_an_answer_in_every_place(place: Place, metered: Metered) -> None:
    """One point, with the attributes and boundaries of the conventions, and nothing from the other side."""
    with place.open(OtelMetrics(metered.provider)) as rpc:
        rpc.call(*requests(place))
        rpc.call(*requests(place))

    [point] = metered.points(side_of(place))
    attributes = dict(point.attributes)
    assert (metered.unit, point.count) == ("s", 2)
    assert tuple(point.explicit_bounds) == (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
    if not is_server(place) and "server.address" in attributes:  # the oldest grpc.aio does not tell its target
        assert (attributes.pop("server.address"), type(attributes.pop("server.port"))) == ("127.0.0.1", int)
    assert attributes == {
        "rpc.system.name": "grpc",
        "rpc.method": f"interpose.testing.Echo/{place.kind.value}",
        "rpc.status_code": "OK",
    }


@pytest.mark.parametrize(
    ("act", "server", "client"),
    [
        (failed(Code.NOT_FOUND), ("NOT_FOUND", None), ("NOT_FOUND", "NOT_FOUND")),
        (failed(Code.INTERNAL), ("INTERNAL", "INTERNAL"), ("INTERNAL", "INTERNAL")),
        (raised(KeyError("id")), ("UNKNOWN", "UNKNOWN"), ("UNKNOWN", "UNKNOWN")),
    ],
)
@pytest.mark.parametrize("sort", ["sync", "async"])
def test_failures(act: Any, server: Any, client: Any, sort: str, metered: Metered) -> None:
    """By their code; `error.type` where it is an error for that side."""
    with traced(sort, Kind.UNARY_STREAM, OtelMetrics(metered.provider), script=[act]) as rpc:
        rpc.call()

    for side, expected in (("server", server), ("client", client)):
        [point] = metered.points(f"rpc.{side}.call.duration")
        assert (point.attributes["rpc.status_code"], point.attributes.get("error.type")) == expected


def test_the_time_is_that_of_the_whole_stream(metered: Metered) -> None:
    """From the call of the stub to the end."""
    clock = FakeClock()
    play(OtelMetrics(metered.provider), [ok(delay=0.3)], clock=clock, **outgoing(Kind.UNARY_STREAM))

    [point] = metered.points("rpc.client.call.duration")
    assert point.sum == pytest.approx(0.3)


def test_the_old_names_beside_the_new_ones(metered: Metered, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with attributes and a unit of its own."""
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "http, rpc/dup")
    clock = FakeClock()
    play(OtelMetrics(metered.provider), [ok(delay=0.3)], clock=clock, **incoming())

    [new] = metered.points("rpc.server.call.duration")
    [old] = metered.points("rpc.server.duration")
    assert metered.unit == "ms"
    assert (new.sum, old.sum) == (pytest.approx(0.3), pytest.approx(300))
    assert dict(new.attributes)["rpc.method"] == "pay.v1.Cards/Charge"
    assert dict(old.attributes) == {
        "rpc.system": "grpc",
        "rpc.service": "pay.v1.Cards",
        "rpc.method": "Charge",
        "rpc.grpc.status_code": 0,
    }


def test_only_the_old_names(metered: Metered) -> None:
    """If that is asked for."""
    play(OtelMetrics(metered.provider, semconv="old"), **incoming())

    assert metered.points("rpc.server.call.duration") == []
    assert len(metered.points("rpc.server.duration")) == 1


def test_the_name_of_the_code_as_it_was(metered: Metered) -> None:
    """Until the conventions have settled it."""
    play(OtelMetrics(metered.provider, status="rpc.response.status_code"), **incoming())

    [point] = metered.points("rpc.server.call.duration")
    assert point.attributes["rpc.response.status_code"] == "OK"


def test_many_interceptors_share_one_set_of_instruments(metered: Metered, caplog: pytest.LogCaptureFixture) -> None:
    """The SDK would make metrics of the same name of them, and warn."""
    caplog.set_level(logging.WARNING)
    for _ in range(5):
        play(OtelMetrics(metered.provider), **incoming())

    [point] = metered.points("rpc.server.call.duration")
    assert point.count == 5
    assert caplog.records == []


def test_methods_without_end_are_one(metered: Metered) -> None:
    """A generic handler may answer to any name; the SDK would fold more than 2000 sets of attributes, known ones too."""
    measured = OtelMetrics(metered.provider)
    for number in range(MAX_SETS + 200):
        play(measured, **incoming(name=f"/a.B/C{number}"))
    for number in range(50):
        play(OtelMetrics(metered.provider), [failed(Code.ABORTED)], **incoming(name=f"/a.B/C{number}"))
        play(measured, **incoming(name="nonsense"))
    points = {
        (point.attributes["rpc.method"], point.attributes["rpc.status_code"]): point.count
        for point in metered.points("rpc.server.call.duration")
    }

    assert MAX_SETS < len(points) <= MAX_SETS + 17
    assert (points["_OTHER", "OK"], points["_OTHER", "ABORTED"]) == (200 + 50, 50)
    assert points["a.B/C0", "OK"] == 1


def test_a_sampled_span_is_the_exemplar(metered: Metered) -> None:
    """Also if metrics stand outside of traces."""
    traces = TracerProvider(shutdown_on_exit=False)
    seen: list[Any] = []

    def look(call: Call) -> Flow:
        yield call
        seen.append(trace.get_current_span().get_span_context().span_id)

    with traced("sync", Kind.UNARY_UNARY, None, server=[OtelMetrics(metered.provider), Tracing(traces), look]) as rpc:
        rpc.call()

    [point] = metered.points("rpc.server.call.duration")
    assert [exemplar.span_id for exemplar in point.exemplars] == seen


class Broken(MeterProvider):
    """Whose meters break: when an instrument is made, or when it records."""

    def __init__(self, late: bool) -> None:
        self._late = late

    def get_meter(self, *_: Any, **__: Any) -> Any:
        outer = self

        class Meter(api.NoOpMeter):
            def create_histogram(self, *_: Any, **__: Any) -> Any:
                if not outer._late:
                    raise RuntimeError("no memory")
                return self

            def record(self, *_: Any, **__: Any) -> None:
                raise RuntimeError("no memory")

        return Meter("broken")


@pytest.mark.parametrize("late", [False, True])
def test_a_meter_that_breaks_hurts_no_rpc(place: Place, late: bool, caplog: pytest.LogCaptureFixture) -> None:
    """It is answered, and the log says so once."""
    with place.open(OtelMetrics(Broken(late))) as rpc:
        replies = [rpc.call(*requests(place)) for _ in range(3)]

    assert all(reply.ok for reply in replies)
    assert [record.message for record in caplog.records if record.name == "interpose"] == [
        "OtelMetrics failed; RPCs go on, and its later failures are not logged"
    ]


def test_a_provider_that_cannot_be_remembered() -> None:
    """It has instruments of its own for each interceptor."""

    class Slotted:
        __slots__ = ("meters",)

        def __init__(self) -> None:
            self.meters = 0

        def get_meter(self, *_: Any, **__: Any) -> Any:
            self.meters += 1
            return api.NoOpMeter("one")

    provider: Any = Slotted()
    play(OtelMetrics(provider), **incoming())
    play(OtelMetrics(provider), **incoming())

    assert provider.meters == 2


def test_without_a_provider_nothing_is_recorded() -> None:
    """The global one may be set later."""
    assert play(OtelMetrics(), **incoming()).outcome.ok


def test_called_by_a_flow_itself(metered: Metered) -> None:
    """The same."""
    measured = OtelMetrics(metered.provider)

    def calls(call: Call) -> Flow:
        return (yield from measured(call))

    play(calls, **incoming())

    assert len(metered.points("rpc.server.call.duration")) == 1
