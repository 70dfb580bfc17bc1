"""The asyncio shell's calls: how a client's RPC is performed, and the native call objects that applications hold.

An RPC starts when the stub is called, awaited or not. It has no task of its own: grpc's call brings the news of its end
to an `Exchange`, which turns the drive there and then; a task is made only for what a flow waits for.

Everything happens on the loop's thread, so nothing is locked; only a finalizer may come from elsewhere.
"""

from __future__ import annotations

import asyncio
import logging
import math
import weakref
from asyncio import InvalidStateError
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import suppress
from contextvars import Context
from functools import partial
from typing import Any

import grpc
import grpc.aio

from interpose import errors
from interpose._call import Call
from interpose._clock import Alarm
from interpose._codec import Undecodable, encoded
from interpose._flow import Driver, Race, Wait
from interpose._messages import Pass, compose, request_of, show_initial_metadata
from interpose._metadata import Metadata
from interpose._native import (
    EOF,
    LOCALLY_CANCELLED,
    Route,
    cancelled,
    debug_text,
    exception_of,
    expired,
    failure,
    impatient,
    pause_of,
    time_left,
)
from interpose._outcome import OK, Outcome
from interpose._scope import Scope
from interpose.aio.joining import call_later, joined
from interpose.aio.requests import FINISHED, Requests, Upload

_log = logging.getLogger("interpose")

AioRpcError = grpc.aio.AioRpcError
InternalError = grpc.aio.InternalError

# When a message cannot be sent because the server has ended the call, grpc.aio makes up a status, INTERNAL with this
# debug text, in front of the server's or in place of it: grpc/grpc, aio/_call.py, `_write`.
SEND_FAILED = 'Failed "execute_batch"'
INVALID_METADATA = "Invalid metadata"  # what the core says of pairs that it refuses to send
MIXED = "The iterator and read/write APIs may not be mixed on a single RPC."  # grpcio's words
SETTLING = 0.002  # seconds between two looks for the status that follows
REFUSING = 0.005  # seconds between the metadata and the status of a call that was refused, both in one frame
PATIENCE = 0.1  # seconds that a `write` then waits to learn how the call ended


def typed(native: BaseException) -> BaseException:
    """What a native call raised, as a flow and the application shall see it."""
    if isinstance(native, errors.StatusError):
        return native
    if isinstance(native, AioRpcError):
        kind = errors.native_class(errors.of(native.code()), AioRpcError)
        return kind(
            native.details() or "",
            trailing_metadata=Metadata.trusted(native.trailing_metadata()),
            initial_metadata=native.initial_metadata(),
            debug_error_string=native.debug_error_string() or "",
        )
    if isinstance(native, asyncio.CancelledError):
        return errors.Cancelled(LOCALLY_CANCELLED, local=True)
    return native


