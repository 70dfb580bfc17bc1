"""What a handler did, recorded: the part of a server's context that both shells share.

Whichever way a handler fails — abort, set_code and return, an exception, a StatusError — its outcome is read here,
and it is sent only when the flows are done with it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any, TypeVar

import grpc

from interpose import errors
from interpose._call import NOTHING, Arrived, Call
from interpose._clock import DEADLINE_TOLERANCE, FOREVER, Clock
from interpose._details import CANCELLED_OR_STOPPED, GONE, status_code, text
from interpose._messages import request_of
from interpose._metadata import Metadata
from interpose._method import Method
from interpose._outcome import OK, Outcome, told_by
from interpose._shell.closing import Closing, closing
from interpose.context import set_current_call

_log = logging.getLogger("interpose")


class Stop:
    """When a server's `stop()` ends the RPCs that still run, by grpc's own clock; never, until it is called."""

    _at = math.inf

    def begin(self, grace: float | None) -> None:
        """It was called: the RPCs have that many seconds. The shortest grace counts, as grpc has it."""
        self._at = min(self._at, monotonic() + (grace or 0.0))

    def has_come(self) -> bool:
        """Has it ended them?"""
        return monotonic() >= self._at


class Abort(grpc.aio.AbortError):
    """What `context.abort` raises; the status is recorded, and sent once the flows are done."""


class Answer:
    """The record of one RPC's handler. Most fields are on the class until they are set, and most RPCs set few.

    Those that all set are slots: Python is slow to set, and to read, what is on the class too.
    """

    __slots__ = ("__dict__", "_call", "_native", "decided")

    _call: Call | None  # what the handler is called with; until the end, so that the two do not keep each other
    decided: bool  # did the handler decide anything beside its response: a status, details, metadata?
    _started: float | None = None
    limit: float | None = None  # when an interceptor's timeout passes
    _deadline: float | None = -1.0  # the client's; -1: not read yet
    _arrived_with: float | None = None
    _abort: Abort | None = None
    _code: grpc.StatusCode | None = None
    _details: str | None = None
    _trailing: Metadata | None = None
    _peer: str | None = None
    _initial: Metadata | None = None  # what was sent in front of the response
    _stop: Stop | None = None  # that of the server, where it is known
    of_the_task: tuple[type[BaseException], ...] = ()  # see `closing`
    received = 0  # request messages of a stream
    sent = 0  # response messages of a stream

    def __init__(self, native: Any, clock: Clock, stop: Stop | None = None) -> None:
        self._native, self._call, self.decided = native, None, False
        self.clock = clock
        if stop is not None:
            self._stop = stop

    def closing(self, outcome: Outcome) -> Closing:
        """The RPC is over: what is to be sent."""
        due = self._initial is None
        call = self.over()
        return closing(
            outcome, call._asks.initial_metadata if due and call is not None else Metadata(), self.of_the_task
        )

    def over(self) -> Call | None:
        """The RPC is over, and gives the last call: it and the context no longer keep each other, nor grpc's state.

        The call lives on in the RPC's contextvars. What was not asked of it while the RPC ran, it no longer knows.
        """
        call, self._call = self._call, None
        if call is not None:
            call._context = None
        return call

    # - what the call asks -

    def received_metadata(self) -> Any:
        """What the client sent, before any interceptor changed it."""
        return self._native.invocation_metadata()

    def deadline(self) -> float | None:
        """The client's deadline on our clock; None without one."""
        if self._deadline == -1.0:
            # Without a deadline grpc says None on asyncio and some 292 years on sync.
            left = self._native.time_remaining()
            self._arrived_with = None if left is None or left >= FOREVER else left
            self._deadline = None if self._arrived_with is None else self.clock.now() + self._arrived_with
        return self._deadline

    def arrived_with(self) -> float | None:
        """What was left of the client's deadline when it was first looked at."""
        self.deadline()
        return self._arrived_with

    def peer(self) -> str:
        """The client's address. Read once, in time, and known from then on: also when grpc has forgotten it."""
        if self._peer is None:
            self._peer = str(self._native.peer())
        return self._peer

    # - what a handler finds in its context, on either stack -

    def invocation_metadata(self) -> Any:
        """What the client sent, as interceptors changed it."""
        changed = None if self._call is None else self._call._metadata
        return self._native.invocation_metadata() if changed is None else changed

    def peer_identities(self) -> Any:
        return self._native.peer_identities()

    def peer_identity_key(self) -> Any:
        return self._native.peer_identity_key()

    def auth_context(self) -> Any:
        return self._native.auth_context()

    def set_compression(self, compression: Any) -> None:
        self._native.set_compression(compression)

    def disable_next_message_compression(self) -> None:
        self._native.disable_next_message_compression()

    def code(self) -> Any:
        return self._code

    def __getattr__(self, name: str) -> Any:  # what newer versions of grpc add to their context
        return getattr(self._native, name)

    # - one attempt of the handler -

    def begin(self, call: Call) -> None:
        """The handler is about to be called with this call."""
        if call is not self._call:
            self._call = call
            set_current_call(call)
        if self._started is not None:  # not for the first time: forget what the handler decided then
            self._abort = self._code = self._details = self._trailing = None
            self.received = self.sent = 0
            self.decided = False
        self._started = self.clock.now()
        self.limit = None if call._timeout is None else self._started + call._timeout
        if call._deadline is not None and (self.limit is None or call._deadline < self.limit):
            self.limit = call._deadline  # an interceptor's: the client's is not on the call

    def record_abort(self, code: Any, details: Any, trailing_metadata: Any = ()) -> Abort:
        """The handler aborts; gives the exception to raise."""
        self.decided = True
        if trailing_metadata:
            self._trailing = Metadata(trailing_metadata)
        status = status_code(code)
        if status is OK:  # on both stacks what sync grpc does: no client goes without a status
            _log.error("abort() called with StatusCode.OK; returning UNKNOWN")
            status, details = grpc.StatusCode.UNKNOWN, ""
        self._code, self._details = status, text(details)
        self._abort = Abort("Locally aborted.")
        return self._abort

    def set_code(self, code: Any) -> None:
        """Let the RPC end with this code."""
        self._code, self.decided = status_code(code), True

    def set_details(self, details: Any) -> None:
        """Let the RPC end with this text."""
        self._details, self.decided = text(details), True

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        """Send this behind the response; ValueError for what the wire would refuse, or the client wait for in vain."""
        self._trailing, self.decided = Metadata(trailing_metadata), True

    def time_remaining(self) -> float | None:
        """Seconds left of the client's deadline, or of the timeout an interceptor gave the handler."""
        left: float | None = self._native.time_remaining()
        if self.limit is None:
            return left
        ours = max(self.limit - self.clock.now(), 0.0)
        return ours if left is None else min(left, ours)

    def expired(self) -> bool:
        """Has an interceptor's timeout passed?"""
        return self.limit is not None and self.clock.now() >= self.limit

    def message_for(self, call: Call) -> Any:
        """The request message as interceptors leave it; None of a stream. Raises if the time is up already."""
        if self.expired():
            raise errors.DeadlineExceeded("the time was up before the handler was called", local=True)
        plain = call._asks is NOTHING or call._method.kind.request_streaming
        return call._request if plain else request_of(call)

    def check_time(self) -> None:
        """The handler sends a message of a stream: raises if it has taken too long."""
        if self.expired():
            raise errors.DeadlineExceeded("the handler took longer than an interceptor allows", local=True)

    def began(self, when: float) -> None:
        """The handler was called at that time, with the call as it came in."""
        self._started = when

    # - its outcome -

    def why_gone(self) -> grpc.StatusCode:
        """Why an RPC that has ended early did: by its deadline, by the server's stop, or by the client."""
        left = self._native.time_remaining()  # on an asyncio server None without a deadline
        if left is not None and left <= DEADLINE_TOLERANCE:
            return grpc.StatusCode.DEADLINE_EXCEEDED
        stopped = self._stop is not None and self._stop.has_come()
        return grpc.StatusCode.UNAVAILABLE if stopped else grpc.StatusCode.CANCELLED

    def details_of(self, gone: grpc.StatusCode) -> str:
        """The same in words."""
        doubtful = gone is grpc.StatusCode.CANCELLED and self._stop is None
        return CANCELLED_OR_STOPPED if doubtful else GONE[gone]

    def outcome(self, error: BaseException | None, response: Any, gone: grpc.StatusCode | None) -> Outcome:
        """How the attempt ended. gone: why no client listens any more, if it has left."""
        assert self._call is not None
        kind = self._call._method.kind
        received, sent = (self.received if kind.request_streaming else 1), self.sent
        # What the client has cannot be sent again.
        begun = self._initial is not None or (kind.response_streaming and sent)
        replayable = not begun and not (kind.request_streaming and received)
        elapsed = self.clock.now() - (self._started or 0.0)
        if error is None and gone is None and self._abort is None and self._code in (None, OK):
            sent = sent if kind.response_streaming else 1
            details = self._details or ""
            return Outcome(
                OK, response, details, None, received, sent, elapsed, replayable, None, self._initial, self._trailing
            )
        code, details, error = self._failure(error, gone)
        trailing = self._trailing
        if isinstance(error, errors.StatusError) and self._abort is None:
            trailing = Metadata.trusted((*(trailing or ()), *told_by(error)[2]))
        return Outcome(code, None, details, error, received, sent, elapsed, replayable, None, self._initial, trailing)

    def _failure(
        self, error: BaseException | None, gone: grpc.StatusCode | None
    ) -> tuple[grpc.StatusCode, str, BaseException | None]:
        """Code, details and exception of a failure."""
        code = grpc.StatusCode.UNKNOWN if self._code in (None, OK) else self._code
        if self._abort is not None:
            if error is not None and error is not self._abort:
                _log.error("a handler raised after it had aborted", exc_info=error)
            return (
                code,
                self._details or "",
                errors.of(code)(self._details or "", trailing_metadata=self._trailing or ()),
            )
        if isinstance(error, errors.StatusError):
            code, details, _ = told_by(error)
            return code, details, error
        if gone is not None:
            details = self.details_of(gone)
            return gone, details, error or errors.of(gone)(details, local=True)
        if error is not None:
            return code, self._details or "", error
        return code, self._details or "", errors.of(code)(self._details or "")

    def initial_metadata(self, pairs: Iterable[Any] = ()) -> Metadata:
        """What goes in front of the response: the interceptors' pairs, then the handler's."""
        self.decided = True
        ours = self._call._asks.initial_metadata if self._call is not None else ()
        self._initial = Metadata.trusted((*ours, *Metadata(pairs)))
        return self._initial

    @property
    def initial_metadata_due(self) -> bool:
        """Has an interceptor asked for initial metadata that was not sent yet?"""
        asks = self._call._asks if self._call is not None else NOTHING
        return bool(asks.initial_metadata) and self._initial is None


A = TypeVar("A", bound=Answer)


def recording(kind: type[A], clock: Clock, stop: Stop | None) -> type[A]:
    """The class of records of one server's RPCs, without a constructor: what is the same in all of them is on it."""
    made: Any = type(kind.__name__, (kind,), {"__init__": object.__init__, "clock": clock, "_stop": stop})
    record: type[A] = made
    return record


def arrived(record: type[A], native: Any, method: Method, argument: Any) -> tuple[A, Call]:
    """An RPC has come in: its record, and its call, which is the current one from here on.

    record: its class, made by `recording`. argument: the message, or the stream.
    """
    make: Any = record  # it has no constructor
    context, call = make(), Arrived()
    context._native = native
    context._call = call
    context.decided = False
    call._method = method
    call._request = None if method.kind.request_streaming else argument
    call._context = context
    call._metadata = None  # read when it is first asked for
    set_current_call(call)
    return context, call


def contained(callback: Callable[..., object]) -> Callable[..., None]:
    """A callback that fails without harm to who calls it: grpc's serving thread, or the callbacks behind it."""

    def call(*args: Any) -> None:
        try:
            callback(*args)
        except BaseException:
            _log.exception("a callback of a handler failed")

    return call
