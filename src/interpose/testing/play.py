"""Play the other side of an interceptor by hand: no server, no loop, no thread, no time.

played = play(retry, [failed(grpc.StatusCode.UNAVAILABLE), ok("hello")])
assert played.outcome.ok and len(played.sent) == 2
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from types import EllipsisType
from typing import Any, cast

import grpc

from interpose import context, errors
from interpose._call import Call, Hedging, Hook
from interpose._flow import Driver, Interceptor, Race, Wait, check, layers, name_of
from interpose._messages import compose, request_of
from interpose._metadata import Metadata
from interpose._method import Kind, Method, Side
from interpose._native import cancelled, expired, pause_of, time_left
from interpose._outcome import OK, Outcome
from interpose.testing.acts import Act, Script
from interpose.testing.clock import FakeClock
from interpose.testing.echo import path

NEVER = float("inf")
MAX_TURNS = 10_000  # of an awaitable that only gives way


class ScriptError(AssertionError):
    """The interceptor did something else than the script: sent once more, or once less; says what it did so far."""


@dataclass(frozen=True)
class Sent:
    """One call that was sent, as the other side would have seen it.

    at: when, in seconds since the RPC began. delay: how long the interceptors had it wait before.
    requests, responses: the messages that passed, as taps and maps left them.
    """

    call: Call
    at: float
    requests: tuple[Any, ...]
    responses: tuple[Any, ...]
    outcome: Outcome

    @property
    def metadata(self) -> Metadata:
        return self.call.metadata

    @property
    def timeout(self) -> float | None:
        return self.call.timeout

    @property
    def delay(self) -> float:
        return self.call.delay

    def __str__(self) -> str:
        after = f" after {self.delay:g} s" if self.delay else ""
        return f"sent{after} with {tuple(self.metadata)!r:.200}, timeout {self.timeout} → {self.outcome!r}"


@dataclass
class Played:
    """What an interceptor did: its final outcome, and all that happened on the way.

    responses: what the caller would have received. waits: what each `wait` was answered. races: the hedged calls.
    elapsed: how many seconds the RPC would have taken, by the delays of the interceptors and the script.
    """

    outcome: Outcome = field(default_factory=Outcome)
    sent: list[Sent] = field(default_factory=list)
    responses: list[Any] = field(default_factory=list)
    waits: list[Any] = field(default_factory=list)
    races: list[Hedging] = field(default_factory=list)
    elapsed: float = 0.0

    def __str__(self) -> str:
        return "\n".join(f"  {number}. {sent}" for number, sent in enumerate(self.sent, 1)) or "  nothing was sent"


def play(
    interceptor: Interceptor,
    script: Iterable[Act | Outcome | EllipsisType] = (Act(),),
    *,
    side: Side = Side.CLIENT,
    kind: Kind = Kind.UNARY_UNARY,
    method: str | None = None,
    requests: Sequence[Any] = ("hello",),
    metadata: Any = (),
    timeout: float | None = None,
    peer: str = "ipv4:127.0.0.1:5000",
    incoming: Call | None = None,
    answers: Iterable[Any] = (),
    clock: FakeClock | None = None,
) -> Played:
    """Run an interceptor through one RPC in which the other side acts by the script, an act for each call that it sends.

    script: acts (`ok`, `failed`, `raised`) or whole outcomes; `...` at its end repeats the last.
    side, kind, method, requests, metadata, timeout, peer: the call that it is given. peer is told on a server only.
    incoming: the RPC whose handler makes this call, for interceptors that ask `context.current_call()`.
    answers: what each `yield from wait(…)` gives, in order; an exception is raised there. Where there is none, an
        awaitable is run by hand, which does for all that needs no running loop.
    clock: moved on by each delay, so that interceptors that look at it see the time pass.

    ScriptError if it sends more or less often than the script says, with what it did so far.
    TypeError for anything that is no interceptor.
    """
    check(interceptor)
    made = Method(method or path(kind), kind)
    clock = clock or FakeClock()
    call = _call(made, side, requests, metadata, timeout, peer, clock)
    player = _Player(made, Script(script), list(requests), list(answers), clock, call.deadline)
    own = copy_context()
    if side is Side.SERVER:
        own.run(context._call.set, call)
    elif incoming is not None:
        own.run(context._call.set, incoming)
    return own.run(player.play, interceptor, call)


def incoming(
    kind: Kind = Kind.UNARY_UNARY,
    *,
    method: str | None = None,
    request: Any = "hello",
    metadata: Any = (),
    timeout: float | None = None,
    peer: str = "ipv4:127.0.0.1:5000",
    clock: FakeClock | None = None,
) -> Call:
    """A call as it arrives at a server, for `play(incoming=…)`."""
    return _call(
        Method(method or path(kind), kind), Side.SERVER, [request], metadata, timeout, peer, clock or FakeClock()
    )


def _call(
    method: Method, side: Side, requests: Sequence[Any], metadata: Any, timeout: float | None, peer: str, clock: Any
) -> Call:
    request = None if method.kind.request_streaming else requests[0]
    deadline = None if timeout is None else clock.now() + timeout
    if side is Side.SERVER:
        arrived = _Arrived(Metadata.trusted(metadata), timeout, deadline, peer)
        return Call(method, side, request, metadata=None, context=arrived)
    return Call(method, side, request, timeout, Metadata.trusted(metadata), deadline=deadline)


@dataclass
class _Arrived:
    """What a server's call asks of its context."""

    _metadata: Metadata
    _timeout: float | None
    _deadline: float | None
    _peer: str

    def received_metadata(self) -> Metadata:
        return self._metadata

    def arrived_with(self) -> float | None:
        return self._timeout

    def deadline(self) -> float | None:
        return self._deadline

    def peer(self) -> str:
        return self._peer


