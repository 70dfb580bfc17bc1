"""The native call objects that applications hold, over an exchange."""

from __future__ import annotations

import asyncio
from asyncio import InvalidStateError
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import suppress
from contextvars import Context
from typing import Any

import grpc
import grpc.aio

from interpose import errors
from interpose._call import Call
from interpose._flow import Driver, Nested
from interpose._grpcio.aio_calls import AioRpcError, Ended, typed
from interpose._grpcio.direct import Direct, DirectCall
from interpose._messages import compose
from interpose._outcome import OK, Outcome, Received
from interpose._shell.codec import Undecodable, bytes_of, encoded
from interpose._shell.handle import Handle, Stream
from interpose._shell.native import EOF, Route, debug_text, expired, time_left
from interpose._shell.straight import end
from interpose.aio.attempt import WRITE_GRACE, Attempt
from interpose.aio.exchange import Exchange
from interpose.aio.requests import FINISHED, Requests

InternalError = grpc.aio.InternalError

MIXED = "The iterator and read/write APIs may not be mixed on a single RPC."  # grpcio's words


class _Handle(Handle, grpc.aio.Call):
    """A call as grpc.aio knows it, over an exchange."""

    # Older versions of grpc.aio (1.66) look for it as they close a channel, on each call that a task waits in, and fail
    # where there is none. With another channel's they leave the call alone; ours ends with its attempt.
    _channel = None

    _exchange: Exchange

    def cancelled(self) -> bool:
        """Was it cancelled?"""
        exchange = self._exchange
        return exchange.cancelled or (
            exchange.outcome is not None and exchange.outcome.code is grpc.StatusCode.CANCELLED
        )

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        """Call `callback(self)` at the end; at once if that was before."""
        self._at_end(callback)

    async def initial_metadata(self) -> Any:
        """What the server sent in front of the response; waits for it."""
        exchange, attempt = self._exchange, None
        while (attempt := await exchange.next_attempt(attempt)) is not None:
            metadata = await attempt.native.initial_metadata()
            if not metadata:
                await exchange.settled(attempt)
            if exchange.attempt is attempt and (attempt.unread or not attempt.native.done()):
                return metadata
            while not attempt.over:  # the flows are about to get the outcome, and may send again
                await exchange.changes()
        return grpc.aio.Metadata(*(await exchange.end()).initial_metadata)

    async def trailing_metadata(self) -> Any:
        """What the server sent behind the response; waits for the end."""
        return grpc.aio.Metadata(*(await self._exchange.end()).trailing_metadata)

    async def code(self) -> grpc.StatusCode:
        """The status code; waits for the end."""
        return (await self._exchange.end()).code

    async def details(self) -> str:
        """The text beside the code; waits for the end."""
        return (await self._exchange.end()).details

    async def debug_error_string(self) -> str:
        """What gRPC's core says about a failure; waits for the end."""
        return debug_text(await self._exchange.end())

    async def wait_for_connection(self) -> None:
        """Wait until an attempt is connected; raises the RPC's failure if it ends instead."""
        exchange, attempt = self._exchange, None
        while (attempt := await exchange.next_attempt(attempt)) is not None:
            if await self._has_connected(attempt):
                return
        if not (await exchange.end()).ok:
            raise exchange.exception()

    async def _has_connected(self, attempt: Attempt) -> bool:
        """Wait until this one is connected; False if it ended before: the flows decide what becomes of it."""
        try:
            await attempt.connected()
            if attempt.over:  # cancelled before it was connected, it would leave us waiting: grpc.aio forgets who asked
                return False
            await attempt.native.wait_for_connection()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            while not attempt.over:  # the native call was cancelled, and not this task
                await self._exchange.changes()
            return False
        except AioRpcError:
            if attempt.unread:
                await self._exchange.moment()
            return attempt.unread
        return True


class _UnaryResponse(_Handle):
    def __await__(self) -> Generator[Any, Any, Any]:
        """The response; raises what the RPC failed with. Cancelling who awaits it cancels the RPC."""
        exchange = self._exchange
        try:
            while exchange.outcome is None:
                attempt = exchange.attempt
                if attempt is None:
                    yield from exchange.changes()
                else:
                    # Not our own future: when the native call ends, the code that awaits it wakes in the same turn of the loop,
                    # right behind the exchange.
                    try:
                        yield from attempt.native.__await__()
                    except asyncio.CancelledError:
                        if not attempt.over:
                            if not attempt.broken:
                                raise
                            yield from exchange.changes()
                    except Exception:  # noqa: S110  the exchange is told too, and knows what becomes of it
                        pass
                    if not attempt.over:  # under native interceptors we may come first
                        yield from exchange.changes()
        except BaseException:  # the task that awaits was cancelled, or closed
            exchange.cancel()
            raise
        outcome = exchange.outcome
        if outcome._code is not OK:
            raise exchange.exception()
        return outcome.response


