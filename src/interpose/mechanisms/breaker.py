"""A circuit breaker: lets calls pass while enough of them succeed, else refuses them for a while, then tries a few.

    closed ──too many failures──▶ open ──time is up──▶ half open ──all probes succeed──▶ closed
                                    ◀───────a probe fails────┘

Operators may hold one forced open or disabled. Each state is a class; the breaker has one of them.

No call ever waits for another here. To admit one is to look at the state, and perhaps to take a slot for a probe, each a
single step. What changes something is put into `SerialQueue`: done in order and one at a time, by any thread that comes by.
A lock would do as well, but for one case: the garbage collector may end an abandoned call in the middle of anything, on
the very thread that holds the lock.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeAlias

from interpose.mechanisms.serial_queue import SerialQueue

Tally: TypeAlias = tuple[int, int]  # results, and how many of them were failures


class Window(Protocol):
    """Where results are counted; see `window`."""

    def fresh(self) -> Window: ...

    def add(self, failed: bool, now: float) -> None: ...

    def tally(self, now: float) -> Tally: ...


class Mode(enum.Enum):
    """What a breaker does with calls at the moment."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half open"
    FORCED_OPEN = "forced open"
    DISABLED = "disabled"


class Policy(NamedTuple):
    """When a breaker opens, for how many seconds, and how many calls it tries then. window: an empty one to copy."""

    failure_rate: float
    minimum: int
    window: Window
    open_for: float
    probes: int


class Refusal(NamedTuple):
    """A call may not pass. retry_in: seconds until one may; None: when an operator lets it."""

    mode: Mode
    retry_in: float | None


class Transition(NamedTuple):
    """A change of mode, and what had been counted then."""

    before: Mode
    after: Mode
    calls: int
    failures: int


# --- states ---------------------------------------------------------------------------------------------------------


class State:
    """What a breaker is in. `now` is in seconds of any clock that goes forwards."""

    mode: Mode

    def at(self, now: float) -> State:
        """What it has become by time alone: itself, or always the same successor."""
        return self

    def admit(self, now: float) -> Admitted | Refusal:
        """May a call pass? What knows what to make of its end, or why not."""
        return self

    @property
    def state(self) -> State:
        """The state in which a call was admitted."""
        return self

    def after(self, healthy: bool | None, now: float) -> State:
        """What a call that it let pass makes of it; `healthy` None: the call's end says nothing."""
        return self

    def tally(self, now: float) -> Tally:
        """What it has counted."""
        return 0, 0


class Closed(State):
    """Calls pass, and their results are counted."""

    mode = Mode.CLOSED

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._window = policy.window.fresh()

    def after(self, healthy: bool | None, now: float) -> State:
        if healthy is None:
            return self
        self._window.add(not healthy, now)
        calls, failures = self._window.tally(now)
        if calls < self._policy.minimum or failures / calls < self._policy.failure_rate:
            return self
        return Open(self._policy, now, (calls, failures))

    def tally(self, now: float) -> Tally:
        return self._window.tally(now)


class Open(State):
    """No call passes until the time is up."""

    mode = Mode.OPEN

    def __init__(self, policy: Policy, now: float, tally: Tally) -> None:
        self._until = now + policy.open_for
        self._tally = tally
        self._half_open = HalfOpen(policy)  # made before, so that all who come when the time is up find the same

    def at(self, now: float) -> State:
        return self if now < self._until else self._half_open

    def admit(self, now: float) -> Refusal:
        return Refusal(self.mode, max(self._until - now, 0.0))

    def tally(self, now: float) -> Tally:
        return self._tally


FREE = float("-inf")


class Slot:
    """The place of a probe. until: when it is free for another one."""

    __slots__ = ("until",)

    def __init__(self, until: float) -> None:
        self.until = until


