"""grpcio's private parts are looked for once: where one is missing, or takes other arguments, the public way is taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

P = TypeVar("P")


def found(parts: Callable[[], P]) -> P | None:
    """What this makes of the installed grpcio; None where that has not all of it, or not as we know it."""
    try:
        return parts()
    except (ImportError, AttributeError, TypeError):
        return None


def has_all(owner: Any, names: str) -> bool:
    """Has it all of these attributes?"""
    return all(hasattr(owner, name) for name in names.split())