class _ResponseStream(Stream, _Handle):
    def __init__(self, exchange: Exchange) -> None:
        super().__init__(exchange)
        self._style = ""
        self._messages: AsyncIterator[Any] | None = None

    def __aiter__(self) -> AsyncIterator[Any]:
        """The messages; raises what the RPC failed with."""
        self._use("iterator")
        if self._messages is None:
            self._messages = self._iterate()
        return self._messages

    async def read(self) -> Any:
        """The next message, or EOF; raises what the RPC failed with."""
        if not self.done():  # after the end either style may look for what is left, as with grpc.aio
            self._use("reader")
        return await self._next(self._exchange.attempt)

    async def _iterate(self) -> AsyncIterator[Any]:
        exchange, eof = self._exchange, EOF
        while True:
            attempt = exchange.attempt
            if attempt is None or exchange.ahead or attempt.first_is_due:
                message = await self._next(attempt)
                if message is eof:
                    return
                yield message
                continue
            while exchange.attempt is attempt:  # as `attempt.read()`, without its coroutine, and one more frame
                attempt._reading, error = True, None
                try:
                    message = await attempt._read()
                    if type(message) is Undecodable or (attempt._on_response is not None and message is not eof):
                        message = attempt.came(message)
                    elif message is not eof:
                        attempt.received += 1
                except BaseException as raised:
                    message, error = eof, raised
                attempt._reading = False
                if error is not None or attempt._native_over:
                    attempt.stop(error)
                if message is eof:
                    await self._another(attempt)
                    break
                yield message

    async def _next(self, attempt: Attempt | None) -> Any:
        exchange, eof = self._exchange, EOF
        while True:
            if exchange.ahead:
                return exchange.ahead.popleft()
            if attempt is not None:
                message = await attempt.read()
                if message is not eof:
                    return message
            attempt = await self._another(attempt)
            if attempt is None and not exchange.ahead:
                return self._last()

    async def _another(self, last: Attempt | None) -> Attempt | None:
        """Wait for another attempt; None at the end. Cancelling who waits cancels the RPC."""
        try:
            another: Attempt | None = await self._exchange.next_attempt(last)
        except asyncio.CancelledError:
            self._exchange.cancel()
            raise
        return another

    def _last(self) -> Any:
        exchange = self._exchange
        assert exchange.outcome is not None
        if exchange.answer is not None:
            return next(exchange.answer, EOF)
        if not exchange.outcome.ok:
            raise exchange.exception()
        return EOF

    def _use(self, style: str) -> None:
        if self._style not in ("", style):
            raise grpc.aio.UsageError(MIXED)
        self._style = style


class _RequestStream(_Handle):
    async def write(self, request: Any) -> None:
        """Send one message; for calls made without a request iterator. Cancelling who writes cancels the RPC."""
        exchange = self._exchange
        try:
            await self._write(request)
        except asyncio.CancelledError:
            exchange.cancel()
            raise
        except AioRpcError as error:
            # Not for ever: responses that are not read while we write may be in front of the server's status.
            with suppress(TimeoutError):
                async with asyncio.timeout(WRITE_GRACE):
                    await exchange.end()
            ended = exchange.outcome is not None and not exchange.outcome.ok
            raise (exchange.exception() if ended else typed(error)) from None

    async def _write(self, request: Any) -> None:
        exchange, requests = self._exchange, self._own_requests()
        attempt = await self._writable()
        if requests.written is not None:
            await requests.written.write(request, exchange.loop)
            return
        assert attempt is not None
        hook = compose(attempt.call._asks.requests)
        try:
            message = encoded(request if hook is None else hook(request), exchange.route.encode)
        except errors.StatusError as error:
            exchange.over(attempt, error)
            attempt.native.cancel()
            raise errors.nativized(error, AioRpcError) from error.__cause__
        exchange.written += 1  # already: from now on the server may have it
        await attempt.connected()
        await attempt.native.write(message)

    async def done_writing(self) -> None:
        """Say to the server that no more messages come."""
        requests = self._own_requests()
        if self._exchange.outcome is not None:
            return
        attempt = await self._writable()
        requests.half_closed = True
        if requests.written is not None:
            requests.written.done()
        else:
            assert attempt is not None
            with suppress(InternalError):  # the RPC ends just now; how, is reported to the reader
                await attempt.connected()
                await attempt.native.done_writing()

    def _own_requests(self) -> Requests:
        """The requests, which the application writes itself."""
        requests: Requests | None = self._exchange.requests
        assert requests is not None
        if not requests.written_by_hand:
            raise grpc.aio.UsageError(MIXED)
        return requests

    async def _writable(self) -> Attempt | None:
        """Wait until there is something to write to: an attempt, or what takes the writes for all attempts of a race."""
        exchange, requests = self._exchange, self._exchange.requests
        while exchange.outcome is None:
            if exchange.attempt is not None or (requests is not None and requests.written is not None):
                return exchange.attempt
            await exchange.changes()
        raise InvalidStateError(FINISHED)


