"""A rate: a number of calls in a period of time, and how many of them may come at once."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}
SHORT = {"s": "second", "sec": "second", "min": "minute", "h": "hour", "d": "day"}

MOST = 10**9  # of calls in a period, or at once
LONGEST = 366 * 86_400.0  # seconds of a period
SHORTEST = 0.001

_TEXT = re.compile(r"\s*(\d{1,12})\s*(?:/|\bper\b)\s*(?:(\d{1,12})\s*)?([a-z]+)\s*", re.ASCII)
_HINT = 'write how many per second, minute, hour or day, like "100/second", "10/minute" or "5 per 2 hours"'


@dataclass(frozen=True, slots=True)
class Rate:
    """A number of calls in a period: `Rate(100)` is 100 a second, `Rate(10, per=60)` 10 a minute.

    A caller that was quiet may send `burst` at once. After that one more may come each time that `per / count` seconds
    have passed. So never more than `burst` plus the rate times the time come, in any stretch of time (GCRA: ITU-T
    I.371, annex A; "leaky bucket as a meter").

    count: how many, a whole number from 1 to 10^9.
    per:   the period in seconds, from 0.001 to 366 days; whole microseconds of it count.
    burst: how many at once, from 1 to 10^9. None: `count`.

    ValueError that lists each of these that is wrong.
    """

    count: int
    per: float = 1.0
    burst: int | None = None

    def __post_init__(self) -> None:
        faults = [*_faults_of_whole("count", self.count), *_faults_of_period(self.per), *_faults_of_burst(self.burst)]
        if faults:
            raise ValueError(f"Rate: {'; '.join(faults)}")

    @classmethod
    def of(cls, text: str, burst: int | None = None) -> Rate:
        """The rate that a text says: "100/second", "10 per minute", "5 per 2 hours".

        A whole number, then "/" or "per", then a unit, and before that how many of them if it is not one. Units are
        second, minute, hour and day, also in the plural, and s, sec, min, h, d. ValueError for any other text.
        """
        found = _TEXT.fullmatch(text.lower())
        unit = found and _unit(found[3])
        if not (found and unit):
            raise ValueError("; ".join([f"{text!r:.60} is no rate: {_HINT}", *_faults_of_burst(burst)]))
        return cls(int(found[1]), int(found[2] or 1) * SECONDS[unit], burst)

    @property
    def at_once(self) -> int:
        """How many may come at once."""
        return self.count if self.burst is None else self.burst

    def ticks(self, per_second: int) -> tuple[int, int]:
        """How many ticks a unit of time has, of which there are `per_second`, and how many of them lie between two calls.

        Both whole: so all arithmetic on them is exact. per_second: 10^6 or a multiple of it.
        """
        period = round(self.per * 10**6) * (per_second // 10**6)
        common = math.gcd(self.count, period)
        return self.count // common, period // common

    def share(self, part: float) -> Rate:
        """The rate of one that has a part of it, like 0.25: as many in a longer time; at least 1 at once."""
        return Rate(self.count, self.per / part, max(1, math.floor(self.at_once * part)))

    def __str__(self) -> str:
        """As a text of that form, with the burst if it is not the count."""
        number, unit = next(
            (self.per / seconds, unit)
            for unit, seconds in reversed(SECONDS.items())
            if self.per % seconds == 0 or unit == "second"
        )
        each = f"{self.count}/{unit}" if number == 1 else f"{self.count} per {number:.12g} {unit}s"
        return each if self.at_once == self.count else f"{each}, {self.at_once} at once"


def _unit(word: str) -> str | None:
    name = SHORT.get(word) or word.removesuffix("s")
    return name if name in SECONDS else None


def _faults_of_whole(name: str, value: object) -> list[str]:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST:
        return []
    return [f"{name} must be a whole number from 1 to {MOST}, not {value!r}"]


def _faults_of_burst(value: object) -> list[str]:
    return [] if value is None else _faults_of_whole("burst", value)


def _faults_of_period(value: object) -> list[str]:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and SHORTEST <= value <= LONGEST:
        return []
    return [f"per must be from {SHORTEST:g} to {LONGEST:g} seconds, not {value!r}"]
