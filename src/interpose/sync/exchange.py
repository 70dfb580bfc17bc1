"""An RPC that nobody waits for in a blocking call: a future, or a response stream.

It never blocks, and is turned by whichever thread brings the news: the application's, grpc's channel thread, or the
clock's. News are claimed: each attempt ends once, and who claims its end turns the drive.

No lock is held while anything is sent, waited for or called back, and finalizers take none.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextvars import Context
from typing import Any

import grpc

from interpose import errors
from interpose._call import Call
from interpose._clock import SYSTEM
from interpose._flow import Driver, Race, Wait
from interpose._native import LOCALLY_CANCELLED, Route, answered, cancelled, failure, no_waiting, unless_cancelled
from interpose._outcome import Outcome
from interpose._scope import Scope
from interpose.sync.attempt import Attempt, single_threaded
from interpose.sync.pending import Delayed, Joined, Pending
from interpose.sync.race import Lanes
from interpose.sync.requests import Requests

_log = logging.getLogger("interpose")

REFUSING = 0.005  # seconds between the metadata and the status of a call that was refused, both in one frame


class Exchange:
    """One RPC that nobody waits for in a blocking call: a future, or a response stream."""

    __slots__ = (
        "_callbacks",
        "_changed",
        "_scope",
        "ahead",
        "answer",
        "attempt",
        "begin",
        "cancelled",
        "context",
        "deadline",
        "driver",
        "lane_of",
        "outcome",
        "pending",
        "race",
        "requests",
        "route",
        "was_open",
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
        self.was_open = not route.pauses.closed  # was the channel when it began?
        self.begin = begin  # a native multi-callable → the function of it that starts this kind of RPC
        self.deadline = deadline
        self.attempt: Attempt | None = None
        self.outcome: Outcome | None = None
        self.ahead: deque[Any] = deque()  # messages that were read before the application asked for them
        self.answer: Iterator[Any] | None = None  # a stream answered by a flow, without a native call
        self.cancelled = False
        self.driver = driver
        self.context = context
        self.requests = requests  # None for a unary request, which is on the call
        self.pending: Pending | None = None
        self.race: Lanes | None = None
        self._scope: Scope | None = None
        self.lane_of: Lanes | None = None
        self._callbacks: list[Callable[[], object]] | None = []
        self._changed = threading.Condition()

    # - turning -

    def turn(self, move: Callable[[Any], Any], news: Any) -> None:
        """Move the driver on, and do what it asks for. One thread at a time: the one that has claimed the news."""
        try:
            step = self.context.run(move, news)
            while type(step) is not Outcome:
                if type(step) is Wait:
                    if isinstance(step.awaitable, Future):
                        Joined(self, step).begin()
                        return
                    step = self.context.run(self.driver.fail, no_waiting(step))
                    continue
                outcome = self._perform(step)
                if outcome is None:
                    return
                step = self.context.run(self.driver.tell, outcome)
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
        self.turn(self.driver.tell, outcome)

    def _perform(self, step: Any) -> Outcome | None:
        if self.cancelled or (type(step) is Call and not self._belongs(step._asks.scope)):
            return cancelled()
        if type(step) is Race:
            race = self.race = Lanes(self, step)
            race.begin()
            if self.cancelled:
                race.cancel()
            return None
        if step._asks.delay > 0:
            if self.route.pauses.closed:
                return cancelled()
            Delayed(self, step).begin()
            return None
        return self.send(step)

    def send(self, call: Call) -> Outcome | None:
        """Start an attempt; gives its outcome if it has ended already."""
        return Attempt(self, call).send()

    def lane(self, driver: Driver, race: Lanes | None) -> Exchange:
        """Another exchange of the same RPC, for one lane of a race. race: None if it need not see what the lane sends."""
        lane = Exchange(self.route, driver, self.context.copy(), self.deadline, self.begin, self.requests)
        lane.lane_of, lane.was_open = race, self.was_open
        return lane

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
        outcome, answer = answered(outcome, self.route.method)
        with self._changed:  # from here on a cancel comes too late
            self.outcome = outcome = unless_cancelled(outcome, self.cancelled)
            self.answer = answer if outcome.ok else None
            callbacks, self._callbacks = self._callbacks, None
            self.attempt = self.pending = self.race = None
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
            attempt, pending, race = self.attempt, self.pending, self.race
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
        """The application dropped the call: a finalizer, on any thread, inside anybody's code.

        It takes no lock of ours and calls nothing of grpc's, whose own finalizers can stand still for ever: the clock's
        thread does the rest.
        """
        if self.outcome is None and not self.cancelled:
            self.cancelled = True
            SYSTEM.call_later(0, self._give_up)

    def _give_up(self) -> None:
        """Cancel what is under way; grpc's thread brings the news, if it has one for this call."""
        attempt, pending, race = self.attempt, self.pending, self.race
        if race is not None:
            race.cancel()
        elif attempt is not None:
            attempt.native.cancel()
            if single_threaded(attempt.native):
                self.over(attempt, errors.Cancelled(LOCALLY_CANCELLED, local=True))
        elif pending is not None:
            pending.cancel()

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
