"""What may happen once, although several threads may bring it about: the first to claim it does it.

To take the last item out of a list is a single step, so no lock is needed, and a finalizer may do it. On asyncio, where
all happens on one thread, a claim is lost only to what has happened before.
"""

from __future__ import annotations

from typing import TypeAlias

Claims: TypeAlias = "list[bool]"  # [True]: still to be claimed


def claim(claims: Claims) -> bool:
    """May I do it? True for one caller only."""
    try:
        claims.pop()
    except IndexError:
        return False
    return True
