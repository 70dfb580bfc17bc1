"""What an exchange waits for while nothing is in flight: a pause before an attempt, or a Future that a flow wants."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial

from interpose._call import Call
from interpose._clock import FOREVER, Alarm
from interpose._flow import Wait
from interpose._outcome import Outcome
from interpose._shell.claims import claim
from interpose._shell.native import (
    cancelled,
    completion_of,
    expired,
    locally_cancelled,
    pause_of,
    wait_of,
    wait_timed_out,
)
from interpose._shell.owner import Owner


class Pending(ABC):
    """What an exchange waits for while nothing is in flight: it comes, or is cancelled, once."""

    __slots__ = ("_alarm", "_claims", "_owner")

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._claims = [True]
        self._alarm: Alarm | None = None

    def begin(self) -> None:
        """Wait; it may have come, and the exchange gone on, before this returns."""
        owner, pauses = self._owner, self._owner.route.pauses
        owner.under_way = self
        self._set()
        pauses.add(self._close)
        if not self._claims:  # it has come meanwhile, or another thread has cancelled it
            self._let_go()
        elif self._is_unwanted():  # by another thread, which could not see us yet
            self.cancel()

    @abstractmethod
    def _set(self) -> None:
        """Report to the exchange when it comes."""

    def _is_unwanted(self) -> bool:
        return self._owner.cancelled or self._owner.route.pauses.closed

    def _claim(self) -> bool:
        if not claim(self._claims):
            return False
        if self._owner.under_way is self:
            self._owner.under_way = None
        self._let_go()
        return True

    def _let_go(self) -> None:
        self._owner.route.pauses.discard(self._close)
        if self._alarm is not None:
            self._alarm.cancel()

    def _close(self) -> None:
        self._owner.when_closed(self)

    @abstractmethod
    def cancel(self) -> None:
        """It is not wanted any more."""


class Delayed(Pending):
    """An attempt that is to be sent later."""

    __slots__ = ("_in_time", "_step")

    def __init__(self, owner: Owner, step: Call) -> None:
        super().__init__(owner)
        self._step = step

    def _set(self) -> None:
        seconds, self._in_time = pause_of(self._step, self._owner.route.clock.now())
        self._alarm = self._owner.later(seconds, self._come)

    def _come(self) -> None:
        if self._claim():
            owner = self._owner
            outcome = cancelled() if owner.cancelled else self._send()
            if outcome is not None:
                owner.told(outcome)

    def _send(self) -> Outcome | None:
        return self._owner.send(self._step) if self._in_time else expired()

    def cancel(self) -> None:
        if self._claim():
            self._owner.told(cancelled())


class Joined(Pending):
    """A flow that waits for a Future. It is never cancelled by us: others may wait for it too."""

    __slots__ = ("_step",)

    def __init__(self, owner: Owner, step: Wait) -> None:
        super().__init__(owner)
        self._step = step

    def _set(self) -> None:
        owner, future = self._owner, self._step.awaitable
        seconds = wait_of(self._step, owner.deadline, owner.route.clock.now())
        if seconds < FOREVER:
            self._alarm = owner.later(seconds, partial(self._fail, wait_timed_out()))
        come = owner.from_any_thread(self._come)
        future.add_done_callback(lambda _: come())  # type: ignore[union-attr]  # a Future, see `turn`

    def _come(self) -> None:
        if self._claim():
            self._owner.turn(*completion_of(self._step.awaitable, self._owner.driver))  # type: ignore[arg-type]

    def _fail(self, error: BaseException) -> None:
        if self._claim():
            self._owner.turn(self._owner.driver.fail, error)

    def cancel(self) -> None:
        self._fail(locally_cancelled())
