"""Serve as many calls at once as the server can bear, and refuse the rest at once, the least important first."""

from __future__ import annotations

import enum
import logging
import re
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from grpc import StatusCode

from interpose import errors
from interpose._call import Call
from interpose._clock import SYSTEM, Clock
from interpose._executed import not_executed
from interpose._flow import Flow, wait
from interpose._method import Kind, Method, Side
from interpose._patterns import Patterns, faults_of
from interpose.mechanisms.concurrency import Aimd, Algorithm, Fixed, Gradient, Limiter, Vegas, Window
from interpose.mechanisms.options import insist, is_clock, is_function_or_none, is_seconds, is_whole
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


class ConcurrencyLimit:
    """Serve as many calls at once as the server can bear, and refuse the rest, the lowest priority first.

    A call takes a slot before the handler runs, and gives it back however it ends. Without a free slot it waits in a
    short queue. When that is full the call of the lowest priority is refused at once, with `code`, the pushback, and
    the word that no handler has seen it: `Retry` sends it again later, safe or not.

    Of equal priority the partition that has the fewest calls in hand goes first, so one busy caller does not take all.
    Give a sync server more threads than the limit and the queue together: a call that waits keeps its thread, and a
    call that no thread has taken up yet cannot be refused. Such a server needs a `maximum` for the same reason.

    limit:         `Gradient()`, `Vegas()`, `Aimd()`, which find the limit from how long unary calls take, or `Fixed(n)`;
                   a whole number is a `Fixed`. An object with their method `begin` will do.
    queue:         how many may wait, 0 to 1,000. With 0 a call without a slot is refused whatever its priority.
    queue_timeout: seconds that one may wait, above 0 and below 60.
    priority:      a key of metadata with a whole number from -1000 to 1000, or a function of the call that gives one.
                   More is more important; what is no number counts as 0. A key is believed: take it from peers you trust.
    partition:     a function of the call that gives a text, like who calls. None: all are alike.
    until:         a response stream counts until its END, or by choice until its FIRST_MESSAGE ("end", "first message").
    exempt:        patterns of methods that are never counted nor refused, as in docs/when.md.
    code:          UNAVAILABLE, as Netflix' server, or RESOURCE_EXHAUSTED.
    pushback:      seconds after which a refused call is welcome, up to a day. None: not said.
    clock:         where the time is read; the one that was given to the server.
    on_shed:       called with `ShedDetails` after each refusal; what it raises is logged.

    ValueError listing every fault of the options.
    """

    def __init__(
        self,
        limit: Algorithm | int | None = None,
        *,
        queue: int = 8,
        queue_timeout: float = 0.1,
        priority: Priority = PRIORITY,
        partition: Callable[[Call], str] | None = None,
        until: Until | str = Until.END,
        exempt: str | Iterable[str] = HEALTH,
        code: StatusCode = StatusCode.UNAVAILABLE,
        pushback: float | None = 1.0,
        clock: Clock = SYSTEM,
        on_shed: Callable[[ShedDetails], object] | None = None,
    ) -> None:
        exempt = exempt if isinstance(exempt, str) or not isinstance(exempt, Iterable) else tuple(exempt)
        number = isinstance(limit, int)
        insist(
            "ConcurrencyLimit",
            (
                limit is None or (is_whole(limit, 1, 100_000) if number else _is_algorithm(limit)),
                f"limit must be Gradient(…), Vegas(…), Aimd(…), Fixed(…) or a whole number from 1 to 100,000, not {limit!r}",
            ),
            (is_whole(queue, 0, MOST_WAITING), f"queue must be a whole number from 0 to {MOST_WAITING}, not {queue!r}"),
            (
                is_seconds(queue_timeout, LONGEST),
                f"queue_timeout must be above 0 and below {LONGEST:g} seconds, not {queue_timeout!r}",
            ),
            (
                callable(priority) or _is_key(priority),
                f"priority must be a key of metadata in lower case, like 'x-priority', or a function, not {priority!r}",
            ),
            (
                is_function_or_none(partition),
                f"partition must be a function of the call that gives a text, or None, not {partition!r}",
            ),
            (_is_until(until), f"until must be Until.END or Until.FIRST_MESSAGE, not {until!r}"),
            *((False, fault) for fault in faults_of(exempt, "exempt")),
            (code in _CODES, f"code must be StatusCode.UNAVAILABLE or RESOURCE_EXHAUSTED, not {code!r}"),
            (
                pushback is None or pushback == 0 or is_seconds(pushback, LONGEST_PUSHBACK),
                f"pushback must be None or a number of seconds from 0, below {LONGEST_PUSHBACK:g}, not {pushback!r}",
            ),
            (is_clock(clock), f"clock must have a method now(), not be {clock!r}"),
            (is_function_or_none(on_shed), f"on_shed must be a function of ShedDetails, not {on_shed!r}"),
        )
        begun = limit if isinstance(limit, int) else (Gradient() if limit is None else limit).begin()
        self._slots = slots = Slots(begun if isinstance(begun, int) else begun.limit, queue)
        self._meter = None if isinstance(begun, int) else Meter(begun, slots, clock)
        self._queue_timeout = queue_timeout
        self._priority = priority
        self._partition = partition
        self._first_message = Until(until) is Until.FIRST_MESSAGE
        self._exempt = Patterns(exempt)
        self._counted: set[str] = set()  # names of methods that are not exempt, to save a look at the patterns
        self._code = code
        self._pushback = pushback
        self._clock = clock
        self._on_shed = on_shed

    def __call__(self, call: Call) -> Flow:
        method = call._method
        if method.full_name not in self._counted and self._is_exempt(method.full_name):
            yield call
            return
        partition = None
        if self._partition is not None or not self._slots.take():
            partition = yield from self._asked(call)
        if self._first_message and method.kind.response_streaming:
            yield from self._until_first_message(call, partition)
            return
        meter = self._meter
        began = 0.0 if meter is None else meter.now()
        try:
            outcome = yield call
        except BaseException:
            self._dropped(partition)
            raise
        if meter is not None and method.kind is Kind.UNARY_UNARY:
            meter.ended(outcome._code, began)
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
        until = self._clock.now() + self._queue_timeout
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
        priority = self._priority
        if isinstance(priority, str):
            return _whole(call.metadata.get(priority))
        given = priority(call)
        if not isinstance(given, int):
            raise TypeError(f"ConcurrencyLimit: priority must give a whole number, not {given!r:.100}")
        return given

    def _partition_of(self, call: Call) -> str | None:
        if self._partition is None:
            return None
        given = self._partition(call)
        if not isinstance(given, str):
            raise TypeError(f"ConcurrencyLimit: partition must give a text, not {given!r:.100}")
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
                self._dropped(held.pop())
            raise
        give()

    def _dropped(self, partition: str | None) -> None:
        """A flow was closed."""
        if self._slots.put_down(partition):
            self._settle_soon()

    def _settle_soon(self) -> None:
        """Let others go on, but on another thread: here the garbage collector may have come in the middle of a lock."""
        with suppress(RuntimeError):  # at the end of the interpreter no thread can start, and nobody waits
            SYSTEM.call_later(0, self._slots.settle)

    # - refusing -

    def _shed(self, call: Call, asked: Asked, reason: ShedReason) -> errors.StatusError:
        if self._on_shed is not None:
            try:
                self._on_shed(
                    ShedDetails(method=call.method, priority=asked.priority, partition=asked.partition, reason=reason)
                )
            except Exception:
                _log.exception("on_shed failed; the call is refused all the same")
        trailing = not_executed(call, self._pushback) if call.side is Side.SERVER else ()
        return errors.of(self._code)("too many calls at once", trailing_metadata=trailing, local=True)


