"""Something that others rely on and that may be out of order: when to ask it, and when to do without."""

from __future__ import annotations


class Outage:
    """After `failures` in a row it is left alone for `pause` seconds; then one tries it, and so on until it answers.

    Cheap while all is well, for it is asked at every call. Without a lock: at worst two try it at the same time.
    """

    __slots__ = ("_failures", "_failures_in_a_row", "_left_alone_until", "_pause")

    def __init__(self, failures: int, pause: float) -> None:
        self._failures = failures
        self._pause = pause
        self._failures_in_a_row = 0
        self._left_alone_until = 0.0

    @property
    def on(self) -> bool:
        """Is it left alone, but for those that try it?"""
        return self._failures_in_a_row >= self._failures

    def may_ask(self, now: float) -> bool:
        """May it be asked now? If it is left alone and the pause is over, the first to come here tries it."""
        if self._failures_in_a_row < self._failures:
            return True
        if now < self._left_alone_until:
            return False
        self._left_alone_until = now + self._pause
        return True

    def answered(self) -> bool:
        """It has answered: was it left alone until now?"""
        over = self.on
        self._failures_in_a_row = 0
        return over

    def failed(self, now: float) -> None:
        """It has not answered."""
        self._failures_in_a_row += 1
        self._left_alone_until = now + self._pause
