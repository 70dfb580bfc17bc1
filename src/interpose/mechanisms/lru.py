"""Values by key, and never more than a fixed number of them: for all that is kept per peer, per method or per call.

`Lru`: values that are put in, each until its time. `Registry`: one value per key, made when it is first asked for.

Without a lock: each step on the dict is a single one. The garbage collector may end an abandoned call on the very thread
that would hold a lock. So keys must be of types that compare without running Python code, like tuples of bytes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Any, Generic, TypeVar

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
        _shorten(self._entries, self._most)

    def __len__(self) -> int:
        """How many are kept, those included whose time has passed and that were not asked for since."""
        return len(self._entries)


class Registry(Generic[K, V]):
    """One value for each key, made by `make` when it is first asked for. At most `most`: then the one that was asked for
    longest ago is forgotten, and made anew if it is asked for again.

    Threads that ask for a new key at once get the same value; `make` may run for each of them.
    """

    __slots__ = ("_entries", "_make", "_most")

    def __init__(self, most: int, make: Callable[[K], V]) -> None:
        self._most = most
        self._make = make
        self._entries: OrderedDict[K, V] = OrderedDict()  # asked for longest ago first

    def __getitem__(self, key: K) -> V:
        """The value of a key."""
        entries = self._entries
        value = entries.get(key)
        if value is None:
            value = entries.setdefault(key, self._make(key))
            _shorten(entries, self._most)
        elif len(entries) > 1:
            with suppress(KeyError):  # forgotten meanwhile
                entries.move_to_end(key)
        return value

    def put(self, key: K, value: V) -> None:
        """Keep this value for a key, in the place of another one."""
        self._entries[key] = value
        _shorten(self._entries, self._most)

    def pop(self, key: K) -> V | None:
        """Forget a key; gives its value."""
        return self._entries.pop(key, None)

    def items(self) -> list[tuple[K, V]]:
        """All keys and values at the moment, asked for longest ago first."""
        while True:
            try:
                return list(self._entries.items())
            except RuntimeError:  # an OrderedDict says so if it was changed meanwhile
                continue

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._entries)


def _shorten(entries: OrderedDict[Any, Any], most: int) -> None:
    """Forget what was used longest ago until there are at most `most`; each thread that adds does so."""
    while len(entries) > most:
        with suppress(KeyError):  # others forget as well
            entries.popitem(last=False)
