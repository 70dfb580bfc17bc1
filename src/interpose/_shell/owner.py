"""One client RPC as its parts see it: an attempt, a pause, what a flow waits for, the copies of a race.

The exchange makes these parts, and they report to it. What they need of it is here, below both, so that no two
files import one another.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from contextvars import Context
from typing import Any, Protocol

from interpose._clock import Alarm
from interpose._flow import Driver
from interpose._outcome import Outcome
from interpose._scope import Scope
from interpose._shell.claims import Claims
from interpose._shell.native import Route


class UnderWay(Protocol):
    """What an exchange waits for besides an attempt: a pause, a Future, a race."""

    def cancel(self) -> None:
        """It is not wanted any more."""


class Lane(Protocol):
    """The race that an exchange is a copy in."""

    def published(self, lane: Owner, attempt: Any) -> None:
        """A copy has sent its call."""


_NONE: deque[Any] = deque()  # of all that are in no race; a race brings one of its own


class Owner(ABC):
    """An exchange, as its parts see it."""

    __slots__ = (
        "_callbacks",
        "_claims",
        "_scope",
        "ahead",
        "answer",
        "attempt",
        "cancelled",
        "context",
        "deadline",
        "driver",
        "lane_of",
        "outcome",
        "requests",
        "route",
        "under_way",
        "was_open",
    )

    def __init__(
        self, route: Route, driver: Driver, context: Context, deadline: float | None, requests: Any | None
    ) -> None:
        self.route = route
        self.was_open = not route.pauses.closed  # was the channel when it began?
        self.driver = driver
        self.context = context  # of the flows
        self.deadline = deadline
        self.requests = requests  # None for a unary request, which is on the call
        self.attempt: Any = None  # the shell's own, while it is in flight
        self.under_way: UnderWay | None = None
        self.lane_of: Lane | None = None
        self.ahead = _NONE  # messages that were read before the application asked for them
        self.cancelled = False
        self.outcome: Outcome | None = None
        self.answer: Iterator[Any] | None = None  # a stream answered by a flow, without a native call
        self._scope: Scope | None = None
        self._claims: Claims = [True]  # to be cancelled, or to end
        self._callbacks: list[tuple[Callable[[], object], Claims]] = []

    # - what has happened -

    @abstractmethod
    def turn(self, move: Callable[[Any], Any], event: Any) -> None:
        """Move the driver on, and do what it asks for."""

    @abstractmethod
    def told(self, outcome: Outcome) -> None:
        """What was performed has ended."""

    @abstractmethod
    def over(self, attempt: Any, error: BaseException | None = None, response: Any = None) -> None:
        """An attempt has ended, as its native call says or with `error`; reported any number of times."""

    @abstractmethod
    def publish(self, attempt: Any) -> None:
        """From now on this is the attempt that readers read and that a cancel cancels."""

    # - what a part may ask -

    @abstractmethod
    def cancel(self) -> bool:
        """Cancel on behalf of the application; False if it has ended already."""

    @abstractmethod
    def mark_cancelled(self) -> bool:
        """From now on it is cancelled, whatever its flows make of it; False if it is already, or has ended."""

    @property
    @abstractmethod
    def scope_is_over(self) -> bool:
        """Has the incoming RPC ended that it belongs to? Then that has cancelled it, and not the application."""

    @abstractmethod
    def add_callback(self, callback: Callable[[], object]) -> bool:
        """Call back at the end; False, and nothing is called, if that was before."""

    @abstractmethod
    def lane(self, driver: Driver, race: Lane) -> Owner:
        """Another exchange of the same RPC, for one copy in a race."""

    # - what each shell does in a way of its own -

    @abstractmethod
    def send(self, call: Any) -> Outcome | None:
        """Start an attempt; gives its outcome if it has ended already."""

    @abstractmethod
    def later(self, seconds: float, callback: Callable[[], object]) -> Alarm:
        """Call back where this shell turns its drivers, by the channel's clock."""

    @abstractmethod
    def from_any_thread(self, callback: Callable[[], object]) -> Callable[[], object]:
        """A function that has `callback` called where this shell turns its drivers."""

    @abstractmethod
    def guard(self) -> AbstractContextManager[object]:
        """What keeps threads apart while a race counts its copies; nothing is sent, waited for or called within."""

    @abstractmethod
    def look(self, attempt: Any, deliver: Callable[[Any], object]) -> None:
        """Read the first message in the background, and deliver it."""

    @abstractmethod
    def wake(self) -> None:
        """Let all who wait for a change look again."""

    def when_closed(self, waiting: UnderWay) -> None:
        """The channel closes while nothing is in flight."""
        waiting.cancel()
