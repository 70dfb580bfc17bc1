"""What happens often and is worth a line in the log only now and then."""

from __future__ import annotations


class Seldom:
    """Say a thing at most once in a period, and then how often it has happened since.

    Without a lock: of threads that come at the same moment, two may say it.
    """

    __slots__ = ("_count", "_period", "_quiet_until")

    def __init__(self, period: float) -> None:
        self._period = period
        self._count = 0
        self._quiet_until = float("-inf")

    def happened(self, now: float) -> int:
        """It has happened again: how often since it was last said, if it is to be said now; else 0."""
        self._count += 1
        if now < self._quiet_until:
            return 0
        count, self._count = self._count, 0
        self._quiet_until = now + self._period
        return count
