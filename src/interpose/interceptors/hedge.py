"""Send a second copy of a call when the first takes too long, and take the answer that comes first."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Collection
from dataclasses import KW_ONLY, dataclass
from functools import partial

from grpc import StatusCode

from interpose._call import DEFAULT_BUFFER, Call
from interpose._clock import FOREVER, Clock
from interpose._flow import Chain, Flow
from interpose._method import Side
from interpose._outcome import Outcome
from interpose.interceptors.repeating import (
    ATTEMPT,
    BUFFER,
    FAILURES,
    MAX_METHODS,
    UNAVAILABLE,
    Declared,
    asked_by_server,
    is_safe,
    may_pass,
    numbered,
)
from interpose.mechanisms.budget import BUDGET, Budget, RetryBudget
from interpose.mechanisms.once import Once
from interpose.mechanisms.options import (
    check_options,
    hook,
    is_flag,
    is_function_or_none,
    is_number,
    must_be,
    option,
    whole,
)
from interpose.mechanisms.pushback import NO_MORE
from interpose.mechanisms.quantile import Observed, Quantile, quantile

__all__ = ["ATTEMPT", "Hedge", "HedgeDetails", "HedgeState", "Quantile", "quantile"]

MAX_COPIES = 100
OTHERS = "other methods"  # beyond MAX_METHODS, whose delays are observed each by itself

_log = logging.getLogger("interpose")


def _is_delay(delay: object) -> bool:
    return isinstance(delay, Quantile) or (is_number(delay) and 0 <= delay < FOREVER)


# What is not safe cannot be hedged, so False is not among the values.
SAFE = must_be(
    "None, True or a function of the call",
    lambda safe: safe is not False and (is_flag(safe) or is_function_or_none(safe)),
    ": what is not safe cannot be hedged",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HedgeDetails:
    """What `on_hedge` is given when a copy has ended, of the one that won and of those that were cancelled alike.

    call: as this copy was sent. outcome: how it ended. number: 0 for the first, which is sent at once.
    """

    call: Call
    outcome: Outcome
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HedgeState:
    """What a `Hedge` has done so far.

    copies: sent beyond the first of each call. won: of them had the answer. over_budget: how many more it would have
    sent, but its budget was used up.
    """

    copies: int
    won: int
    over_budget: int


@dataclass(eq=False, repr=False)
class Hedge:
    """Send up to `copies` of a call, one every `delay` seconds, and give the first good answer; the others are cancelled.

    As gRFC A6 has it, a copy that fails with one of `codes` lets the next one go at once, and the delay begins anew.
    Any other failure is the answer. After `grpc-retry-pushback-ms` in its trailing metadata, or a
    `google.rpc.RetryInfo`, the next copy goes when the server says, or no other does. When all have failed, the last
    failure is the answer.

    Only calls that are declared safe are hedged; any other is sent once, and the log says so once per method, at INFO.
    So it may be used on a whole channel.

    Of response streams the first to deliver a message wins. Copies after the first carry their number in the metadata, as
    `x-retry-attempt`. When the caller has its answer, no copy runs any more. Client; on a server nothing happens.

    It costs more load, so it is for calls that are seldom slow: a delay that one call in twenty exceeds costs at most
    5 % more of them. Use it in the place of `Retry`, not around it.

    copies:   how often a call is sent at most, the first included.
    delay:    seconds between the copies; or `quantile(0.95)`: the time that 95 % of the last calls of the method stayed
              below.
    codes:    the status codes that do not speak against another copy.
    budget:   what keeps copies from multiplying an outage; see `mechanisms.budget`. It may be shared, also with `Retry`.
              None: a `RetryBudget()` of its own.
    safe:     may a call be executed twice? None: only if its proto says so (`idempotency_level` NO_SIDE_EFFECTS or
              IDEMPOTENT). True, or a function of the call: you say.
    buffer:   bytes of a request stream that are kept for the copies; beyond them there are no more.
    on_hedge: called with `HedgeDetails` when a copy has ended; what it raises is logged.

    `safe` runs where the RPC begins, `on_hedge` where a copy ends: on any thread, or in the event loop. What `safe` raises
    ends the call with INTERNAL. Defaults: 2 copies; 0.05 s, more than a usual call takes: measure your own, or give
    `quantile(0.95)`. 256 KiB is the per-RPC retry buffer of gRPC's core.

    ValueError listing every fault of the options.
    """

    copies: int = option(2, whole(2, MAX_COPIES))
    _: KW_ONLY
    delay: float | Quantile = option(0.05, must_be("0 or more seconds, or quantile(0.95)", _is_delay))
    codes: Collection[StatusCode] = option(UNAVAILABLE, FAILURES)
    budget: Budget | None = option(None, BUDGET)
    safe: Declared = option(None, SAFE)
    buffer: int = option(DEFAULT_BUFFER, BUFFER)
    on_hedge: Callable[[HedgeDetails], object] | None = option(None, hook("HedgeDetails"))

    def __post_init__(self) -> None:
        check_options(self)
        self._codes = frozenset(self.codes)
        self._budget = RetryBudget() if self.budget is None else self.budget
        self._observed: dict[str, Observed] = {}  # by method
        self._unsafe = Once(MAX_METHODS)  # the methods of which it was said
        self._sent = self._won = self._over_budget = 0

    def snapshot(self) -> HedgeState:
        """What it has done so far; a copy counts when it has ended."""
        return HedgeState(copies=self._sent, won=self._won, over_budget=self._over_budget)

    def delays(self) -> dict[str, float]:
        """Seconds after which a second copy goes at the moment, by method, where they are observed."""
        return {method: observed.value for method, observed in list(self._observed.items())}

    def __call__(self, call: Call) -> Flow:
        if call.side is Side.SERVER or not self._may_hedge(call):
            yield call
            return
        observed, delay = None, self.delay
        if isinstance(delay, Quantile):
            observed = self._observed_of(call, delay)
            delay = observed.value
        if call.kind.request_streaming and call._asks.buffer is None:
            call = call.buffered(self.buffer)
        self._budget.began(call.clock.now())
        ready = partial(self._ready, call.clock)
        hedged = call.hedged(copies=self.copies, delay=delay, verdict=self._verdict, ready=ready)
        outcome = yield from Chain((_Copies(self, delay, observed),))(hedged)
        if outcome.error is not None and outcome.attempts > 1 and not outcome.ok:
            outcome.error.add_note(f"Hedge: none of {outcome.attempts} copies had a good answer")

    def _may_hedge(self, call: Call) -> bool:
        safe = is_safe(self.safe, call)
        if not safe and self.safe is None and self._unsafe.first(call.method.full_name):
            _log.info(
                "Hedge sends %s once, without copies, since nothing says that it is safe to execute twice. If it is, set "
                'idempotency_level in its proto, or write Hedge(safe=True) for it; see "Hedge" in the documentation',
                call.method,
            )
        return safe

    # - what the copies ask -

    def _ready(self, clock: Clock) -> bool:
        """May another copy be sent?"""
        may = self._budget.spend(clock.now())
        if not may:
            self._over_budget += 1
        return may

    def _verdict(self, outcome: Outcome) -> float | None:
        """After how many seconds the next copy goes; None: this failure is the answer."""
        if not self._is_nonfatal(outcome):
            return None
        asked = asked_by_server(outcome)
        return 0.0 if asked is None else math.inf if asked == NO_MORE else asked

    def _is_nonfatal(self, outcome: Outcome) -> bool:
        return may_pass(outcome, self._codes)

    def _ended(self, details: HedgeDetails) -> None:
        """A copy has ended."""
        outcome, now = details.outcome, details.call.clock.now()
        if details.number:
            self._sent += 1
            self._won += outcome.ok
        if outcome.ok:
            self._budget.succeeded(now)
        elif self._is_nonfatal(outcome) or asked_by_server(outcome) == NO_MORE:
            self._budget.failed(now)
        if self.on_hedge is not None:
            try:
                self.on_hedge(details)
            except Exception:
                _log.exception("on_hedge failed; the RPC goes on all the same")

    # - latencies -

    def _observed_of(self, call: Call, share: Quantile) -> Observed:
        observed, method = self._observed, call.method.full_name
        if method not in observed and len(observed) >= MAX_METHODS:
            method = OTHERS  # of a proxy that passes on whatever name it is given
        return observed.get(method) or observed.setdefault(method, Observed(share))


class _Copies:
    """What runs around each copy of one RPC."""

    def __init__(self, hedge: Hedge, delay: float, observed: Observed | None) -> None:
        self._hedge = hedge
        self._delay = delay
        self._observed = observed
        self._numbers = itertools.count()

    def __call__(self, call: Call) -> Flow:
        number = next(self._numbers)
        if number:
            call = numbered(call, number)
        watch = None
        if self._observed is not None and not number:
            watch = _Watch(self._observed, call)
            call = call.tap(initial_metadata=watch.stop) if call.kind.response_streaming else call
        outcome = yield call
        # Once it is late the first copy counts, however it ends. Cancelled since another one has won, it would have taken
        # longer still, so it is on the right side of the quantile; left out, the slow ones would be missing, and the
        # quantile would fall and fall. One that fails sooner does not show how long an answer takes.
        if watch is not None and (outcome.ok or watch.elapsed >= self._delay):
            watch.stop()
        self._hedge._ended(HedgeDetails(call=call, outcome=outcome, number=number))


class _Watch:
    """Measures until it is stopped for the first time, from when the call is sent."""

    __slots__ = ("_began", "_clock", "_observed", "_runs")

    def __init__(self, observed: Observed, call: Call) -> None:
        self._observed = observed
        self._clock = call.clock
        self._began = call.clock.now() + call.delay
        self._runs = True

    @property
    def elapsed(self) -> float:
        """Seconds since it began."""
        return self._clock.now() - self._began

    def stop(self, _: object = None) -> None:
        """The server has begun to answer, or the copy has ended."""
        if self._runs:
            self._runs = False
            self._observed.add(self.elapsed)
