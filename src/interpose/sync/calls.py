"""The sync shell's calls: how a client's RPC is performed, and the native call objects that applications hold.

A *blocking* call turns its drive in the caller's own thread (`channel.py`). All others, futures and streams, are an
`Exchange`: it never blocks, and is turned by whichever thread brings the news — the application's, grpc's channel
thread, or the clock's. News are claimed: each attempt ends once, and who claims its end turns the drive.

No lock is held while anything is sent, waited for or called back, and finalizers take none.
"""

from __future__ import annotations

import logging
import math
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextvars import Context
from functools import partial
from typing import Any

import grpc

from interpose import errors
from interpose._call import Call
from interpose._clock import SYSTEM, Alarm
from interpose._codec import Undecodable
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
    in_vain,
    news_of,
    no_waiting,
    pause_of,
    time_left,
    waits_until,
)
from interpose._outcome import OK, Outcome
from interpose._scope import Scope
from interpose.sync.bare import as_call
from interpose.sync.blocking import text
from interpose.sync.requests import Requests, Upload

_log = logging.getLogger("interpose")

REFUSING = 0.005  # seconds between the metadata and the status of a call that was refused, both in one frame
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
        return _traceback(self)  # type: ignore[arg-type]

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        fn(self)


def _traceback(error: BaseException) -> Any:
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
    # Not by asking it: after a local cancel or a failed (de)serializer grpc would wait for ever for the core's text.
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
            return failure(error, sent, self.received, elapsed, replayable, native)
        return Outcome(OK, response, "", None, sent, self.received, elapsed, replayable, native)


# --- an RPC that does not block ---------------------------------------------------------------------------------------


