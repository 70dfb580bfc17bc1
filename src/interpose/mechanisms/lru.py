"""Values by key, each until its time, and never more than so many of them.

Without a lock: each step on the dict is a single one. The garbage collector may end an abandoned call on the very thread
that would hold a lock. So keys must be of types that compare without running Python code, like tuples of bytes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from contextlib import suppress
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Lru(Generic[K, V]):
    """At most `most` values; of the rest the one that was used longest ago is forgotten.

    `now` and `until` are in seconds of any clock that goes forwards. A value whose time has passed is never given, and
    is forgotten when it is next asked for, or when its place is needed.
    """

    __slots__ = ("_entries", "_most")

    def __init__(self, most: int) -> None:
        self._most = most
        self._entries: OrderedDict[K, tuple[float, V]] = OrderedDict()  # used longest ago first

    def get(self, key: K, now: float) -> V | None:
        """The value of a key, which is used by this; None if there is none, or its time has passed."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        until, value = entry
        with suppress(KeyError):  # forgotten meanwhile
            if now >= until:
                # Another thread may have just put a new one in its place: that is forgotten too, and asked for again.
                del self._entries[key]
                return None
            self._entries.move_to_end(key)
        return value

    def put(self, key: K, value: V, until: float) -> None:
        """Keep a value, in the place of one that lasts no longer; this uses the key."""
        there = self._entries.get(key)
        if there is None or there[0] <= until:
            self._entries[key] = (until, value)
        with suppress(KeyError):  # forgotten meanwhile
            self._entries.move_to_end(key)
        while len(self._entries) > self._most:
            with suppress(KeyError):  # others forget as well
                self._entries.popitem(last=False)

    def __len__(self) -> int:
        """How many are kept, those included whose time has passed and that nobody has asked for since."""
        return len(self._entries)
