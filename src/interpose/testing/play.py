"""Play the other side of an interceptor by hand: no server, no loop, no thread, no time.

played = play(retry, [failed(grpc.StatusCode.UNAVAILABLE), ok("hello")])
assert played.outcome.ok and len(played.sent) == 2
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from functools import partial
from types import EllipsisType
from typing import Any, cast

from interpose import context, errors
from interpose._call import Call, Hedging
from interpose._flow import Driver, Interceptor, Race, Wait, check, layers, name_of
from interpose._messages import request_of
from interpose._metadata import Metadata
from interpose._method import Kind, Method, Side
from interpose._outcome import Outcome
from interpose._scope import Scope
from interpose._shell.native import cancelled, pause_of, time_left
from interpose.mechanisms.text import counted
from interpose.testing.acting import NEVER, Acting, out_of_time, unsent
from interpose.testing.acts import Act, Script
from interpose.testing.clock import FakeClock
from interpose.testing.echo import path

MAX_TURNS = 10_000  # of an awaitable that only gives way
LOOPLESS = ("event loop", "inside a task", "create_future")  # in what asyncio and anyio raise where there is no loop


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
        return f"sent{after} with {_plain(self.metadata)!r:.200}, timeout {self.timeout} → {self.outcome!r}"


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
    auth_context: Mapping[str, Iterable[bytes]] | None = None,
    incoming: Call | None = None,
    answers: Iterable[Any] = (),
    clock: FakeClock | None = None,
) -> Played:
    """Run an interceptor through one RPC in which the other side acts by the script, an act for each call that it sends.

    script: acts (`ok`, `failed`, `raised`) or whole outcomes; `...` at its end repeats the last.
    side, kind, method, requests, metadata, timeout in seconds, peer, auth_context: the call that it is given. The last
        two are set on a server only; auth_context is what the transport knows of the client, like
        `{"peer_dns": [b"web.example"]}`.
    incoming: the RPC whose handler makes this call, for interceptors that ask `context.current_call()`.
    answers: what each `yield from wait(…)` gives, in order; an exception is raised there. Where there is none, an
        awaitable is run by hand, which does for all that needs no running loop.
    clock: moved on by each delay, so that interceptors that look at it see the time pass.

    ScriptError if it sends more or less often than the script says, with what it did so far.
    ValueError for a kind that the method does not have, where its proto is loaded or it is one of the echo service.
    TypeError for anything that is no interceptor.
    """
    check(interceptor)
    if isinstance(requests, (str, bytes)) or not requests:
        raise ValueError(f"play: requests must be a sequence of one or more messages, not {requests!r}")
    clock = clock or FakeClock()
    made = Method(method or path(kind), kind, serializer=_encoded, clock=clock)
    _insist_on_kind(made)
    call = _call(made, side, requests, metadata, timeout, clock, _Caller(peer, auth_context or {}))
    player = _Player(made, Script(script, Outcome), list(requests), list(answers), clock, call.deadline)
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
    auth_context: Mapping[str, Iterable[bytes]] | None = None,
    clock: FakeClock | None = None,
) -> Call:
    """A call as it arrives at a server, for `play(incoming=…)`. timeout: seconds."""
    clock = clock or FakeClock()
    made = Method(method or path(kind), kind, clock=clock)
    return _call(made, Side.SERVER, [request], metadata, timeout, clock, _Caller(peer, auth_context or {}))


def _insist_on_kind(method: Method) -> None:
    """ValueError if the method is known, and of another kind."""
    kinds = {path(kind): kind for kind in Kind}
    known = kinds.get(method.full_name)
    if (described := method.descriptor) is not None:
        known = Kind.of(described.client_streaming, described.server_streaming)
    if known not in (None, method.kind):
        raise ValueError(f"play: {method} is of another kind: write kind=Kind.{known.name}, not {method.kind.name}")


def _seconds(began: float, ended: float) -> float:
    """The time between, without what the clock cannot distinguish: a pause of 0.1 seconds is 0.1."""
    return round(ended - began, min(9, int(-math.log10(math.ulp(ended))) - 1))


@dataclass(frozen=True)
class _Caller:
    """What a server's transport knows of the caller."""

    peer: str
    auth_context: Mapping[str, Iterable[bytes]]


