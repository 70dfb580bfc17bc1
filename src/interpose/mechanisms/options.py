"""Options of a constructor, looked at all together: one error that lists every fault."""

from __future__ import annotations

import math
from typing import TypeGuard


def insist(owner: str, *requirements: tuple[bool, str]) -> None:
    """ValueError with the text of each requirement that is not met; the text says what to write instead."""
    faults = [text for met, text in requirements if not met]
    if faults:
        raise ValueError(f"{owner}: {'; '.join(faults)}")


def is_whole(value: object, least: int, most: int) -> bool:
    """Is it a whole number in this range, both ends included?"""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def is_number(value: object) -> TypeGuard[float]:
    """Is it a finite number?"""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def is_seconds(value: object, most: float) -> bool:
    """Is it a number of seconds above 0 and below `most`?"""
    return is_number(value) and 0 < value < most


def is_flag(value: object) -> bool:
    """Is it True or False?"""
    return isinstance(value, bool)


def is_function_or_none(value: object) -> bool:
    """Is it a hook, or none?"""
    return value is None or callable(value)


def is_clock(value: object) -> bool:
    """Does it give the time, in seconds?"""
    return callable(getattr(value, "now", None))
