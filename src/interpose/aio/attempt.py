"""One native call of an RPC on asyncio: how it is sent and read, and how it ended, by what grpc says."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from asyncio import InvalidStateError
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio

from interpose import errors
from interpose._call import Call
from interpose._grpcio.aio_calls import AioRpcError, Ended, at_once, typed
from interpose._grpcio.direct import DirectCall
from interpose._messages import request_of, show_initial_metadata
from interpose._outcome import OK
from interpose._shell import attempt as shell
from interpose._shell import owner
from interpose._shell.codec import Undecodable, encoded
from interpose._shell.native import EOF, time_left
from interpose.aio.requests import FINISHED

NO_METADATA = grpc.aio.Metadata()

# When a message cannot be sent because the server has ended the call, grpc.aio makes up a status, INTERNAL with this
# debug text, in front of the server's or in place of it: grpc/grpc, aio/_call.py, `_write`.
SEND_FAILED = 'Failed "execute_batch"'
INVALID_METADATA = "Invalid metadata"  # what the core says of pairs that it refuses to send
STATUS_POLL = 0.002  # seconds between two looks for the status that follows
WRITE_GRACE = 0.1  # seconds that a `write` then waits to learn how the call ended


class Owner(owner.Owner):
    """An exchange, as its attempts see it."""

    __slots__ = ()

    loop: asyncio.AbstractEventLoop
    written: int  # messages that the application wrote to the native call itself

    @abstractmethod
    def changes(self) -> asyncio.Future[None]:
        """Done when there is a new attempt, or the end."""


class Attempt(shell.Attempt):
    """One native call of an exchange."""

    __slots__ = ("_read", "_refused", "_trailing", "_waiting")

    exchange: Owner

    _read: Any
    _refused: BaseException | None
    _trailing: Any
    _waiting: Any

    def _begin(self, timeout: float | None) -> Any:
        self._refused = self._trailing = None
        call, requests, route = self.call, self.exchange.requests, self.exchange.route
        request: Any
        if requests is None:
            request = encoded(request_of(call), route.encode)  # here, since grpc.aio does not report a failure
        else:
            self._upload = request = requests.upload(call)
        return route.native(
            request,
            timeout=timeout,
            metadata=call._metadata or None,
            credentials=call._credentials,
            wait_for_ready=call._wait_for_ready,
            compression=call._compression,
        )

    def _follow(self) -> None:
        native, exchange = self.native, self.exchange
        if exchange.route.method.kind.response_streaming:
            self._read = native.read
            native.add_done_callback(self._when_native_is_over)
            return
        if type(native) is DirectCall:
            native.when_done = self._answered
            return
        if exchange.requests is not None:
            native.add_done_callback(self._note)
        self._waiting = native.__await__()
        self._wait()

    def _has_begun(self) -> bool:
        return at_once(self.native.initial_metadata()) is not None

    def _note(self, _: Any = None) -> bool:
        """Note the native call's status while it is the server's: a send that fails later would overwrite it."""
        native = self.native
        try:
            code = at_once(native.code())
        except KeyError:  # pragma: no cover
            # A number that is no code: only older versions of grpcio have no word for it.
            code = grpc.StatusCode.UNKNOWN
        if code is grpc.StatusCode.INTERNAL and str(at_once(native.debug_error_string())).startswith(SEND_FAILED):
            return False
        self._refused = None if code is OK else self._native_error(code)
        if self.exchange.requests is not None:
            self._trailing = at_once(native.trailing_metadata())
        return True

    # - the end of a unary response -

    def _answered(self, native: DirectCall) -> None:
        self.exchange.over(self, native.failure, native.response)

    @classmethod
    def under_way(cls, exchange: Owner, call: Call, native: DirectCall, started: float) -> Attempt:
        """One that has been sent already."""
        attempt = cls(exchange, call)
        attempt.native, attempt._started = native, started
        attempt._refused = attempt._trailing = None
        if native.when_done is not None:  # else it is over
            native.when_done = attempt._answered
        return attempt

    def _wait(self, _: Any = None) -> None:
        """Go on waiting for the response, as a task would that awaits the native call, without being one."""
        try:
            future = self._waiting.send(None)
        except StopIteration as end:
            self.exchange.over(self, response=end.value)
        except BaseException as error:
            self.exchange.over(self, (isinstance(error, AioRpcError) and self._refused) or error)
        else:
            future._asyncio_future_blocking = False  # the protocol of asyncio's own tasks: we have taken note
            future.add_done_callback(self._wait)

    # - the end of a response stream -

    def _when_native_is_over(self, _: Any = None) -> None:
        exchange = self.exchange
        if not self._note():
            if self._refused is None:
                self._refused = self._native_error(grpc.StatusCode.INTERNAL)
                # For what came before the status: `read` looks at the status first.
                self._read = getattr(self.native, "_read", self._read)
                exchange.loop.call_later(WRITE_GRACE, self._refuse_writes)
            if not self.over:
                exchange.loop.call_later(STATUS_POLL, self._when_native_is_over)
            return
        # A reader that holds a message has to count it first: the outcome says how many were delivered.
        self._native_over = True
        if not self._reading:
            exchange.over(self, self._refused)

    def _refuse_writes(self) -> None:
        """Responses are in front of the status, so a call that only writes would wait for ever."""
        requests = self.exchange.requests
        if not self.over and requests is not None and requests.written is not None:
            requests.written.end(self._refused or InvalidStateError(FINISHED))

    async def read(self, deliver: Callable[[Any], object] | None = None) -> Any:
        """The next response message, or EOF; its end is reported to the exchange. deliver: called first, with the message."""
        self._reading, error = True, None
        try:
            message = await self._read()
            if message is not EOF:
                if self.first_is_due and type(message) is not Undecodable:
                    show_initial_metadata(self.call, await self.native.initial_metadata())
                message = self.came(message)
                if deliver is not None:
                    deliver(message)
        except BaseException as raised:
            message, error = EOF, raised
        self._reading = False
        if error is not None or self._native_over:
            self.stop(error)
        return message

    def came(self, message: Any) -> Any:
        """A message has come: it is counted, and given as hooks leave it."""
        if type(message) is Undecodable:
            message.fail("response")
        if self._on_response is not None:
            message = self._on_response(message)
        self.received += 1
        return message

    def stop(self, error: BaseException | None) -> None:
        """A read has raised this, or the native call has ended meanwhile: that is reported to the exchange."""
        if type(error) is AioRpcError:  # that is the native call's status, which is reported to us
            error = None
        if error is not None or self._native_over:
            self.exchange.over(self, error or self._refused)
            if error is not None and not self._native_over:
                self.native.cancel()

    @property
    def unread(self) -> bool:
        """Has grpc.aio made up a failure, whose real status is behind messages that were not read?"""
        return self._refused is not None and not (self._native_over or self.over)

    async def connected(self) -> None:
        """Wait until it can be written to, or is over: who writes before, grpc.aio leaves waiting if it is cancelled."""
        sent = getattr(self.native, "_metadata_sent", None)  # its event; calls of native interceptors have none
        if sent is None or sent.is_set():
            return
        exchange, waiting = self.exchange, sent.wait()
        future = waiting.send(None)  # what it waits for, without a task of its own
        future._asyncio_future_blocking = False
        future.add_done_callback(lambda _: exchange.wake())
        try:
            while not (sent.is_set() or self.over):
                await exchange.changes()
        finally:
            waiting.close()

    @property
    def broken(self) -> bool:
        """Did its request stream raise? grpc then cancels the native call, which looks as if the application had."""
        return self._upload is not None and self._upload.error is not None

    def _sent(self) -> tuple[int, bool, BaseException | None]:
        if self._upload is None:  # the application writes to the native call itself
            return self.exchange.written, not self.exchange.written, None
        return super()._sent()

    def _typed(self, error: BaseException) -> BaseException:
        if isinstance(error, asyncio.CancelledError) and not self.broken:
            # A write that finds the call over by its deadline makes grpc.aio cancel it, before it has heard of that.
            if self._time_is_up():
                error = AioRpcError(grpc.StatusCode.DEADLINE_EXCEEDED, NO_METADATA, NO_METADATA, "Deadline Exceeded")
            else:  # by the application, or a channel that closes
                self.exchange.mark_cancelled()
        return typed(error)

    def _time_is_up(self) -> bool:
        left = time_left(self.call, self._started)
        return left is not None and self.exchange.route.clock.now() >= self._started + left

    def _initial_metadata(self) -> Any:
        return at_once(self.native.initial_metadata())

    def _ended(self) -> Any:
        return None if self.native is None else Ended(self.native, self._trailing)

    def _native_error(self, code: grpc.StatusCode | None) -> BaseException:
        native = self.native
        details, debug = at_once(native.details()), at_once(native.debug_error_string())
        if code is None or (native.cancelled() and debug is None):  # the core did not say so
            return asyncio.CancelledError()
        if details == INVALID_METADATA:
            return errors.Internal(details, local=True)
        return AioRpcError(
            code,
            at_once(native.initial_metadata()),
            at_once(native.trailing_metadata()),
            details,
            debug,
        )