def _call(
    method: Method,
    side: Side,
    requests: Sequence[Any],
    metadata: Any,
    timeout: float | None,
    clock: Any,
    caller: _Caller,
) -> Call:
    request = None if method.kind.request_streaming else requests[0]
    deadline = None if timeout is None else clock.now() + timeout
    if side is Side.SERVER:
        arrived = _Arrived(Metadata.trusted(metadata), timeout, deadline, caller)
        return Call(method, side, request, metadata=None, context=arrived)
    return Call(method, side, request, timeout, Metadata.trusted(metadata), deadline=deadline)


def _bounded(call: Call) -> Call:
    """The call with its deadline on it, also where the client set it."""
    return call if call._deadline is not None or call.deadline is None else call._copy("_deadline", call.deadline)


@dataclass
class _Arrived:
    """What a server's call asks of its context."""

    _metadata: Metadata
    _timeout: float | None
    _deadline: float | None
    _caller: _Caller

    def received_metadata(self) -> Metadata:
        return self._metadata

    def arrived_with(self) -> float | None:
        return self._timeout

    def deadline(self) -> float | None:
        return self._deadline

    def peer(self) -> str:
        return self._caller.peer

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        return self._caller.auth_context

    def scope(self) -> Scope:
        return Scope()


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
        self.clock = clock
        self._began = clock.now()
        self._deadline = deadline
        self.played = Played()
        self.drivers: list[Driver] = []

    def play(self, interceptor: Interceptor, call: Call) -> Played:
        """The whole RPC."""
        driver = Driver(layers((interceptor,), self._method))
        self.drivers.append(driver)
        played = self.played
        try:
            played.outcome = self._run(driver, driver.start(call))
        except BaseException:
            self._close()
            raise
        played.elapsed = _seconds(self._began, self.clock.now())
        if self._script.left:
            raise ScriptError(
                f"{name_of(interceptor)} ended with {played.outcome!r}, and {len(self._script.left)} of "
                f"{counted(len(self._script), 'act')} are left. What it did:\n{played}"
            )
        played.responses = self._received()
        return played

    def _close(self) -> None:
        """Leave no flow behind that was begun."""
        for driver in reversed(self.drivers):
            while driver._frames:
                driver._frames.pop().close()

    def _received(self) -> list[Any]:
        """What the caller was given."""
        outcome, streaming = self.played.outcome, self._method.kind.response_streaming
        if not streaming:
            return [outcome.response] if outcome.ok else []
        return [
            *(message for sent in self.played.sent for message in sent.responses),
            *(outcome.response or ()),
        ]

    @property
    def streams(self) -> bool:
        """Is the response a stream?"""
        return self._method.kind.response_streaming

    # - steps -

    def _run(self, driver: Driver, step: Any) -> Outcome:
        """Turn a driver to the end of its RPC."""
        while type(step) is not Outcome:
            if type(step) is Call:
                pause, in_time = self.pause(step)
                self.pass_time(pause)
                seconds, end = self.perform(step, in_time)
                self.pass_time(seconds)
                step = driver.tell(end())
            else:
                step = self.answered(driver, step)
        return step

    def answered(self, driver: Driver, step: Any) -> Any:
        """What comes after a wait, or after a race."""
        return self._waited(driver, step) if type(step) is Wait else driver.tell(_Lanes(self, step).run())

    def pass_time(self, seconds: float) -> None:
        """Move the clock to where the next thing happens."""
        if seconds == NEVER:
            raise ScriptError(f"the call hangs for ever, and nothing limits its time:\n{self.played}")
        self.clock.advance(seconds)

    def pause(self, call: Call) -> tuple[float, bool]:
        """How many seconds a call waits to be sent, and whether it can be sent then."""
        return pause_of(_bounded(call), self.clock.now()) if call.delay else (0.0, True)

    def perform(self, call: Call, in_time: bool) -> tuple[float, Callable[[], Outcome]]:
        """Send one call, now: how many seconds it takes, and what lets it end then, as the script says."""
        now = self.clock.now()
        left = time_left(_bounded(call), now)
        if not in_time or (left is not None and left <= 0):
            return _at_once(out_of_time(call, paused=not in_time))
        try:
            requests = self._requests if call.kind.request_streaming else [request_of(call)]
        except errors.StatusError as error:  # by a tap or a map: there is nothing to send
            return _at_once(unsent(error, 1))
        act, at = self._act(call), _seconds(self._began, now)
        if isinstance(act, Outcome):
            outcome = act._copy("_attempts", 0)  # a copy: it may be passed again
            self.played.sent.append(Sent(call, at, tuple(requests), (), outcome))
            return outcome.elapsed, lambda: outcome
        acting = Acting(call, act, left)
        acting.begin(requests)
        self.played.sent.append(Sent(call, at, tuple(acting.requests), (), cancelled()))  # until it has ended
        return acting.elapsed, partial(self._ended, len(self.played.sent) - 1, acting)

    def _ended(self, position: int, acting: Acting) -> Outcome:
        outcome, sent = acting.end(), self.played.sent
        sent[position] = replace(sent[position], responses=tuple(acting.responses), outcome=outcome)
        return outcome

    def _act(self, call: Call) -> Act | Outcome:
        act: Act | Outcome | None = self._script.take()
        if act is None:
            raise ScriptError(
                f"the script has {counted(len(self._script), 'act')}, and one call more was sent, {call!r} with "
                f"{_plain(call.metadata)!r:.200}. What came before:\n{self.played}"
            )
        return act

    def _waited(self, driver: Driver, step: Wait) -> Any:
        """Answer what the flow waits for."""
        if isinstance(step.awaitable, _Asend):
            try:
                value = _by_hand(step)
            except ScriptError:
                raise
            except BaseException as error:
                return driver.fail(error)
            return driver.answer(value)
        try:
            value = self._answer(step)
        except ScriptError:
            raise
        except BaseException as error:
            self.played.waits.append(error)
            return driver.fail(error)
        self.played.waits.append(value)
        return driver.answer(value)

    def _answer(self, step: Wait) -> Any:
        if not self._answers:
            return _result(step) if isinstance(step.awaitable, Future) else _by_hand(step)
        close = getattr(step.awaitable, "close", None)
        if close is not None:
            close()
        answer = self._answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer


