"""Stop calling a server that fails, and try it again with a few calls before all come back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import TypeAlias

from grpc import StatusCode

from interpose import errors
from interpose._call import Call
from interpose._clock import SYSTEM, Clock
from interpose._flow import Flow
from interpose._kind import kind_of
from interpose._method import Kind, Side
from interpose._outcome import Outcome
from interpose.interceptors.keys import by_target
from interpose.mechanisms.breaker import Breaker, Mode, Policy, Refusal, Transition
from interpose.mechanisms.lru import Registry
from interpose.mechanisms.options import (
    CLOCK,
    check_options,
    hook,
    is_number,
    is_seconds,
    is_whole,
    must_be,
    option,
    optional,
    whole,
)
from interpose.mechanisms.options import seconds as within
from interpose.mechanisms.window import CallWindow, TimeWindow, Window, seconds

__all__ = [
    "FAILURES",
    "CircuitBreaker",
    "CircuitOpen",
    "CircuitState",
    "Mode",
    "TransitionDetails",
]

# What speaks of the server's health. The other codes are answers: a server that says NOT_FOUND is well.
FAILURES = frozenset(
    {
        StatusCode.UNAVAILABLE,
        StatusCode.DEADLINE_EXCEEDED,
        StatusCode.INTERNAL,
        StatusCode.UNKNOWN,
        StatusCode.DATA_LOSS,
    }
)

MAX_KEYS = 1024  # breakers of one instance; far beyond the methods of one service
MAX_PROBES = 1000
LONGEST = 86_400.0  # seconds

Key: TypeAlias = Callable[[Call], str]

_log = logging.getLogger("interpose")


class CircuitOpen(errors.Unavailable):
    """UNAVAILABLE, made here: the circuit breaker let no call pass, and nothing was sent.

    retry_in: seconds until the next probe may pass; None while an operator holds the breaker open.
    """

    retry_in: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitState:
    """What one breaker does at the moment.

    calls, failures: what it has counted of late; while open, what opened it. retry_in: while open, seconds until the
    next probe, else None.
    """

    mode: Mode
    calls: int
    failures: int
    retry_in: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TransitionDetails:
    """What `on_transition` is given: a breaker has changed its mode. calls, failures: what had been counted then."""

    key: str
    before: Mode
    after: Mode
    calls: int
    failures: int


# - what holds of its options -


def _is_share(value: object) -> bool:
    return is_number(value) and 0 < value <= 1


def _is_window(value: object) -> bool:
    return isinstance(value, (TimeWindow, CallWindow))


def _are_failures(codes: object) -> bool:
    return (
        isinstance(codes, Collection)
        and len(codes) > 0
        and all(isinstance(code, StatusCode) and code is not StatusCode.OK for code in codes)
    )


@dataclass(eq=False, repr=False)
class CircuitBreaker:
    """Refuse calls at once while the server fails, and let `probes` of them try it after `open_for` seconds.

    Closed: calls pass, and their ends are counted; a stream counts when it ends. Once `minimum` results are in the
    window and `failure_rate` of them are failures it opens: calls end with UNAVAILABLE (`CircuitOpen`), `error.local`,
    and nothing is sent. After `open_for` seconds it is half open: `probes` calls pass, whatever the number of threads
    and tasks. One failure among them opens it again; when all have succeeded, it closes.

    A failure is a code of `codes` that the server sent, or a call that was too slow. Other codes are answers, and count
    as such. What ends on this side counts nowhere: a cancelled call, one that an interceptor refused. On a server the
    handler is what fails, also by an exception, or by taking longer than its deadline.

    failure_rate:  the share of failures that opens it, above 0, up to 1.
    minimum:       results below which it stays closed.
    window:        what is counted: `seconds(30)`, or `calls(100)`, the last ones.
    open_for:      seconds until the first probes, and after which a probe that has not ended is given up for others.
    probes:        how many calls pass while it is half open.
    slow_call:     seconds; a unary call that took longer counts as a failure whatever it answers. None: no limit.
    codes:         the codes that are failures; add RESOURCE_EXHAUSTED if yours means overload and not a quota.
    key:           which breaker a call goes through: `by_target`, `by_service`, `by_method`, or your
                   function of the call that gives a text. 1,024 are kept, and those that an operator named; of the
                   rest the one used longest ago is forgotten.
    clock:         where the time is read.
    on_transition: called with `TransitionDetails` after each change of mode, in order; what it raises is logged.

    `key` and `on_transition` run where a call begins or ends: on its thread, or in its event loop. What `key` raises ends the
    call with INTERNAL. Defaults: 0.5 of at least 20 calls opens it, as in Hystrix, counted over 30 s; 30 s until the
    first probes, as in Envoy's outlier detection; 3 probes, since one could succeed by luck. Your own traffic decides.

    ValueError listing every fault of the options.
    """

    failure_rate: float = option(0.5, must_be("a number above 0, up to 1", _is_share))
    _: KW_ONLY
    minimum: int = option(20, whole(1))
    window: Window = option(seconds(30), must_be("seconds(…) or calls(…)", _is_window))
    open_for: float = option(30.0, within(LONGEST))
    probes: int = option(3, whole(1, MAX_PROBES))
    slow_call: float | None = option(
        None, optional(f"above 0 and below {LONGEST:g} seconds", lambda value: is_seconds(value, LONGEST))
    )
    codes: Collection[StatusCode] = option(
        FAILURES, must_be("a set like {StatusCode.UNAVAILABLE}, without OK", _are_failures)
    )
    key: Key = option(by_target, must_be("a function of the call, like by_method", callable))
    clock: Clock = option(SYSTEM, CLOCK)
    on_transition: Callable[[TransitionDetails], object] | None = option(None, hook("TransitionDetails"))

    def __post_init__(self) -> None:
        minimum, window = self.minimum, self.window
        never = _is_window(window) and is_whole(minimum, 1) and minimum > window.capacity
        check_options(
            self, (not never, f"minimum must fit into the window, or it never opens: {minimum!r} of {window!r}")
        )
        self._policy = Policy(self.failure_rate, minimum, window, self.open_for, self.probes)
        self._codes = frozenset(self.codes)
        self._refused = 0
        self._mode = Mode.CLOSED  # of a breaker that is new
        self._breakers: Registry[str, Breaker] = Registry(MAX_KEYS, self._new)
        self._held: dict[str, Breaker] = {}  # by an operator, who named their keys; these are not forgotten

    def __call__(self, call: Call) -> Flow:
        breaker = self._breaker(self.key(call))
        began = self.clock.now()
        admitted = breaker.admit(began)
        if isinstance(admitted, Refusal):
            self._refused += 1
            raise _refused(admitted)
        healthy = None
        try:
            outcome = yield call
            healthy = self._healthy(call, outcome, began)
        finally:  # also if the flow is closed: a probe's place is given back
            breaker.report(admitted, healthy, self.clock.now())

    # - for operators -

    def snapshot(self) -> dict[str, CircuitState]:
        """What each breaker does at the moment, by key; only those that calls have gone through."""
        now = self.clock.now()
        return {key: _state(breaker, now) for key, breaker in self._all()}

    @property
    def refused(self) -> int:
        """How many calls it has let not pass so far, of all keys."""
        return self._refused

    def force_open(self, key: str | None = None) -> None:
        """Let no call pass until `reset`, of one key, or (None) of all, those still to come included."""
        self._force(Mode.FORCED_OPEN, key)

    def disable(self, key: str | None = None) -> None:
        """Let every call pass, and count nothing, until `reset`, of one key, or (None) of all."""
        self._force(Mode.DISABLED, key)

    def reset(self, key: str | None = None) -> None:
        """Close it and count anew, of one key, or (None) of all."""
        self._force(Mode.CLOSED, key)

    def _force(self, mode: Mode, key: str | None) -> None:
        if key is None:
            self._mode = mode
            for name, breaker in self._all():
                breaker.force(mode, self.clock.now())
                self._release(name)
            return
        breaker = self._breaker(key)
        breaker.force(mode, self.clock.now())
        if mode is self._mode:
            self._release(key)
        else:
            self._held[key] = breaker
            self._breakers.pop(key)

    def _release(self, key: str) -> None:
        """A breaker is as all the others are: it may be forgotten."""
        breaker = self._held.get(key)
        if breaker is not None:
            self._breakers.put(key, breaker)
            self._held.pop(key, None)

    # - breakers -

    def _all(self) -> list[tuple[str, Breaker]]:
        return list({**dict(self._breakers.items()), **self._held}.items())

    def _breaker(self, key: str) -> Breaker:
        if not isinstance(key, str):
            raise TypeError(f"CircuitBreaker: key must give a text, not {kind_of(key)}")
        mode = self._mode
        breaker = self._held.get(key) if self._held else None
        if breaker is None:
            breaker = self._breakers[key]
        if self._mode is not mode:  # an operator has come between, and may not have found it
            breaker.force(self._mode, self.clock.now())
        return breaker

    def _new(self, key: str) -> Breaker:
        return Breaker(self._policy, self._teller(key), self._mode)

    def _teller(self, key: str) -> Callable[[Transition], None] | None:
        return None if self.on_transition is None else partial(self._told, key)

    def _told(self, key: str, transition: Transition) -> None:
        assert self.on_transition is not None
        try:
            self.on_transition(TransitionDetails(key=key, **transition._asdict()))
        except Exception:
            _log.exception("on_transition failed; the circuit breaker is %s all the same", transition.after.value)

    # - verdicts -

    def _healthy(self, call: Call, outcome: Outcome, began: float) -> bool | None:
        """Does this end speak well or badly of the server, or (None) not at all?"""
        if outcome.code is StatusCode.CANCELLED or outcome.attempts == 0 or not _served(call, outcome, began):
            return None
        return outcome.code not in self._codes and not self._was_slow(call, outcome)

    def _was_slow(self, call: Call, outcome: Outcome) -> bool:
        # A stream lasts as long as it is wanted.
        return self.slow_call is not None and call.kind is Kind.UNARY_UNARY and outcome.elapsed > self.slow_call


def _served(call: Call, outcome: Outcome, began: float) -> bool:
    """Did the server make this end, rather than an interceptor or the caller?"""
    if outcome.ok or not outcome.local:
        return True
    if call.side is Side.CLIENT:
        return False
    if not isinstance(outcome.error, errors.StatusError):
        return True  # the handler raised it
    # A handler that took too long; not a request that came too late.
    return outcome.code is StatusCode.DEADLINE_EXCEEDED and (call.deadline is None or began < call.deadline)


def _refused(refusal: Refusal) -> CircuitOpen:
    if refusal.retry_in is None:
        details = "the circuit breaker is held open by an operator"
    else:
        details = f"the circuit breaker is {refusal.mode.value}; next probe in {refusal.retry_in:.3f} s"
    error = CircuitOpen(details, local=True)
    error.retry_in = refusal.retry_in
    return error


def _state(breaker: Breaker, now: float) -> CircuitState:
    calls, failures = breaker.tally(now)
    return CircuitState(mode=breaker.mode, calls=calls, failures=failures, retry_in=breaker.retry_in(now))
