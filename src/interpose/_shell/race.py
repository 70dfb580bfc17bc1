"""A race: copies of a call, each an exchange of its own; the first good answer wins, and the others are cancelled.

Of response streams the first to deliver a message wins: each copy is read in the background, since nothing else shows it.
From then on the application reads what the winner does.
"""

from __future__ import annotations

import math
from collections import deque
from functools import partial
from typing import Any

from interpose._call import Call
from interpose._clock import Alarm
from interpose._flow import Driver, Race
from interpose._outcome import Outcome
from interpose._shell.native import cancelled
from interpose._shell.owner import Owner


class Lanes:
    """The copies of a race, those to come and those in flight."""

    def __init__(self, owner: Owner, step: Race) -> None:
        self._owner = owner
        self._step = step
        self._lanes = list(step.lanes)
        self._running: list[Owner] = []
        self._drivers: list[Driver] = []  # of all copies that were started
        self._winner: Owner | None = None
        self._over = False
        self._guard = owner.guard()
        self._alarm: Alarm | None = None
        owner.ahead = deque()

    def begin(self) -> None:
        """Start the first copy."""
        self._owner.route.pauses.add(self._close)
        self.start_next()

    def start_next(self) -> None:
        begun = self._begin_next() if self._may_start() else None
        if begun is None:
            self._start_no_more()
            return
        lane, call = begun
        lane.add_callback(partial(self._lane_over, lane))
        lane.turn(lane.driver.start, call)
        self._owner.wake()  # what keeps the application's writes has been made

    def _begin_next(self) -> tuple[Owner, Call] | None:
        with self._guard:  # another thread may end the race, or start the copy after this one
            if self._over or not self._more():
                return None
            driver, call = self._lanes.pop(0)()
            lane = self._owner.lane(driver, self)
            self._drivers.append(driver)
            self._running.append(lane)
            self._set_alarm(self._step.delay_behind(len(self._drivers)))
        return lane, call

    def _may_start(self) -> bool:
        """Is there a copy left, and may it go? `ready` may count it as sent, so it is asked last."""
        with self._guard:
            if self._over or not self._more():
                return False
            first = not self._drivers
        return first or self._step.ready()

    def _set_alarm(self, seconds: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self._owner.later(seconds, self.start_next) if self._lanes else None

    def _more(self) -> bool:
        """Is there another copy, and can the request stream be read once more for it?"""
        requests = self._owner.requests
        if requests is not None and not requests.repeatable:
            self._lanes.clear()
        return bool(self._lanes)

    def _start_no_more(self) -> None:
        """Wait for the copies in flight; without any, the last failure is the answer."""
        with self._guard:
            self._lanes.clear()
            running = bool(self._running)
        if not running and self._step.failure is not None:
            self._finish(self._step.failure)

    def _lane_over(self, lane: Owner) -> None:
        outcome = lane.outcome
        assert outcome is not None
        with self._guard:
            self._running.remove(lane)
            alone, lost = not self._running, self._over or self._winner not in (None, lane)
        if lost:
            return
        if lane.cancelled and not lane.scope_is_over:  # by grpc, as its channel closes: nothing more can be sent on it
            self._owner.mark_cancelled()
        if outcome.ok or self._owner.cancelled or self._winner is lane:
            self._finish(outcome)
            return
        pause = self._step.pause_after(outcome, self._owner.route.clock.now(), alone)
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
        with self._guard:
            more = not self._over and self._more()
            if more:
                self._set_alarm(pause)
        if not more:
            self._start_no_more()

    # - response streams -

    def published(self, lane: Owner, attempt: Any) -> None:
        """A copy has sent its call: see whether it is the first to deliver."""
        owner = self._owner
        if not owner.route.method.kind.response_streaming:
            return
        if self._winner is lane:  # its flows have sent again
            owner.ahead.extend(lane.ahead)
            lane.ahead.clear()
            owner.publish(attempt)
        elif lane.ahead:  # of a race within it, which has read it already
            self._delivered(lane, attempt, lane.ahead.popleft())
        else:
            lane.look(attempt, partial(self._delivered, lane, attempt))

    def _delivered(self, lane: Owner, attempt: Any, message: Any) -> None:
        """The first message of a copy: it wins, if no other has."""
        with self._guard:
            if self._over or self._winner is not None or lane not in self._running:  # it may have failed meanwhile
                return
            self._winner = lane
            self._lanes.clear()
            self._set_alarm(0)
            losers = [other for other in self._running if other is not lane]
        self._owner.ahead.append(message)
        self._owner.publish(attempt)
        for loser in losers:
            loser.cancel()

    # - the end -

    def _close(self) -> None:
        """The channel closes: no other copy can start. Those in flight have the end, and the time, that it gives them."""
        with self._guard:
            self._lanes.clear()
            self._set_alarm(0)
            waits = not self._running
        if waits:
            self._owner.when_closed(self)

    def _finish(self, outcome: Outcome) -> None:
        with self._guard:
            if self._over:
                return
            self._over = True
            losers = list(self._running)
            if self._alarm is not None:
                self._alarm.cancel()
        self._owner.route.pauses.discard(self._close)
        for loser in losers:
            loser.cancel()
        # Not the sum of what the copies reported: another thread may be about to report a loser's end.
        outcome._attempts = sum(driver.sends for driver in self._drivers)
        self._owner.under_way = None
        self._owner.told(outcome)

    def cancel(self) -> None:
        winner = self._winner
        if winner is not None:
            winner.cancel()
        else:
            self._finish(cancelled())
