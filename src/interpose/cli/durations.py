"""Times on a command line: `5`, `5s`, `250ms`, `1m`."""

from __future__ import annotations

import math
import re

import click

UNITS = {"us": 1e-6, "ms": 1e-3, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
MOST = 86_400 * 366  # seconds: a year; beyond it a slip of the finger

_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(us|ms|s|m|h|)", re.ASCII)


def duration(text: str) -> float:
    """The seconds that were written, with a unit or without; for click, as the type of an option."""
    found = _DURATION.fullmatch(text.strip())
    seconds = float(found[1]) * UNITS[found[2]] if found else math.nan
    if not 0 < seconds <= MOST:
        raise click.BadParameter(f"{text!r} is no time above 0: write 5, 5s, 250ms or 1m")
    return seconds


def shown(seconds: float) -> str:
    """A time for people, with three digits that mean something: `812 us`, `1.25 ms`, `3.00 s`."""
    for unit, size in (("us", 1e-6), ("ms", 1e-3)):
        if seconds < 999.5 * size:  # it would be rounded up to 1000
            return f"{_three(seconds / size)} {unit}"
    return f"{_three(seconds)} s"


def _three(number: float) -> str:
    digits = 0 if number >= 99.95 else 1 if number >= 9.995 else 2
    return f"{number:.{digits}f}"
