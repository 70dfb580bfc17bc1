"""Tracing: whatever breaks behind it, the RPC is answered."""

from typing import Any

import grpc
import pytest
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags
from opentelemetry.trace import TracerProvider as Provider

from interpose import Kind
from interpose.contrib.opentelemetry import Tracing
from interpose.interceptors import Retry
from interpose.testing import Place, failed, ok
from tests.contrib.opentelemetry.driving import traced
from tests.interceptors.driving import requests


class Span(NonRecordingSpan):
    """One that records, and breaks as soon as anything is done with it."""

    def is_recording(self) -> bool:
        return True

    def _break(self, *_: Any, **__: Any) -> None:
        raise RuntimeError("broken")

    set_attribute = set_attributes = set_status = add_event = end = record_exception = _break


class Breaking(Provider):
    """Of such spans; or none at all can be made. works: how many can, before that."""

    def __init__(self, works: int) -> None:
        self._works = works

    def get_tracer(self, *_: Any, **__: Any) -> Any:
        return self

    def start_span(self, *_: Any, **__: Any) -> Any:
        self._works -= 1
        if self._works < 0:
            raise RuntimeError("broken")
        return Span(SpanContext(1, 1, is_remote=False, trace_flags=TraceFlags(1)))


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.name == "interpose"]


ONCE = ["Tracing failed; RPCs go on, and its later failures are not logged"]


@pytest.mark.parametrize("works", [0, 99], ids=["at the start", "at the end"])
def test_a_tracer_that_breaks(place: Place, works: int, caplog: pytest.LogCaptureFixture) -> None:
    """It is said once."""
    with place.open(Tracing(Breaking(works))) as rpc:
        replies = [rpc.call(*requests(place)) for _ in range(3)]

    assert all(reply.ok for reply in replies)
    assert said(caplog) == ONCE


@pytest.mark.parametrize(("attempts", "works"), [("events", 99), ("spans", 1), ("spans", 99)])
def test_a_tracer_that_breaks_at_an_attempt(attempts: Any, works: int, caplog: pytest.LogCaptureFixture) -> None:
    """The same."""
    tracing, again = Tracing(Breaking(works), attempts=attempts), Retry(2, safe=True, backoff=lambda _: 0.0)
    script = [failed(grpc.StatusCode.UNAVAILABLE), ok()]
    with traced("sync", Kind.UNARY_UNARY, None, client=[tracing, again], script=script) as rpc:
        assert rpc.call() is grpc.StatusCode.OK

    assert said(caplog) == ONCE


def test_a_processor_that_breaks(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """As an exporter does that is called at once."""

    class Processor(SpanProcessor):
        def on_end(self, span: Any) -> None:
            raise RuntimeError("broken")

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(Processor())
    with place.open(Tracing(provider)) as rpc:
        replies = [rpc.call(*requests(place)) for _ in range(2)]

    assert all(reply.ok for reply in replies)
    assert said(caplog) == ONCE