class _Player:
    """One RPC that is played."""

    def __init__(
        self,
        method: Method,
        script: Script,
        requests: list[Any],
        answers: list[Any],
        clock: FakeClock,
        deadline: float | None,
    ) -> None:
        self._method = method
        self._script = script
        self._requests = requests
        self._answers = answers
        self._clock = clock
        self._began = clock.now()
        self._deadline = deadline
        self._played = Played()

    def play(self, interceptor: Interceptor, call: Call) -> Played:
        driver = Driver(layers((interceptor,), self._method))
        played = self._played
        played.outcome = self._run(driver, driver.start(call))
        played.elapsed = self._clock.now() - self._began
        if self._script.left:
            left = len(self._script.left)
            raise ScriptError(
                f"{name_of(interceptor)} ended with {played.outcome!r}, and {left} of {len(self._script)} acts are left. "
                f"What it did:\n{played}"
            )
        played.responses = self._received()
        return played

    def _received(self) -> list[Any]:
        """What the caller was given."""
        outcome, streaming = self._played.outcome, self._method.kind.response_streaming
        if not streaming:
            return [outcome.response] if outcome.ok else []
        return [
            *(message for sent in self._played.sent[-1:] for message in sent.responses),
            *(outcome.response or ()),
        ]

    # - steps -

    def _run(self, driver: Driver, step: Any) -> Outcome:
        """Turn a driver to the end of its RPC."""
        while type(step) is not Outcome:
            if type(step) is Call:
                outcome, seconds = self.perform(step)
                self._pass(seconds)
                step = driver.tell(outcome)
            else:
                step = self.answered(driver, step)
        return step

    def answered(self, driver: Driver, step: Any) -> Any:
        """What comes after a wait, or after a race."""
        return self._waited(driver, step) if type(step) is Wait else driver.tell(_Lanes(self, step).run())

    def perform(self, call: Call) -> tuple[Outcome, float]:
        """Send one call: how the script lets it end, and after how many seconds."""
        now = self._clock.now()
        pause, in_time = pause_of(call, self._deadline, now) if call.delay else (0.0, True)
        left = time_left(call, self._deadline, now + pause)
        if not in_time or (left is not None and left <= 0):
            return _expired(call), pause
        try:
            request = None if call.kind.request_streaming else request_of(call)
        except errors.StatusError as error:  # by a tap or a map: there is nothing to send
            return _unsent(error, 1), pause
        act = self._script.take()
        if act is None:
            raise ScriptError(
                f"the script has {len(self._script)} acts, and one call more was sent, {call!r} with "
                f"{tuple(call.metadata)!r:.200}. What came before:\n{self._played}"
            )
        at = now + pause - self._began
        if isinstance(act, Outcome):
            self._played.sent.append(Sent(call, at, tuple(self._requests), (), act))
            return act, pause + act.elapsed
        requests = self._requests if call.kind.request_streaming else [request]
        sent = _attempt(call, act, requests, left, at)
        self._played.sent.append(sent)
        return sent.outcome, pause + sent.outcome.elapsed

    def _pass(self, seconds: float) -> None:
        if seconds == NEVER:
            raise ScriptError(f"the call hangs for ever, and nothing limits its time:\n{self._played}")
        self._clock.advance(seconds)

    def _waited(self, driver: Driver, step: Wait) -> Any:
        """Answer what the flow waits for."""
        try:
            value = self._answer(step)
        except BaseException as error:
            if isinstance(error, ScriptError):
                raise
            self._played.waits.append(error)
            return driver.fail(error)
        self._played.waits.append(value)
        return driver.answer(value)

    def _answer(self, step: Wait) -> Any:
        if not self._answers:
            return _by_hand(step)
        close = getattr(step.awaitable, "close", None)
        if close is not None:
            close()
        answer = self._answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer


