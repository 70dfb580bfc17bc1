"""How long to pause before trying again."""

from __future__ import annotations

import random as chance
from collections.abc import Callable
from typing import TypeAlias

from interpose.mechanisms.options import insist, is_number

Backoff: TypeAlias = Callable[[int], float]  # number of the retry, from 1 → seconds to pause before it

_FAR = 2**53  # retries; a float still counts them, and every backoff has reached its cap or zero long before
_WALK = 100  # steps after which a decorrelated pause no longer depends on where it began


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

    initial, cap: seconds.
    multiplier: a number above 0.
    jitter: a share of the pause, from 0 (none) to 1.
    random: gives numbers from 0 to below 1; it runs on the thread or in the loop of the RPC, and what it raises ends the
        retries.

    Defaults: 0.1 s, doubled by 2, is the example of gRFC A6, which has the jitter 0.2 as well; the cap of 5 s is stamina's.
    ValueError listing every fault of these.
    """
    insist(
        "exponential",
        *_bounds(initial, cap),
        (is_number(multiplier) and multiplier > 0, f"multiplier must be above 0, not {multiplier!r}"),
        (is_number(jitter) and 0 <= jitter <= 1, f"jitter must be from 0 to 1, not {jitter!r}"),
        (callable(random), f"random must be a function like random.random, not {random!r}"),
    )

    def pause(retry: int) -> float:
        return _grown(initial, multiplier, cap, retry) * (1 - jitter + 2 * jitter * random())

    return pause


def full_jitter(
    initial: float, *, cap: float, multiplier: float = 2.0, random: Callable[[], float] = chance.random
) -> Backoff:
    """Anything up to a pause that grows: uniform(0, min(initial · multiplier^(n-1), cap)) before retry n.

    It spreads many clients that failed together best, and some of them come back at once.

    initial, cap: seconds.
    multiplier: a number above 0.
    random: gives numbers from 0 to below 1; it runs on the thread or in the loop of the RPC, and what it raises ends the
        retries.

    Defaults: 2 doubles the most at each retry. ValueError listing every fault of these.
    """
    insist(
        "full_jitter",
        *_bounds(initial, cap),
        (is_number(multiplier) and multiplier > 0, f"multiplier must be above 0, not {multiplier!r}"),
        (callable(random), f"random must be a function like random.random, not {random!r}"),
    )

    def pause(retry: int) -> float:
        return _grown(initial, multiplier, cap, retry) * random()

    return pause


def decorrelated(initial: float, *, cap: float, random: Callable[[], float] = chance.random) -> Backoff:
    """A pause that wanders upwards: each is min(uniform(initial, 3 · the one before), cap), so never below `initial`.

    It keeps no state of a call: before retry n, n such steps are taken anew.

    initial, cap: seconds.
    random: gives numbers from 0 to below 1; it runs on the thread or in the loop of the RPC, and what it raises ends the
        retries.

    ValueError listing every fault of these.
    """
    insist(
        "decorrelated",
        *_bounds(initial, cap),
        (callable(random), f"random must be a function like random.random, not {random!r}"),
    )

    def pause(retry: int) -> float:
        seconds = initial
        for _ in range(min(_counted(retry), _WALK)):
            seconds = min(initial + (3 * seconds - initial) * random(), cap)
        return seconds

    return pause


def _grown(initial: float, multiplier: float, cap: float, retry: int) -> float:
    """min(initial · multiplier^(n-1), cap), whatever the size of the numbers."""
    try:
        return min(initial * float(multiplier) ** min(_counted(retry) - 1, _FAR), cap)
    except OverflowError:
        return cap if initial else 0.0


def _counted(retry: int) -> int:
    if retry < 1:
        raise ValueError(f"retries are counted from 1, not from {retry!r}")
    return retry


def _bounds(initial: object, cap: object) -> tuple[tuple[bool, str], ...]:
    """What must hold of the least and the greatest pause."""
    numbers = _is_pause(initial) and _is_pause(cap)
    return (
        (_is_pause(initial), f"initial must be 0 or more seconds, not {initial!r}"),
        (_is_pause(cap), f"cap must be 0 or more seconds, not {cap!r}"),
        (not numbers or initial <= cap, f"cap must not be below initial, as {cap!r} is below {initial!r}"),  # type: ignore[operator]
    )


def _is_pause(value: object) -> bool:
    return is_number(value) and value >= 0
