"""The lanes of a race: copies of a call, each an exchange of its own."""

from __future__ import annotations

import asyncio
import math
from functools import partial
from typing import TYPE_CHECKING, Any

from interpose._clock import Alarm
from interpose._flow import Driver, Race
from interpose._native import cancelled
from interpose._outcome import Outcome
from interpose.aio.joining import call_later

if TYPE_CHECKING:
    from interpose.aio.attempt import Attempt
    from interpose.aio.exchange import Exchange


class Lanes:
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
        self._drivers: list[Driver] = []  # of all lanes that were started
        self._over = False
        self._alarm: Alarm | None = None

    def begin(self) -> None:
        """Start the first lane."""
        self._exchange.route.pauses.add(self._close)
        self.start_next()

    def start_next(self) -> None:
        parent = self._exchange
        if self._over:
            return
        if not self._more() or (self._drivers and not self._step.ready()):
            self._start_no_more()
            return
        if self._over:  # decided while `ready` was asked
            return
        driver, call = self._lanes.pop(0)()
        self._drivers.append(driver)
        lane = parent.lane(driver, self)
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
        if not self._running and self._step.failure is not None:
            self.finish(self._step.failure)

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
            task = lane.loop.create_task(self._look(lane, attempt), context=lane.context.copy())
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

    def _close(self) -> None:
        """The channel closes: no other lane can start. Those that run have the end, and the time, that it gives them."""
        self._lanes.clear()
        self._set_alarm(0)
        if not self._running:
            self._exchange.cancel()

    def finish(self, outcome: Outcome) -> None:
        if self._over:
            return
        self._over = True
        if self._alarm is not None:
            self._alarm.cancel()
        self._exchange.route.pauses.discard(self._close)
        for loser in list(self._running):
            loser.cancel()
        outcome._attempts = sum(driver.sends for driver in self._drivers)
        self._exchange.race = None
        self._exchange.told(outcome)

    def cancel(self) -> None:
        if self._winner is not None:
            self._winner.cancel()
        else:
            self.finish(cancelled())