def _at_once(outcome: Outcome) -> tuple[float, Callable[[], Outcome]]:
    return 0.0, lambda: outcome


def _result(step: Wait) -> Any:
    """What a Future gives that is done."""
    future = cast("Future[Any]", step.awaitable)
    if not future.done():
        raise ScriptError(
            f"{step.asker} waits for a Future, and nothing else runs here that could set it: "
            "say what it gives with play(…, answers=[…])"
        )
    return future.result()


def _encoded(message: Any) -> bytes:
    """A message as bytes, for callers of `Call.encoded`: of all kinds, and different if it reads differently."""
    return message if isinstance(message, bytes) else str(message).encode()


def _by_hand(step: Wait) -> Any:
    """Run an awaitable without a loop."""
    steps: Iterator[Any] = cast("Awaitable[Any]", step.awaitable).__await__()
    cause = None
    try:
        for _ in range(MAX_TURNS):
            if next(steps) is not None:
                break
    except StopIteration as end:
        return end.value
    except (RuntimeError, AttributeError) as error:
        if not any(words in str(error) for words in LOOPLESS):
            raise
        cause = error
    close = getattr(steps, "close", None)
    if close is not None:
        close()
    raise ScriptError(
        f"{step.asker} awaits what needs a running loop: open it in one of the asyncio PLACES"
        if isinstance(step.awaitable, _Asend)
        else f"{step.asker} waits for {step.awaitable!r:.100}, which needs a running loop: "
        "say what it gives with play(…, answers=[…])"
    ) from cause


