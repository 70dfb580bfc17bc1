"""How long many calls took: counts in narrow buckets, from which quantiles and a histogram follow."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

WIDTH = 1.01  # each bucket ends 1 % above its start, and stands for its middle: a quantile is at most 0.5 % off
SHARES = (0.10, 0.25, 0.50, 0.75, 0.90, 0.95, 0.99, 0.999)  # ghz's, and one more
LEAST = 1e-7  # seconds: nothing that goes over a wire is faster
BARS = 10  # rows of a histogram, as ghz has them


@dataclass(slots=True)
class Latencies:
    """Seconds of calls. Its memory does not grow with their number: there are some 2,400 buckets in a day."""

    count: int = 0
    total: float = 0.0
    fastest: float = math.inf
    slowest: float = 0.0
    _buckets: Counter[int] = field(default_factory=Counter)

    def add(self, seconds: float) -> None:
        """One call more."""
        self.count += 1
        self.total += seconds
        self.fastest = min(self.fastest, seconds)
        self.slowest = max(self.slowest, seconds)
        self._buckets[math.floor(math.log(max(seconds, LEAST), WIDTH))] += 1

    @property
    def mean(self) -> float:
        """Of all; 0 if there are none."""
        return self.total / self.count if self.count else 0.0

    def quantile(self, share: float) -> float:
        """The time within which this share of the calls ended; 0 if there are none."""
        wanted, seen = math.ceil(share * self.count), 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= wanted:
                return min(max(_middle(bucket), self.fastest), self.slowest)
        return self.slowest

    def histogram(self) -> list[tuple[float, int]]:
        """Rows of the same width from the fastest to the slowest: where each ends, and how many calls are in it."""
        if not self.count:
            return []
        step = (self.slowest - self.fastest) / BARS
        counts = [0] * BARS
        for bucket, count in self._buckets.items():
            at = min(max(_middle(bucket), self.fastest), self.slowest)
            counts[min(int((at - self.fastest) / step), BARS - 1) if step else 0] += count
        return [(self.fastest + step * (number + 1), count) for number, count in enumerate(counts)]


def _middle(bucket: int) -> float:
    return math.pow(WIDTH, bucket + 0.5)


def bars(counts: Sequence[int], width: int) -> list[str]:
    """A bar for each count, the longest as wide as this; one for each that is not 0."""
    most = max(counts, default=0)
    return ["∎" * max(round(width * count / most), 1) if count else "" for count in counts]
