"""One RPC on asyncio, from the call of the stub to its end, awaited or not.

It has no task of its own: grpc's call brings the news of its end, and the drive is turned there and then; a task is made
only for what a flow waits for. Everything happens on the loop's thread, so nothing is locked; only a finalizer may come
from elsewhere.
"""

from __future__ import annotations

import asyncio
import logging
from asyncio import InvalidStateError
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from contextvars import Context
from functools import partial
from typing import Any

from interpose import errors
from interpose._call import Call
from interpose._clock import Alarm
from interpose._flow import Driver, Race, Wait
from interpose._native import (
    LOCALLY_CANCELLED,
    Route,
    answered,
    cancelled,
    exception_of,
    expired,
    failure,
    pause_of,
    unless_cancelled,
)
from interpose._outcome import Outcome
from interpose._scope import Scope
from interpose.aio.attempt import AioRpcError, Attempt
from interpose.aio.joining import call_later, joined
from interpose.aio.race import Lanes
from interpose.aio.requests import FINISHED, Requests

_log = logging.getLogger("interpose")

REFUSING = 0.005  # seconds between the metadata and the status of a call that was refused, both in one frame


class Exchange:
    """One RPC, from the call of the stub to its end."""

    __slots__ = (
        "_alarm",
        "_callbacks",
        "_changed",
        "_driver",
        "_scope",
        "_waiting",
        "ahead",
        "answer",
        "attempt",
        "cancelled",
        "context",
        "deadline",
        "lane_of",
        "loop",
        "outcome",
        "race",
        "requests",
        "route",
        "was_open",
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
        self.was_open = not route.pauses.closed  # was the channel when it began?
        self.deadline = deadline
        self.loop = loop
        self.attempt: Attempt | None = None
        self.outcome: Outcome | None = None
        self.ahead: deque[Any] = deque()  # messages that were read before the application asked for them
        self.answer: Iterator[Any] | None = None  # a stream answered by a flow, without a native call
        self.cancelled = False
        self.lane_of: Lanes | None = None  # then the request stream is everybody's
        self.requests = requests
        self.written = 0  # messages that the application wrote to the native call itself
        self._driver = driver
        self.context = context
        self._alarm: Alarm | None = None
        self.race: Lanes | None = None
        self._scope: Scope | None = None
        self._waiting: asyncio.Task[Any] | None = None
        self._callbacks: list[Callable[[], object]] | None = []
        self._changed: list[asyncio.Future[None]] = []

    # - turning -

    def turn(self, move: Callable[[Any], Any], news: Any) -> None:
        """Move the driver on, and do what it asks for."""
        try:
            step = self.context.run(move, news)
            while type(step) is not Outcome:
                outcome = self._perform(step)
                if outcome is None:
                    return
                step = self.context.run(self._driver.tell, outcome)
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
            self._waiting = self.loop.create_task(self._awaited(step), context=self.context)
            self._waiting.add_done_callback(partial(self._waited, step.awaitable))
            self._pause(True)
            return None
        if self.cancelled or (type(step) is Call and not self._belongs(step._asks.scope)):
            return cancelled()
        if type(step) is Race:
            race = self.race = Lanes(self, step)
            race.begin()
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

    def lane(self, driver: Driver, race: Lanes) -> Exchange:
        """Another exchange of the same RPC, for one lane of a race."""
        lane = Exchange(self.route, driver, self.context.copy(), self.deadline, self.requests, self.loop)
        lane.lane_of, lane.was_open = race, self.was_open
        return lane

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
        outcome, answer = answered(outcome, self.route.method)
        self.outcome = outcome = unless_cancelled(outcome, self.cancelled)
        self.answer = answer if outcome.ok else None
        self.attempt = None
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
        if self.race is not None:
            self.race.cancel()
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
        if self.outcome is None:
            with suppress(RuntimeError):  # the loop is closed: nothing is under way any more
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
