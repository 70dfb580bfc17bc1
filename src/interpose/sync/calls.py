"""The native call objects that applications hold, over an exchange. A *blocking* call has none: see `channel.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc

from interpose._grpcio.sync_calls import InactiveCall, single_threaded, traceback_of
from interpose._outcome import Outcome
from interpose._shell.handle import Droppable, Handle, Stream
from interpose._shell.native import EOF, Route, debug_text, exception_of
from interpose.sync.attempt import Attempt
from interpose.sync.exchange import Exchange


class _Handle(Handle, grpc.RpcError, grpc.Call, grpc.Future):  # type: ignore[type-arg]  # not generic at run time
    """A call as grpc knows it, over an exchange.

    An RpcError even while all is well, since grpc's own is: libraries ask that of what their done-callbacks are given.
    """

    _exchange: Exchange

    # grpc.RpcContext

    def is_active(self) -> bool:
        """Has it not ended yet?"""
        return not self.done()

    def add_callback(self, callback: Callable[[], object]) -> bool:
        """Call back at the end; False, and nothing is called, if that was before."""
        return self._exchange.add_callback(callback)

    # grpc.Call

    def initial_metadata(self) -> Any:
        """What the server sent in front of the response; waits for it."""
        attempt: Attempt | None = None
        while (attempt := self._exchange.wait_for_attempt(attempt)) is not None:
            metadata = attempt.native.initial_metadata()
            if not metadata:
                self._exchange.wait_until_settled(attempt)
            if attempt.native.is_active() or single_threaded(attempt.native):
                return metadata  # else its flows are about to get its end, and may send again
        return self._exchange.wait().initial_metadata

    def trailing_metadata(self) -> Any:
        """What the server sent behind the response; waits for the end."""
        return self._exchange.wait().trailing_metadata

    def code(self) -> grpc.StatusCode:
        """The status code; waits for the end."""
        return self._exchange.wait().code

    def details(self) -> str:
        """The text beside the code; waits for the end."""
        return self._exchange.wait().details

    def debug_error_string(self) -> str:
        """What gRPC's core says about a failure; waits for the end."""
        return debug_text(self._exchange.wait())

    # grpc.Future

    def cancelled(self) -> bool:
        """Was it cancelled on this side?"""
        return self._exchange.cancelled

    def running(self) -> bool:
        """Has it not ended yet?"""
        return not self.done()

    def result(self, timeout: float | None = None) -> Any:
        """The response; raises what the RPC failed with, FutureTimeoutError or FutureCancelledError."""
        outcome = self._end(timeout)
        if not outcome.ok:
            raise exception_of(outcome, InactiveCall)
        return outcome.response

    def exception(self, timeout: float | None = None) -> Any:
        """What the RPC failed with, or None; raises FutureTimeoutError or FutureCancelledError."""
        outcome = self._end(timeout)
        return None if outcome.ok else exception_of(outcome, InactiveCall)

    def traceback(self, timeout: float | None = None) -> Any:
        """The traceback of `exception()`, or None."""
        error = self.exception(timeout)
        return None if error is None else traceback_of(error)

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        """Call `fn(self)` at the end; at once if that was before."""
        self._at_end(fn)

    def _end(self, timeout: float | None) -> Outcome:
        outcome = self._exchange.wait(timeout)
        if self._exchange.cancelled and not self._exchange.scope_is_over:
            raise grpc.FutureCancelledError
        return outcome

    def __str__(self) -> str:
        return repr(self)  # and not as an error


class UnaryFuture(Droppable, _Handle):
    """What `.future()` of a stub gives. Dropping it cancels the RPC, unless a callback waits for it."""


def finished(route: Route, outcome: Outcome) -> UnaryFuture:
    """The call that goes with the response of a blocking call: it has ended."""
    return UnaryFuture(Exchange.ended(route, outcome))


class ResponseStream(Stream, _Handle):
    """What a stub with a response stream gives: iterate it. Dropping it cancels the RPC."""

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        """The next message; StopIteration or the RPC's error at the end."""
        exchange = self._exchange
        attempt = exchange.attempt
        while True:
            if exchange.ahead:
                return exchange.ahead.popleft()
            if attempt is not None:
                message = attempt.read()
                if message is not EOF:
                    return message
            attempt = exchange.wait_for_attempt(attempt)
            if attempt is None and not exchange.ahead:
                return self._answer()

    next = __next__

    def _answer(self) -> Any:
        outcome = self._exchange.wait()
        if self._exchange.answer is not None:
            return next(self._exchange.answer)
        if outcome.ok:
            raise StopIteration
        raise exception_of(outcome, InactiveCall)