class Exchange:
    """One RPC that nobody waits for in a blocking call: a future, or a response stream."""

    __slots__ = (
        "_callbacks",
        "_changed",
        "_context",
        "_driver",
        "_pending",
        "_race",
        "_scope",
        "ahead",
        "answer",
        "attempt",
        "begin",
        "cancelled",
        "deadline",
        "lane_of",
        "outcome",
        "requests",
        "route",
    )

    def __init__(
        self,
        route: Route,
        driver: Driver,
        context: Context,
        deadline: float | None,
        begin: Callable[[Any], Any],
        requests: Requests | None,
    ) -> None:
        self.route = route
        self.begin = begin  # a native multi-callable → the function of it that starts this kind of RPC
        self.deadline = deadline
        self.attempt: Attempt | None = None
        self.outcome: Outcome | None = None
        self.ahead: deque[Any] = deque()  # messages that were read before the application asked for them
        self.answer: Iterator[Any] | None = None  # a stream answered by a flow, without a native call
        self.cancelled = False
        self._driver = driver
        self._context = context
        self.requests = requests  # None for a unary request, which is on the call
        self._pending: _Pending | None = None
        self._race: _Race | None = None
        self._scope: Scope | None = None
        self.lane_of: _Race | None = None
        self._callbacks: list[Callable[[], object]] | None = []
        self._changed = threading.Condition()

    # - turning -

    def turn(self, move: Callable[[Any], Any], news: Any) -> None:
        """Move the driver on, and do what it asks for. One thread at a time: the one that has claimed the news."""
        try:
            step = self._context.run(move, news)
            while type(step) is not Outcome:
                if type(step) is Wait:
                    if isinstance(step.awaitable, Future):
                        _Joined(self, step).begin()
                        return
                    step = self._context.run(self._driver.fail, no_waiting(step))
                    continue
                outcome = self._perform(step)
                if outcome is None:
                    return
                step = self._context.run(self._driver.tell, outcome)
        except BaseException as error:  # whatever it is, the application must not wait for ever
            _log.exception("interpose failed while it drove %s", self.route.method)
            step = failure(errors.Internal(f"interpose failed: {type(error).__name__}", local=True))
            if isinstance(error, KeyboardInterrupt):  # Ctrl-C, in the application's own thread
                self._settle(step)
                raise
        # Nothing else is raised: this may be the one thread of a channel, or a callback of the loop.
        self._settle(step)

    def told(self, outcome: Outcome) -> None:
        """What was performed has ended."""
        self.turn(self._driver.tell, outcome)

    def _perform(self, step: Any) -> Outcome | None:
        if self.cancelled or (type(step) is Call and not self._belongs(step._asks.scope)):
            return cancelled()
        if type(step) is Race:
            race = self._race = _Race(self, step)
            race.start_next()
            if self.cancelled:
                race.cancel()
            return None
        if step._asks.delay > 0:
            if self.route.pauses.closed:
                return cancelled()
            _Delayed(self, step).begin()
            return None
        return Attempt(self, step).send()

    def _belongs(self, scope: Scope | None) -> bool:
        """Cancel it when the incoming RPC ends that it belongs to; False if that has ended."""
        if scope is None or scope is self._scope:
            return True
        self._scope = scope
        return scope.add(self.cancel)

    @property
    def outlived(self) -> bool:
        """Has the incoming RPC ended that it belongs to? Then that has cancelled it, and not the application."""
        return self._scope is not None and self._scope.over

    def publish(self, attempt: Attempt) -> None:
        """From now on this is the attempt that readers read and that a cancel cancels."""
        with self._changed:
            self.attempt = attempt
            self._changed.notify_all()
        if self.cancelled:  # by another thread, which could not see the attempt yet
            attempt.native.cancel()
        if self.lane_of is not None:
            self.lane_of.published(self, attempt)

    def hold(self, attempt: Attempt) -> None:
        """Stay alive, flows and all, until it ends: grpc's threads hold other calls, but none a single-threaded one."""
        pauses = self.route.pauses
        pauses.add(self.cancel)
        if attempt.over:
            pauses.discard(self.cancel)

    def over(self, attempt: Attempt, error: BaseException | None = None) -> None:
        """An attempt has ended, as its native call says or with `error`; told by any thread, any number of times."""
        if attempt.claim():
            self._end(attempt, error)

    def _end(self, attempt: Attempt, error: BaseException | None = None) -> None:
        self.attempt = None
        if single_threaded(attempt.native):
            self.route.pauses.discard(self.cancel)
        self.told(attempt.outcome(error))

    def run(self, step: Any) -> Outcome:
        """Go on from this step, and wait for the end: a blocking call that has become a race."""
        outcome = self._perform(step)
        if outcome is not None:
            self.told(outcome)
        try:
            return self.wait()
        except BaseException:
            self.cancel()
            raise

    def _settle(self, outcome: Outcome) -> None:
        if outcome.ok and outcome.response is not None and self.route.method.kind.response_streaming:
            self.answer = iter(outcome.response)
        with self._changed:
            self.outcome = outcome
            callbacks, self._callbacks = self._callbacks, None
            self.attempt = self._pending = self._race = None
            self._changed.notify_all()
        if self._scope is not None:
            self._scope.discard(self.cancel)
        for callback in callbacks or ():
            try:
                callback()
            except BaseException:  # this may be grpc's thread, and other callbacks wait
                _log.exception("a callback of %s failed", self.route.method)

    # - what applications ask -

    def cancel(self) -> bool:
        """Cancel on behalf of the application; False if it has ended already."""
        with self._changed:
            if self.outcome is not None or self.cancelled:
                return False
            self.cancelled = True
            attempt, pending, race = self.attempt, self._pending, self._race
        if race is not None:
            race.cancel()
        elif attempt is not None:
            mine = attempt.claim()  # before grpc's thread brings the news, so that it is done when we return
            attempt.native.cancel()
            if mine:
                self._end(attempt)
        elif pending is not None:
            pending.cancel()
        return True

    def abandon(self) -> None:
        """The application dropped the call: a finalizer, on any thread, inside anybody's code. Takes no lock of ours."""
        if self.outcome is not None or self.cancelled:
            return
        self.cancelled = True
        attempt, pending, race = self.attempt, self._pending, self._race
        if race is not None:
            self.route.clock.call_later(0, race.cancel)
        elif attempt is not None:
            attempt.native.cancel()
            if single_threaded(attempt.native):  # no thread of grpc's will bring the news
                gone = errors.Cancelled(LOCALLY_CANCELLED, local=True)
                self.route.clock.call_later(0, partial(self.over, attempt, gone))
        elif pending is not None:
            self.route.clock.call_later(0, pending.cancel)

    def wait(self, timeout: float | None = None) -> Outcome:
        """Wait for the end; `grpc.FutureTimeoutError` if it does not come in time."""
        with self._changed:
            if self.outcome is None and self.attempt is not None and single_threaded(self.attempt.native):
                self.attempt.native.code()  # UsageError before the end: nobody but a reader learns of it
            if not self._changed.wait_for(lambda: self.outcome is not None, timeout):
                raise grpc.FutureTimeoutError
        assert self.outcome is not None
        return self.outcome

    def wait_for_attempt(self, last: Attempt | None) -> Attempt | None:
        """Wait for another attempt than `last`; None once all is over."""
        with self._changed:
            self._changed.wait_for(lambda: self.outcome is not None or self.attempt not in (last, None))
            return self.attempt if self.outcome is None else None

    def wait_until_settled(self, attempt: Attempt) -> None:
        """Wait a moment, if it may be about to fail: a refusal comes with no metadata, and just behind that the status."""
        if self.route.layers:
            with self._changed:
                self._changed.wait_for(lambda: self.attempt is not attempt, REFUSING)

    def add_callback(self, callback: Callable[[], object]) -> bool:
        """Call back at the end; False if that was before."""
        with self._changed:
            if self._callbacks is None:
                return False
            self._callbacks.append(callback)
            return True


