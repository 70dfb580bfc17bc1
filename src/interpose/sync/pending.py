"""What an exchange waits for while nothing is sent: a pause before an attempt, or a Future that a flow wants."""

from __future__ import annotations

from abc import ABC, abstractmethod
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any

from interpose import errors
from interpose._call import Call
from interpose._clock import Alarm
from interpose._flow import Wait
from interpose._native import LOCALLY_CANCELLED, cancelled, expired, in_vain, news_of, pause_of, waits_until
from interpose._outcome import Outcome

if TYPE_CHECKING:
    from interpose.sync.exchange import Exchange


class Pending(ABC):
    """What an exchange waits for while nothing is sent: it comes, or is cancelled, once."""

    __slots__ = ("_alarm", "_claims", "_exchange")

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._claims = [True]
        self._alarm: Alarm | None = None

    def begin(self) -> None:
        """Wait; it may have come, and the exchange gone on, before this returns."""
        exchange, pauses = self._exchange, self._exchange.route.pauses
        exchange.pending = self
        self._set()
        pauses.add(self.cancel)
        if not self._claims:  # it has come meanwhile, or another thread has cancelled it
            pauses.discard(self.cancel)
            if self._alarm is not None:
                self._alarm.cancel()
        elif exchange.cancelled or pauses.closed:  # by another thread, which could not see us yet
            self.cancel()

    @abstractmethod
    def _set(self) -> None:
        """Have `_come` called when it comes."""

    def _claim(self) -> bool:
        try:
            self._claims.pop()
        except IndexError:
            return False
        exchange = self._exchange
        exchange.route.pauses.discard(self.cancel)
        if exchange.pending is self:
            exchange.pending = None
        if self._alarm is not None:
            self._alarm.cancel()
        return True

    @abstractmethod
    def cancel(self) -> None:
        """It is not wanted any more."""


class Delayed(Pending):
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
        return self._exchange.send(self._step) if self._in_time else expired()

    def cancel(self) -> None:
        if self._claim():
            self._exchange.told(cancelled())


class Joined(Pending):
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
            exchange.turn(*news_of(future, exchange.driver))

    def _fail(self, error: BaseException) -> None:
        if self._claim():
            self._exchange.turn(self._exchange.driver.fail, error)

    def cancel(self) -> None:
        self._fail(_cancelled())


def _cancelled() -> errors.Cancelled:
    return errors.Cancelled(LOCALLY_CANCELLED, local=True)
