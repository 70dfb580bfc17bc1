"""One native call of an RPC on the sync side: how it is sent and read, and how it ended, told by what grpc says."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc

from interpose import errors
from interpose._call import Call
from interpose._clock import SYSTEM, Alarm
from interpose._codec import Undecodable
from interpose._messages import Pass, compose, request_of, show_initial_metadata
from interpose._metadata import Metadata
from interpose._native import EOF, closing, expired, failure, impatient, time_left
from interpose._outcome import OK, Outcome
from interpose.sync.bare import as_call
from interpose.sync.blocking import text
from interpose.sync.requests import Upload

if TYPE_CHECKING:
    from interpose.sync.exchange import Exchange


SETTLING = 0.001  # seconds between two looks for initial metadata that is still on its way

# --- outcomes of native calls -----------------------------------------------------------------------------------------


class InactiveCall(grpc.Call, grpc.Future):  # type: ignore[type-arg]  # not generic at run time
    """The part of a raised error that is grpc's: a call that has ended."""

    def cancel(self) -> bool:
        return False

    def cancelled(self) -> bool:
        return False

    def running(self) -> bool:
        return False

    def done(self) -> bool:
        return True

    def is_active(self) -> bool:
        return False

    def time_remaining(self) -> Any:
        return None

    def add_callback(self, callback: Callable[[], object]) -> bool:
        return False

    def result(self, timeout: float | None = None) -> Any:
        raise self  # type: ignore[misc]  # always mixed into a StatusError

    def exception(self, timeout: float | None = None) -> Any:
        return self

    def traceback(self, timeout: float | None = None) -> Any:
        return traceback_of(self)  # type: ignore[arg-type]

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        fn(self)


def traceback_of(error: BaseException) -> Any:
    try:
        raise error  # noqa: TRY301  that gives it one
    except BaseException:
        return sys.exc_info()[2]


def failed(native: Any) -> BaseException:
    """What a native call failed with: typed if it has a status; the bug of a native interceptor below as it is."""
    error = None if native.cancelled() else native.exception()
    return typed(native) if error is None or isinstance(error, grpc.RpcError) else error


def typed(native: Any) -> errors.StatusError:
    """The typed error of a native call that has failed."""
    kind = errors.native_class(errors.of(native.code()), InactiveCall)
    # Not by asking it: not every call has a text of the core's (threads that asked stood still with grpcio 1.85.1).
    state = getattr(native, "_state", None)
    described = text(getattr(state, "debug_error_string", None))
    return kind(
        native.details() or "",
        trailing_metadata=Metadata.trusted(native.trailing_metadata()),
        initial_metadata=native.initial_metadata(),
        debug_error_string=described,
        local=state is not None and not described,  # the core describes every status that a server sent
    )


def known(error: BaseException, local: bool = False) -> BaseException:
    """What grpc raised: typed if it has a status, as it is otherwise. local: no server was asked."""
    if isinstance(error, grpc.RpcError) and not isinstance(error, errors.StatusError):
        error = typed(error)
        error.local |= local
    return error


def single_threaded(native: Any) -> bool:
    """Is it a stream that has no thread of grpc's (an experimental channel option)?"""
    return "SingleThreaded" in type(native).__name__


# --- one attempt ------------------------------------------------------------------------------------------------------


