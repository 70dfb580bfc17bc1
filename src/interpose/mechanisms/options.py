"""Options of a constructor: each is said once, with what must hold of it, and one error lists every fault.

    @dataclass(eq=False, repr=False)
    class Hedge:
        copies: int = option(2, whole(2, 100))
        on_hedge: Callable[[HedgeDetails], object] | None = option(None, hook("HedgeDetails"))

        def __post_init__(self) -> None:
            check_options(self)

A rule is a function of an option's name and value, which gives what is wrong with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import field, fields
from typing import Any, TypeAlias, TypeGuard, TypeVar

T = TypeVar("T")

Rule: TypeAlias = Callable[[str, Any], Iterable[str]]  # the name of an option and its value → what is wrong with it


def option(default: T, rule: Rule) -> T:
    """An option of a dataclass, with its default."""
    made: T = field(default=default, metadata=ruled(rule))
    return made


def ruled(rule: Rule) -> dict[str, Rule]:
    """The same for `field(metadata=…)`, where there is no default, or a new one for each object."""
    return {"rule": rule}


def check_options(owner: Any, *requirements: tuple[bool, str]) -> None:
    """ValueError listing what is wrong with the options of a dataclass; first the requirements that are not met.

    requirements: what no rule of one option can say.
    """
    rules = ((one.name, one.metadata["rule"]) for one in fields(owner) if "rule" in one.metadata)
    faults = [fault for name, rule in rules for fault in rule(name, getattr(owner, name))]
    insist(type(owner).__name__, *requirements, *((False, fault) for fault in faults))


def insist(owner: str, *requirements: tuple[bool, str]) -> None:
    """ValueError with the text of each requirement that is not met; the text says what to write instead."""
    faults = [text for met, text in requirements if not met]
    if faults:
        raise ValueError(f"{owner}: {'; '.join(faults)}")


# - rules -


def must_be(
    what: str, holds: Callable[[Any], bool], why: str = "", *, shown: Callable[[Any], str] = "{!r:.200}".format
) -> Rule:
    """A value for which this holds. what: in words, as what to write. why: behind them.

    shown: the refused value in the error; where it may be a secret, only its kind.
    """

    def faults(name: str, value: Any) -> Iterable[str]:
        return () if holds(value) else (f"{name} must be {what}, not {shown(value)}{why}",)

    return faults


def must_have(what: str, holds: Callable[[Any], bool]) -> Rule:
    """An object with a part for which this holds. what: the part, in words."""

    def faults(name: str, value: Any) -> Iterable[str]:
        return () if holds(value) else (f"{name} must have {what}, not be {value!r:.200}",)

    return faults


def optional(what: str, holds: Callable[[Any], bool]) -> Rule:
    """The same, or None."""
    return must_be(f"None or {what}", lambda value: value is None or holds(value))


def whole(least: int, most: int | None = None, of: str = "") -> Rule:
    """A whole number in this range, or of any size from `least` on. of: of what, like " of bytes"."""
    what = f"a whole number{of} from {least}" + ("" if most is None else f" to {most}")
    return must_be(what, lambda value: is_whole(value, least, most))


def seconds(most: float) -> Rule:
    """A number of seconds above 0 and below `most`."""
    return must_be(f"above 0 and below {most:g} seconds", lambda value: is_seconds(value, most))


def one_of(*values: str) -> Rule:
    """One of these texts."""
    *first, last = map(repr, values)
    return must_be(f"{', '.join(first)} or {last}", lambda value: isinstance(value, str) and value in values)


def flag_or_function(of: str) -> Rule:
    """True, False, a function that says which, or None for what is right by default."""
    what = f"None, True, False or a function of {of}"
    return must_be(what, lambda value: is_flag(value) or is_function_or_none(value))


def hook(details: str) -> Rule:
    """A function that is called with such details, or None."""
    return must_be(f"a function of {details}", is_function_or_none)


# - what holds of a value -


def is_whole(value: object, least: int, most: int | None = None) -> bool:
    """Is it a whole number in this range, both ends included?"""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value and (most is None or value <= most)


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


FLAG = must_be("True or False", is_flag)
FUNCTION = must_be("a function", callable)
CLOCK = must_have("a method now()", is_clock)
