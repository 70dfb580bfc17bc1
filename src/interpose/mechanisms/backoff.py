"""How long to pause before trying again."""

from __future__ import annotations

import math
import random as chance
from collections.abc import Callable
from typing import TypeAlias

Backoff: TypeAlias = Callable[[int], float]  # number of the retry, from 1 → seconds to pause before it

_FAR = 2**53  # retries; a float still counts them, and every backoff has reached its cap or zero long before


def exponential(
    initial: float = 0.1,
    *,
    cap: float = 5.0,
    multiplier: float = 2.0,
    jitter: float = 0.2,
    random: Callable[[], float] = chance.random,
) -> Backoff:
    """Pauses that grow: min(initial · multiplier^(n-1), cap) · uniform(1-jitter, 1+jitter) before retry n.

    That is gRFC A6, whose jitter is 0.2 as well. Jitter keeps clients that failed together from returning together.

    initial, cap: seconds. jitter: a share of the pause, from 0 (none) to 1. random: gives numbers from 0 to below 1.
    """
    requirements = (
        (_is_number(initial) and initial >= 0, f"initial must be 0 or more seconds, not {initial!r}"),
        (_is_number(cap) and cap >= 0, f"cap must be 0 or more seconds, not {cap!r}"),
        (_is_number(multiplier) and multiplier > 0, f"multiplier must be above 0, not {multiplier!r}"),
        (_is_number(jitter) and 0 <= jitter <= 1, f"jitter must be from 0 to 1, not {jitter!r}"),
        (callable(random), f"random must be a function like random.random, not {random!r}"),
    )
    faults = [text for met, text in requirements if not met]
    if faults:
        raise ValueError(f"exponential: {'; '.join(faults)}")

    def pause(retry: int) -> float:
        if retry < 1:
            raise ValueError(f"retries are counted from 1, not from {retry!r}")
        return _steady(retry) * (1 - jitter + 2 * jitter * random())

    def _steady(retry: int) -> float:
        try:
            return min(initial * float(multiplier) ** min(retry - 1, _FAR), cap)
        except OverflowError:
            return cap if initial else 0.0

    return pause


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
