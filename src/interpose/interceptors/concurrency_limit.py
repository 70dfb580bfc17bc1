"""Serve as many calls at once as the server can take, and refuse the rest at once, the least important first."""

from __future__ import annotations

import enum
import logging
import re
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any, TypeAlias

from grpc import StatusCode

from interpose import errors
from interpose._call import Call
from interpose._clock import SYSTEM
from interpose._executed import not_executed
from interpose._flow import Flow, wait
from interpose._kind import kind_of
from interpose._method import Kind, Method, Side
from interpose._patterns import Patterns, listed, patterns
from interpose.mechanisms.concurrency import Aimd, Algorithm, Fixed, Gradient, Limiter, Vegas, Window
from interpose.mechanisms.options import (
    check_options,
    hook,
    is_seconds,
    is_whole,
    must_be,
    option,
    optional,
    seconds,
    whole,
)
from interpose.mechanisms.slots import Answer, Asked, Slots

__all__ = [
    "HEALTH",
    "PRIORITY",
    "Aimd",
    "ConcurrencyLimit",
    "ConcurrencyState",
    "Fixed",
    "Gradient",
    "ShedDetails",
    "ShedReason",
    "Until",
    "Vegas",
]

HEALTH = "/grpc.health.v1.Health/*"  # a health check that is refused takes the whole server away
PRIORITY = "x-priority"
MOST_NAMES = 1024
MOST_WAITING = 1000  # each that comes or goes looks at all of them
LONGEST = 60.0  # seconds in a queue; callers have given up before
LONGEST_PUSHBACK = 86_400.0  # seconds
MOST_IMPORTANT = 1000

# A window of calls from which the limit learns.
LENGTH = 0.1  # seconds; Netflix has 1, with which a change of capacity is found too late
FEWEST = 10  # calls; Netflix: WindowedLimit, windowSize
KEPT = 1000  # calls; of more the last ones count

Priority: TypeAlias = "str | Callable[[Call], int]"
_CODES = (StatusCode.UNAVAILABLE, StatusCode.RESOURCE_EXHAUSTED)
_WHOLE = re.compile(r"[+-]?[0-9]{1,4}", re.ASCII)

_log = logging.getLogger("interpose")


class Until(enum.Enum):
    """How long a response stream counts."""

    END = "end"
    FIRST_MESSAGE = "first message"


class ShedReason(enum.Enum):
    """Why a call was refused."""

    FULL = "full"
    DISPLACED = "displaced"
    TIMED_OUT = "timed out"


_REASONS = {Answer.FULL: ShedReason.FULL, Answer.DISPLACED: ShedReason.DISPLACED, None: ShedReason.TIMED_OUT}


@dataclass(frozen=True, slots=True, kw_only=True)
class ShedDetails:
    """What `on_shed` is given: a call was refused. partition: None without `partition=`."""

    method: Method
    priority: int
    partition: str | None
    reason: ShedReason


@dataclass(frozen=True, slots=True, kw_only=True)
class ConcurrencyState:
    """What a `ConcurrencyLimit` does at the moment.

    in_flight: calls that count; for a moment more than `limit` after that was lowered. queued: calls that wait.
    shed: calls refused since the start. partitions: those in flight by partition, only those that have any.
    """

    limit: int
    in_flight: int
    queued: int
    shed: int
    partitions: dict[str, int]


# - what holds of its options -

ALGORITHMS = "Gradient(…), Vegas(…), Aimd(…), Fixed(…) or a whole number from 1 to 100,000"


def _is_limit(value: object) -> bool:
    if value is None or isinstance(value, int):
        return value is None or is_whole(value, 1, 100_000)
    return not isinstance(value, type) and callable(getattr(value, "begin", None))


def _is_priority(value: object) -> bool:
    if not isinstance(value, str):
        return callable(value)
    return re.fullmatch(r"[a-z0-9_.-]+", value) is not None and not value.endswith("-bin")


def _is_until(value: object) -> bool:
    return isinstance(value, Until) or value in {until.value for until in Until}


def _is_pushback(value: object) -> bool:
    return value == 0 or is_seconds(value, LONGEST_PUSHBACK)