async def _nothing() -> AsyncGenerator[None]:
    yield  # pragma: no cover  never begun: it is there for the type of its steps


_step = _nothing().asend(None)
_Asend = type(_step)  # a step of an interceptor that is an `async def` generator
_step.close()  # or 3.13 warns that it was never awaited


def _plain(metadata: Metadata) -> tuple[tuple[str, str | bytes], ...]:
    """The pairs as a test writes them."""
    return tuple((key, value) for key, value in metadata)


# --- hedged calls -----------------------------------------------------------------------------------------------------


class _Lanes:
    """The lanes of a race, by the clock: whatever happens first is done first."""

    def __init__(self, player: _Player, race: Race) -> None:
        self._player = player
        self._clock = player.clock
        self._lanes = list(race.lanes)
        self._race = race
        self._drivers: list[Driver] = []
        self._running: dict[Driver, int | None] = {}  # which of all that was sent it waits for; None: it pauses
        self._due: list[tuple[float, int, Callable[[], Outcome | None]]] = []
        self._order = itertools.count()
        player.played.races.append(Hedging(len(race.lanes), race.delay))

    def run(self) -> Outcome:
        """Let them race; gives the outcome of the lane that won, or of the last that failed."""
        ended = last = self._start_next()
        while not (ended and self._decides(ended)) and self._due:
            ended = self._go_on()
            last = ended or last
        assert last is not None
        self._cancel_others()
        last._attempts = sum(driver.sends for driver in self._drivers)
        return last

    def _go_on(self) -> Outcome | None:
        """Do what is due next; the outcome of a lane that has ended with it."""
        at, _, act = heapq.heappop(self._due)
        self._player.pass_time(at - self._clock.now())
        return act()

    def _decides(self, outcome: Outcome) -> bool:
        """Is this the answer? If not, and another copy is to go because of it, that is due now."""
        if outcome.ok or (outcome.responses and self._player.streams):
            return True
        pause = self._race.pause_after(outcome, self._clock.now(), not self._running)
        if pause is None:
            return True
        if pause == math.inf:
            self._lanes.clear()
        self._forget_next()
        if self._lanes:
            self._later(pause, self._start_next)
        return False

    def _forget_next(self) -> None:
        self._due = [due for due in self._due if due[2] != self._start_next]
        heapq.heapify(self._due)

    def _start_next(self) -> Outcome | None:
        self._forget_next()
        if self._drivers and not self._race.ready():
            self._lanes.clear()
            return None
        driver, call = self._lanes.pop(0)()
        self._drivers.append(driver)
        self._player.drivers.append(driver)
        if self._lanes:
            self._later(self._race.delay_behind(len(self._drivers)), self._start_next)
        return self._turn(driver, driver.start(call))

    def _turn(self, driver: Driver, step: Any) -> Outcome | None:
        """Let a lane go on, to its end or to its next call."""
        player = self._player
        while type(step) is not Outcome:
            if type(step) is Call:
                self._running[driver] = None
                pause, in_time = player.pause(step)
                self._later(pause, partial(self._send, driver, step, in_time))
                return None
            step = player.answered(driver, step)
        self._running.pop(driver, None)
        return step

    def _send(self, driver: Driver, call: Call, in_time: bool) -> None:
        sent = self._player.played.sent
        before = len(sent)
        seconds, end = self._player.perform(call, in_time)
        self._running[driver] = before if len(sent) > before else None
        self._later(seconds, lambda: self._turn(driver, driver.tell(end())))

    def _later(self, seconds: float, act: Callable[[], Outcome | None]) -> None:
        heapq.heappush(self._due, (self._clock.now() + seconds, next(self._order), act))

    def _cancel_others(self) -> None:
        """Let the lanes that still run know that they have lost."""
        sent = self._player.played.sent
        for driver, position in self._running.items():
            if position is not None:
                sent[position] = replace(sent[position], responses=(), outcome=cancelled())
            step = driver.tell(cancelled())
            while type(step) is not Outcome:
                step = driver.tell(cancelled()) if type(step) is Call else self._player.answered(driver, step)
