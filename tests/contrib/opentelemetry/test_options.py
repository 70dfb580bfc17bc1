"""Tracing and OtelMetrics: their options, what the environment says, and what is missing."""

import importlib
import sys
from typing import Any

import pytest
from opentelemetry import context

from interpose import describe
from interpose.contrib.opentelemetry import OtelMetrics, Tracing
from interpose.testing import play
from tests.contrib.opentelemetry.receiver import Exporting
from tests.interceptors.driving import incoming, outgoing

HEALTH = "/grpc.health.v1.Health/Check"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (
            {"provider": object()},
            "provider must be a TracerProvider, like that of opentelemetry.sdk.trace, or None, not",
        ),
        ({"semconv": "newest"}, """semconv must be "new", "old", "both" or None, not 'newest'"""),
        ({"status": "code"}, """status must be "rpc.status_code" or "rpc.response.status_code", not 'code'"""),
        ({"attempts": "some"}, """attempts must be "events", "spans" or None, not 'some'"""),
        ({"exclude": ["grpc.health.v1.Health"]}, "exclude 'grpc.health.v1.Health' names no method"),
        ({"exclude": 5}, "exclude 5 is no text"),
        ({"exceptions": "yes"}, "exceptions must be True or False, not 'yes'"),
    ],
)
def test_options_of_tracing_that_make_no_sense_are_refused(options: dict[str, Any], complaint: str) -> None:
    """With what to write instead."""
    with pytest.raises(ValueError, match=r"^Tracing: ") as refused:
        Tracing(**options)

    assert complaint in str(refused.value)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"provider": 5}, "provider must be a MeterProvider, like that of opentelemetry.sdk.metrics, or None, not 5"),
        ({"semconv": 1}, 'semconv must be "new", "old", "both" or None, not 1'),
        ({"status": None}, 'status must be "rpc.status_code" or "rpc.response.status_code", not None'),
    ],
)
def test_options_of_metrics_that_make_no_sense_are_refused(options: dict[str, Any], complaint: str) -> None:
    """The same."""
    with pytest.raises(ValueError, match=r"^OtelMetrics: ") as refused:
        OtelMetrics(**options)

    assert complaint in str(refused.value)


def test_every_fault_is_told() -> None:
    """At once."""
    faulty: Any = {"semconv": "x", "status": "y", "attempts": "z"}
    with pytest.raises(ValueError, match=r"semconv .*; status .*; attempts "):
        Tracing(**faulty)


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install."""
    for name in [name for name in sys.modules if name.startswith("interpose.contrib.opentelemetry")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", None)

    with pytest.raises(ImportError, match=r'pip install "interpose\[otel\]"'):
        importlib.import_module("interpose.contrib.opentelemetry")


def test_health_checks_have_no_span(exporting: Exporting) -> None:
    """Unless they are asked for."""
    play(Tracing(exporting.provider), **incoming(name=HEALTH))
    exporting.spans(0)
    play(Tracing(exporting.provider, exclude=()), **incoming(name=HEALTH))
    exporting.spans(1)


def test_methods_are_excluded_by_patterns(exporting: Exporting) -> None:
    """On both sides; what is excluded carries nothing either."""
    tracing = Tracing(exporting.provider, exclude=["/pay.v1.Cards/Ch*", "/a.B/{C,D}"])
    played = play(tracing, **outgoing())
    play(tracing, **incoming(name="/a.B/D"))
    play(tracing, **incoming(name="/a.B/E"))

    assert "traceparent" not in played.sent[0].call.metadata
    assert [span.name for span in exporting.spans(1)] == ["a.B/E"]


def test_services_are_excluded_by_the_environment(exporting: Exporting, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the variable that opentelemetry-instrumentation-grpc reads, beside the patterns."""
    monkeypatch.setenv("OTEL_PYTHON_GRPC_EXCLUDED_SERVICES", "pay.v1.Cards, a.B")
    tracing = Tracing(exporting.provider)
    for name in ("/pay.v1.Cards/Charge", "/a.B/C", HEALTH, "/a.BB/C"):
        play(tracing, **incoming(name=name))

    assert [span.name for span in exporting.spans(1)] == ["a.BB/C"]


@pytest.mark.parametrize(
    ("said", "old"), [("", False), ("rpc", False), ("http/dup", False), ("rpc/dup", True), ("http, rpc/dup,rpc", True)]
)
def test_the_environment_asks_for_both_generations(
    said: str, old: bool, exporting: Exporting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the conventions have it: `rpc/dup` wins."""
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", said)
    play(Tracing(exporting.provider), **incoming())
    [span] = exporting.spans(1)

    assert ("rpc.system" in span.attributes) is old
    assert span.attributes["rpc.system.name"] == "grpc"


def test_an_option_wins_over_the_environment(exporting: Exporting, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was written for this very interceptor."""
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "rpc/dup")
    play(Tracing(exporting.provider, semconv="new"), **incoming())
    [span] = exporting.spans(1)

    assert "rpc.system" not in span.attributes


def test_what_an_exporter_sends_has_no_span(exporting: Exporting) -> None:
    """It says so in the context, or sending spans would make spans."""
    suppressed = getattr(context, "_SUPPRESS_INSTRUMENTATION_KEY")  # noqa: B009  as exporters do
    context.attach(context.set_value(suppressed, True))
    played = play(Tracing(exporting.provider), **outgoing())

    assert "traceparent" not in played.sent[0].call.metadata
    exporting.spans(0)


def test_they_print_as_they_were_made() -> None:
    """Like all batteries."""
    assert repr(Tracing(attempts="spans", exceptions=True)) == "Tracing(attempts=…, exceptions=True)"
    assert repr(OtelMetrics()) == "OtelMetrics()"


def test_a_stack_in_words() -> None:
    """Each says what it does."""
    told = describe(Tracing(), OtelMetrics())

    assert "Tracing" in told
    assert "Make a span of each RPC" in told
    assert "Measure how long each RPC takes" in told
