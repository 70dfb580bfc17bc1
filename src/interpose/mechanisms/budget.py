"""How many retries are allowed: a budget, so that an outage is not met with several times the load.

A budget learns what becomes of calls, and is asked before each retry or hedge. It says yes or no at once; no call waits.
One may be shared by any number of interceptors, threads and tasks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Generic, Protocol, TypeAlias, TypeVar

from interpose.mechanisms.options import insist, is_number, is_whole, optional

S = TypeVar("S")

Slice: TypeAlias = tuple[int, int, int]  # its number, counted from time 0; calls; retries
Slices: TypeAlias = tuple[Slice, ...]  # those that have calls or retries, oldest first

MILLI = 1000  # tokens are counted in thousandths (gRFC A6), so that nothing is lost to rounding
MOST_TOKENS = 1000  # gRFC A6
SLICES = 10  # of a length of time, which is forgotten a tenth at a time
LONGEST = 86_400  # seconds
MOST_RETRIES = 10**9


class Budget(Protocol):
    """What is asked before each retry. `now` is in seconds of any clock that goes forwards."""

    def began(self, now: float) -> None:
        """A call was sent for the first time."""

    def succeeded(self, now: float) -> None:
        """An attempt had a good answer."""

    def failed(self, now: float) -> None:
        """An attempt failed for a reason that passes, or the server said not to retry."""

    def spend(self, now: float) -> bool:
        """May one more attempt, a retry or a hedge, be sent? If so, it is counted as sent."""
        ...  # pragma: no cover  a protocol


def is_budget(value: object) -> bool:
    """Has it what a budget needs? Not so a class that one forgot to call."""
    methods = ("began", "succeeded", "failed", "spend")
    return not isinstance(value, type) and all(callable(getattr(value, name, None)) for name in methods)


BUDGET = optional("a budget like RetryBudget() or Unlimited()", is_budget)


class RetryBudget:
    """Retry while more than half of the tokens are there: gRFC A6, `retryThrottling`.

    Each attempt that fails for a reason that passes takes one token, each that succeeds brings back `token_ratio`. So
    while more than about one attempt in eleven fails, for long, there are no retries; a short spell is ridden out.

    max_tokens:  how many there are at most, and at first; above 0, up to 1000.
    token_ratio: what a success brings back, from 0.001. Both count to three decimals; more are ignored.

    Defaults: 10 tokens and a ratio of 0.1, as in the example of gRFC A6. ValueError listing every fault of these.
    """

    def __init__(self, max_tokens: float = 10.0, token_ratio: float = 0.1) -> None:
        most, back = _milli(max_tokens), _milli(token_ratio)
        insist(
            "RetryBudget",
            (
                0 < most <= MOST_TOKENS * MILLI,
                f"max_tokens must be a number from 0.001 to {MOST_TOKENS}, not {max_tokens!r}",
            ),
            (back > 0, f"token_ratio must be a number from 0.001, not {token_ratio!r}"),
        )
        self._most = most
        self._back = back
        self._tokens = AtomicValue(most)

    @property
    def tokens(self) -> float:
        """How many are there now; retries are sent while it is more than half of `max_tokens`."""
        return self._tokens.value / MILLI

    @property
    def max_tokens(self) -> float:
        """How many there are at most."""
        return self._most / MILLI

    @property
    def token_ratio(self) -> float:
        """What a success brings back."""
        return self._back / MILLI

    def began(self, now: float) -> None:
        """A call was sent for the first time: that is free."""

    def succeeded(self, now: float) -> None:
        """Bring some back."""
        self._tokens.change(lambda tokens: min(tokens + self._back, self._most))

    def failed(self, now: float) -> None:
        """Take one."""
        self._tokens.change(lambda tokens: max(tokens - MILLI, 0))

    def spend(self, now: float) -> bool:
        """Is more than half there? A retry itself takes nothing: only its failure will."""
        return 2 * self._tokens.value > self._most

    def __repr__(self) -> str:
        return f"<RetryBudget, {self.tokens:g} of {self.max_tokens:g} tokens>"


class RatioBudget:
    """Retry as often as a share of the calls: Envoy's and Finagle's way.

    In the last `window` seconds there are at most `ratio` times as many retries as calls were sent for the first
    time. In any case there may be `minimum`, or a client with few calls would never retry.

    ratio:   retries for one call, from 0.
    minimum: retries that any window may have.
    window:  seconds; what is older is forgotten, a tenth of it at a time.

    Defaults: ratio 0.2, minimum 3 and window 10 s: Envoy's retry budget has 20 per cent and 3, Finagle's looks back 10 s.
    ValueError listing every fault of these.
    """

    def __init__(self, ratio: float = 0.2, minimum: int = 3, window: float = 10.0) -> None:
        insist(
            "RatioBudget",
            (is_number(ratio) and 0 <= ratio <= MOST_RETRIES, f"ratio must be a number from 0, not {ratio!r}"),
            (
                is_whole(minimum, 0, MOST_RETRIES),
                f"minimum must be a whole number from 0, not {minimum!r}",
            ),
            (
                is_number(window) and 0 < window <= LONGEST,
                f"window must be a number of seconds above 0, up to {LONGEST}, not {window!r}",
            ),
        )
        self._ratio = ratio
        self._minimum = minimum
        self._window = window
        self._slices: AtomicValue[Slices] = AtomicValue(())

    def began(self, now: float) -> None:
        """One call more, of which a share may be sent again."""
        self._slices.change(lambda slices: self._with(slices, now, calls=1))

    def succeeded(self, now: float) -> None:
        """It makes no difference."""

    def failed(self, now: float) -> None:
        """It makes no difference."""

    def spend(self, now: float) -> bool:
        """Is the share not used up? Then one retry more is in it."""
        return self._slices.change(lambda slices: self._with_retry(slices, now))

    def tally(self, now: float) -> tuple[int, int]:
        """Calls and retries of the last `window` seconds."""
        slices = self._kept(self._slices.value, self._number(now))
        return sum(calls for _, calls, _ in slices), sum(retries for _, _, retries in slices)

    def _with_retry(self, slices: Slices, now: float) -> Slices:
        kept = self._kept(slices, self._number(now))
        calls, retries = sum(slice_[1] for slice_ in kept), sum(slice_[2] for slice_ in kept)
        if retries + 1 > max(self._minimum, self._ratio * calls):
            return slices
        return self._with(slices, now, retries=1)

    def _with(self, slices: Slices, now: float, calls: int = 0, retries: int = 0) -> Slices:
        number = self._number(now)
        kept = self._kept(slices, number)
        # A thread that was held up may come with a time that has passed: it counts with the latest.
        if kept and kept[-1][0] >= number:
            number, before, retried = kept[-1]
            return (*kept[:-1], (number, before + calls, retried + retries))
        return (*kept, (number, calls, retries))

    def _number(self, now: float) -> int:
        return int(now * SLICES // self._window)

    def _kept(self, slices: Slices, number: int) -> Slices:
        """The slices that still count in slice `number`."""
        return tuple(kept for kept in slices if kept[0] > number - SLICES)

    def __repr__(self) -> str:
        return f"RatioBudget({self._ratio!r}, minimum={self._minimum!r}, window={self._window!r})"


class Unlimited:
    """No budget: every retry may be sent. For one client of many that must not give up."""

    def began(self, now: float) -> None:
        """It makes no difference."""

    def succeeded(self, now: float) -> None:
        """It makes no difference."""

    def failed(self, now: float) -> None:
        """It makes no difference."""

    def spend(self, now: float) -> bool:
        """Always."""
        return True

    def __repr__(self) -> str:
        return "Unlimited()"


# --- a value that many change ---------------------------------------------------------------------------------------


class AtomicValue(Generic[S]):
    """A value that many threads change: each change is whole, and none is lost.

    Values are versions in a chain, and which one follows is decided in a single step, once for everybody. There is no
    lock: the garbage collector may end an abandoned call on the very thread that would hold it, and a process may fork
    while another thread does.
    """

    __slots__ = ("_near",)

    def __init__(self, value: S) -> None:
        self._near = _Version(value)  # the last version, or one shortly before it

    @property
    def value(self) -> S:
        """The value now."""
        return self._last().value

    def change(self, successor: Callable[[S], S]) -> bool:
        """Let `successor(value)` follow the value; False if that is the same one, and nothing changes.

        It is asked again if somebody else was faster.
        """
        link = self._last()
        while (value := successor(link.value)) != link.value:
            mine = _Version(value)
            link = self._near = link.next.setdefault("", mine)
            if link is mine:
                return True
        return False

    def _last(self) -> _Version[S]:
        link = self._near
        while link.next:
            link = link.next[""]
        return link


class _Version(Generic[S]):
    """One value, and what follows it, if anything does yet."""

    __slots__ = ("next", "value")

    def __init__(self, value: S) -> None:
        self.value = value
        self.next: dict[str, _Version[S]] = {}


def _milli(value: object) -> int:
    """A number in thousandths, rounded down as gRFC A6 asks; 0 for what is none."""
    # First a little roundness: 1.001 · 1000 is 1000.9999999999999.
    return math.floor(round(value * MILLI, 6)) if is_number(value) else 0
