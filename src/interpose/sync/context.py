"""The context that a plain handler sees: grpc's own, but what the handler decides is recorded, and sent later."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import grpc

from interpose._clock import SYSTEM
from interpose._details import sendable
from interpose._outcome import OK, Outcome
from interpose._scope import Scope
from interpose._shell.answer import Abort, Answer, contained
from interpose._shell.closing import Closing, unexpected

_log = logging.getLogger("interpose")


class _State:
    """grpc's private record of an RPC, with what the handler has decided: native interceptors inside ours read it there."""

    __slots__ = ("_context", "_state")

    def __init__(self, context: ServicerContext, state: Any) -> None:
        self._context = context
        self._state = state

    @property
    def code(self) -> Any:
        return self._context.code()

    @property
    def details(self) -> Any:
        return self._context.details()

    @property
    def trailing_metadata(self) -> Any:
        return self._context.trailing_metadata()

    @property
    def aborted(self) -> bool:
        return self._context._abort is not None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._state, name)


class ServicerContext(Answer, grpc.ServicerContext):  # type: ignore[misc]  # None without a deadline, as on asyncio
    """A `grpc.ServicerContext` over grpc's own, of a sync server or of a plain handler on an asyncio one."""

    unserializable = False  # did the serializer of a response stream fail?

    # grpc.RpcContext

    def is_active(self) -> bool:
        return bool(self._native.is_active())

    def cancel(self) -> bool:
        return bool(self._native.cancel())

    def add_callback(self, callback: Callable[[], object]) -> bool:
        return bool(self._native.add_callback(contained(callback)))

    # grpc.ServicerContext

    def send_initial_metadata(self, initial_metadata: Any) -> None:
        self._native.send_initial_metadata(self.initial_metadata(initial_metadata))

    def trailing_metadata(self) -> Any:
        return self._trailing

    def abort(self, code: Any, details: Any = "", trailing_metadata: Any = ()) -> Any:
        raise self.record_abort(code, details, trailing_metadata)

    def abort_with_status(self, status: Any) -> Any:
        raise self.record_abort(status.code, status.details, status.trailing_metadata or ())

    def details(self) -> Any:
        return None if self._details is None else self._details.encode("utf-8", "replace")  # bytes, as sync grpc has it

    @property
    def _state(self) -> _State:  # py-grpc-prometheus reads code and client from it
        return _State(self, self._native._state)

    # - for the shell -

    def scope(self) -> Scope:
        """What ends with this RPC; a new one."""
        scope = Scope()
        # On a thread of the clock's: grpc's one serving thread must not run what is called there.
        if not self._native.add_callback(lambda: SYSTEM.call_later(0, scope.close)):
            scope.close()
        return scope

    @property
    def check_response(self) -> Callable[[Any], object] | None:
        """What raises for a message that cannot be serialized, where grpc would lose a thread over it."""
        return getattr(self._native, "check_response", None)

    def gone(self) -> grpc.StatusCode | None:
        """Why no client listens any more (see `why_gone`); None while one does."""
        return None if self.is_active() else self.why_gone()

    @property
    def _on_sync_server(self) -> bool:
        """Is grpc's context that of a sync server? On an asyncio one a plain handler has another."""
        return hasattr(self._native, "cancel")

    def wants_status(self) -> bool:
        """Does grpc want to know how the handler failed? On asyncio servers it complains once the client has gone."""
        return self._on_sync_server or self.is_active()

    def send_initial_metadata_if_due(self) -> None:
        """Send what interceptors asked for, if the handler has not sent its own with it."""
        if self.initial_metadata_due:
            self._native.send_initial_metadata(self.initial_metadata())

    def answer(self, outcome: Outcome) -> Any:
        """Send the outcome of the RPC: gives the response, or raises what makes grpc send the status."""
        if not (outcome._code is OK or self.wants_status()):
            self.over()
            error = unexpected(outcome)
            # A bare RpcError is how a handler learns that its client has gone.
            if error is not None and type(error) is not grpc.RpcError:
                _log.error("a handler raised, and its client has gone", exc_info=error)
            # Where the time is up, the client may think that it is not.
            return self._fail(Closing(False, None, outcome.code, sendable(outcome.details)))
        closing = self.closing(outcome)
        if closing.initial and self.is_active():
            self._native.send_initial_metadata(closing.initial)
        if closing.error is None and not closing.ok:
            return self._fail(closing)
        self.note(closing)
        if closing.error is not None:
            raise closing.error
        return closing.response

    def note(self, closing: Closing) -> None:
        """Have grpc send this when the handler ends."""
        if closing.trailing:
            self._native.set_trailing_metadata(closing.trailing)
        if closing.code is not None:
            self._native.set_code(closing.code)
        if closing.details:
            self._native.set_details(closing.details)

    def _fail(self, closing: Closing) -> None:
        """End the RPC with the status: raises, as abort does, or lets the handler's end carry it."""
        if not self._on_sync_server:
            # On asyncio servers abort() waits neither for the last message to be written, and the client hangs, nor, in
            # older versions, for its own end.
            self.note(closing)
            return
        if closing.trailing:
            self._native.set_trailing_metadata(closing.trailing)
        self._native.abort(closing.code, closing.details)
        raise Abort("Locally aborted.")