class _Pending:
    """What an exchange waits for while nothing is sent: it comes, or is cancelled, once."""

    __slots__ = ("_alarm", "_claims", "_exchange")

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._claims = [True]
        self._alarm: Alarm | None = None

    def begin(self) -> None:
        """Wait; it may have come, and the exchange gone on, before this returns."""
        exchange, pauses = self._exchange, self._exchange.route.pauses
        exchange._pending = self
        self._set()
        pauses.add(self.cancel)
        if not self._claims:  # it has come meanwhile, or another thread has cancelled it
            pauses.discard(self.cancel)
            if self._alarm is not None:
                self._alarm.cancel()
        elif exchange.cancelled or pauses.closed:  # by another thread, which could not see us yet
            self.cancel()

    def _set(self) -> None:
        """Have `_come` called when it comes."""
        raise NotImplementedError  # pragma: no cover  each of them does

    def _claim(self) -> bool:
        try:
            self._claims.pop()
        except IndexError:
            return False
        exchange = self._exchange
        exchange.route.pauses.discard(self.cancel)
        if exchange._pending is self:
            exchange._pending = None
        if self._alarm is not None:
            self._alarm.cancel()
        return True

    def cancel(self) -> None:
        """It is not wanted any more."""
        raise NotImplementedError  # pragma: no cover  each of them does


class _Delayed(_Pending):
    """An attempt that is to be sent later."""

    __slots__ = ("_in_time", "_step")

    def __init__(self, exchange: Exchange, step: Call) -> None:
        super().__init__(exchange)
        self._step = step

    def _set(self) -> None:
        clock = self._exchange.route.clock
        seconds, self._in_time = pause_of(self._step, clock.now())
        self._alarm = clock.call_later(seconds, self._come)

    def _come(self) -> None:
        if self._claim():
            exchange = self._exchange
            outcome = cancelled() if exchange.cancelled else self._send()
            if outcome is not None:
                exchange.told(outcome)

    def _send(self) -> Outcome | None:
        return Attempt(self._exchange, self._step).send() if self._in_time else expired()

    def cancel(self) -> None:
        if self._claim():
            self._exchange.told(cancelled())


class _Joined(_Pending):
    """A flow that waits for a Future."""

    __slots__ = ("_step",)

    def __init__(self, exchange: Exchange, step: Wait) -> None:
        super().__init__(exchange)
        self._step = step

    def _set(self) -> None:
        exchange = self._exchange
        until = waits_until(self._step, exchange.deadline)
        if until is not None:
            left = max(until - exchange.route.clock.now(), 0.0)
            self._alarm = exchange.route.clock.call_later(left, partial(self._fail, in_vain()))
        self._step.awaitable.add_done_callback(self._come)  # type: ignore[union-attr]  # a Future, see `turn`

    def _come(self, future: Future[Any]) -> None:
        if self._claim():
            exchange = self._exchange
            exchange.turn(*news_of(future, exchange._driver))

    def _fail(self, error: BaseException) -> None:
        if self._claim():
            self._exchange.turn(self._exchange._driver.fail, error)

    def cancel(self) -> None:
        self._fail(_cancelled())