class UnaryUnaryCall(_UnaryResponse, grpc.aio.UnaryUnaryCall[Any, Any]):
    """One request, one response: await it."""


class StraightCall(UnaryUnaryCall):
    """What nearly every RPC is: its flows have passed the call on, it was sent, and its application awaits the response.

    For all else that is asked for, an exchange takes over what has begun.
    """

    _native: DirectCall | None = None
    _outcome: Outcome | None = None

    def __init__(
        self,
        route: Route,
        loop: asyncio.AbstractEventLoop,
        context: Context,
        frames: Nested,
        call: Call,
    ) -> None:
        self._route = route
        self._loop = loop
        self._context = context
        self._frames = frames
        self._call = call

    @property
    def _kind(self) -> str:
        return "UnaryUnaryCall"

    def __getattr__(self, name: str) -> Any:
        """The exchange is made when it is first asked for."""
        if name != "_exchange":
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        self._exchange = exchange = self._with(Driver.under_way(self._route.layers, self._frames))
        if self._outcome is not None:
            exchange.ended_with(self._outcome)
        elif self._native is not None:
            exchange.attempt = Attempt.under_way(exchange, self._call, self._native, self._started)
        return exchange

    def _with(self, driver: Driver) -> Exchange:
        return Exchange(self._route, driver, self._context, self._call._deadline, None, self._loop)

    def send(self, way: Direct) -> None:
        """Send it, and pass to the flows how it ended."""
        call, route = self._call, self._route
        self._started = started = route.clock.now()
        timeout = call._timeout
        if timeout is not None or call._deadline is not None:
            timeout = time_left(call, started)
            if timeout is not None and timeout <= 0:
                self._exchange.told(expired())
                return
        try:
            data = bytes_of(call._request, route.encode)
            self._native = native = way.start(
                data, timeout, call._metadata, call._credentials, call._wait_for_ready, call._compression
            )
        except BaseException as error:
            exchange = self._exchange
            exchange.told(Attempt(exchange, call).outcome(error))
            return
        native.when_done = self._end

    def _end(self, native: DirectCall) -> None:
        if native.failure is not None or type(native.response) is Undecodable:
            exchange = self._exchange
            exchange.over(exchange.attempt, native.failure, native.response)
            return
        route = self._route
        try:
            outcome = Received()
            outcome._response, outcome._elapsed = native.response, route.clock.now() - self._started
            outcome._ended, outcome._attempts = Ended(native), 1
            outcome._initial_metadata = outcome._trailing_metadata = None
            taken = self._context.run(end, route.layers, self._frames, outcome)
        except BaseException as error:
            self._exchange.broken(error)
            return
        if taken is None:
            self._outcome = outcome
        else:
            driver, step = taken
            self._exchange = self._with(driver)
            self._exchange.go_on(step)

    def __await__(self) -> Generator[Any, Any, Any]:
        """The response; raises what the RPC failed with. Cancelling who awaits it cancels the RPC."""
        if self._outcome is None and self._native is not None and "_exchange" not in self.__dict__:
            native = self._native
            try:
                yield from native.waiting
            except BaseException as error:
                cancelled = native.waiting.cancelled() and isinstance(error, asyncio.CancelledError)
                if not cancelled and not native.failed_with(error):
                    self._exchange.cancel()
                    raise
        if self._outcome is not None:
            return self._outcome._response
        return (yield from super().__await__())


class StreamUnaryCall(_RequestStream, _UnaryResponse, grpc.aio.StreamUnaryCall[Any, Any]):
    """A stream of requests, one response."""


class UnaryStreamCall(_ResponseStream, grpc.aio.UnaryStreamCall[Any, Any]):
    """One request, a stream of responses: iterate it. Dropping it cancels the RPC."""


class StreamStreamCall(_RequestStream, _ResponseStream, grpc.aio.StreamStreamCall[Any, Any]):
    """A stream each way. Dropping it cancels the RPC."""
