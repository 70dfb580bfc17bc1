"""JSON whose values know their lines: Python's own reader judges the text, and the places are found token by token."""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Iterator
from typing import Any

from interpose.policy.document import Node, Odd, Unreadable

_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\]]|[^\s,:{}\[\]"]+', re.DOTALL)

LONGEST_NUMBER = 30  # characters; no option is so large, or so exact


def read(text: str) -> Node:
    """The value of a JSON text. Unreadable if it is none."""
    try:
        json.loads(text, parse_int=str, parse_float=str)
    except json.JSONDecodeError as error:
        raise Unreadable(error.lineno, f"is not JSON: {error.msg} (column {error.colno})") from None
    return _Reader(text).value()


class _Reader:
    """Goes through a text that is known to be JSON."""

    def __init__(self, text: str) -> None:
        breaks = [place.start() for place in re.finditer("\n", text)]
        self._tokens: Iterator[tuple[str, int]] = (
            (found[0], bisect_left(breaks, found.start()) + 1) for found in _TOKEN.finditer(text)
        )

    def value(self) -> Node:
        return self._begun(*next(self._tokens))

    def _begun(self, start: str, line: int) -> Node:
        """The value that begins with this token."""
        if start == "[":
            return Node([self._begun(*item) for item in self._until("]")], line)
        return self._object(line) if start == "{" else Node(_scalar(start), line)

    def _object(self, line: int) -> Node:
        fields: dict[str, Node] = {}
        twice = list[tuple[str, int]]()
        for token, key_line in self._until("}"):
            name, node = json.loads(token), self.value()
            if name in fields:
                twice.append((name, key_line))
            fields.setdefault(name, Node(node.value, node.line, key_line, node.twice))
        return Node(fields, line, twice=tuple(twice))

    def _until(self, end: str) -> Iterator[tuple[str, int]]:
        """The tokens that items or fields begin with; who asks reads to the end of each before it asks again."""
        for start in self._tokens:
            if start[0] == end:
                return
            yield start


def _scalar(token: str) -> Any:
    if token[0] != '"' and len(token) > LONGEST_NUMBER:
        return Odd(f"{token[:LONGEST_NUMBER]}…")
    value = json.loads(token, parse_constant=Odd)
    return Odd(token) if value in (float("inf"), float("-inf")) else value