def _cancelled() -> errors.Cancelled:
    return errors.Cancelled(LOCALLY_CANCELLED, local=True)


class _Race:
    """The lanes of a race: each an exchange of its own; the first good answer wins, and the others are cancelled.

    Of response streams the first to deliver a message wins: each lane has a thread that reads it, since nothing else
    tells. From then on the application reads what the winner does.
    """

    def __init__(self, exchange: Exchange, step: Race) -> None:
        self._exchange = exchange
        self._step = step
        self._lanes = list(step.lanes)
        self._running: list[Exchange] = []
        self._drivers: list[Driver] = []  # of all lanes that were started
        self._winner: Exchange | None = None
        self._failure: Outcome | None = None  # of the lane that failed last
        self._over = False
        self._lock = threading.Lock()
        self._alarm: Alarm | None = None

    def start_next(self) -> None:
        begun = self._begin_next() if self._may_start() else None
        if begun is None:
            self._start_no_more()
            return
        lane, call = begun
        lane.add_callback(partial(self._lane_over, lane))
        lane.turn(lane._driver.start, call)

    def _begin_next(self) -> tuple[Exchange, Call] | None:
        parent = self._exchange
        with self._lock:  # another thread may end the race, or start the lane after this one
            if self._over or not self._more():
                return None
            driver, call = self._lanes.pop(0)()
            context = parent._context.copy()
            lane = Exchange(parent.route, driver, context, parent.deadline, parent.begin, parent.requests)
            lane.lane_of = self if parent.route.method.kind.response_streaming else None
            self._drivers.append(driver)
            self._running.append(lane)
            self._set_alarm(self._step.delay_behind(len(self._drivers)))
        return lane, call

    def _may_start(self) -> bool:
        """Is there a lane left, and may it go? Who is asked may count it as sent, so that comes last."""
        with self._lock:
            if self._over or not self._more():
                return False
            first = not self._drivers
        return first or self._step.ready()

    def _set_alarm(self, seconds: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self._exchange.route.clock.call_later(seconds, self.start_next) if self._lanes else None

    def _more(self) -> bool:
        """Is there another lane, and can the request stream be read once more for it?"""
        requests = self._exchange.requests
        if requests is not None and not requests.repeatable:
            self._lanes.clear()
        return bool(self._lanes)

    def _start_no_more(self) -> None:
        """Wait for the lanes that run; without any, the last failure is the answer."""
        with self._lock:
            self._lanes.clear()
            running = bool(self._running)
        if not running and self._failure is not None:
            self._finish(self._failure)

    def _lane_over(self, lane: Exchange) -> None:
        outcome = lane.outcome
        assert outcome is not None
        with self._lock:
            self._running.remove(lane)
            alone, lost = not self._running, self._over or self._winner not in (None, lane)
        if lost:
            return
        if outcome.ok or self._exchange.cancelled or self._winner is lane:
            self._finish(outcome)
            return
        self._failure = outcome
        pause = self._step.pause_after(outcome, self._exchange.route.clock.now(), alone)
        if pause is None:
            self._finish(outcome)
        elif pause == math.inf:
            self._start_no_more()
        else:
            self._start_next_after(pause)

    def _start_next_after(self, pause: float) -> None:
        if pause <= 0:
            self.start_next()  # a failure lets the next copy go at once (gRFC A6)
            return
        with self._lock:
            more = not self._over and self._more()
            if more:
                self._set_alarm(pause)
        if not more:
            self._start_no_more()

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
            look = partial(lane._context.copy().run, self._look, lane, attempt)
            threading.Thread(target=look, name="interpose-hedge", daemon=True).start()

    def _look(self, lane: Exchange, attempt: Attempt) -> None:
        attempt.read(partial(self._delivered, lane, attempt))

    def _delivered(self, lane: Exchange, attempt: Attempt, message: Any) -> None:
        """The first message of a lane: it wins, if no other has."""
        with self._lock:
            if self._over or self._winner is not None:
                return
            self._winner = lane
            self._lanes.clear()
            self._set_alarm(0)
            losers = [other for other in self._running if other is not lane]
        self._exchange.ahead.append(message)
        self._exchange.publish(attempt)
        for loser in losers:
            loser.cancel()

    # - the end -

    def _finish(self, outcome: Outcome) -> None:
        with self._lock:
            if self._over:
                return
            self._over = True
            losers = list(self._running)
            if self._alarm is not None:
                self._alarm.cancel()
        for loser in losers:
            loser.cancel()
        # Not the sum of what the lanes told: another thread may be about to tell a loser's end.
        outcome._attempts = sum(driver.sends for driver in self._drivers)
        self._exchange._race = None
        self._exchange.told(outcome)

    def cancel(self) -> None:
        winner = self._winner
        if winner is not None:
            winner.cancel()
        else:
            self._finish(cancelled())


# --- what applications hold -------------------------------------------------------------------------------------------


class _Handle(grpc.Call, grpc.Future):  # type: ignore[type-arg]  # not generic at run time
    """A call as grpc knows it, over an exchange."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    # grpc.RpcContext

    def is_active(self) -> bool:
        """Has it not ended yet?"""
        return not self.done()

    def time_remaining(self) -> Any:
        """Seconds until the deadline, or None without one."""
        exchange = self._exchange
        return None if exchange.deadline is None else max(exchange.deadline - exchange.route.clock.now(), 0.0)

    def cancel(self) -> bool:
        """Cancel it, whatever it is doing: sending, streaming, or waiting to be sent again. False if it has ended."""
        return self._exchange.cancel()

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
                return metadata  # else its flows are about to be told of its end, and may send again
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

    def done(self) -> bool:
        """Has it ended, or is it about to since it was cancelled?"""
        # A cancelled one is done, as futures are, though another thread may still be telling its flows.
        return self._exchange.outcome is not None or self._exchange.cancelled

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
        return None if error is None else _traceback(error)

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        """Call `fn(self)` at the end; at once if that was before."""
        if not self._exchange.add_callback(partial(fn, self)):
            fn(self)

    def _end(self, timeout: float | None) -> Outcome:
        outcome = self._exchange.wait(timeout)
        if self._exchange.cancelled and not self._exchange.outlived:
            raise grpc.FutureCancelledError
        return outcome

    def __repr__(self) -> str:
        outcome = self._exchange.outcome
        if outcome is None:
            return f"<{type(self).__name__} of {self._exchange.route.method}, active>"
        described = "" if outcome.ok else f'\tdebug_error_string = "{debug_text(outcome)}"\n'
        return (
            f"<{type(self).__name__} of RPC that terminated with:\n"
            f'\tstatus = {outcome.code}\n\tdetails = "{outcome.details}"\n{described}>'
        )

    def __del__(self) -> None:
        exchange = getattr(self, "_exchange", None)
        if exchange is not None:
            exchange.abandon()


class UnaryFuture(_Handle):
    """What `.future()` of a stub gives. Dropping it cancels the RPC, unless a callback waits for it."""


def finished(route: Route, outcome: Outcome) -> UnaryFuture:
    """The call that goes with the response of a blocking call: it has ended."""
    exchange = Exchange.__new__(Exchange)
    exchange.route, exchange.deadline, exchange.outcome, exchange.cancelled = route, None, outcome, False
    exchange.attempt = exchange.answer = exchange._callbacks = exchange._scope = None
    exchange._changed = threading.Condition()
    return UnaryFuture(exchange)


class ResponseStream(_Handle):
    """What a stub with a response stream gives: iterate it. Dropping it cancels the RPC."""

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        """Call `fn(self)` at the end; at once if that was before. A dropped stream is cancelled all the same.

        `fn` is then given another call object of the same RPC.
        """
        # Held by the exchange, a callback that held the stream would keep it from ever being dropped.
        exchange, stream = self._exchange, weakref.ref(self)
        if not exchange.add_callback(lambda: fn(stream() or ResponseStream(exchange))):
            fn(self)

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