def _by_hand(step: Wait) -> Any:
    """Run an awaitable without a loop."""
    steps: Iterator[Any] = step.awaitable.__await__()
    try:
        for _ in range(MAX_TURNS):
            if next(steps) is not None:
                break
    except StopIteration as end:
        return end.value
    close = getattr(steps, "close", None)
    if close is not None:
        close()
    raise ScriptError(
        f"{step.asker} waits for {step.awaitable!r:.100}, which needs a running loop: "
        "say what it gives with play(…, answers=[…])"
    )


# --- one attempt ------------------------------------------------------------------------------------------------------


def _expired(call: Call) -> Outcome:
    """The outcome of an attempt with no time left."""
    if call.side is Side.CLIENT:
        return expired()
    late = errors.DeadlineExceeded("the time was up before the handler was called", local=True)
    return _unsent(late, 0 if call.kind.request_streaming else 1)


def _unsent(error: errors.StatusError, requests: int) -> Outcome:
    """The outcome of an attempt that ended on this side, when so many requests had come."""
    return Outcome(error.code(), None, error.details(), error, requests, replayable=True)


def _attempt(call: Call, act: Act, given: list[Any], limit: float | None, at: float) -> Sent:
    """One call that is sent, and answered as the act says. limit: seconds that it may take."""
    kind, asks = call.kind, call._asks
    late = limit is not None and (act.hang or act.delay >= limit)
    error = errors.DeadlineExceeded("Deadline Exceeded") if late else _ending(act, call.side)
    requests: list[Any] = []
    responses: list[Any] = []
    try:
        if not (act.unread and kind.request_streaming):
            _hooked(asks.requests if kind.request_streaming else (), given, requests)
        for tap in asks.on_initial_metadata:
            _hooked(((False, tap),), [Metadata.trusted(act.initial)], [])
        if not late:
            _hooked(asks.responses, act.sent(kind, requests), responses)
    except errors.StatusError as raised:  # by a tap or a map
        error = raised
    elapsed = cast(float, limit) if late else NEVER if act.hang else act.delay
    outcome = Outcome(
        OK if error is None else error.code() if isinstance(error, errors.StatusError) else grpc.StatusCode.UNKNOWN,
        responses[-1] if error is None and not kind.response_streaming else None,
        error.details() if isinstance(error, errors.StatusError) else "",
        error,
        len(requests),
        len(responses),
        elapsed,
        _replayable(call, act, requests, responses),
        initial_metadata=Metadata.trusted(act.initial),
        trailing_metadata=None if isinstance(error, errors.StatusError) else Metadata.trusted(act.trailing),
    )
    return Sent(call, at, tuple(requests), tuple(responses), outcome)


