"""A policy file as it was read: values that know their line, and faults that know theirs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from interpose.mechanisms.json_fields import suggestion

LONGEST_QUOTE = 60  # characters of a value, in a fault


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """One thing that is wrong with a policy file: where it is, and what to write instead.

    line: from 1. path: the field, like `client[1].Retry.attempts`; empty for the file as a whole.
    `str()` gives one line, "policy.json:7: client[1].Retry.attempts: must be …".
    """

    file: str
    line: int
    path: str
    text: str

    def __str__(self) -> str:
        return ": ".join(filter(None, [f"{self.file}:{self.line}", self.path, self.text]))


class PolicyError(ValueError):
    """A policy file that is not used, since something is wrong with it. faults: all of that, in the order of the lines."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = sorted(faults)
        super().__init__("\n".join(map(str, self.faults)))


class Unreadable(Exception):
    """A text that is not of its format. line: where that shows."""

    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.line = line


@dataclass(frozen=True, slots=True)
class Node:
    """A value of the file, and the line where it begins.

    value: a text, number, flag or None, a list of nodes, a dict of them, or an `Odd`. key_line: where its name is.
    twice: the lines of names that are there already, each with its name.
    """

    value: Any
    line: int
    key_line: int = 0
    twice: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Odd:
    """What a reader lets pass and no option can be: NaN, Infinity, a date, a number out of all bounds."""

    text: str


class FromEnv(str):
    """A text with values of the environment in it, which no fault shows. written: as it is in the file."""

    __slots__ = ("written",)
    written: str


class Missing(FromEnv):
    """Such a text where a value could not be had, which has been noted."""

    __slots__ = ()


@dataclass(slots=True)
class Faults:
    """What is wrong with one file."""

    file: str
    found: list[Fault] = field(default_factory=list)

    def add(self, line: int, path: str, text: str) -> None:
        """Note a fault."""
        self.found.append(Fault(self.file, line, path, text))


@dataclass(frozen=True, slots=True)
class At:
    """A value where it is: its path, and the faults of the file."""

    node: Node
    path: str
    faults: Faults

    @property
    def value(self) -> Any:
        return self.node.value

    def fault(self, text: str) -> None:
        """Note what is wrong with it."""
        self.faults.add(self.node.line, self.path, text)

    def fault_of_name(self, text: str) -> None:
        """Note what is wrong with its name."""
        self.faults.add(self.node.key_line or self.node.line, self.path, text)

    def items(self) -> Iterator[At]:
        """The items of a list."""
        for index, node in enumerate(self.value):
            yield At(node, f"{self.path}[{index}]", self.faults)

    def fields(self) -> dict[str, At]:
        """The fields of an object, by their names."""
        return {name: At(node, to(self.path, name), self.faults) for name, node in self.value.items()}

    def depth(self) -> int:
        """How many lists and tables are in each other at most; by hand, for Python's own stack may end before."""
        level, deepest = [self.node], 0
        while level := [part for node in level for part in _inside(node)]:
            deepest += 1
        return deepest

    def parts(self) -> dict[str, At]:
        """What is in it: fields by their names, items by their numbers."""
        if isinstance(self.value, list):
            return {str(index): item for index, item in enumerate(self.items())}
        return self.fields() if isinstance(self.value, dict) else {}

    def names(self) -> Iterator[At]:
        """The names of the fields, as values of their own."""
        for name, field_at in self.fields().items():
            yield At(Node(name, field_at.node.key_line), field_at.path, self.faults)

    def only(self, known: Iterable[str]) -> dict[str, At]:
        """The fields that are known; a fault for each of the others."""
        known, fields = list(known), self.fields()
        for name, at in fields.items():
            if name not in known:
                at.fault_of_name(f"unknown field{suggestion(name, known) or listed(known)}")
        return {name: at for name, at in fields.items() if name in known}


def _inside(node: Node) -> Iterable[Node]:
    if isinstance(node.value, list):
        return node.value
    return node.value.values() if isinstance(node.value, dict) else ()


def listed(known: Iterable[str]) -> str:
    """What may be written instead of a name that is near to none of these."""
    names = sorted(known)
    return f"; write {alternatives(names)}" if names else "; leave it out"


def alternatives(names: Iterable[str]) -> str:
    """Several as one: a, b or c."""
    *before, last = names
    return f"{', '.join(before)} or {last}" if before else last


def to(path: str, name: str) -> str:
    """The path of a field; names that are no words are in brackets, and those that may be secrets are not shown."""
    if re.search(r"\bStaticTokens(\.tokens)?$", path) and name != "tokens":  # also where that level was forgotten
        return f"{path}[…]"
    written = name.written if isinstance(name, FromEnv) else name
    if not re.fullmatch(r"[\w$-]{1,60}", written, re.ASCII):
        return f"{path}[{quoted(name)}]"
    return f"{path}.{written}" if path else written


def quoted(value: Any) -> str:
    """A value as a fault shows it, on one line and never long; what comes from the environment as it is written."""
    if isinstance(value, FromEnv):
        text = json.dumps(value.written)
    elif isinstance(value, Odd):
        text = value.text
    elif isinstance(value, (list, dict)):
        return "a list" if isinstance(value, list) else "a table"
    else:
        text = json.dumps(value)
    return text if len(text) <= LONGEST_QUOTE else f"{text[:LONGEST_QUOTE]}…"


HIDDEN = "is not accepted; the reason is not shown, since a value of the environment is in it"


def has_secret(node: Node) -> bool:
    """Is a value of the environment in it?"""
    if isinstance(node.value, dict):
        return any(isinstance(name, FromEnv) or has_secret(part) for name, part in node.value.items())
    if isinstance(node.value, list):
        return any(map(has_secret, node.value))
    return isinstance(node.value, FromEnv)


def plain(node: Node) -> Any:
    """The value without its lines, what comes from the environment filled in."""
    value = node.value
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(name): plain(item) for name, item in value.items()}
    return value.text if isinstance(value, Odd) else value