class Attempt:
    """One native call of an exchange. It ends once: whoever claims the end turns the drive."""

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

    def __init__(self, exchange: Exchange, call: Call) -> None:
        self.exchange = exchange
        self.call = call
        self.native: Any = None
        self.received = 0
        self._started = exchange.route.clock.now()
        self._claims = [True]
        self._upload: Upload | None = None
        self._on_response: Pass | None = None
        self._reading = False
        self._native_over = False
        self._alarm: Alarm | None = None

    def claim(self) -> bool:
        """May I end it? True for one caller only."""
        try:
            self._claims.pop()
        except IndexError:
            return False
        if self._alarm is not None:
            self._alarm.cancel()
        return True

    @property
    def over(self) -> bool:
        return not self._claims

    def send(self) -> Outcome | None:
        """Start the native call; gives the outcome if it has ended already."""
        call, exchange = self.call, self.exchange
        timeout = time_left(call, self._started)
        if timeout is not None and timeout <= 0:
            return expired()
        self._on_response = compose(call._asks.responses)
        try:
            if exchange.requests is None:
                native, request = exchange.route.native, request_of(call)
            else:
                self._upload = exchange.requests.upload(call)
                native, request = exchange.route.native, iter(self._upload)
            begin = exchange.begin(native)
            native = (begin if exchange.requests is None else partial(exchange.requests.run, begin))(
                request,
                timeout=timeout,
                metadata=call._metadata,
                credentials=call._credentials,
                wait_for_ready=call._wait_for_ready,
                compression=call._compression,
            )
            self.native = as_call(native)
        except BaseException as error:
            return self.outcome(known(error, local=True))
        exchange.publish(self)
        if not self.native.add_callback(self._when_native_is_over):
            self._native_over = True  # already; a reader that holds its last message tells of it, else we do
            if not self._reading and self.claim():
                exchange.attempt = None  # a cancel has to find what comes next
                return self.outcome()
        if single_threaded(self.native):
            exchange.hold(self)
        if call._asks.patience is not None and not self.over:
            self._alarm = exchange.route.clock.call_later(call._asks.patience, self._lose_patience)
        return None

    def _lose_patience(self) -> None:
        """End it, unless the server has begun to answer."""
        # Not by asking the call for its metadata: that would wait.
        begun = getattr(getattr(self.native, "_state", None), "initial_metadata", None) is not None
        if not begun and not self.received and not self.over:
            self.exchange.over(self, impatient(self.call))
            self.native.cancel()

    def _when_native_is_over(self) -> None:
        if getattr(getattr(self.native, "_state", None), "initial_metadata", ()) is None:
            # grpc may tell the end before what came in front of it, both on this thread: it must not wait for itself.
            SYSTEM.call_later(SETTLING, self._when_native_is_over)
            return
        # A reader that holds a message has to count it first: the outcome tells how many were delivered.
        self._native_over = True
        if not self._reading:
            self.exchange.over(self)

    def read(self, deliver: Callable[[Any], object] | None = None) -> Any:
        """The next response message, or EOF; of the end the exchange is told. deliver: called first, with the message."""
        self._reading = True
        try:
            message = next(self.native)
            if type(message) is Undecodable:
                message.fail("response")
            if not self.received:
                self._show_initial_metadata()
            if self._on_response is not None:
                message = self._on_response(message)
            self.received += 1
            if deliver is not None:
                deliver(message)
        except errors.StatusError as error:  # of a hook of ours: the native call would go on
            self.exchange.over(self, error)
            self.native.cancel()
            return EOF
        except (StopIteration, grpc.RpcError) as end:
            end.__traceback__ = None  # the native call may be the error itself: it would keep us through this frame
            self.exchange.over(self)
            return EOF
        except Exception as error:  # the bug of a native interceptor below
            self.exchange.over(self, error)
            return EOF
        finally:
            self._reading = False
            if self._native_over:
                self.exchange.over(self)
        return message

    def _show_initial_metadata(self) -> None:
        if self.call._asks.on_initial_metadata:
            show_initial_metadata(self.call, self.native.initial_metadata())

    def outcome(self, error: BaseException | None = None) -> Outcome:
        """How it ended, read from the native call, which is over; or `error`, which ended it from this side."""
        streaming = self.exchange.route.method.kind.response_streaming
        upload, native, response = self._upload, self.native, None
        sent, again = 1, True
        if upload is not None:
            again = upload.close()
            sent, error = upload.sent, error or upload.error
        if error is None and native.code() is not OK:
            error = failed(native)
        if error is None:
            try:
                if not self.received:
                    self._show_initial_metadata()
                if not streaming:
                    response = native.result()
                    self.received = 1
                    if type(response) is Undecodable:
                        response.fail("response")
                    if self._on_response is not None:
                        response = self._on_response(response)
            except errors.StatusError as raised:
                error = raised
        replayable = again and not (streaming and self.received)
        elapsed = self.exchange.route.clock.now() - self._started
        if error is not None:
            outcome = failure(error, sent, self.received, elapsed, replayable, native)
            return closing(outcome, self.exchange.was_open) if self.exchange.route.pauses.closed else outcome
        return Outcome(OK, response, "", None, sent, self.received, elapsed, replayable, native)