@dataclass(eq=False, repr=False)
class ConcurrencyLimit:
    """Serve as many calls at once as the server can take, and refuse the rest, the lowest priority first.

    A call takes a slot before the handler runs, and gives it back however it ends. Without a free slot it waits in a
    short queue. When that is full, the call of the lowest priority is refused at once, with `code` and the pushback.
    The refusal says that no handler has seen the call, so `Retry` sends it again later, safe or not.

    Of equal priority the partition that has the fewest calls in hand goes first, so one busy caller does not take
    all. Give a sync server more threads than the limit and the queue together. A call that waits keeps its thread,
    and a call that no thread has taken up yet cannot be refused. Such a server needs a `maximum` for the same reason.

    limit:         `Gradient()`, `Vegas()`, `Aimd()`, which find the limit from how long unary calls take, or `Fixed(n)`;
                   a whole number is a `Fixed`. An object with their method `begin` will do.
    queue:         how many may wait, 0 to 1,000. With 0 a call without a slot is refused whatever its priority.
    queue_timeout: seconds that one may wait, above 0 and below 60.
    priority:      a key of metadata with a whole number from -1000 to 1000, or a function of the call that gives one.
                   More is more important; what is no number counts as 0. A key is believed: take it from peers you trust.
    partition:     a function of the call that gives a text, like the caller. None: all are alike.
    until:         a response stream counts until its END, or by choice until its FIRST_MESSAGE ("end", "first message").
    exempt:        patterns of methods that are never counted nor refused, as in docs/when.md.
    code:          UNAVAILABLE, as Netflix' server, or RESOURCE_EXHAUSTED.
    pushback:      seconds after which a refused call is welcome, up to a day. None: not said.
    on_shed:       called with `ShedDetails` after each refusal; what it raises is logged.

    The functions run where the RPC runs: on the thread of its handler, or in the event loop. What `priority` and `partition`
    raise ends the call with INTERNAL. Defaults: `Gradient()`; 8 may wait for 0.1 s, a short burst; pushback 1 s.

    ValueError listing every fault of the options.
    """

    limit: Algorithm | int | None = option(None, must_be(ALGORITHMS, _is_limit))
    _: KW_ONLY
    queue: int = option(8, whole(0, MOST_WAITING))
    queue_timeout: float = option(0.1, seconds(LONGEST))
    priority: Priority = option(
        PRIORITY, must_be("a key of metadata in lower case, like 'x-priority', or a function", _is_priority)
    )
    partition: Callable[[Call], str] | None = option(None, hook("the call that gives a text, or None"))
    until: Until | str = option(Until.END, must_be("Until.END or Until.FIRST_MESSAGE", _is_until))
    exempt: str | Iterable[str] = option(HEALTH, patterns)
    code: StatusCode = option(
        StatusCode.UNAVAILABLE, must_be("StatusCode.UNAVAILABLE or RESOURCE_EXHAUSTED", _CODES.__contains__)
    )
    pushback: float | None = option(
        1.0, optional(f"a number of seconds from 0, below {LONGEST_PUSHBACK:g}", _is_pushback)
    )
    on_shed: Callable[[ShedDetails], object] | None = option(None, hook("ShedDetails"))

    def __post_init__(self) -> None:
        self.exempt = listed(self.exempt)
        check_options(self)
        limit = Gradient() if self.limit is None else self.limit
        begun = limit if isinstance(limit, int) else limit.begin()
        self._slots = slots = Slots(begun if isinstance(begun, int) else begun.limit, self.queue)
        self._meter = None if isinstance(begun, int) else Meter(begun, slots)
        self._first_message = Until(self.until) is Until.FIRST_MESSAGE
        self._exempt = Patterns(self.exempt)
        self._counted: set[str] = set()  # names of methods that are not exempt, to save a look at the patterns

    def __call__(self, call: Call) -> Flow:
        method = call._method
        if method.full_name not in self._counted and self._is_exempt(method.full_name):
            yield call
            return
        partition = None
        if self.partition is not None or not self._slots.take():
            partition = yield from self._asked(call)
        if self._first_message and method.kind.response_streaming:
            yield from self._until_first_message(call, partition)
            return
        meter = self._meter
        began = 0.0 if meter is None else method.clock.now()
        try:
            outcome = yield call
        except BaseException:
            self._slots.give(partition, self._settle_soon)  # the flow was closed
            raise
        if meter is not None and method.kind is Kind.UNARY_UNARY:
            meter.ended(outcome._code, began, method.clock.now())
        self._slots.give(partition)

    def snapshot(self) -> ConcurrencyState:
        """What it does at the moment."""
        slots = self._slots
        return ConcurrencyState(
            limit=slots.limit,
            in_flight=slots.taken,
            queued=slots.waiting,
            shed=slots.refused,
            partitions=slots.holds(),
        )

    def _is_exempt(self, name: str) -> bool:
        if self._exempt(name):
            return True
        if len(self._counted) < MOST_NAMES:  # a peer may ask for methods of any name
            self._counted.add(name)
        return False

    # - getting a slot -

    def _asked(self, call: Call) -> Any:
        """Ask for a slot, and wait for it if need be; gives the partition that it is taken for."""
        asked = Asked(self._priority_of(call), self._partition_of(call))
        self._slots.ask(asked)
        answer = asked.answer.result() if asked.answer.done() else (yield from self._waited(call, asked))
        if answer is not Answer.SLOT:
            raise self._shed(call, asked, _REASONS[answer])
        return asked.partition

    def _waited(self, call: Call, asked: Asked) -> Any:
        """The answer; None if it does not come in time."""
        until = call.clock.now() + self.queue_timeout
        try:
            return (yield from wait(asked.answer, deadline=until))
        except errors.DeadlineExceeded:
            self._slots.leave(asked)
            self._slots.settle()
            if call.deadline is not None and call.deadline <= until:
                raise  # its own time is over, and not that in the queue
            return None
        except BaseException as error:
            self._slots.leave(asked)
            self._settle_soon()
            if isinstance(error, (Exception, GeneratorExit)):
                raise
            raise errors.Cancelled("the client has gone", local=True) from None  # asyncio has cancelled the task

    def _priority_of(self, call: Call) -> int:
        priority = self.priority
        if isinstance(priority, str):
            return _whole(call.metadata.get(priority))
        given = priority(call)
        if not isinstance(given, int):
            raise TypeError(f"ConcurrencyLimit: priority must give a whole number, not {kind_of(given)}")
        return given

    def _partition_of(self, call: Call) -> str | None:
        if self.partition is None:
            return None
        given = self.partition(call)
        if not isinstance(given, str):
            raise TypeError(f"ConcurrencyLimit: partition must give a text, not {kind_of(given)}")
        return given

    # - giving it back -

    def _until_first_message(self, call: Call, partition: str | None) -> Flow:
        held = [partition]  # popped once, by the first message or the end

        def give(_: object = None) -> None:
            if held:
                self._slots.give(held.pop())

        try:
            yield call.tap(responses=give)
        except BaseException:
            if held:
                self._slots.give(held.pop(), self._settle_soon)
            raise
        give()

    def _settle_soon(self) -> None:
        """Let others go on, but on another thread: here the garbage collector may have come in the middle of a lock."""
        with suppress(RuntimeError):  # at the end of the interpreter no thread can start, and no call waits
            SYSTEM.call_later(0, self._slots.settle)

    # - refusing -

    def _shed(self, call: Call, asked: Asked, reason: ShedReason) -> errors.StatusError:
        if self.on_shed is not None:
            try:
                self.on_shed(
                    ShedDetails(method=call.method, priority=asked.priority, partition=asked.partition, reason=reason)
                )
            except Exception:
                _log.exception("on_shed failed; the call is refused all the same")
        trailing = not_executed(call, self.pushback) if call.side is Side.SERVER else ()
        return errors.of(self.code)("too many calls at once", trailing_metadata=trailing, local=True)