def at_once(coroutine: Any) -> Any:
    """What a coroutine gives that need not wait: those of a native call that has ended."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    coroutine.close()
    return None


class Ended:
    """A native call that has ended, asked without waiting."""

    __slots__ = ("_native", "_trailing")

    def __init__(self, native: Any, trailing: Any) -> None:
        self._native = native
        self._trailing = trailing

    def initial_metadata(self) -> Any:
        return at_once(self._native.initial_metadata())

    def trailing_metadata(self) -> Any:
        return at_once(self._native.trailing_metadata()) if self._trailing is None else self._trailing


class Attempt:
    """One native call of an exchange."""

    __slots__ = (
        "_alarm",
        "_native_over",
        "_on_response",
        "_read",
        "_reading",
        "_refused",
        "_started",
        "_trailing",
        "_upload",
        "_waiting",
        "call",
        "exchange",
        "native",
        "over",
        "received",
    )

    def __init__(self, exchange: Exchange, call: Call) -> None:
        self.exchange = exchange
        self.call = call
        self.native: Any = None
        self.over = False
        self.received = 0
        self._started = exchange.route.clock.now()
        self._upload: Upload | None = None
        self._on_response: Pass | None = None
        self._reading = False
        self._native_over = False
        self._read: Any = None
        self._refused: BaseException | None = None
        self._trailing: Any = None
        self._waiting: Any = None
        self._alarm: Alarm | None = None

    def send(self) -> Outcome | None:
        """Start the native call; gives the outcome if nothing was sent."""
        call, exchange = self.call, self.exchange
        route = exchange.route
        timeout = time_left(call, self._started)
        if timeout is not None and timeout <= 0:
            return expired()
        self._on_response = compose(call._asks.responses)
        try:
            request: Any
            if exchange.requests is None:
                request = encoded(request_of(call), route.encode)  # here, since grpc.aio does not tell of a failure
            else:
                self._upload = request = exchange.requests.upload(call)
            self.native = route.native(
                request,
                timeout=timeout,
                metadata=call._metadata or None,
                credentials=call._credentials,
                wait_for_ready=call._wait_for_ready,
                compression=call._compression,
            )
        except BaseException as error:
            return self.outcome(error)
        exchange.publish(self)
        if route.method.kind.response_streaming:
            self._read = self.native.read
            self.native.add_done_callback(self._when_native_is_over)
            if call._asks.patience is not None:
                self._alarm = call_later(route.clock, exchange.loop, call._asks.patience, self._lose_patience)
        else:
            if exchange.requests is not None:
                self.native.add_done_callback(self._note)
            self._waiting = self.native.__await__()
            self._wait()
        return None

    def _lose_patience(self) -> None:
        """End it, unless the server has begun to answer."""
        if not self.over and not self.received and at_once(self.native.initial_metadata()) is None:
            self.exchange.over(self, impatient(self.call))
            self.native.cancel()

    def _note(self, _: Any = None) -> bool:
        """Note the native call's status while it is the server's: a send that fails later would overwrite it."""
        native = self.native
        try:
            code = at_once(native.code())
        except (
            KeyError
        ):  # pragma: no cover  a number that is no code: only older versions of grpcio have no word for it
            code = grpc.StatusCode.UNKNOWN
        if code is grpc.StatusCode.INTERNAL and str(at_once(native.debug_error_string())).startswith(SEND_FAILED):
            return False
        self._refused = None if code is OK else self._native_error(code)
        if self.exchange.requests is not None:
            self._trailing = at_once(native.trailing_metadata())
        return True

    # - the end of a unary response -

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
                self._read = self.native._read  # for what came before the status: `read` looks at the status first
                exchange.loop.call_later(PATIENCE, self._refuse_writes)
            if not self.over:
                exchange.loop.call_later(SETTLING, self._when_native_is_over)
            return
        # A reader that holds a message has to count it first: the outcome tells how many were delivered.
        self._native_over = True
        if not self._reading:
            exchange.over(self, self._refused)

    def _refuse_writes(self) -> None:
        """Responses stand in front of the status, so whoever only writes would wait for ever."""
        requests = self.exchange.requests
        if not self.over and requests is not None and requests.written is not None:
            requests.written.end(self._refused or InvalidStateError(FINISHED))

    async def read(self, deliver: Callable[[Any], object] | None = None) -> Any:
        """The next response message, or EOF; of the end the exchange is told. deliver: called first, with the message."""
        self._reading = True
        error = None
        try:
            message = await self._read()
            if type(message) is Undecodable:
                message.fail("response")
            if message is not EOF:
                if not self.received and self.call._asks.on_initial_metadata:
                    show_initial_metadata(self.call, await self.native.initial_metadata())
                if self._on_response is not None:
                    message = self._on_response(message)
                self.received += 1
                if deliver is not None:
                    deliver(message)
        except BaseException as raised:
            message = EOF
            if type(raised) is not AioRpcError:  # that is the native call's status, of which we are told
                error = raised
        finally:
            self._reading = False
        if error is not None or self._native_over:
            self.exchange.over(self, error or self._refused)
            if error is not None and not self._native_over:
                self.native.cancel()
        return message

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

    def outcome(self, error: BaseException | None = None, response: Any = None) -> Outcome:
        """How it ended: with `error`, or as the native call says."""
        streaming = self.exchange.route.method.kind.response_streaming
        upload, native = self._upload, self.native
        sent, again = 1, True
        if self._alarm is not None:
            self._alarm.cancel()
        if self.exchange.requests is not None:
            sent = self.exchange.written if upload is None else upload.sent
            again = not sent if upload is None else upload.close()
            error = (upload.error if upload is not None else None) or error
        if error is None:
            try:
                if not self.received and self.call._asks.on_initial_metadata:
                    show_initial_metadata(self.call, at_once(native.initial_metadata()))
                if not streaming:
                    self.received = 1
                    if type(response) is Undecodable:
                        response.fail("response")
                    if self._on_response is not None:
                        response = self._on_response(response)
            except errors.StatusError as raised:
                error = raised
        replayable = again and not (streaming and self.received)
        elapsed = self.exchange.route.clock.now() - self._started
        ended = None if native is None else Ended(native, self._trailing)
        if error is not None:
            return failure(typed(error), sent, self.received, elapsed, replayable, ended)
        return Outcome(OK, response, "", None, sent, self.received, elapsed, replayable, ended)

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


class Exchange:
    """One RPC, from the call of the stub to its end."""

    __slots__ = (
        "_alarm",
        "_callbacks",
        "_changed",
        "_context",
        "_driver",
        "_race",
        "_scope",
        "_waiting",
        "ahead",
        "answer",
        "attempt",
        "cancelled",
        "deadline",
        "lane_of",
        "loop",
        "outcome",
        "requests",
        "route",
        "written",
    )

    def __init__(
        self,
        route: Route,
        driver: Driver,
        context: Context,
        deadline: float | None,
        requests: Requests | None,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.route = route
        self.deadline = deadline
        self.loop = loop
        self.attempt: Attempt | None = None
        self.outcome: Outcome | None = None
        self.ahead: deque[Any] = deque()  # messages that were read before the application asked for them
        self.answer: list[Any] | None = None  # a stream answered by a flow, without a native call
        self.cancelled = False
        self.lane_of: _Race | None = None  # then the request stream is everybody's
        self.requests = requests
        self.written = 0  # messages that the application wrote to the native call itself
        self._driver = driver
        self._context = context
        self._alarm: Alarm | None = None
        self._race: _Race | None = None
        self._scope: Scope | None = None
        self._waiting: asyncio.Task[Any] | None = None
        self._callbacks: list[Callable[[], object]] | None = []
        self._changed: list[asyncio.Future[None]] = []

    # - turning -

    def turn(self, move: Callable[[Any], Any], news: Any) -> None:
        """Move the driver on, and do what it asks for."""
        try:
            step = self._context.run(move, news)
            while type(step) is not Outcome:
                outcome = self._perform(step)
                if outcome is None:
                    return
                step = self._context.run(self._driver.tell, outcome)
        except BaseException as fault:  # whatever it is, the application must not wait for ever
            _log.exception("interpose failed while it drove %s", self.route.method)
            step = failure(errors.Internal(f"interpose failed: {type(fault).__name__}", local=True))
            if isinstance(fault, KeyboardInterrupt):  # Ctrl-C, in the application's own thread
                self._settle(step)
                raise
        # Nothing else is raised: this may be the one thread of a channel, or a callback of the loop.
        self._settle(step)

    def told(self, outcome: Outcome) -> None:
        """What was performed has ended."""
        self.turn(self._driver.tell, outcome)

    def _perform(self, step: Any) -> Outcome | None:
        if type(step) is Wait:
            # In the flow's own context, so that what it set is there, and what the awaitable sets is there later.
            self._waiting = self.loop.create_task(self._awaited(step), context=self._context)
            self._waiting.add_done_callback(partial(self._waited, step.awaitable))
            self._pause(True)
            return None
        if self.cancelled or (type(step) is Call and not self._belongs(step._asks.scope)):
            return cancelled()
        if type(step) is Race:
            race = self._race = _Race(self, step)
            race.start_next()
            return None
        if step._asks.delay > 0:
            if self.route.pauses.closed:
                return cancelled()
            seconds, in_time = pause_of(step, self.route.clock.now())
            self._alarm = call_later(self.route.clock, self.loop, seconds, partial(self._ring, step, in_time))
            self._pause(True)
            return None
        return Attempt(self, step).send()

    async def _awaited(self, step: Wait) -> tuple[Any, BaseException | None]:
        """What it gives, or raises: a task that raised SystemExit would stop the loop."""
        try:
            return await joined(step, self.deadline, self.route.clock), None
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            return None, error

    def _ring(self, step: Call, in_time: bool) -> None:
        if self._alarm is not None:
            self._alarm = None
            self._pause(False)
            outcome = Attempt(self, step).send() if in_time else expired()
            if outcome is not None:
                self.told(outcome)

    def _waited(self, awaitable: Any, task: asyncio.Task[Any]) -> None:
        self._waiting = None
        self._pause(False)
        if task.cancelled():
            if hasattr(awaitable, "close"):
                awaitable.close()  # cancelled before it began, it would complain of never having been awaited
            self.turn(self._driver.fail, errors.Cancelled(LOCALLY_CANCELLED, local=True))
            return
        value, error = task.result()
        if error is not None:
            self.turn(self._driver.fail, error)
        else:
            self.turn(self._driver.answer, value)

    def _pause(self, begins: bool) -> None:
        """Nothing is under way at grpc: a channel that closes has to be told of us."""
        (self.route.pauses.add if begins else self.route.pauses.discard)(self.cancel)

    def _belongs(self, scope: Scope | None) -> bool:
        """Cancel it when the incoming RPC ends that it belongs to; False if that has ended."""
        if scope is None or scope is self._scope:
            return True
        self._scope = scope
        return scope.add(self.abandon)

    @property
    def outlived(self) -> bool:
        """Has the incoming RPC ended that it belongs to? Then that has cancelled it, and not who awaits it."""
        return self._scope is not None and self._scope.over

    def publish(self, attempt: Attempt) -> None:
        """From now on this is the attempt that readers read and that a cancel cancels."""
        self.attempt = attempt
        self.wake()
        if self.lane_of is not None and self.route.method.kind.response_streaming:
            self.lane_of.published(self, attempt)

    def over(self, attempt: Attempt, error: BaseException | None = None, response: Any = None) -> None:
        """An attempt has ended; told any number of times."""
        if not attempt.over:
            attempt.over = True
            self.attempt = None
            if isinstance(error, asyncio.CancelledError) and not attempt.broken:
                self.cancelled = True
            self.told(attempt.outcome(error, response))

    def _settle(self, outcome: Outcome) -> None:
        if self.cancelled and outcome._code is not grpc.StatusCode.CANCELLED and self.lane_of is None:
            outcome = cancelled()  # whatever a flow makes of it: `wait_for` and its like count on it
        if outcome.ok and outcome.response is not None and self.route.method.kind.response_streaming:
            self.answer = list(outcome.response)
        self.outcome, self.attempt = outcome, None
        if self._scope is not None:
            self._scope.discard(self.abandon)
        callbacks, self._callbacks = self._callbacks, None
        if self.requests is not None and self.lane_of is None:
            self.requests.stop(InvalidStateError(FINISHED) if outcome.ok else self.exception())
        self.wake()
        for callback in callbacks or ():
            try:
                callback()
            except BaseException:  # SystemExit too: other callbacks, and the loop, go on
                _log.exception("a callback of %s failed", self.route.method)

    # - what applications ask -

    def cancel(self) -> bool:
        """Cancel on behalf of the application; False if it has ended already."""
        if self.outcome is not None or self.cancelled:
            return False
        self.cancelled = True
        if self._race is not None:
            self._race.cancel()
        elif self.attempt is not None:
            attempt = self.attempt
            attempt.native.cancel()
            self.over(attempt, asyncio.CancelledError())
        elif self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
            self._pause(False)
            self.told(cancelled())
        elif self._waiting is not None:
            self.loop.call_soon(self._waiting.cancel)  # a step that was only just asked for has begun by then
        return True

    def abandon(self) -> None:
        """Nobody wants it any more: the application dropped it, or the RPC it belongs to is over. On any thread."""
        if self.outcome is None and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.cancel)

    def add_callback(self, callback: Callable[[], object]) -> None:
        """Call back at the end; at once if that was before."""
        if self._callbacks is None:
            callback()
        else:
            self._callbacks.append(callback)

    def changes(self) -> asyncio.Future[None]:
        """Done when there is a new attempt, or the end."""
        future = self.loop.create_future()
        self._changed.append(future)
        return future

    def wake(self) -> None:
        """Let those who wait for a change look again."""
        if self._changed:
            for future in self._changed:
                if not future.done():
                    future.set_result(None)
            self._changed.clear()

    async def end(self) -> Outcome:
        """Wait for the end."""
        while self.outcome is None:
            await self.changes()
        return self.outcome

    async def settled(self, attempt: Attempt) -> None:
        """Wait a moment, if it may be about to fail: a refusal comes with no metadata, and just behind that the status."""
        if self.route.layers and self.attempt is attempt:
            with suppress(TimeoutError):
                async with asyncio.timeout(REFUSING):
                    await self.changes()

    async def next_attempt(self, last: Attempt | None = None) -> Attempt | None:
        """Wait for another attempt than `last`; None once all is over."""
        while self.outcome is None:
            if self.attempt is not None and self.attempt is not last:
                return self.attempt
            await self.changes()
        return None

    def exception(self) -> BaseException:
        """What the application gets for the failure."""
        assert self.outcome is not None
        if self.cancelled and not self.outlived:
            return asyncio.CancelledError()
        return exception_of(self.outcome, AioRpcError)


class _Race:
    """The lanes of a race: each an exchange of its own; the first good answer wins, and the others are cancelled.

    Of response streams the first to deliver a message wins: a task reads each of them until then. From then on the
    application reads what the winner does.
    """

    def __init__(self, exchange: Exchange, step: Race) -> None:
        self._exchange = exchange
        self._step = step
        self._lanes = list(step.lanes)
        self._running: list[Exchange] = []
        self._looking: set[asyncio.Task[None]] = set()
        self._winner: Exchange | None = None
        self._failure: Outcome | None = None  # of the lane that failed last
        self._drivers: list[Driver] = []  # of all lanes that were started
        self._over = False
        self._alarm: Alarm | None = None

    def start_next(self) -> None:
        parent = self._exchange
        if self._over:
            return
        if not self._more() or (self._drivers and not self._step.ready()):
            self._start_no_more()
            return
        driver, call = self._lanes.pop(0)()
        self._drivers.append(driver)
        lane = Exchange(parent.route, driver, parent._context.copy(), parent.deadline, parent.requests, parent.loop)
        lane.lane_of = self
        self._running.append(lane)
        self._set_alarm(self._step.delay_behind(len(self._drivers)))
        lane.add_callback(partial(self._lane_over, lane))
        lane.turn(driver.start, call)
        parent.wake()  # whoever writes can do so now

    def _set_alarm(self, seconds: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        parent = self._exchange
        self._alarm = call_later(parent.route.clock, parent.loop, seconds, self.start_next) if self._lanes else None

    def _more(self) -> bool:
        """Is there another lane, and can the request stream be read once more for it?"""
        requests = self._exchange.requests
        if requests is not None and not requests.repeatable:
            self._lanes.clear()
        return bool(self._lanes)

    def _start_no_more(self) -> None:
        """Wait for the lanes that run; without any, the last failure is the answer."""
        self._lanes.clear()
        if not self._running and self._failure is not None:
            self.finish(self._failure)

    def _lane_over(self, lane: Exchange) -> None:
        outcome = lane.outcome
        assert outcome is not None
        self._running.remove(lane)
        if self._over or self._winner not in (None, lane):
            return
        if lane.cancelled:
            self._exchange.cancelled = True  # by a channel that closes: nothing more can be sent on it
        if outcome.ok or self._exchange.cancelled or self._winner is lane:
            self.finish(outcome)
            return
        self._failure = outcome
        pause = self._step.pause_after(outcome, self._exchange.route.clock.now(), not self._running)
        if pause is None:
            self.finish(outcome)
        elif pause == math.inf or not self._more():
            self._start_no_more()
        elif pause > 0:
            self._set_alarm(pause)
        else:
            self.start_next()  # a failure lets the next copy go at once (gRFC A6)

    # - response streams -

    def published(self, lane: Exchange, attempt: Attempt) -> None:
        """A lane has sent its call: see whether it is the first to deliver."""
        if self._winner is lane:  # its flows have sent again
            self._exchange.ahead.extend(lane.ahead)
            lane.ahead.clear()
            self._exchange.publish(attempt)
        elif lane.ahead:  # of a race within it, which has read it already
            self._delivered(lane, attempt, lane.ahead.popleft())
        else:
            task = lane.loop.create_task(self._look(lane, attempt), context=lane._context.copy())
            self._looking.add(task)
            task.add_done_callback(self._looking.discard)

    async def _look(self, lane: Exchange, attempt: Attempt) -> None:
        await attempt.read(partial(self._delivered, lane, attempt))

    def _delivered(self, lane: Exchange, attempt: Attempt, message: Any) -> None:
        """The first message of a lane: it wins, if no other has."""
        if self._over or self._winner is not None:
            return
        self._winner = lane
        self._lanes.clear()
        self._set_alarm(0)
        self._exchange.ahead.append(message)
        self._exchange.publish(attempt)
        for loser in list(self._running):
            if loser is not lane:
                loser.cancel()

    # - the end -

    def finish(self, outcome: Outcome) -> None:
        if self._over:
            return
        self._over = True
        if self._alarm is not None:
            self._alarm.cancel()
        for loser in list(self._running):
            loser.cancel()
        outcome._attempts = sum(driver.sends for driver in self._drivers)
        self._exchange._race = None
        self._exchange.told(outcome)

    def cancel(self) -> None:
        if self._winner is not None:
            self._winner.cancel()
        else:
            self.finish(cancelled())


# --- what applications hold -------------------------------------------------------------------------------------------


class _Handle(grpc.aio.Call):
    """A call as grpc.aio knows it, over an exchange."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def cancelled(self) -> bool:
        """Was it cancelled?"""
        exchange = self._exchange
        return exchange.cancelled or (
            exchange.outcome is not None and exchange.outcome.code is grpc.StatusCode.CANCELLED
        )

    def done(self) -> bool:
        """Has it ended, or is it about to since it was cancelled?"""
        # A cancelled one is done, as futures are, though its flows may still have something to await.
        return self._exchange.outcome is not None or self._exchange.cancelled

    def time_remaining(self) -> float | None:
        """Seconds until the deadline, or None without one."""
        exchange = self._exchange
        return None if exchange.deadline is None else max(exchange.deadline - exchange.route.clock.now(), 0.0)

    def cancel(self) -> bool:
        """Cancel it, whatever it is doing: sending, streaming, or waiting to be sent again. False if it has ended."""
        return self._exchange.cancel()

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        """Call `callback(self)` at the end; at once if that was before."""
        self._exchange.add_callback(partial(callback, self))

    async def initial_metadata(self) -> Any:
        """What the server sent in front of the response; waits for it."""
        exchange, attempt = self._exchange, None
        while (attempt := await exchange.next_attempt(attempt)) is not None:
            metadata = await attempt.native.initial_metadata()
            if not metadata:
                await exchange.settled(attempt)
            if exchange.attempt is attempt and not attempt.native.done():
                return metadata
            while not attempt.over:  # the flows are about to be told, and may send again
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
            try:
                await attempt.native.wait_for_connection()
            except AioRpcError:
                continue  # the flows decide what becomes of it
            return
        if not (await exchange.end()).ok:
            raise exchange.exception()

    def __repr__(self) -> str:
        outcome = self._exchange.outcome
        if outcome is None:
            return f"<{type(self).__name__} of {self._exchange.route.method}, active>"
        described = "" if outcome.ok else f'\tdebug_error_string = "{debug_text(outcome)}"\n'
        return (
            f"<{type(self).__name__} of RPC that terminated with:\n"
            f'\tstatus = {outcome.code}\n\tdetails = "{outcome.details}"\n{described}>'
        )


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
                    # Not our own future: when the native call ends, whoever awaits it wakes in the same turn of the loop,
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


