"""One attempt that is played: what an act makes of a call, as both shells would report it.

tests/testing/test_agreement.py holds that it is what happens on real servers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import grpc

from interpose import errors
from interpose._call import Call
from interpose._messages import Pass, compose, show_initial_metadata
from interpose._metadata import Metadata
from interpose._method import Side
from interpose._outcome import OK, Outcome
from interpose._shell.native import expired, impatient
from interpose.testing.acts import Act

NEVER = float("inf")


def unsent(error: errors.StatusError, requests: int) -> Outcome:
    """The outcome of an attempt that ended on this side, when this number of requests had come."""
    return Outcome(error.code(), None, error.details(), error, requests, replayable=True)


def out_of_time(call: Call, *, paused: bool) -> Outcome:
    """The outcome of an attempt with no time left. paused: the deadline came while it was still waiting to be sent."""
    if call.side is Side.CLIENT:
        return expired()
    late = "the deadline passed" if paused else "the time was up before the handler was called"
    return unsent(errors.DeadlineExceeded(late, local=True), 0 if call.kind.request_streaming else 1)


class Acting:
    """One attempt, while the other side acts. limit: seconds that it may take."""

    def __init__(self, call: Call, act: Act, limit: float | None) -> None:
        self._call = call
        self._kind = call.kind
        self._on_server = call.side is Side.SERVER
        self._act = act if self._on_server else act.aborted()
        patience = NEVER if call._asks.patience is None or act.initial else call._asks.patience
        self._impatient = patience < (NEVER if limit is None else limit) and (act.hang or act.delay >= patience)
        if self._impatient:
            limit = patience
        self._late = limit is not None and (act.hang or act.delay >= limit)
        self._elapsed = limit if self._late else NEVER if act.hang else act.delay
        self._read = 0
        self._received = False
        self._begun = False
        self._broken: errors.StatusError | None = None  # what ended it while it was being sent
        self._response: Any = None
        self._trailing: Any = ()  # set by the handler, if the attempt comes so far
        self.requests: list[Any] = []
        self.responses: list[Any] = []

    @property
    def elapsed(self) -> float:
        """Seconds from its beginning to its end."""
        return self._elapsed or 0.0

    def begin(self, given: Iterable[Any]) -> None:
        """Send it. given: the request messages; a unary one as taps and maps have left it."""
        try:
            if not (self._act.unread and self._kind.request_streaming):
                self._take(given)
            self._begun = True
        except errors.StatusError as raised:  # by a tap or a map
            self._broken = raised

    def end(self) -> Outcome:
        """Let it come to its end, once `elapsed` has passed."""
        error: BaseException | None = self._broken
        try:
            if error is None:
                error = self._time_is_up() if self._late else self._answer()
        except errors.StatusError as raised:  # by a tap or a map
            error = raised
        return self._outcome(error)

    def _take(self, given: Iterable[Any]) -> None:
        hook = compose(self._call._asks.requests) if self._kind.request_streaming else None
        for message in given:
            self._read += self._on_server  # what a server took from a stream it has read, whatever a hook says to it
            self.requests.append(_passed(hook, message))
            self._read += not self._on_server

    def _answer(self) -> BaseException | None:
        """Send what the act says; gives what it ends with if that is a failure."""
        self._trailing = self._act.trailing
        messages = self._act.sent(self._kind, self.requests)
        if not self._on_server and (messages or not self._act.fails):
            show_initial_metadata(self._call, self._act.initial)
        hook = compose(self._call._asks.responses)
        if self._kind.response_streaming:
            for message in messages:
                self.responses.append(_passed(hook, message))
        elif messages:
            self._received = not self._on_server  # and so has a client that took the response
            self._response = _passed(hook, messages[0])
            self.responses.append(self._response)
        return _failure(self._act, self._on_server)

    def _time_is_up(self) -> errors.StatusError:
        if self._impatient:
            return impatient(self._call)
        if self._on_server:
            return errors.DeadlineExceeded("the deadline passed", local=True)
        return errors.DeadlineExceeded("Deadline Exceeded")

    def _outcome(self, error: BaseException | None) -> Outcome:
        status = error if isinstance(error, errors.StatusError) else None
        return Outcome(
            status.code() if status else grpc.StatusCode.UNKNOWN if error else OK,
            self._response if error is None else None,
            status.details() if status else "",
            error,
            self._read if self._kind.request_streaming else 1,
            len(self.responses) or int(self._received),
            self.elapsed,
            self._replayable,
            initial_metadata=Metadata.trusted(self._act.initial if self._begun else ()),
            trailing_metadata=self._trailers(status),
        )

    @property
    def _replayable(self) -> bool:
        answered = self._kind.response_streaming and self.responses
        begun = self._on_server and self._begun and self._act.initial
        kept = not self._on_server and self._call._asks.buffer is not None
        return not (answered or begun or (self._kind.request_streaming and self._read and not kept))

    def _trailers(self, status: errors.StatusError | None) -> Metadata:
        if status is None or (self._on_server and status.trailing_metadata() != self._trailing):
            return Metadata.trusted((*self._trailing, *(status.trailing_metadata() if status else ())))
        return status.trailing_metadata()


def _passed(hook: Pass | None, message: Any) -> Any:
    return message if hook is None else hook(message)


def _failure(act: Act, on_server: bool) -> BaseException | None:
    """What the act fails with, as an interceptor on this side sees it."""
    if act.error is not None and on_server:
        return act.error
    if act.die:
        return (
            errors.Cancelled("the client cancelled", local=True) if on_server else errors.Unavailable("Socket closed")
        )
    code, details = act.code, act.details
    if act.error is not None:  # a bare server reports it, in words that are not the same on both stacks
        code, details = grpc.StatusCode.UNKNOWN, f"Exception calling application: {act.error}"
    return errors.of(code)(details, trailing_metadata=act.trailing) if act.fails else None