class Meter:
    """How long calls take: gathers them in windows, and lets the algorithm set the limit by each."""

    def __init__(self, limiter: Limiter, slots: Slots, clock: Clock) -> None:
        self.now = clock.now
        self._limiter = limiter
        self._slots = slots
        self._times: deque[float] = deque(maxlen=KEPT)
        self._most = 0
        self._dropped = 0
        self._due = clock.now() + LENGTH

    def ended(self, code: StatusCode, began: float) -> None:
        """A unary call has ended that still holds its slot."""
        if code is not StatusCode.OK:
            if code is not StatusCode.DEADLINE_EXCEEDED:
                return  # a failure may be quick, and says nothing of the load
            self._dropped += 1
        now = self.now()
        self._times.append(now - began)
        self._most = max(self._most, self._slots.taken)
        if now >= self._due and len(self._times) >= FEWEST:
            self._slots.do(partial(self._update, now))

    def _update(self, now: float) -> None:
        """In turn: a window is over."""
        if now < self._due:
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


def _is_algorithm(value: object) -> bool:
    return not isinstance(value, type) and callable(getattr(value, "begin", None))


def _is_key(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[a-z0-9_.-]+", value) is not None and not value.endswith("-bin")


def _is_until(value: object) -> bool:
    return isinstance(value, Until) or value in {until.value for until in Until}
