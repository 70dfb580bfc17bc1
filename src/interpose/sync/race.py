"""The lanes of a race: copies of a call, each an exchange of its own."""

from __future__ import annotations

import math
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

from interpose._call import Call
from interpose._clock import Alarm
from interpose._flow import Driver, Race
from interpose._native import cancelled
from interpose._outcome import Outcome

if TYPE_CHECKING:
    from interpose.sync.attempt import Attempt
    from interpose.sync.exchange import Exchange


class Lanes:
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
        self._over = False
        self._lock = threading.Lock()
        self._alarm: Alarm | None = None

    def begin(self) -> None:
        """Start the first lane."""
        self._exchange.route.pauses.add(self._close)
        self.start_next()

    def start_next(self) -> None:
        begun = self._begin_next() if self._may_start() else None
        if begun is None:
            self._start_no_more()
            return
        lane, call = begun
        lane.add_callback(partial(self._lane_over, lane))
        lane.turn(lane.driver.start, call)

    def _begin_next(self) -> tuple[Exchange, Call] | None:
        streams = self._exchange.route.method.kind.response_streaming
        with self._lock:  # another thread may end the race, or start the lane after this one
            if self._over or not self._more():
                return None
            driver, call = self._lanes.pop(0)()
            lane = self._exchange.lane(driver, self if streams else None)
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
        if not running and self._step.failure is not None:
            self._finish(self._step.failure)

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
            look = partial(lane.context.copy().run, self._look, lane, attempt)
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

    def _close(self) -> None:
        """The channel closes: no other lane can start. Those that run have the end, and the time, that it gives them."""
        with self._lock:
            self._lanes.clear()
            self._set_alarm(0)
            waits = not self._running
        if waits:
            self._finish(cancelled())

    def _finish(self, outcome: Outcome) -> None:
        with self._lock:
            if self._over:
                return
            self._over = True
            losers = list(self._running)
            if self._alarm is not None:
                self._alarm.cancel()
        self._exchange.route.pauses.discard(self._close)
        for loser in losers:
            loser.cancel()
        # Not the sum of what the lanes told: another thread may be about to tell a loser's end.
        outcome._attempts = sum(driver.sends for driver in self._drivers)
        self._exchange.race = None
        self._exchange.told(outcome)

    def cancel(self) -> None:
        winner = self._winner
        if winner is not None:
            winner.cancel()
        else:
            self._finish(cancelled())
