"""The last results, and how many of them were failures: of a number of calls, or of a length of time.

Those that add take turns. Those that read need not: what there is to read is replaced in one step.
"""

from __future__ import annotations

from collections import deque
from typing import TypeAlias

Tally: TypeAlias = tuple[int, int]  # results, and how many of them were failures
Slice: TypeAlias = tuple[int, int, int]  # its number, counted from time 0; results; failures

SLICES = 10  # of a length of time, which is forgotten a tenth at a time
LONGEST = 86_400  # seconds
MOST = 100_000  # calls; a window keeps one bit of each, in 8 bytes


class TimeWindow:
    """The results of the last `length` seconds. Made by `seconds`."""

    capacity: float = float("inf")  # results that it can hold

    def __init__(self, length: float) -> None:
        self.length = length
        self._width = length / SLICES
        self._slices: tuple[Slice, ...] = ()  # those that have results, oldest first

    def fresh(self) -> TimeWindow:
        """Another of this length, with nothing in it."""
        return TimeWindow(self.length)

    def add(self, failed: bool, now: float) -> None:
        """One result more."""
        number = int(now // self._width)
        slices = self._kept(number)
        calls, failures = 1, int(failed)
        # A thread that was held up may come with a time that has passed: it counts with the latest.
        if slices and slices[-1][0] >= number:
            number, before, failures_before = slices.pop()
            calls, failures = calls + before, failures + failures_before
        self._slices = (*slices, (number, calls, failures))

    def tally(self, now: float) -> Tally:
        """What is in it now."""
        slices = self._kept(int(now // self._width))
        return sum(calls for _, calls, _ in slices), sum(failures for _, _, failures in slices)

    def _kept(self, number: int) -> list[Slice]:
        """The slices that still count in slice `number`."""
        return [kept for kept in self._slices if kept[0] > number - SLICES]

    def __repr__(self) -> str:
        return f"seconds({self.length!r})"


class CallWindow:
    """The last `capacity` results, however old. Made by `calls`."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._results: deque[bool] = deque()  # failed or not, oldest first
        self._tally: Tally = (0, 0)

    def fresh(self) -> CallWindow:
        """Another of this size, with nothing in it."""
        return CallWindow(self.capacity)

    def add(self, failed: bool, now: float) -> None:
        """One result more, in the place of the oldest if there is no other."""
        count, failures = self._tally
        if count == self.capacity:
            count, failures = count - 1, failures - self._results.popleft()
        self._results.append(failed)
        self._tally = (count + 1, failures + failed)

    def tally(self, now: float) -> Tally:
        """What is in it."""
        return self._tally

    def __repr__(self) -> str:
        return f"calls({self.capacity!r})"


Window: TypeAlias = TimeWindow | CallWindow


def seconds(length: float) -> TimeWindow:
    """Count the results of the last `length` seconds; a result is forgotten after nine to ten tenths of them.

    ValueError for a length that is not above 0, or above a day.
    """
    if isinstance(length, bool) or not isinstance(length, (int, float)) or not 0 < length <= LONGEST:
        raise ValueError(f"seconds: the length must be a number above 0, up to {LONGEST}, not {length!r}")
    return TimeWindow(length)


def calls(number: int) -> CallWindow:
    """Count the last `number` results, however old they are. ValueError for less than 1 or more than 100,000."""
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= MOST:
        raise ValueError(f"calls: the number must be a whole one from 1 to {MOST}, not {number!r}")
    return CallWindow(number)
