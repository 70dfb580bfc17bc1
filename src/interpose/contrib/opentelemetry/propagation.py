"""The way of a trace from process to process: read from what came in, and written to what goes out.

By the propagators that the application chose (`OTEL_PROPAGATORS`, `set_global_textmap`): W3C's trace context and baggage
unless it chose others.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.propagate import get_global_textmap
from opentelemetry.propagators.textmap import Getter, Setter, TextMapPropagator
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from interpose._call import Call
from interpose._metadata import Metadata, Metadatum

Pairs = list[Metadatum]


class _Reader(Getter[Metadata]):
    """How a propagator reads metadata. Values in bytes are none of its."""

    def get(self, carrier: Metadata, key: str) -> list[str] | None:
        return [value for name, value in carrier if name == key and isinstance(value, str)] or None

    def keys(self, carrier: Metadata) -> list[str]:
        return [key for key, _ in carrier]


class _Writer(Setter[Pairs]):
    """How a propagator writes what is to be added."""

    def set(self, carrier: Pairs, key: str, value: str) -> None:
        carrier.append(Metadatum(key.lower(), value))


_READER, _WRITER = _Reader(), _Writer()


# What W3C's propagators begin with; without any of these there is nothing for them to read.
_W3C: dict[type[Any], str] = {TraceContextTextMapPropagator: "traceparent", W3CBaggagePropagator: "baggage"}


@lru_cache(8)  # an application has one
def _keys_of(propagator: TextMapPropagator) -> frozenset[str] | None:
    """The keys of which one must be there for it to find anything; None where that is not known."""
    kinds = [type(part) for part in getattr(propagator, "_propagators", (propagator,))]
    return frozenset(_W3C[kind] for kind in kinds) if all(kind in _W3C for kind in kinds) else None


def extracted(metadata: Metadata, context: Context) -> Context:
    """The context with what these metadata carry."""
    propagator = get_global_textmap()
    keys = _keys_of(propagator)
    if keys is not None and not any(key in keys for key, _ in metadata):
        return context
    return propagator.extract(metadata, context, getter=_READER)


def injected(call: Call, context: Context) -> Call:
    """The call with what the context carries. A key that it has already is replaced: with two, a trace is cut."""
    pairs: Pairs = []
    propagator = get_global_textmap()
    propagator.inject(pairs, context, setter=_WRITER)
    if not pairs:
        return call
    there = call.metadata
    if there:
        there = there.without(*(key for key, _ in pairs))
    if _keys_of(propagator) is None:  # one that may write what the wire would refuse
        return call._copy("_metadata", there.with_pairs(*pairs))
    return call._copy("_metadata", Metadata.trusted((*there, *pairs)))
