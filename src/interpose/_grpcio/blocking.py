"""The blocking call of grpcio, without the call object, which is not needed.

`with_call` is the public way to a response and its metadata, and makes a rendezvous, with a finalizer, for each call:
3 % of a small RPC. The step just below it gives the same state without, and below that is the core: a call with one
message each way is one batch of it, for which grpcio keeps a state with a lock that no other thread could take. All this is
grpcio's own (docs/design/0006-privates.md), so where something is missing (another channel's stubs, a grpcio to come) the
next public way is taken.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeAlias

import grpc

from interpose import errors
from interpose._grpcio.parts import found, has_all
from interpose._metadata import Metadata
from interpose._outcome import OK, Ended

# request, timeout, metadata, … → the response, and the call that has ended. A status that is no OK is given in place of that
# call: raised and caught at once, its traceback would keep every frame of the caller. What grpc itself raises is raised.
Send: TypeAlias = Callable[..., tuple[Any, Ended]]


class _Parts:
    """grpcio's private parts: see `found`."""

    def __init__(self) -> None:
        core, channel, common, compression, observability = (
            import_module(f"grpc.{name}")
            for name in ("_cython.cygrpc", "_channel", "_common", "_compression", "_observability")
        )
        self.stub: type = channel._UnaryUnaryMultiCallable
        self.operations = tuple(
            getattr(core, f"{name}Operation")
            for name in (
                "SendInitialMetadata",
                "SendMessage",
                "SendCloseFromClient",
                "ReceiveInitialMetadata",
                "ReceiveMessage",
                "ReceiveStatusOnClient",
            )
        )
        message, flags = b"", 0
        for operation, arguments in zip(
            self.operations, ((None, flags), (message, flags), *[(flags,)] * 4), strict=True
        ):
            operation(*arguments)  # they take what each call will give them
        self.defaults = core.PropagationConstants.GRPC_PROPAGATE_DEFAULTS
        self.sooner: Callable[[Any], Any] = channel._determine_deadline
        self.augmented: Callable[[Any, Any], Any] = compression.augment_metadata
        waiting = channel._InitialMetadataFlags().with_wait_for_ready
        self.flags = {wish: waiting(wish) for wish in (None, False, True)}
        self.codes: dict[int, grpc.StatusCode] = common.CYGRPC_STATUS_CODE_TO_STATUS_CODE
        self.log = common._LOGGER
        self.observability = observability
        observability._OBSERVABILITY_PLUGIN  # noqa: B018  it is there


_OF_A_STUB = "_channel _method _context _registered_call_handle _request_serializer _response_deserializer"


PARTS = found(_Parts)


def blocking(native: Any, error_class: type) -> Send:
    """The way to call this native multi-callable and wait; failures are typed, and instances of `error_class`."""
    # Only grpc's own: multi-callables of others, ours among them, have private names of their own.
    below = getattr(native, "_blocking", None) if type(native).__module__ == "grpc._channel" else None
    if below is None:
        with_call: Send = native.with_call
        return with_call
    stated = _stated(below, error_class)
    if PARTS is None or type(native) is not PARTS.stub or not has_all(native, _OF_A_STUB):
        return stated
    return _direct(native, PARTS, stated, error_class)


# --- by the state that grpcio keeps ------------------------------------------------------------------------------------


class State:
    """What grpcio keeps of a call that has ended."""

    __slots__ = ("_state",)

    _state: Any  # set by the code that makes it: each RPC comes here

    def initial_metadata(self) -> Any:
        return self._state.initial_metadata

    def trailing_metadata(self) -> Any:
        return self._state.trailing_metadata


def _stated(below: Callable[..., tuple[Any, Any]], error_class: type) -> Send:
    def send(
        request: Any, timeout: Any, metadata: Any, credentials: Any, wait_for_ready: Any, compression: Any
    ) -> tuple[Any, Ended]:
        state, _ = below(request, timeout, metadata, credentials, wait_for_ready, compression)
        ended = State()
        ended._state = state
        if state.code is not OK:
            return None, failed(ended, state.code, text(state.details), text(state.debug_error_string), error_class)
        return state.response, ended

    return send


