"""The blocking call of grpcio, without the call object, which is not needed.

`with_call` is the public way to a response and its metadata, and makes a rendezvous, with a finalizer, for each call:
3 % of a small RPC. The step just below it gives the same state without; it is grpcio's own, so where it is missing
(another channel's stubs, a grpcio to come) the public way is taken.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from interpose import errors
from interpose._metadata import Metadata
from interpose._outcome import OK, Ended

# request, timeout, metadata, … → response; raises what it fails with
Send: TypeAlias = Callable[..., tuple[Any, Ended]]


class State:
    """What grpcio keeps of a call that has ended."""

    __slots__ = ("_state",)

    _state: Any  # set by the code that makes it: each RPC comes here

    def initial_metadata(self) -> Any:
        return self._state.initial_metadata

    def trailing_metadata(self) -> Any:
        return self._state.trailing_metadata


def blocking(native: Any, error_class: type) -> Send:
    """The way to call this native multi-callable and wait; failures are typed, and instances of `error_class`."""
    # Only grpc's own: multi-callables of others, ours among them, have private names of their own.
    below = getattr(native, "_blocking", None) if type(native).__module__ == "grpc._channel" else None
    if below is None:
        with_call: Send = native.with_call
        return with_call

    def send(
        request: Any, timeout: Any, metadata: Any, credentials: Any, wait_for_ready: Any, compression: Any
    ) -> tuple[Any, Ended]:
        state, _ = below(request, timeout, metadata, credentials, wait_for_ready, compression)
        if state.code is not OK:
            raise errors.native_class(errors.of(state.code), error_class)(
                text(state.details),
                trailing_metadata=Metadata.trusted(state.trailing_metadata),
                initial_metadata=state.initial_metadata,
                debug_error_string=text(state.debug_error_string),
                local=not state.debug_error_string,  # the core describes every status that a server sent
            )
        ended = State()
        ended._state = state
        return state.response, ended

    return send


def text(value: Any) -> str:
    """Text as grpcio keeps it: bytes, text or nothing."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value or ""
