"""What flows leave for handlers and for the calls that handlers make.

Handlers have a parameter `context` of their own, so what they ask is at the front door too: `interpose.request_id()`,
`interpose.current_call()`, `interpose.deadline()`, `interpose.detached()`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

from interpose._call import Call
from interpose._identity import Identity
from interpose._metadata import Metadata
from interpose._scope import Scope

# What handlers and interceptors ask. All else is for the interceptors and shells that leave the answers.
__all__ = ["current_call", "deadline", "detached", "identity", "real_ip", "request_id", "trace_ids"]


class Inherited(NamedTuple):
    """What an incoming RPC leaves to the calls that its handler makes; noted by `PropagateContext`."""

    deadline: float | None
    metadata: Metadata
    scope: Scope | None


_call: ContextVar[Call | None] = ContextVar("interpose.call", default=None)
_request_id: ContextVar[str | None] = ContextVar("interpose.request_id", default=None)
_real_ip: ContextVar[str | None] = ContextVar("interpose.real_ip", default=None)
_identity: ContextVar[Identity | None] = ContextVar("interpose.identity", default=None)
_inherited: ContextVar[Inherited | None] = ContextVar("interpose.inherited", default=None)


def current_call() -> Call | None:
    """The incoming call that is being handled here, or None outside a handler."""
    return _call.get()


def request_id() -> str | None:
    """The id of the request that is being handled here, or None; left by `RequestId`."""
    return _request_id.get()


def real_ip() -> str | None:
    """The address of the client whose request is being handled here, like "203.0.113.7", or None; left by `RealIp`."""
    return _real_ip.get()


def identity() -> Identity | None:
    """The caller of the call that is being handled here; None where it is not known. Left by `Authenticate`."""
    return _identity.get()


def deadline() -> float | None:
    """When the incoming RPC must have ended, in seconds of the monotonic clock; None without one."""
    call = _call.get()
    return call.deadline if call is not None else None


def trace_ids() -> tuple[str, str] | None:
    """The trace and the span that are current here, as 32 and 16 hexadecimal digits; None without a valid one.

    Of OpenTelemetry, if the application has imported it: we never do.
    """
    try:
        ids = span_context()
        if ids is None or not ids.is_valid:
            return None
        trace, span = ids.trace_id.to_bytes(16, "big"), ids.span_id.to_bytes(8, "big")
        return trace.hex(), span.hex()  # half as dear as by format
    except Exception:  # of a span that is somebody's own: a log without its ids is no harm
        return None


def span_context() -> Any:
    """Used by interceptors: the ids and flags of OpenTelemetry's current span, also if they are invalid; None without a span.

    It may raise for a span that is somebody's own.
    """
    kept = _spans or _find_spans()
    if kept is None or not (current := kept.current()):  # where nothing at all is current, that is quick to see
        return None
    span = current.get(kept.key)
    return None if span is None else span.get_span_context()


class _Spans(NamedTuple):
    """Where OpenTelemetry keeps the current span."""

    current: Callable[[], Any]
    key: str


_spans: _Spans | None = None


def _find_spans() -> _Spans | None:
    """None as long as the application has not imported it. The API looks at every span whether it is one, which is dear."""
    global _spans  # noqa: PLW0603  found once
    if (api := sys.modules.get("opentelemetry.trace")) is None:
        return None
    context = sys.modules["opentelemetry.context"]
    [key] = api.set_span_in_context(api.INVALID_SPAN, context.Context())
    _spans = _Spans(context.get_current, key)
    return _spans


def inherited() -> Inherited | None:
    """What the calls made here inherit from the incoming RPC, or None; left by `PropagateContext`."""
    return _inherited.get()


@contextmanager
def detached() -> Generator[None]:
    """Calls made in here belong to no incoming RPC: `with interpose.detached(): stub.Audit(entry)`.

    They have neither its deadline nor its end, and inherit no metadata; the request id and the identity stay. Threads and
    tasks that are started in here are detached for good.
    """
    call, inherited = _call.get(), _inherited.get()
    _call.set(None)
    _inherited.set(None)
    try:
        yield
    finally:  # set and not reset: an async generator that is dropped ends in another context than it began in
        _inherited.set(inherited)
        _call.set(call)


set_current_call = _call.set
"""Used by the server shells: what `current_call()` gives from here on in this RPC. No function of ours: all RPCs set it."""


set_request_id = _request_id.set
"""Used by interceptors: what `request_id()` gives from here on in this RPC. No function of ours, like the one above."""


def set_real_ip(value: str | None) -> None:
    """Used by interceptors: what `real_ip()` gives from here on in this RPC."""
    _real_ip.set(value)


def set_identity(value: Identity | None) -> None:
    """Used by interceptors: what `identity()` gives from here on in this RPC."""
    _identity.set(value)


def set_inherited(value: Inherited) -> None:
    """Used by interceptors: what the calls of this RPC's handler inherit from here on."""
    _inherited.set(value)
