"""Many ask the same at the same time: send it once, and give all of them the answer."""

from __future__ import annotations

import copy as copying
from collections.abc import Generator, Iterable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from contextvars import Context, ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from grpc import StatusCode

from interpose import errors
from interpose._call import Call
from interpose._clock import FOREVER, SYSTEM
from interpose._flow import Flow, wait
from interpose._outcome import Outcome
from interpose.interceptors.answers import (
    COPY,
    KEYS,
    SAFE,
    Copy,
    Key,
    Safe,
    Sameness,
    copied,
    given,
    hooked,
    listed,
    unhooked,
)
from interpose.mechanisms.options import FLAG, check_options, option

COALESCED = "x-coalesced"
MARK = (COALESCED, "true")
NOTE = "Coalesce: the failure of the same call, under way already"

# These are about the one call that ended so, and about no other.
OWN = frozenset({StatusCode.CANCELLED, StatusCode.DEADLINE_EXCEEDED})
# And these about its caller.
OF_IDENTITY = frozenset({StatusCode.UNAUTHENTICATED, StatusCode.PERMISSION_DENIED})

Follower: TypeAlias = "Future[Outcome | None]"  # set to the outcome of the call it waits for; None: ask again


@dataclass(frozen=True, slots=True, kw_only=True)
class CoalesceState:
    """What a `Coalesce` has in hand. flights: calls that are under way. waiting: calls that wait for one of them."""

    flights: int
    waiting: int


