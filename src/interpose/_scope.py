"""The scope of an incoming RPC: the outgoing calls that belong to it, and end with it."""

from __future__ import annotations

from collections.abc import Callable


class Scope:
    """What to call when an incoming RPC ends: the cancels of the calls that were made on its behalf.

    Without a lock: a dict is changed in one step, and who adds to it looks afterwards whether the end has come meanwhile.
    """

    __slots__ = ("_cancels", "over")

    def __init__(self) -> None:
        self.over = False
        self._cancels: dict[Callable[[], object], None] = {}

    def add(self, cancel: Callable[[], object]) -> bool:
        """Cancel by this when the RPC ends; False, and nothing is called, if it has."""
        self._cancels[cancel] = None
        if self.over:
            return self._cancels.pop(cancel, self) is self  # close() may have taken it: then it was called
        return True

    def discard(self, cancel: Callable[[], object]) -> None:
        """That call has ended."""
        self._cancels.pop(cancel, None)

    def close(self) -> None:
        """The RPC has ended."""
        self.over = True
        while self._cancels:
            try:
                cancel, _ = self._cancels.popitem()
            except KeyError:  # taken by the thread that had just added it
                return
            cancel()