def failed(
    ended: Ended, code: grpc.StatusCode, details: str, debug_error_string: str, error_class: type
) -> errors.StatusError:
    """The typed error of a call that has ended like this."""
    return errors.native_class(errors.of(code), error_class)(
        details,
        trailing_metadata=Metadata.trusted(ended.trailing_metadata()),
        initial_metadata=ended.initial_metadata(),
        debug_error_string=debug_error_string,
        local=not debug_error_string,  # the core describes every status that a server sent
    )


def text(value: Any) -> str:
    """Text as grpcio keeps it: bytes, text or nothing."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value or ""


# --- by the core -------------------------------------------------------------------------------------------------------


class Batch:
    """A call that has ended, as the two operations of its batch that have the metadata of the response."""

    __slots__ = ("_beginning", "_end")

    _beginning: Any
    _end: Any

    def initial_metadata(self) -> Any:
        return self._beginning.initial_metadata()

    def trailing_metadata(self) -> Any:
        return self._end.trailing_metadata()


def _serialized(request: Any, serialize: Callable[[Any], Any] | None, parts: _Parts, error_class: type) -> Any:
    """The message for the core; INTERNAL, in grpc's words, if there is none."""
    cause = None
    try:
        data = request if serialize is None else serialize(request)
    except Exception as error:
        parts.log.exception("Exception serializing message!")
        cause, data = error, None
    if data is None:
        kind = errors.native_class(errors.Internal, error_class)
        raise kind("Exception serializing request!", local=True) from cause
    return data


def _unanswered(parts: _Parts, ended: Batch, error_class: type) -> errors.StatusError:
    """The error of a call that ended with a status."""
    end = ended._end
    code, details, described = parts.codes.get(end.code()), text(end.details()), text(end.error_string())
    if code is None:  # a number that is no status: in grpcio's words, which has lost it here too
        code, described = grpc.StatusCode.UNKNOWN, ""
        details = f'Server sent unknown code None and details "{details}"'
    return failed(ended, code, details, described, error_class)


def _direct(native: Any, parts: _Parts, stated: Send, error_class: type) -> Send:
    """One batch of the core's, as `_UnaryUnaryMultiCallable._blocking` makes it."""
    start, method, context, handle = (
        native._channel.segregated_call,
        native._method,
        native._context,
        native._registered_call_handle,
    )
    serialize, deserialize = native._request_serializer, native._response_deserializer
    send_metadata, send_message, send_close, receive_metadata, receive_message, receive_status = parts.operations
    defaults, sooner, augmented, flags, observability = (
        parts.defaults,
        parts.sooner,
        parts.augmented,
        parts.flags,
        parts.observability,
    )
    unflagged = flags[None]

    def send(
        request: Any, timeout: Any, metadata: Any, credentials: Any, wait_for_ready: Any, compression: Any
    ) -> tuple[Any, Ended]:
        if observability._OBSERVABILITY_PLUGIN is not None:  # it reads from the state how long the RPC took
            return stated(request, timeout, metadata, credentials, wait_for_ready, compression)
        deadline = None if timeout is None else time.time() + timeout  # not bound: tests put another clock there
        data = _serialized(request, serialize, parts, error_class)
        pairs = augmented(metadata, compression) if metadata or compression else None
        flag = unflagged if wait_for_ready is None else flags[bool(wait_for_ready)]
        beginning, message, end = receive_metadata(0), receive_message(0), receive_status(0)
        operations = (send_metadata(pairs, flag), send_message(data, 0), send_close(0), beginning, message, end)
        if credentials is not None:
            credentials = credentials._credentials
        start(
            defaults, method, None, sooner(deadline), metadata, credentials, ((operations, None),), context, handle
        ).next_event()
        ended = Batch()
        ended._beginning, ended._end = beginning, end
        response = message.message()
        if response is not None and deserialize is not None:
            response = deserialize(response)  # never raises: see `decoder`
            if response is None:  # whatever the status is, as grpcio has it
                details = "Exception deserializing response!"
                return None, failed(ended, grpc.StatusCode.INTERNAL, details, "", error_class)
        if end.code() != 0:
            return None, _unanswered(parts, ended, error_class)
        return response, ended

    return send