class HalfOpen(State):
    """A few calls pass. One that fails opens again; when all have succeeded, it closes.

    A probe that has not ended after `open_for` seconds, like a stream that lives on, is given up: another is tried.
    """

    mode = Mode.HALF_OPEN

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._slots = deque(Slot(FREE) for _ in range(policy.probes))  # free ones first, then by the time they will be
        self._succeeded = 0

    def admit(self, now: float) -> Probe | Refusal:
        while self._slots:
            try:
                first = self._slots[0]
                if now < first.until:
                    return Refusal(self.mode, min(first.until - now, self._policy.open_for))
                self._slots.remove(first)
            except (IndexError, ValueError):  # another call has just taken it
                continue
            slot = Slot(now + self._policy.open_for)
            self._slots.append(slot)
            return Probe(self, slot)
        return Refusal(self.mode, self._policy.open_for)

    def ended(self, slot: Slot, healthy: bool | None, now: float) -> State:
        """What a probe makes of it; nothing, if it was given up."""
        try:
            self._slots.remove(slot)
        except ValueError:
            return self
        if healthy is None:
            self._slots.appendleft(Slot(FREE))
            return self
        if not healthy:
            return Open(self._policy, now, (self._succeeded + 1, 1))
        self._succeeded += 1
        return self if self._succeeded < self._policy.probes else Closed(self._policy)

    def tally(self, now: float) -> Tally:
        return self._succeeded, 0


class Probe(NamedTuple):
    """A call that a half-open breaker lets pass."""

    state: HalfOpen
    slot: Slot

    def after(self, healthy: bool | None, now: float) -> State:
        """What its end makes of the breaker's state."""
        return self.state.ended(self.slot, healthy, now)


Admitted: TypeAlias = State | Probe


class ForcedOpen(State):
    """No call passes, until an operator says otherwise."""

    mode = Mode.FORCED_OPEN

    def admit(self, now: float) -> Refusal:
        return Refusal(self.mode, None)


class Disabled(State):
    """Every call passes, and nothing is counted."""

    mode = Mode.DISABLED


# --- the breaker ----------------------------------------------------------------------------------------------------


class Breaker:
    """One breaker: ask `admit` before each call, and `report` how it ended, once, with what `admit` gave."""

    def __init__(
        self, policy: Policy, tell: Callable[[Transition], Any] | None = None, mode: Mode = Mode.CLOSED
    ) -> None:
        """tell: called with each change of mode, in order, while nothing is held. mode: CLOSED or one of an operator's."""
        self._policy = policy
        self._tell = tell
        self._state = self._held(mode)
        self._changes = SerialQueue()
        self._events = SerialQueue()

    @property
    def mode(self) -> Mode:
        """What it does at the moment; HALF_OPEN from the first probe on."""
        return self._state.mode

    def admit(self, now: float) -> Admitted | Refusal:
        """May a call pass? What to give to `report` when it has ended, or why not."""
        before = self._state
        state = before.at(now)
        if state is not before:
            self._do(partial(self._follow, before, state, now))
        return state.admit(now)

    def report(self, admitted: Admitted, healthy: bool | None, now: float) -> None:
        """A call has ended: well, badly, or (None) in a way that says nothing. Too late for its state, it counts nowhere."""
        self._do(partial(self._report, admitted, healthy, now))

    def force(self, mode: Mode, now: float) -> None:
        """An operator's will: FORCED_OPEN, DISABLED, or CLOSED, which begins anew."""
        self._do(partial(self._become, self._held(mode), now))

    def tally(self, now: float) -> Tally:
        """What the present state has counted; when open, what opened it."""
        return self._state.tally(now)

    def retry_in(self, now: float) -> float | None:
        """Seconds until the next probe while it is open, else None."""
        state = self._state
        return state.admit(now).retry_in if isinstance(state, Open) else None

    def _do(self, work: Callable[[], object]) -> None:
        self._changes.add(work)
        self._changes.run()
        self._events.run()

    # - in turn -

    def _report(self, admitted: Admitted, healthy: bool | None, now: float) -> None:
        self._follow(admitted.state, admitted.after(healthy, now), now)

    def _follow(self, before: State, state: State, now: float) -> None:
        """One state follows another, unless something else has come first."""
        if self._state is before and state is not before:
            self._become(state, now)

    def _become(self, state: State, now: float) -> None:
        before = self._state
        calls, failures = (state if isinstance(state, Open) else before).tally(now)
        self._state = state
        if self._tell is not None and before.mode is not state.mode:
            self._events.add(partial(self._tell, Transition(before.mode, state.mode, calls, failures)))

    def _held(self, mode: Mode) -> State:
        if mode is Mode.CLOSED:
            return Closed(self._policy)
        return ForcedOpen() if mode is Mode.FORCED_OPEN else Disabled()
