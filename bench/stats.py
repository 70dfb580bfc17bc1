"""Medians, their spread and their error; slopes. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import median, quantiles


@dataclass(frozen=True, slots=True)
class Spread:
    """A measured figure: the median of `count` samples and how far to trust it.

    low, high: the quartiles; half of the samples lie between them.
    floor, ceiling: the 95 % confidence interval of the median itself.
    """

    middle: float
    low: float
    high: float
    floor: float
    ceiling: float
    count: int

    @property
    def error(self) -> float:
        """Half the width of the median's confidence interval: the ± behind a figure."""
        return (self.ceiling - self.floor) / 2


def spread(samples: Sequence[float]) -> Spread:
    """Sum up one or more samples, whatever their order and distribution."""
    ordered = sorted(samples)
    if len(ordered) == 1:
        only = ordered[0]
        return Spread(only, only, only, only, only, 1)
    low, _, high = quantiles(ordered, n=4, method="inclusive")
    floor, ceiling = _interval(ordered)
    return Spread(median(ordered), low, high, floor, ceiling, len(ordered))


def _interval(ordered: Sequence[float]) -> tuple[float, float]:
    """The order statistics between which the true median lies, 95 times in 100.

    How many samples fall below the median is binomial(count, 1/2); 0.98 is 1.96 of its
    standard deviations, sqrt(count) / 2 each. No shape of the noise is assumed.
    """
    count = len(ordered)
    reach = 0.98 * sqrt(count)
    first = max(0, int(count / 2 - reach))
    return ordered[first], ordered[count - 1 - first]


def slope(points: Sequence[tuple[float, float]]) -> float:
    """What one more x adds to y: the least-squares line through two or more points."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    over = sum((x - mean_x) * (y - mean_y) for x, y in points)
    under = sum((x - mean_x) ** 2 for x, _ in points)
    return over / under
