"""One stack of several, by method or by target: of the patterns that fit, the most specific one decides."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from fnmatch import translate
from typing import NamedTuple

from interpose._flow import Chain, Interceptor, When
from interpose._method import Method
from interpose._patterns import Patterns, is_literal
from interpose._served import Served
from interpose._shell.serving import faults_of
from interpose.interceptors.guarding import unmatched

PREFIX = "dns:///"  # which grpc puts in front of an address


class Row(NamedTuple):
    """A row of a table. where: its place in the file, "policy.json:7: server[0].methods"; when: its condition and stack."""

    where: str
    when: When


class Choice(Chain):
    """The rows of a table `methods` or `targets`: for a method the stack of its most specific row, and no other."""

    __slots__ = ("_ranked", "rows")

    def __init__(self, rows: Mapping[str, Row]) -> None:
        super().__init__(tuple(row.when for row in rows.values()))
        self.rows = dict(rows)
        ranked = [(_rank(glob), glob, row.when) for row in rows.values() for glob in _globs(row.when)]
        self._ranked = [
            (re.compile(translate(glob)).match, when)
            for _, glob, when in sorted(ranked, key=lambda one: one[0], reverse=True)
        ]

    def select(self, method: Method) -> tuple[Interceptor, ...]:
        return next(((when,) for fits, when in self._ranked if any(map(fits, names_of(method, when)))), ())

    def see(self, method: Method) -> None:
        for row in self.rows.values():
            row.when.see(method)

    def check_served(self, served: Served) -> Iterator[str]:
        """Faults that show when the methods of the server are known: rows that no method of it comes to."""
        for pattern, row in self.rows.items():
            yield from unmatched(row.where, "the row", [pattern], served)
            applies = tuple(method for method in served.methods if self.select(method) == (row.when,))
            yield from faults_of(row.when.interceptors, served._replace(methods=applies))

    def __repr__(self) -> str:
        return f"Choice({', '.join(map(repr, self.rows))})"


class ByTarget:
    """A condition: does the channel go to a target that the pattern fits? "pay:443" is "dns:///pay:443" too."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.__qualname__ = f"to {pattern!r}"  # in `describe`
        self._fits = re.compile(translate(pattern)).match

    def __call__(self, method: Method) -> bool:
        return any(map(self._fits, targets_of(method)))


def targets_of(method: Method) -> tuple[str, ...]:
    """The names of the target that a stub's method goes to; none on a server."""
    if method.target is None:
        return ()
    return method.target.key, method.target.key.removeprefix(PREFIX)


def names_of(method: Method, when: When) -> tuple[str, ...]:
    """What a row's patterns are compared with."""
    if isinstance(when.condition, ByTarget):
        return targets_of(method)
    return ("/" + method.full_name.removeprefix("/"),)


def _globs(when: When) -> tuple[str, ...]:
    if isinstance(when.condition, Patterns):
        return when.condition.globs
    assert isinstance(when.condition, ByTarget)
    return (when.condition.pattern,)


def _rank(glob: str) -> tuple[bool, bool, int]:
    """How specific a pattern is: one method, then one service, then by how many characters are no wildcards."""
    service = glob.rpartition("/")[0]
    return is_literal(glob), bool(service) and is_literal(service), len(re.sub(r"\[[^\]]*\]|[*?]", "", glob))