class Meter:
    """How long calls take: gathers them in windows, and lets the algorithm set the limit by each."""

    def __init__(self, limiter: Limiter, slots: Slots) -> None:
        self._limiter = limiter
        self._slots = slots
        self._times: deque[float] = deque(maxlen=KEPT)
        self._most = 0
        self._dropped = 0
        self._due: float | None = None  # when the window is over; the first begins with the first call that ends

    def ended(self, code: StatusCode, began: float, now: float) -> None:
        """A unary call has ended that still holds its slot."""
        due = self._due
        if due is None:
            due = self._due = began + LENGTH
        if code is not StatusCode.OK:
            if code is not StatusCode.DEADLINE_EXCEEDED:
                return  # a failure may be quick, and says nothing of the load
            self._dropped += 1
        self._times.append(now - began)
        taken = self._slots.taken
        if taken > self._most:  # noqa: PLR1730  max() takes twice as long
            self._most = taken
        if now >= due and len(self._times) >= FEWEST:
            self._slots.do(partial(self._update, now))

    def _update(self, now: float) -> None:
        """In turn: a window is over."""
        if self._due is None or now < self._due:
            return  # another thread has just seen to it
        times, window_most, dropped = list(self._times), self._most, self._dropped
        self._times.clear()
        self._most, self._dropped, self._due = 0, 0, now + LENGTH
        window = Window(sum(times) / len(times), window_most, min(dropped / len(times), 1.0))
        limit = self._limiter.update(window, now)
        self._slots.set_limit(limit)


def _whole(value: object) -> int:
    """The priority that a text asks for."""
    if not isinstance(value, str) or not _WHOLE.fullmatch(value):
        return 0
    return max(-MOST_IMPORTANT, min(int(value), MOST_IMPORTANT))
