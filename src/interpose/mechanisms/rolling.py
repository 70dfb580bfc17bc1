"""Latencies and counts of late: histograms with fixed buckets, and rings that forget what is old a stretch at a time.

A bucket spans a quarter of an octave, so a quantile is at most 9.1 % off, between 61 microseconds and 68 minutes; what is
below or above counts there. One thread adds; any may read meanwhile, and may miss what is being added.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate
from operator import add

PER_OCTAVE = 4  # buckets; half a bucket is a factor of 2 ** (1/8) = 1.0905
LOWEST, HIGHEST = -14, 12  # powers of two, in seconds: 61 us and 68 min
BUCKETS = (HIGHEST - LOWEST) * PER_OCTAVE
ERROR = 2 ** (1 / 2 / PER_OCTAVE) - 1  # of a quantile, as a share of the true one

_MIDDLES = tuple(2 ** (LOWEST + (bucket + 0.5) / PER_OCTAVE) for bucket in range(BUCKETS))
_ZERO = -LOWEST * PER_OCTAVE
_LEAST = 2.0**LOWEST
_LAST = BUCKETS - 1


def bucket_of(seconds: float) -> int:
    """The bucket that a latency belongs to."""
    if seconds <= _LEAST:
        return 0
    return min(int(PER_OCTAVE * math.log2(seconds) + _ZERO), _LAST)


def quantiles(counts: Sequence[int], shares: Iterable[float]) -> list[float] | None:
    """For each share the seconds that this share of the calls stayed within; None without calls.

    counts: calls by bucket.
    """
    reached = list(accumulate(counts))
    total = reached[-1]
    if not total:
        return None
    return [_MIDDLES[bisect_left(reached, max(math.ceil(share * total), 1))] for share in shares]


def summed(rows: Iterable[Sequence[int]], width: int) -> list[int]:
    """Rows of `width` counts, added up cell by cell."""
    total = [0] * width
    for row in rows:
        total = list(map(add, total, row))
    return total


class Ring:
    """Counts of the last `stretches` stretches of time, each `length` seconds long and with `width` cells.

    The last one has only begun, so what is kept spans from `stretches - 1` to `stretches` lengths.
    """

    __slots__ = ("_cells", "_latest", "_length", "_over", "_start", "_stretches", "_width")

    def __init__(self, stretches: int, length: float, width: int) -> None:
        self._stretches = stretches
        self._length = length
        self._width = width
        self._cells = array("I", bytes(4 * stretches * width))
        self._latest = -1  # the number of the last stretch that something was added to, counted from time 0
        self._over = 0.0  # when that one is over
        self._start = 0  # where its cells begin

    def add(self, cell: int, now: float) -> None:
        """One more in a cell. A thread that was held up may come with a time that has passed: it counts with the latest."""
        if now >= self._over:
            self._turn(int(now // self._length))
        self._cells[self._start + cell] += 1

    def cells(self, now: float) -> array[int]:
        """The cells of each stretch, one stretch after the other, oldest first."""
        behind = self._start + self._width  # the newest stretch ends here, so the oldest begins
        cells = self._cells[behind:] + self._cells[:behind]
        since = max(int(now // self._length) - self._latest, 0)  # stretches in which nothing was added
        gone = min(since, self._stretches) * self._width
        return cells[gone:] + array("I", bytes(4 * gone))

    def sums(self, now: float) -> list[int]:
        """All stretches together, cell by cell."""
        cells = self.cells(now)
        return [sum(cells[cell :: self._width]) for cell in range(self._width)]

    def _turn(self, number: int) -> None:
        """A new stretch begins: forget what is in its place, and in those of all that were left out."""
        for stretch in range(max(self._latest + 1, number - self._stretches + 1), number + 1):
            self._start = stretch % self._stretches * self._width
            self._cells[self._start : self._start + self._width] = array("I", bytes(4 * self._width))
        self._latest = number
        self._over = (number + 1) * self._length
