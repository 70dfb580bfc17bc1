"""How often things happened: counted in single steps, so that threads need no lock."""

from __future__ import annotations

import itertools


class Tally:
    """Counts by name: `tally.add("refused")`, `tally["refused"]`."""

    __slots__ = ("_counts",)

    def __init__(self, *names: str) -> None:
        self._counts = {name: itertools.count() for name in names}

    def add(self, name: str) -> None:
        """One more."""
        next(self._counts[name])

    def __getitem__(self, name: str) -> int:
        # Its text, "count(3)", is the one way to read a count without moving it.
        return int(repr(self._counts[name])[len("count(") : -1])
