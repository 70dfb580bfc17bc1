"""GCRA, the generic cell rate algorithm (ITU-T I.371, annex A): a rate held by one number per key.

The number is the time from which the next call may come. Each call that passes moves it on by one step, and it never
lies more than a burst behind. Where others count calls in windows, and let twice as many pass at the border of two, this
is exact.

Time is counted in whole ticks, parts of a nanosecond, of which a step has a whole number. Nothing is rounded, so nothing
adds up.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from threading import RLock


class Gcra:
    """One rate, for each of many keys.

    `take` needs no lock: between the reading of a key's time and its writing there is nothing at which CPython would
    change threads, run a finalizer or a signal handler. It does that at calls and jumps, and
    tests/mechanisms/test_gcra.py holds the byte code to it. A lock makes a decision cost half as much again. Where there
    is no GIL, `Together` has one.

    All times are in ticks of any clock.

    step:  from one call to the next. burst: how many calls may come at once.
    keys:  how many are kept; of the rest the one used longest ago is forgotten, and begins anew.
    patience: the longest that any `take` is ready to wait.
    """

    __slots__ = ("_farthest", "_first", "_keys", "_next", "_step")

    def __init__(self, step: int, burst: int, keys: int, patience: int = 0) -> None:
        self._step = step
        self._first = -(burst - 1) * step  # how early the next one is, after a long rest
        self._farthest = step + patience
        self._keys = keys
        self._next: OrderedDict[str, int] = OrderedDict()  # key → when one more may come; used longest ago first

    def take(self, key: str, now: int, patience: int = 0) -> int:
        """Let one more pass, unless it comes more than `patience` too early. Gives by how much it does; 0 or less: in time.

        A call that is let pass too early has to wait that long.
        """
        times = self._next
        try:
            early = times[key] - now
            if early < self._first:  # noqa: PLR1730  max() is a call
                early = self._first
            if early <= patience:
                times[key] = now + early + self._step
            elif early > self._farthest:  # nothing leads so far: the clock has gone back
                early = self._farthest
                times[key] = now + early
        except KeyError:
            # Of several threads that bring a new key one puts it there, and all find it.
            times.setdefault(key, now + self._first)
            self._forget_others()
            return self.take(key, now, patience)
        try:  # noqa: SIM105  suppress() costs as much as all the rest
            times.move_to_end(key)
        except KeyError:  # forgotten meanwhile
            pass
        return early

    def early(self, key: str, now: int) -> int:
        """By how much one more would come too early; 0 or less: in time. Takes nothing."""
        early = self._next.get(key, now + self._first) - now
        return min(max(early, self._first), self._farthest)

    def __len__(self) -> int:
        """How many keys are kept."""
        return len(self._next)

    def _forget_others(self) -> None:
        while len(self._next) > self._keys:
            with suppress(KeyError):  # others forget as well
                self._next.popitem(last=False)


class Together:
    """Several rates that one call has to meet: it passes if it meets them all; if not, nothing is taken from any.

    rates: each with the number of its ticks in a nanosecond.
    """

    __slots__ = ("_lock", "_rates")

    def __init__(self, rates: Sequence[tuple[Gcra, int]]) -> None:
        self._rates = rates
        self._lock = RLock()  # re-entrant: a finalizer may make a call on the thread that holds it

    def take(self, keys: Sequence[str | None], now: int, patience: int = 0) -> list[int]:
        """Let one more pass under all keys, unless it comes more than `patience` too early for one. In nanoseconds.

        keys: one per rate; None: that rate does not count this call. Gives by how much it comes too early, for each. A
        call that has to wait for one rate is counted by the others when its wait is over, for that is when it comes.
        """
        counted = [(rate, parts, key) for (rate, parts), key in zip(self._rates, keys, strict=True) if key is not None]
        with self._lock:
            early = [-(-rate.early(key, now * parts) // parts) for rate, parts, key in counted]
            wait = max(early, default=0)
            if wait <= patience:
                at = now + max(wait, 0)
                for rate, parts, key in counted:
                    rate.take(key, at * parts)
        told = iter(early)
        return [0 if key is None else next(told) for key in keys]
