"""What flows leave for handlers and for the calls that handlers make."""

from __future__ import annotations

from contextvars import ContextVar

from interpose._call import Call

_call: ContextVar[Call | None] = ContextVar("interpose.call", default=None)
_request_id: ContextVar[str | None] = ContextVar("interpose.request_id", default=None)


def current_call() -> Call | None:
    """The incoming call that is being handled here, or None outside a handler."""
    return _call.get()


def request_id() -> str | None:
    """The id of the request that is being handled here, or None; left by `RequestId`."""
    return _request_id.get()


def deadline() -> float | None:
    """When the incoming RPC must have ended, in seconds of the monotonic clock; None without one."""
    call = _call.get()
    return call.deadline if call is not None else None


def set_current_call(call: Call) -> None:
    """Used by the server shells: what `current_call()` gives from here on in this RPC."""
    _call.set(call)


def set_request_id(value: str) -> None:
    """Used by interceptors: what `request_id()` gives from here on in this RPC."""
    _request_id.set(value)
