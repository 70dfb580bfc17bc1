"""Options, looked at all together."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import pytest

from interpose._clock import SYSTEM
from interpose.mechanisms.options import (
    CLOCK,
    FLAG,
    check_options,
    flag_or_function,
    hook,
    insist,
    is_clock,
    is_flag,
    is_function_or_none,
    is_whole,
    must_be,
    one_of,
    option,
    optional,
    ruled,
    seconds,
    whole,
)


def test_all_faults_are_told() -> None:
    """The text of each requirement that is not met, and of no other."""
    with pytest.raises(ValueError, match=r"^Thing: a must be 1; c must be 3$"):
        insist("Thing", (False, "a must be 1"), (True, "b must be 2"), (False, "c must be 3"))


def test_nothing_is_told_of_good_options() -> None:
    """No fault, no error."""
    insist("Thing", (True, "a must be 1"))


def test_kinds_of_values() -> None:
    """True is no number, 1 no flag, and a clock is what has a now()."""
    assert [is_whole(value, 1, 3) for value in (0, 1, 3, 4, True, 2.0, "2")] == [False, True, True, *[False] * 4]
    assert [is_flag(value) for value in (True, False, 1, None)] == [True, True, False, False]
    assert [is_function_or_none(value) for value in (None, print, 1)] == [True, True, False]
    assert [is_clock(value) for value in (SYSTEM, print, None)] == [True, False, False]


@dataclass(eq=False)
class Options:
    """An option of each kind."""

    name: str = field(metadata=ruled(must_be("a text", lambda name: isinstance(name, str))))
    _: KW_ONLY
    size: int = option(2, whole(1, 3, " of bytes"))
    least: int = option(1, whole(1))
    time: float = option(1.0, seconds(60))
    flag: bool = option(False, FLAG)
    safe: bool | Callable[[Any], bool] | None = option(None, flag_or_function("the call"))
    way: str = option("up", one_of("up", "down", "left"))
    limit: int | None = option(None, optional("a number like 5", lambda limit: limit == 5))
    clock: Any = option(SYSTEM, CLOCK)
    on_end: Callable[[Any], object] | None = option(None, hook("EndDetails"))

    def __post_init__(self) -> None:
        check_options(self, (self.name != self.way, "name and way must differ"))


def test_an_option_is_said_once() -> None:
    """In the signature, with its default, and stored under its name."""
    signature = inspect.signature(Options)

    assert list(signature.parameters) == [
        "name", "size", "least", "time", "flag", "safe", "way", "limit", "clock", "on_end",
    ]  # fmt: skip
    assert signature.parameters["size"].default == 2
    assert Options("a", size=3).size == 3


def test_every_rule_says_what_to_write() -> None:
    """All in one error, what lies between options first."""
    wrong: dict[str, Any] = {"size": 4, "least": 0, "time": 60, "flag": 1, "safe": 1, "way": [], "limit": 6}
    with pytest.raises(ValueError, match=r"^Options: ") as refused:
        Options("up", clock=1, on_end=1, **wrong)  # type: ignore[arg-type]

    assert str(refused.value).removeprefix("Options: ").split("; ") == [
        "size must be a whole number of bytes from 1 to 3, not 4",
        "least must be a whole number from 1, not 0",
        "time must be above 0 and below 60 seconds, not 60",
        "flag must be True or False, not 1",
        "safe must be None, True, False or a function of the call, not 1",
        "way must be 'up', 'down' or 'left', not []",
        "limit must be None or a number like 5, not 6",
        "clock must have a method now(), not be 1",
        "on_end must be a function of EndDetails, not 1",
    ]
    with pytest.raises(ValueError, match=r"^Options: name and way must differ; flag must be"):
        Options("up", flag=1)  # type: ignore[arg-type]


def test_a_long_value_is_cut() -> None:
    """An error is no place for a megabyte."""
    with pytest.raises(ValueError, match="size must be") as refused:
        Options("a", size="x" * 10**6)  # type: ignore[arg-type]

    assert len(str(refused.value)) < 300
