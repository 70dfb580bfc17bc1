"""One client RPC: what is in flight or awaited, and how its flows get outcomes.

It never blocks, and is turned wherever the event comes: on sync by the application's thread, grpc's channel thread or
the clock's; on asyncio on the loop. What ends an attempt, a pause or the RPC is claimed, so each ends once, and the
first to claim it goes on from there. No lock is held while anything is sent, waited for or called back, and finalizers
take none.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import Context
from typing import Any, ClassVar

from interpose import errors
from interpose._call import Call
from interpose._flow import Driver, Race, Step, Wait
from interpose._outcome import Outcome
from interpose._scope import Scope
from interpose._shell.claims import claim
from interpose._shell.native import answered, cancelled, failure, unless_cancelled
from interpose._shell.owner import Lane, Owner
from interpose._shell.pending import Delayed, Joined
from interpose._shell.race import Lanes

_log = logging.getLogger("interpose")

REFUSAL_GAP = 0.02  # seconds between the metadata and the status of a call that was refused, both in one frame


class Exchange(Owner):
    """One client RPC that is driven by events."""

    __slots__ = ()

    attempts: ClassVar[Any]  # the class of the shell's own

    # - turning -

    def turn(self, move: Callable[[Any], Any], event: Any) -> None:
        """Move the driver on, and do what it asks for. One thread at a time: the one that has claimed the event."""
        try:
            step: Any = self.context.run(move, event)
            while not isinstance(step, Outcome):
                if type(step) is Wait:
                    refused = self._wait(step)
                    if refused is None:
                        return
                    step = self.context.run(self.driver.fail, refused)
                    continue
                outcome = self._perform(step)
                if outcome is None:
                    return
                step = self.context.run(self.driver.tell, outcome)
        except BaseException as error:  # whatever it is, the application must not wait for ever
            self.broken(error)
            return
        self._settle(step)

    def broken(self, error: BaseException) -> None:
        """The fault is ours, or Ctrl-C: end it."""
        _log.exception("interpose failed while it drove %s", self.route.method)
        self._settle(failure(errors.Internal(f"interpose failed: {type(error).__name__}", local=True)))
        # Nothing else is raised: this may be the one thread of a channel, or a callback of the loop.
        if isinstance(error, KeyboardInterrupt):  # in the application's own thread
            raise error

    def go_on(self, step: Step) -> None:
        """Do what a driver asks for that has taken over."""
        self.turn(lambda step: step, step)

    def told(self, outcome: Outcome) -> None:
        self.turn(self.driver.tell, outcome)

    def _wait(self, step: Wait) -> BaseException | None:
        """Wait for what a flow wants; what to raise in the flow if this shell cannot."""
        if not isinstance(step.awaitable, Future):
            return self.await_(step)
        Joined(self, step).begin()
        return None

    @abstractmethod
    def await_(self, step: Wait) -> BaseException | None:
        """Wait for an awaitable; what to raise in the flow if this shell cannot."""

    def _perform(self, step: Call | Race) -> Outcome | None:
        """Do what the driver asks for; gives the outcome if it has ended already."""
        if type(step) is Race:
            if self.cancelled:
                return cancelled()
            race = self.under_way = Lanes(self, step)
            race.begin()
            if self.cancelled:  # by another thread, which could not see the race yet
                race.cancel()
            return None
        assert isinstance(step, Call)
        if self.cancelled or not self._belongs(step._asks.scope):
            return cancelled()
        if step._asks.delay > 0:
            if self.route.pauses.closed:
                return cancelled()
            Delayed(self, step).begin()
            return None
        return self.send(step)

    def send(self, call: Call) -> Outcome | None:
        outcome: Outcome | None = self.attempts(self, call).send()
        return outcome

    def lane(self, driver: Driver, race: Lane) -> Owner:
        lane = self.another(driver, self.context.copy())
        lane.lane_of, lane.was_open = race, self.was_open
        return lane

    @abstractmethod
    def another(self, driver: Driver, context: Context) -> Exchange:
        """A second exchange of the same RPC."""

    def _belongs(self, scope: Scope | None) -> bool:
        """Cancel it when the incoming RPC ends that it belongs to; False if that has ended."""
        if scope is None or scope is self._scope:
            return True
        self._scope = scope
        return scope.add(self.cancel_soon)

    @property
    def scope_is_over(self) -> bool:
        return self._scope is not None and self._scope.over

    def publish(self, attempt: Any) -> None:
        self.attempt = attempt
        self.wake()
        if self.cancelled:  # by another thread, which could not see the attempt yet
            attempt.native.cancel()
        if self.lane_of is not None:
            self.lane_of.published(self, attempt)

    # - the end -

    def over(self, attempt: Any, error: BaseException | None = None, response: Any = None) -> None:
        if attempt.claim():
            self._end(attempt, error, response)

    def _end(self, attempt: Any, error: BaseException | None, response: Any = None) -> None:
        self.attempt = None
        self.turn(self.driver.tell, attempt.outcome(error, response))

    def _settle(self, outcome: Outcome) -> None:
        outcome, answer = answered(outcome, self.route.method)
        by_application = not claim(self._claims)  # from here on a cancel comes too late
        outcome = unless_cancelled(outcome, by_application)
        self.answer = answer if outcome.ok else None
        self.attempt = self.under_way = None
        self.outcome = outcome
        if self._scope is not None:
            self._scope.discard(self.cancel_soon)
        self.announce(outcome)
        for callback, claims in self._callbacks:
            if claim(claims):
                self._call_back(callback)
        self._callbacks = []

    def ended_with(self, outcome: Outcome) -> None:
        """It had ended before anybody could hold it."""
        self.outcome = outcome
        self._claims.clear()

    @abstractmethod
    def announce(self, outcome: Outcome) -> None:
        """It has ended: let all who wait for that know."""

    def _call_back(self, callback: Callable[[], object]) -> None:
        try:
            callback()
        except BaseException:  # SystemExit too: this may be grpc's thread, or the loop, and other callbacks wait
            _log.exception("a callback of %s failed", self.route.method)

    # - what applications ask -

    def cancel(self) -> bool:
        if not self.mark_cancelled():
            return False
        under_way, attempt = self.under_way, self.attempt
        if under_way is not None:
            under_way.cancel()
        elif attempt is not None:
            mine = attempt.claim()  # before grpc brings the news, so that it is done when we return
            attempt.native.cancel()
            if mine:
                self._end(attempt, self.error_of_cancel())
        return True

    @abstractmethod
    def cancel_soon(self) -> object:
        """Cancel, on any thread."""

    def error_of_cancel(self) -> BaseException | None:
        """What an attempt ended with that was cancelled; None: its native call knows."""
        return None

    def mark_cancelled(self) -> bool:
        if not claim(self._claims):
            return False
        self.cancelled = True
        return True

    def add_callback(self, callback: Callable[[], object]) -> bool:
        if self.outcome is not None:
            return False
        claims = [True]
        self._callbacks.append((callback, claims))
        # It may have ended meanwhile, without having seen this one.
        return self.outcome is None or not claim(claims)
