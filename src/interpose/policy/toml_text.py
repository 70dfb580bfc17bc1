"""TOML whose values know their lines: Python's own reader gives the values, and their places are found beside it.

The text is known to be TOML when its places are looked for, so this needs to know no more of the grammar than where keys
and values begin and end.
"""

from __future__ import annotations

import math
import re
import tomllib
from bisect import bisect_left
from typing import Any, TypeAlias

from interpose.policy.document import Node, Odd, Unreadable

Path: TypeAlias = "tuple[str | int, ...]"
Lines: TypeAlias = dict[Path, int]  # where the name of each is, or the value itself of an item of a list

LARGEST = 10**30  # no option is so large

_SPACE = re.compile(r"(?:[ \t\r\n,]|#[^\n]*)*")  # between items and statements; commas too, which say no more than it
_BLANK = re.compile(r"[ \t]*")
_KEY = re.compile(r"""[ \t]*("(?:[^"\\]|\\.)*"|'[^']*'|[A-Za-z0-9_-]+)[ \t]*(\.?)""")
_TEXT = re.compile(
    r'''"""(?:[^\\]|\\.)*?"""(?:"{0,2})|\'\'\'.*?\'\'\'(?:'{0,2})|"(?:[^"\\]|\\.)*"|'[^']*\'''', re.DOTALL
)
_BARE = re.compile(r"\d{4}-\d\d-\d\d[ Tt]\d\d:[\d:.Zz+-]*|[^\s,\]}#]+")  # a date may have a space in it

_AT_LINE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


def read(text: str) -> Node:
    """The value of a TOML text. Unreadable if it is none."""
    try:
        value = tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError, and what Python itself says of a number with thousands of digits
        raise _unreadable(str(error), text) from None
    return _node(value, (), _Places(text).lines, 1)


def _unreadable(message: str, text: str) -> Unreadable:
    found = _AT_LINE.search(message)
    words = message[: found.start()] if found else message
    if found is None or found[1] is None:
        return Unreadable(text.count("\n") + 1, f"is not TOML: {words} (at its end)")
    return Unreadable(int(found[1]), f"is not TOML: {words} (column {found[2]})")


def _node(value: Any, path: Path, lines: Lines, above: int) -> Node:
    line = lines.get(path, above)
    if isinstance(value, dict):
        fields = {name: _node(part, (*path, name), lines, line) for name, part in value.items()}
        return Node(fields, line, line)
    if isinstance(value, list):
        return Node([_node(part, (*path, index), lines, line) for index, part in enumerate(value)], line, line)
    return Node(_scalar(value), line, line)


def _scalar(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return Odd(str(value))
    if isinstance(value, int) and abs(value) > LARGEST:
        return Odd(f"{value:#x}"[:20] + "…")
    return value if isinstance(value, (str, bool, int, float)) else Odd(str(value))


class _Places:
    """Goes through a text that is known to be TOML, and notes the line of each key and item."""

    def __init__(self, text: str) -> None:
        self.lines: Lines = {}
        self._text = text
        self._at = 0
        self._breaks = [place.start() for place in re.finditer("\n", text)]
        self._tables: dict[Path, int] = {}  # arrays of tables, and the index of the last one in each
        within: Path = ()
        while self._skip() < len(text):
            within = self._header() if text[self._at] == "[" else self._pair(within)

    def _header(self) -> Path:
        """[table] or [[table]]; what follows is in it."""
        several = self._text.startswith("[[", self._at)
        line = self._line()
        self._at += 2 if several else 1
        path: Path = ()
        names = self._key()
        for number, name in enumerate(names, 1):
            path = (*path, name)
            self.lines.setdefault(path, line)
            if several and number == len(names):
                self._tables[path] = self._tables.get(path, -1) + 1
            if path in self._tables:
                path = (*path, self._tables[path])
        self.lines.setdefault(path, line)
        self._at += 2 if several else 1
        return path

    def _pair(self, within: Path) -> Path:
        """key = value; what follows is in the same table."""
        line, path = self._line(), within
        for name in self._key():
            path = (*path, name)
            self.lines.setdefault(path, line)
        self._at += 1  # the sign =
        self._value(path)
        return within

    def _key(self) -> list[str]:
        """The parts of a key."""
        names, more = [], "."
        while more:
            found = _KEY.match(self._text, self._at)
            assert found is not None
            name, more = found.groups()
            names.append(tomllib.loads(f"key = {name}")["key"] if name[0] in "\"'" else name)
            self._at = found.end()
        return names

    def _value(self, path: Path) -> None:
        self._pass(_BLANK)
        opening = self._text[self._at]
        if opening in "[{":
            self._inside(path, "]" if opening == "[" else "}")
        else:
            self._pass(_TEXT if opening in "\"'" else _BARE)

    def _inside(self, path: Path, end: str) -> None:
        """The items of a list, or the pairs of a table that is a value."""
        self._at += 1
        index = 0
        while self._text[self._skip()] != end:
            if end == "}":
                self._pair(path)
            else:
                self.lines[*path, index] = self._line()
                self._value((*path, index))
                index += 1
        self._at += 1

    def _skip(self) -> int:
        """Go on to what comes next."""
        return self._pass(_SPACE)

    def _pass(self, what: re.Pattern[str]) -> int:
        found = what.match(self._text, self._at)
        assert found is not None
        self._at = found.end()
        return self._at

    def _line(self) -> int:
        return bisect_left(self._breaks, self._at) + 1
