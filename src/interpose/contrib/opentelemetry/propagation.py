"""The way of a trace from process to process: read from what came in, and written to what goes out.

By the propagators that the application chose (`OTEL_PROPAGATORS`, `set_global_textmap`): W3C's trace context and baggage
unless it chose others. What those two do with a plain `traceparent`, and nothing else, takes a short way here: every RPC
pays for it, and the propagators take three times as long.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from opentelemetry.baggage import set_baggage
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.propagate import get_global_textmap
from opentelemetry.propagators.textmap import Getter, Setter, TextMapPropagator
from opentelemetry.trace import INVALID_SPAN, NonRecordingSpan, SpanContext, TraceFlags, TraceState, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from interpose._call import Call
from interpose._metadata import Metadata, Metadatum

PARENT, STATE, BAGGAGE = "traceparent", "tracestate", "baggage"
[SPAN] = set_span_in_context(INVALID_SPAN, Context())  # where the API keeps the current span

Pairs = list[Metadatum]


class _Reader(Getter[Metadata]):
    """How a propagator reads metadata. Values in bytes are none of its."""

    def get(self, carrier: Metadata, key: str) -> list[str] | None:
        return [value for value in carrier.get_all(key) if isinstance(value, str)] or None

    def keys(self, carrier: Metadata) -> list[str]:
        return [key for key, _ in carrier]


class _Writer(Setter[Pairs]):
    """How a propagator writes what is to be added."""

    def set(self, carrier: Pairs, key: str, value: str) -> None:
        carrier.append(Metadatum(key.lower(), value))


_READER, _WRITER = _Reader(), _Writer()


@lru_cache(8)  # an application has one
def _is_w3c(propagator: TextMapPropagator) -> bool:
    """Is it the default: W3C's two, and no other?"""
    kinds: list[type[Any]] = [type(part) for part in getattr(propagator, "_propagators", ())]
    return kinds == [TraceContextTextMapPropagator, W3CBaggagePropagator]


# --- in -------------------------------------------------------------------------------------------------------------------

_PLAIN = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")  # W3C Trace Context, version 00


def extracted(metadata: Metadata, context: Context) -> Context:
    """The context with what these metadata carry."""
    propagator = get_global_textmap()
    if not _is_w3c(propagator):
        return propagator.extract(metadata, context, getter=_READER)
    found = [pair for pair in metadata if pair[0] in _KEYS]
    if not found:
        return context
    if len(found) == 1 and (parent := _plain_parent(*found[0])) is not None:
        return Context({**context, SPAN: NonRecordingSpan(parent)})
    return propagator.extract(metadata, context, getter=_READER)


_KEYS = frozenset((PARENT, STATE, BAGGAGE))
_TRACE_FLAGS = {f"{flags:02x}": TraceFlags(flags) for flags in range(256)}


def _plain_parent(key: str, value: str | bytes) -> SpanContext | None:
    """The parent that a `traceparent` says, if that is all there is to it."""
    found = _PLAIN.fullmatch(value) if key == PARENT and isinstance(value, str) else None
    if found is None:
        return None
    trace, span, flags = found.groups()
    trace_id, span_id = int(trace, 16), int(span, 16)
    if not trace_id or not span_id:
        return None
    return SpanContext(trace_id, span_id, True, _TRACE_FLAGS[flags])


# --- out ------------------------------------------------------------------------------------------------------------------


[_BAGGAGE] = set_baggage("key", "value", Context())  # where the API keeps all baggage
_NO_STATE = TraceState.get_default()  # one object, in nearly every span's context
_FLAGS = tuple(f"{flags:02x}" for flags in range(256))


def _parent_of(span: SpanContext) -> str:
    """The `traceparent` that says it; half as dear as by format."""
    trace_id, span_id = span.trace_id.to_bytes(16, "big").hex(), span.span_id.to_bytes(8, "big").hex()
    return f"00-{trace_id}-{span_id}-{_FLAGS[span.trace_flags & 255]}"


def injected(call: Call, context: Context, span: SpanContext) -> Call:
    """The call with what the context carries. A key that it has already is replaced: with two, a trace is cut.

    span: that of the context.
    """
    propagator, there = get_global_textmap(), call.metadata
    w3c, state = _is_w3c(propagator), span.trace_state
    if w3c and (state is _NO_STATE or not state) and not (context and context.get(_BAGGAGE)) and span.is_valid:
        others = there.without(PARENT) if there and there.get(PARENT) is not None else there
        return call._copy("_metadata", others._plus(PARENT, _parent_of(span)))
    pairs: Pairs = []
    propagator.inject(pairs, context, setter=_WRITER)
    if not pairs:
        return call
    others = there.without(*(key for key, _ in pairs))
    # Another propagator may write what the wire would refuse.
    return call._copy("_metadata", Metadata.trusted((*others, *pairs)) if w3c else others.with_pairs(*pairs))
