"""Exemplars: which trace an RPC of a bucket belonged to."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from prometheus_client.core import Exemplar

from interpose.context import span_context
from interpose.contrib.prometheus.counts import Seen
from interpose.contrib.prometheus.naming import LABEL

MOST = 128  # characters of all labels of an exemplar together, names and values; OpenMetrics 1.0, "Exemplars"

API = "opentelemetry.trace"


def current_span() -> Callable[[], Any] | None:
    """What gives the context of the current span, if it is sampled; None where the application has no OpenTelemetry."""
    return _sampled if API in sys.modules else None  # never imported by us


def _sampled() -> Any:
    try:
        span = span_context()
        return span if span is not None and span.trace_flags & 1 and span.trace_id else None
    except Exception:  # of a span that is somebody's own: an RPC without an exemplar is no harm
        return None


def from_function(function: Callable[[], Mapping[str, str] | None]) -> Callable[[], Any]:
    """What gives the labels that an application's function gives, or None."""

    def labels() -> Any:
        try:
            return function()
        except Exception:
            return None

    return labels


def exemplar_of(seen: Seen | None, value: float | None = None) -> Exemplar | None:
    """An exemplar as a scrape shows it; None if there is none, or Prometheus would refuse it.

    value: what is shown beside it; None: the seconds of the RPC.
    """
    if seen is None:
        return None
    trace, seconds, when = seen
    try:
        labels = dict(trace) if isinstance(trace, Mapping) else _ids(trace)
        fit = all(map(LABEL.fullmatch, labels)) and sum(len(name) + len(text) for name, text in labels.items()) <= MOST
        if not fit:
            return None
        return Exemplar(labels, seconds if value is None else value, when)
    except Exception:  # labels that are no texts
        return None


def _ids(context: Any) -> dict[str, str]:
    """The labels that Grafana looks for, of OpenTelemetry's span context."""
    return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}
