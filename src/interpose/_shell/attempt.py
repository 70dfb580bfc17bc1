"""One native call of an RPC: how it begins, and how it ended. It ends once: who claims its end turns the drive."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from interpose import errors
from interpose._call import Call
from interpose._clock import Alarm
from interpose._messages import Pass, compose, show_initial_metadata
from interpose._outcome import OK, Outcome
from interpose._shell.claims import Claims
from interpose._shell.codec import Undecodable
from interpose._shell.native import closing, expired, failure, impatient, time_left
from interpose._shell.owner import Owner


class Attempt(ABC):
    """One native call of an exchange."""

    __slots__ = (
        "_alarm",
        "_claims",
        "_native_over",
        "_on_response",
        "_reading",
        "_started",
        "_upload",
        "call",
        "exchange",
        "native",
        "received",
    )

    def __init__(self, exchange: Owner, call: Call) -> None:
        self.exchange = exchange
        self.call = call
        self.native: Any = None
        self.received = 0
        self._started = exchange.route.clock.now()
        self._claims: Claims = [True]
        self._upload: Any = None
        self._on_response: Pass | None = None
        self._reading = False
        self._native_over = False
        self._alarm: Alarm | None = None

    def claim(self) -> bool:
        """May I end it? True for one caller only."""
        try:  # as `claim` does, without its frame: each RPC comes here
            self._claims.pop()
        except IndexError:
            return False
        if self._alarm is not None:
            self._alarm.cancel()
        return True

    @property
    def over(self) -> bool:
        """Has somebody claimed its end?"""
        return not self._claims

    @property
    def first_is_due(self) -> bool:
        """Will its first message have to wait, until an interceptor has seen the metadata in front of it?"""
        return bool(self.call._asks.on_initial_metadata) and not self.received

    # - its begin -

    def send(self) -> Outcome | None:
        """Start the native call; gives the outcome if it has ended already."""
        call, exchange = self.call, self.exchange
        timeout = time_left(call, self._started)
        if timeout is not None and timeout <= 0:
            return expired()
        self._on_response = compose(call._asks.responses)
        try:
            self.native = self._begin(timeout)
        except BaseException as error:
            return self.outcome(self._refusal(error))
        exchange.publish(self)
        outcome = self._follow()
        if call._asks.patience is not None and outcome is None and not self.over:
            self._alarm = exchange.later(call._asks.patience, self._lose_patience)
        return outcome

    @abstractmethod
    def _begin(self, timeout: float | None) -> Any:
        """Start the native call."""

    def _refusal(self, error: BaseException) -> BaseException:
        """What grpc refused to start it with."""
        return error

    @abstractmethod
    def _follow(self) -> Outcome | None:
        """Report its end to the exchange; gives the outcome if it has ended already."""

    def _lose_patience(self) -> None:
        """End it, unless the server has begun to answer."""
        if not self.over and not self.received and not self._has_begun():
            self.exchange.over(self, impatient(self.call))
            self.native.cancel()

    @abstractmethod
    def _has_begun(self) -> bool:
        """Has the server sent its initial metadata? Asked without waiting."""

    # - its end -

    def outcome(self, error: BaseException | None = None, response: Any = None) -> Outcome:
        """How it ended: with `error`, or as the native call says, which is over."""
        exchange = self.exchange
        streaming = exchange.route.method.kind.response_streaming
        sent, again = 1, True
        if exchange.requests is not None:
            sent, again, torn = self._sent()
            error = torn or error
        if error is None:
            error, response = self._result(response, streaming)
        else:
            error = self._typed(error)
        if error is None:
            try:
                response = self._received(response, streaming)
            except errors.StatusError as raised:
                error = raised
        replayable = again and not (streaming and self.received)
        elapsed, ended = exchange.route.clock.now() - self._started, self._ended()
        if error is not None:
            outcome = failure(error, sent, self.received, elapsed, replayable, ended)
            return closing(outcome, exchange.was_open) if exchange.route.pauses.closed else outcome
        return Outcome(OK, response, "", None, sent, self.received, elapsed, replayable, ended)

    def _sent(self) -> tuple[int, bool, BaseException | None]:
        """Of its request stream: the messages sent, whether they can be sent again, and what broke it."""
        upload = self._upload
        if upload is None:
            return 0, True, None
        again = upload.close()
        return upload.sent, again, upload.error

    def _received(self, response: Any, streaming: bool) -> Any:
        """The unary response, as the hooks leave it."""
        if not self.received and self.call._asks.on_initial_metadata:
            show_initial_metadata(self.call, self._initial_metadata())
        if streaming:
            return None
        self.received = 1
        if type(response) is Undecodable:
            response.fail("response")
        return response if self._on_response is None else self._on_response(response)

    def _result(self, response: Any, streaming: bool) -> tuple[BaseException | None, Any]:
        """What the native call, which is over, failed with, or its unary response."""
        return None, response

    def _typed(self, error: BaseException) -> BaseException:
        """A failure as flows and the application see it."""
        return error

    @abstractmethod
    def _initial_metadata(self) -> Any:
        """What the server sent in front of its response; the native call is over."""

    @abstractmethod
    def _ended(self) -> Any:
        """What has the metadata of the call that is over."""