@dataclass(eq=False, repr=False, kw_only=True)
class Coalesce:
    """While a call is under way, let the same calls wait for its outcome, and send none of them. Client.

    For methods with one request and one response whose proto says `idempotency_level = NO_SIDE_EFFECTS`; other calls
    pass untouched. Two calls are the same if the channel, the method, the bytes of the request, `wait_for_ready`, the
    values of the keys in `metadata` and the caller are. The caller is known by all metadata with "authorization" or
    "cookie" in its key, of the call and of the RPC whose handler makes it, and by the call's own credentials. So put it
    inside of interceptors that add such, and outside of `Retry` and of hedging.

    Each caller keeps its own deadline, and can be cancelled alone. If the call that was sent is cancelled, runs out of
    time or is dropped, one of those that wait is sent, and the others wait for that. Its other failures are
    theirs too. An answer that was waited for has `x-coalesced: true` in the trailing metadata.

    metadata: keys of which the answer depends, like ("accept-language", "x-tenant").
    shared:   True: the answer is the same for all callers, and is given to anybody.
    safe:     True, or a function of the call: also where the proto does not say so. False: never.
    copy:     makes each caller a response of its own. None: they all get the same object; for responses that cannot
              be changed. If it raises, that is logged, and each caller that waited sends its own call.

    `safe` and `copy` run where the RPC runs: on its thread, or in its event loop; `copy` also where the call that was sent
    has ended. What `safe` raises is logged, and the call is sent.

    ValueError listing every fault of the options.
    """

    metadata: Iterable[str] = option((), KEYS)
    shared: bool = option(False, FLAG)
    safe: Safe = option(None, SAFE)
    copy: Copy = option(copying.deepcopy, COPY)

    def __post_init__(self) -> None:
        self.metadata = listed(self.metadata)
        check_options(self)
        self._sameness = Sameness("Coalesce", self.metadata, self.shared, self.safe)
        self._own = OWN | OF_IDENTITY if self.shared else OWN
        self._flights: dict[tuple[Key, bool], _Flight] = {}  # changed in single steps, so threads need no lock

    def __call__(self, call: Call) -> Flow:
        same = self._sameness.key(call)
        if same is None:
            yield call
            return None
        key, until = (same, bool(call.wait_for_ready)), self._until(call)
        while True:
            flight = self._flights.setdefault(key, mine := _Flight())
            if flight is mine:
                return (yield from self._lead(call, key, mine))
            if flight in _leading.get():  # made by an interceptor further in, on behalf of that very call
                yield call
                return None
            outcome = yield from self._follow(call, key, flight, until)
            answer = outcome and copied(outcome, self.copy)
            if answer is not None:
                _note(answer)
                return given(call, answer, MARK)
            call = self._what_is_left(call, until)

    def snapshot(self) -> CoalesceState:
        """What it has in hand at the moment."""
        flights = list(self._flights.values())
        return CoalesceState(flights=len(flights), waiting=sum(len(flight.waiting) for flight in flights))

    # - the call that is sent -

    def _lead(self, call: Call, key: tuple[Key, bool], flight: _Flight) -> Flow:
        outcome = None
        try:
            _leading.set((*(led for led in _leading.get() if not led.over), flight))
            answer = outcome = yield unhooked(call)
        finally:  # also if the flow is closed: no call may wait for it any more
            self._land(key, flight, outcome)
        return hooked(call, answer)

    def _land(self, key: tuple[Key, bool], flight: _Flight, outcome: Outcome | None) -> None:
        """The call has ended; with None it never will."""
        flight.over = True
        del self._flights[key]  # first: who does not find it any more does not begin to wait for it
        waiting = list(flight.waiting)
        if not waiting:
            return
        if outcome is None:
            # Perhaps by the garbage collector, in the middle of anything: nothing may be sent from here.
            SYSTEM.call_later(0, partial(_tell, waiting, None))
        else:
            told = copied(outcome, self.copy) if self._is_everybodys(outcome) else None
            # A future that waits goes on right here, callbacks of its application and all: not in the context of this RPC.
            Context().run(_tell, waiting, told)

    def _is_everybodys(self, outcome: Outcome) -> bool:
        """Would it have been the same for the others?"""
        of_grpc = outcome.error is None or isinstance(outcome.error, errors.StatusError)
        return of_grpc and outcome.code not in self._own

    # - those that wait -

    def _follow(
        self, call: Call, key: tuple[Key, bool], flight: _Flight, until: float | None
    ) -> Generator[Any, Any, Outcome | None]:
        """Wait for the outcome of another call; None if it has none for this one."""
        follower: Follower = Future()
        flight.waiting[follower] = None
        leave, scope = partial(_tell, [follower], None), call._asks.scope
        try:
            if self._flights.get(key) is not flight:  # it has just landed, and may not have seen this one
                return None
            if scope is not None and not scope.add(leave):
                raise errors.Cancelled("the incoming RPC that this call belongs to is over", local=True)
            return (yield from wait(follower, deadline=until))
        finally:
            flight.waiting.pop(follower, None)
            if scope is not None:
                scope.discard(leave)

    def _until(self, call: Call) -> float | None:
        """When this call ends at the latest, by its own timeout and the deadline of the RPC."""
        timeout, deadline = call.timeout, call.deadline
        if timeout is None or timeout >= FOREVER:
            return deadline
        ends = call.clock.now() + timeout
        return ends if deadline is None or ends < deadline else deadline

    def _what_is_left(self, call: Call, until: float | None) -> Call:
        """The call with the time that it has after it has waited."""
        return call if until is None else call.with_timeout(until - call.clock.now())


class _Flight:
    """A call that is under way, and those that wait for it."""

    __slots__ = ("over", "waiting")

    def __init__(self) -> None:
        self.over = False
        self.waiting: dict[Follower, None] = {}


# The flights that this was called in: an interceptor that makes the same call while it handles one must not wait for
# itself. Each RPC's flows have a context of their own, so no other RPC sees it.
_leading: ContextVar[tuple[_Flight, ...]] = ContextVar("interpose.coalesce", default=())


def _tell(followers: Iterable[Follower], outcome: Outcome | None) -> None:
    for follower in followers:
        with suppress(InvalidStateError):  # it has it already
            follower.set_result(outcome)


def _note(answer: Outcome) -> None:
    if answer.error is not None:
        answer.error.add_note(NOTE)
