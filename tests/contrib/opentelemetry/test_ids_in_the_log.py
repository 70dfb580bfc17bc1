"""AccessLog: the ids of trace and span in its records, wherever it stands."""

import logging
import subprocess
import sys
from typing import Any

import pytest
from opentelemetry import trace

from interpose import chain, context
from interpose.contrib.opentelemetry import Tracing
from interpose.interceptors import AccessLog
from interpose.testing import Place, play
from tests.contrib.opentelemetry.receiver import Exporting
from tests.interceptors.driving import incoming, requests


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.ids: list[Any] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.ids.append((record.__dict__.get("trace_id"), record.__dict__.get("span_id")))


def log_to(kept: Kept, **options: Any) -> AccessLog:
    logger = logging.Logger("test.access", logging.DEBUG)  # noqa: LOG001  it must not outlive its test
    logger.addHandler(kept)
    return AccessLog(logger, **options)


@pytest.mark.parametrize("outside", [False, True], ids=["log inside", "log outside"])
def test_ids_are_those_of_the_span(place: Place, outside: bool, exporting: Exporting) -> None:
    """At the end of each RPC, whichever of the two is outermost."""
    kept, tracing = Kept(), Tracing(exporting.provider)
    log = log_to(kept)
    with place.open(*([log, tracing] if outside else [tracing, log])) as rpc:
        rpc.call(*requests(place))
        [span] = exporting.spans(1)

    assert kept.ids == [(span.trace_id, span.span_id)]


def test_ids_are_in_all_records(exporting: Exporting) -> None:
    """Of the start and of messages too."""
    kept = Kept()
    with_all = log_to(kept, start=True, payloads=True)
    play(chain(Tracing(exporting.provider), with_all), **incoming())
    [span] = exporting.spans(1)

    assert len(kept.ids) == 4
    assert set(kept.ids) == {(span.trace_id, span.span_id)}


def test_without_a_span_there_are_none() -> None:
    """And no fields for them."""
    kept = Kept()
    play(log_to(kept), **incoming())

    assert kept.ids == [(None, None)]
    assert context.trace_ids() is None


def test_ids_have_all_of_their_digits() -> None:
    """Also small ones: one id in sixteen begins with a zero."""
    with trace.use_span(trace.NonRecordingSpan(trace.SpanContext(1, 2, is_remote=False))):
        assert context.trace_ids() == (f"{1:032}", f"{2:016}")


class NoIds(trace.NonRecordingSpan):
    def get_span_context(self) -> trace.SpanContext:
        raise RuntimeError("no ids today")


@pytest.mark.parametrize("current", [NoIds(trace.INVALID_SPAN_CONTEXT), "no span", trace.INVALID_SPAN], ids=repr)
def test_what_is_current_has_no_ids(current: Any) -> None:
    """A span of somebody's own that fails, what is no span, and one that stands for none: the line is written all the same."""
    kept = Kept()
    with trace.use_span(current):
        play(log_to(kept), **incoming())

        assert context.trace_ids() is None
    assert kept.ids == [(None, None)]


def test_a_span_of_an_api_that_is_imported_late() -> None:
    """Lines without ids were written before."""
    program = (
        "from interpose import context; assert context.trace_ids() is None; from opentelemetry import trace; "
        "span = trace.NonRecordingSpan(trace.SpanContext(1, 2, False)); current = trace.use_span(span); current.__enter__(); "
        "assert context.trace_ids() == ('0' * 31 + '1', '0' * 15 + '2')"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_api_is_not_imported_for_it() -> None:
    """An application without OpenTelemetry pays for one look."""
    program = (
        "import sys; from interpose.interceptors import AccessLog; from interpose.testing import play; "
        "from interpose import context; play(AccessLog()); assert context.trace_ids() is None; "
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
