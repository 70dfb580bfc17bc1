"""Untrusted JSON text, read field by field: all that is wrong with it is reported at once, each with its path.

    def shop(at: At) -> tuple[str, int]:
        if not at.has_only({"name", "seats"}):
            return "", 0
        return at.required("name", string, ""), at.optional("seats", seats, 4)

    def seats(value: Any) -> int:
        found = whole_number(value, most=100)
        if found < 1:
            raise Wrong("must be at least 1")
        return found

    root = decoded('{"name": 7, "seats": 0, "colour": "red"}', "the shop")
    read = shop(root)  # worth something if there are no faults
    root.faults  # ["field:colour error:unknown field", "field:name error:is not a string: 7",
                 #  "field:seats error:must be at least 1"]

What is faulty reads as something harmless, so that the rest can be read; the caller then refuses the text as a whole.
As in protobuf's JSON a number may be in quotes, and null is as good as nothing.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")

DEEPEST = 255  # objects and lists in each other; as many as gRPC's core reads
LONGEST_QUOTE = 60  # characters of a value, in a fault


def decoded(text: str, what: str) -> At:
    """The text's value, with what Python's reader lets pass and JSON does not among its faults.

    ValueError, with line and column, if it is no JSON at all.

    what: its name in that error, like "the service config".
    """
    too_deep = ValueError(f"{what} is nested too deeply: at most {DEEPEST} objects and lists in each other")
    try:
        value = json.loads(
            text, object_pairs_hook=_object, parse_int=Number, parse_float=Number, parse_constant=_NoJson
        )
    except json.JSONDecodeError as error:
        raise ValueError(f"{what} is not JSON: {error}") from None
    except RecursionError:
        raise too_deep from None
    root = At("", value, [])
    for at, depth in _everything(root):
        if depth > DEEPEST and isinstance(at.value, (list, dict)):
            raise too_deep
        _look_for_what_is_no_json(at)
    return root


@dataclass(frozen=True, slots=True)
class At:
    """A value, its path, and the faults of the whole text.

    A reader makes something of the plain value, and raises `Wrong` if it cannot.
    """

    path: str
    value: Any
    faults: list[str]

    def fault(self, text: str, name: str = "") -> None:
        """Note what is wrong with it, or with its field of this name."""
        self.faults.append(f"field:{self._to(name) if name else self.path} error:{text}")

    def has_only(self, known: set[str]) -> bool:
        """Is it an object? Unknown fields are noted."""
        if not isinstance(self.value, _Object):
            self._wrong(f"is not an object: {told(self.value)}")
            return False
        for name in self.value:
            if name not in known:
                self.fault(f"unknown field{suggestion(name, known)}", name)
        return True

    def child(self, name: str) -> At | None:
        """Its field of this name, or None if it is not there, or null."""
        value = self.value.get(name)
        return None if value is None else At(self._to(name), value, self.faults)

    def items(self) -> list[At]:
        """The items of a list."""
        if isinstance(self.value, list):
            return list(self.parts())
        self._wrong(f"is not an array: {told(self.value)}")
        return []

    def required(self, name: str, reader: Callable[[Any], T], harmless: T) -> T:
        """The value of a field that has to be there."""
        child = self.child(name)
        if child is None:
            self.fault("field not present", name)
            return harmless
        return child.read(reader, harmless)

    def optional(self, name: str, reader: Callable[[Any], T], default: T) -> T:
        """The value of a field that may be left out."""
        child = self.child(name)
        return default if child is None else child.read(reader, default)

    def read(self, reader: Callable[[Any], T], harmless: T) -> T:
        """Its value."""
        try:
            return reader(self.value)
        except Wrong as wrong:
            self._wrong(str(wrong))
            return harmless

    def parts(self) -> Iterator[At]:
        """Its items or fields."""
        if isinstance(self.value, list):
            for index, value in enumerate(self.value):
                yield At(f"{self.path}[{index}]", value, self.faults)
        if isinstance(self.value, _Object):
            for name, value in self.value.items():
                yield At(self._to(name), value, self.faults)

    def _wrong(self, text: str) -> None:
        if not isinstance(self.value, _NoJson):  # which has been noted
            self.fault(text)

    def _to(self, name: str) -> str:
        """The path of a field; unknown names may be anything."""
        if not re.fullmatch(r"\w{1,60}", name, re.ASCII):
            return f"{self.path}[{told(name)}]"
        return f"{self.path}.{name}" if self.path else name


# --- readers of one value -------------------------------------------------------------------------------------------


class Wrong(Exception):
    """What is wrong with a value."""


def string(value: Any) -> str:
    if not isinstance(value, str):
        raise Wrong(f"is not a string: {told(value)}")
    return value


def whole_number(value: Any, most: int) -> int:
    number = Number(number_as_written(value)).whole()
    if number is None:
        raise Wrong(f"must be a whole number like 4, not {told(value)}")
    if number > most:
        raise Wrong(f"must be at most {most}")
    return number


def positive_number(value: Any) -> float:
    number = float(number_as_written(value))
    if number <= 0:
        raise Wrong("must be greater than 0")
    if number == math.inf:
        raise Wrong("is too large")
    return number


def number_as_written(value: Any) -> str:
    """The text of a number, which may be in quotes."""
    if not isinstance(value, (Number, str)):
        raise Wrong(f"is not a number: {told(value)}")
    text = value.text if isinstance(value, Number) else value.strip()
    if not _DECIMAL.fullmatch(text):
        raise Wrong(f"is not a number: {told(value)}")
    return text


# --- for faults -----------------------------------------------------------------------------------------------------


def told(value: Any) -> str:
    """A value, as a fault quotes it."""
    if isinstance(value, (str, bool, type(None))):
        text = json.dumps(value)
    elif isinstance(value, (Number, _NoJson)):
        text = value.text
    else:
        text = "an array" if isinstance(value, list) else "an object"
    return text if len(text) <= LONGEST_QUOTE else f"{text[:LONGEST_QUOTE]}…"


def suggestion(wrong: object, known: Iterable[str]) -> str:
    """Which of the known names may have been meant, if one is near."""
    if not isinstance(wrong, str):
        return ""
    plain = {name.replace("_", "").lower(): name for name in known}
    near = difflib.get_close_matches(wrong[:60].replace("_", "").lower(), plain, 1, 0.75)
    return f"; did you mean {plain[near[0]]}?" if near else ""


# --- what is in a text ----------------------------------------------------------------------------------------------

_WHOLE = re.compile(r"[+-]?[0-9]{1,20}")
_DECIMAL = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Number:
    """A number as it is written: what is said about it is said about that."""

    text: str

    def whole(self) -> int | None:
        """Its value, if it is a whole number, and short enough to be meant."""
        return int(self.text) if _WHOLE.fullmatch(self.text) else None


class _Object(dict[str, Any]):
    """A JSON object. twice: the names that it has more than once."""

    twice: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _NoJson:
    """NaN, Infinity or -Infinity."""

    text: str


def _object(pairs: list[tuple[str, Any]]) -> _Object:
    found = _Object(pairs)
    if len(found) < len(pairs):
        found.twice = tuple(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
    return found


def _everything(root: At) -> Iterator[tuple[At, int]]:
    """It and all that is in it, each with its depth; by hand, for Python's own stack may end before the text does."""
    left = [(root, 1)]
    while left:
        at, depth = left.pop()
        yield at, depth
        left += ((part, depth + 1) for part in at.parts())


def _look_for_what_is_no_json(at: At) -> None:
    """Fault what Python's reader lets pass."""
    if isinstance(at.value, _NoJson):
        at.fault(f"is not JSON: {at.value.text}")
    if isinstance(at.value, _Object):
        for name in at.value.twice:
            at.fault("is there more than once", name)
