"""How an object with options prints: as it was made, `Retry(attempts=5)`, without what may be a secret."""

from __future__ import annotations

import enum
import functools
import inspect
from collections.abc import Collection, Mapping
from typing import Any

HIDDEN = "…"  # stands for text, messages and whatever else may hold a secret
MOST = 8  # parts of one option that are shown


def shown(kind: type[Any]) -> None:
    """Let instances of this class print with the options that they were given.

    Shown are numbers, flags, enums, functions and classes by name, collections of these, and our own objects.
    """

    def told(self: Any) -> str:
        options = ", ".join(f"{name}={of(value)}" for name, value in given(self).items())
        return f"{type(self).__qualname__}({options})"

    noted(kind)
    kind.__repr__ = told  # type: ignore[assignment]  # mypy takes a method of a class for one of an instance


def noted(kind: type[Any]) -> None:
    """Let instances of this class know the options that they were given; not for one whose options are secrets."""
    make = kind.__init__
    signature = inspect.signature(make)

    @functools.wraps(make)
    def note(self: Any, *args: Any, **options: Any) -> None:
        make(self, *args, **options)
        self.__dict__["_given"] = signature.bind(self, *args, **options).arguments

    kind.__init__ = note


def given(instance: Any) -> dict[str, Any]:
    """The options that it was made with, by their names; those that were left out are not among them."""
    return {name: value for name, value in vars(instance).get("_given", {}).items() if name != "self"}


def of(value: Any) -> str:
    """An option's value, if it can be no secret."""
    if value is None or isinstance(value, (bool, int, float)):
        return repr(value) if not isinstance(value, enum.Enum) else value.name
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, type) or inspect.isroutine(value):
        return str(value.__name__)
    if isinstance(value, (str, bytes)):
        return HIDDEN
    if type(value).__module__.startswith("interpose."):
        return repr(value)
    if isinstance(value, Mapping):
        return f"{{{_parts([f'{of(key)}: {of(part)}' for key, part in value.items()])}}}"
    if isinstance(value, (set, frozenset)):
        return f"{{{_parts(sorted(map(of, value)))}}}"
    if isinstance(value, Collection):
        return f"[{_parts(list(map(of, value)))}]"
    return HIDDEN


def _parts(parts: list[str]) -> str:
    return ", ".join(parts if len(parts) <= MOST else [*parts[:MOST], HIDDEN])