def _ending(act: Act, side: Side) -> BaseException | None:
    """What the act fails with, as an interceptor on this side sees it."""
    if isinstance(act.error, errors.StatusError):
        return act.error
    if act.error is not None:
        return act.error if side is Side.SERVER else errors.Unknown(f"Exception calling application: {act.error}")
    if act.die:
        return errors.Unavailable("Socket closed") if side is Side.CLIENT else errors.Cancelled("", local=True)
    return errors.of(act.code)(act.details, trailing_metadata=act.trailing) if act.fails else None


def _hooked(hooks: tuple[Hook, ...], messages: Iterable[Any], passed: list[Any]) -> None:
    """Pass messages through taps and maps."""
    hook = compose(hooks)
    for message in messages:
        passed.append(message if hook is None else hook(message))  # noqa: PERF401  what passed before a failure counts


def _replayable(call: Call, act: Act, requests: list[Any], responses: list[Any]) -> bool:
    server = call.side is Side.SERVER
    begun = (call.kind.response_streaming and responses) or (server and act.initial)
    read = call.kind.request_streaming and requests and (server or call._asks.buffer is None)
    return not begun and not read


# --- hedged calls -----------------------------------------------------------------------------------------------------


class _Lanes:
    """The lanes of a race, one after the other in time: whichever ends first is told first."""

    def __init__(self, player: _Player, race: Race) -> None:
        self._player = player
        self._clock = player._clock
        self._lanes = list(race.lanes)
        self._delay = race.delay
        self._drivers: list[Driver] = []
        # What happens at which time: a lane has ended (driver, outcome, its place in `sent`), or the next one starts (None).
        self._due: list[tuple[float, int, tuple[Driver, Outcome, int | None] | None]] = []
        self._order = itertools.count()
        player._played.races.append(Hedging(len(race.lanes), race.delay))

    def run(self) -> Outcome:
        last = self._start_next()
        while last is None or not last.ok:
            if not self._due:
                break
            at, _, event = heapq.heappop(self._due)
            self._player._pass(at - self._clock.now())
            last = self._start_next() if event is None else self._turn(event[0], event[0].tell(event[1]))
            if event is not None and last is not None and not last.ok and self._lanes:
                last = self._start_next()  # a failure lets the next copy go at once (gRFC A6)
        assert last is not None
        self._cancel_others()
        last._attempts = sum(driver.sends for driver in self._drivers)
        return last

    def _start_next(self) -> Outcome | None:
        """Start the next lane; its outcome if it has ended already."""
        self._due = [due for due in self._due if due[2] is not None]
        heapq.heapify(self._due)
        if not self._lanes:
            return None
        driver, call = self._lanes.pop(0)()
        self._drivers.append(driver)
        if self._lanes:
            heapq.heappush(self._due, (self._clock.now() + self._delay, next(self._order), None))
        return self._turn(driver, driver.start(call))

    def _turn(self, driver: Driver, step: Any) -> Outcome | None:
        """Let a lane go on, to its end or to a call that takes its time."""
        player = self._player
        while type(step) is not Outcome:
            if type(step) is Call:
                before = len(player._played.sent)
                outcome, seconds = player.perform(step)
                position = before if len(player._played.sent) > before else None
                event = (driver, outcome, position)
                heapq.heappush(self._due, (self._clock.now() + seconds, next(self._order), event))
                return None
            step = player.answered(driver, step)
        return step

    def _cancel_others(self) -> None:
        """Tell the lanes that still run that they have lost."""
        for _, _, event in self._due:
            if event is None:
                continue
            driver, _, position = event
            sent = self._player._played.sent
            if position is not None:
                sent[position] = replace(sent[position], outcome=cancelled())
            step = driver.tell(cancelled())
            while type(step) is not Outcome:
                step = driver.tell(cancelled()) if type(step) is Call else self._player.answered(driver, step)