class _ResponseStream(_Handle):
    def __init__(self, exchange: Exchange) -> None:
        super().__init__(exchange)
        self._style = ""
        self._messages: AsyncIterator[Any] | None = None

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        """Call `callback(self)` at the end; at once if that was before. A dropped stream is cancelled all the same.

        `callback` is then given another call object of the same RPC.
        """
        # Held by the exchange, a callback that held the stream would keep it from ever being dropped.
        exchange, kind, stream = self._exchange, type(self), weakref.ref(self)
        exchange.add_callback(lambda: callback(stream() or kind(exchange)))

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
        while (message := await self._next(exchange.attempt)) is not eof:
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
            try:
                attempt = await exchange.next_attempt(attempt)
            except asyncio.CancelledError:
                exchange.cancel()
                raise
            if attempt is None and not exchange.ahead:
                return self._last()

    def _last(self) -> Any:
        exchange = self._exchange
        assert exchange.outcome is not None
        if exchange.answer:
            return exchange.answer.pop(0)
        if not exchange.outcome.ok:
            raise exchange.exception()
        return EOF

    def _use(self, style: str) -> None:
        if self._style not in ("", style):
            raise grpc.aio.UsageError(MIXED)
        self._style = style

    def __del__(self) -> None:
        exchange = getattr(self, "_exchange", None)
        if exchange is not None:
            exchange.abandon()


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
            # Not for ever: responses that nobody reads while we write may stand in front of the server's status.
            with suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    await exchange.end()
            ended = exchange.outcome is not None and not exchange.outcome.ok
            raise (exchange.exception() if ended else typed(error)) from None

    async def _write(self, request: Any) -> None:
        exchange, requests = self._exchange, self._own_requests()
        attempt = await self._writable()
        if requests.written is not None:
            await requests.written.write(request)
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
        """Tell the server that no more messages come."""
        requests = self._own_requests()
        if self._exchange.outcome is not None:
            return
        attempt = await self._writable()
        requests.half_closed = True
        if requests.written is not None:
            requests.written.done()
        else:
            assert attempt is not None
            with suppress(InternalError):  # the RPC ends just now; how, is told to who reads
                await attempt.connected()
                await attempt.native.done_writing()

    def _own_requests(self) -> Requests:
        """The requests, which the application writes itself."""
        requests = self._exchange.requests
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


class StreamUnaryCall(_RequestStream, _UnaryResponse, grpc.aio.StreamUnaryCall[Any, Any]):
    """A stream of requests, one response."""


class UnaryStreamCall(_ResponseStream, grpc.aio.UnaryStreamCall[Any, Any]):
    """One request, a stream of responses: iterate it. Dropping it cancels the RPC."""


class StreamStreamCall(_RequestStream, _ResponseStream, grpc.aio.StreamStreamCall[Any, Any]):
    """A stream each way. Dropping it cancels the RPC."""
