"""An RPC that no blocking call waits for: a future, or a response stream. What threads do differently.

It never blocks, and is turned by whichever thread brings the event: the application's, grpc's channel thread, or the
clock's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from contextvars import Context
from functools import partial
from typing import Any

import grpc

from interpose import errors
from interpose._call import Call
from interpose._clock import SYSTEM, Alarm
from interpose._flow import Driver, Race, Wait
from interpose._grpcio.sync_calls import single_threaded
from interpose._outcome import Outcome
from interpose._shell import exchange as shell
from interpose._shell.exchange import REFUSAL_GAP
from interpose._shell.native import LOCALLY_CANCELLED, Route, no_waiting
from interpose.sync import attempt as attempts
from interpose.sync.attempt import Attempt
from interpose.sync.requests import Requests


class Exchange(shell.Exchange, attempts.Owner):
    """One RPC that no blocking call waits for: a future, or a response stream."""

    __slots__ = ("_changed", "begin")

    attempts = Attempt
    attempt: Attempt | None

    def __init__(
        self,
        route: Route,
        driver: Driver,
        context: Context,
        deadline: float | None,
        begin: Callable[[Any], Any],
        requests: Requests | None,
    ) -> None:
        super().__init__(route, driver, context, deadline, requests)
        self.begin = begin
        self._changed = threading.Condition()

    @classmethod
    def ended(cls, route: Route, outcome: Outcome) -> Exchange:
        """One that has ended before anybody could hold it: a blocking call's."""
        exchange = cls(route, Driver(()), Context(), None, partial, None)
        exchange.ended_with(outcome)
        return exchange

    # - what threads do differently -

    def another(self, driver: Driver, context: Context) -> Exchange:
        return Exchange(self.route, driver, context, self.deadline, self.begin, self.requests)

    def await_(self, step: Wait) -> BaseException:
        return no_waiting(step)

    def later(self, seconds: float, callback: Callable[[], object]) -> Alarm:
        return self.route.clock.call_later(seconds, callback)

    def from_any_thread(self, callback: Callable[[], object]) -> Callable[[], object]:
        return callback

    def guard(self) -> AbstractContextManager[object]:
        return threading.Lock()

    def look(self, attempt: Attempt, deliver: Callable[[Any], object]) -> None:
        read = partial(self.context.copy().run, attempt.read, deliver)
        threading.Thread(target=read, name="interpose-hedge", daemon=True).start()

    def wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def announce(self, outcome: Outcome) -> None:
        self.wake()

    # - streams without a thread of grpc's -

    def hold(self, attempt: Attempt) -> None:
        pauses = self.route.pauses
        pauses.add(self.cancel)
        if attempt.over:
            pauses.discard(self.cancel)

    def _end(self, attempt: Attempt, error: BaseException | None, response: Any = None) -> None:
        if single_threaded(attempt.native):
            self.route.pauses.discard(self.cancel)
        super()._end(attempt, error, response)

    # - the application's threads -

    def cancel_soon(self) -> bool:
        return self.cancel()

    def abandon(self) -> None:
        """The application dropped the call: a finalizer, on any thread, inside anybody's code.

        It takes no lock of ours and calls nothing of grpc's, whose own finalizers can hang for ever: the clock's
        thread does the rest.
        """
        if self.mark_cancelled():
            SYSTEM.call_later(0, self._give_up)

    def _give_up(self) -> None:
        """Cancel what is under way; grpc's thread brings the event, if it has one for this call."""
        under_way, attempt = self.under_way, self.attempt
        if under_way is not None:
            under_way.cancel()
        elif attempt is not None:
            attempt.native.cancel()
            if single_threaded(attempt.native):
                self.over(attempt, errors.Cancelled(LOCALLY_CANCELLED, local=True))

    def run(self, step: Race | Call) -> Outcome:
        """Go on from this step, and wait for the end: a blocking call that has become a race."""
        outcome = self._perform(step)
        if outcome is not None:
            self.told(outcome)
        try:
            return self.wait()
        except BaseException:
            self.cancel()
            raise

    def wait(self, timeout: float | None = None) -> Outcome:
        """Wait for the end; `grpc.FutureTimeoutError` if it does not come in time."""
        with self._changed:
            attempt = self.attempt
            if self.outcome is None and attempt is not None and single_threaded(attempt.native):
                attempt.native.code()  # UsageError before the end: only a reader learns of it
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
                self._changed.wait_for(lambda: self.attempt is not attempt, REFUSAL_GAP)
