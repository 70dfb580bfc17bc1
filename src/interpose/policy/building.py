"""From what a file says to interceptors: each row is made once, and kept while the file says the same of it."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, cast

from interpose._flow import Interceptor, When, check
from interpose._method import Side
from interpose._patterns import Patterns, faults_of
from interpose.interceptors.service_config import from_service_config, judged
from interpose.mechanisms.json_fields import suggestion
from interpose.policy.choice import ByTarget, Choice, Row
from interpose.policy.document import HIDDEN, At, FromEnv, Node, Odd, has_secret, listed, plain, quoted
from interpose.policy.forms import WRONG, Imports
from interpose.policy.registry import batteries

METHODS, TARGETS, SERVICE_CONFIG = "methods", "targets", "service_config"
TABLES = (METHODS, TARGETS)

Place: TypeAlias = tuple[str, ...]  # the section, and the rows that a battery is in
Stack: TypeAlias = tuple[Interceptor, ...]


class Key(NamedTuple):
    """What makes a row the same in two readings of a file: it is at the same place, and says the same.

    number: of equal rows at the same place, from 1.
    """

    place: Place
    name: str
    options: str
    number: int


class Builder:
    """Makes the stack of one section. kept: rows of the reading before, which are used again where they are the same."""

    def __init__(self, side: Side, imports: Imports, kept: Mapping[Key, Any]) -> None:
        self.side = side
        self.made: dict[Key, Any] = {}
        self._imports = imports
        self._kept = kept
        self._numbers: Counter[tuple[Place, str, str]] = Counter()

    def stack(self, at: At, place: Place = ()) -> Stack:
        """The interceptors of a list, the first outermost; those that have faults are left out."""
        if not isinstance(at.value, list):
            at.fault(
                f'must be a list of interceptors, like ["RequestId", {{"Deadline": "5s"}}], not {quoted(at.value)}'
            )
            return ()
        found = [self._entry(item, place) for item in at.items()]
        return tuple(interceptor for interceptor in found if interceptor is not WRONG)

    def _entry(self, at: At, place: Place) -> Any:
        """One interceptor: a name alone, or a table of one field."""
        if isinstance(at.value, str) and ":" in at.value:
            return self._imported(at)
        if isinstance(at.value, str):
            return self._named(at.value, At(Node({}, at.node.line), at.path, at.faults), at, place)
        if not isinstance(at.value, dict) or len(at.value) != 1:
            at.fault(
                f'must be the name of an interceptor, or a table of that one field, like {{"Deadline": "5s"}}{_not(at)}'
            )
            return WRONG
        ((name, options),) = at.fields().items()
        if name in TABLES:
            return self._choice(name, options, place)
        if name == SERVICE_CONFIG:
            return self._once(name, options, place, lambda: self._service_config(options))
        return self._named(name, options, options, place)

    def _named(self, name: str, options: At, at: At, place: Place) -> Any:
        """A battery."""
        maker = batteries().get(name)
        if maker is None:
            known = [*batteries(), *TABLES, SERVICE_CONFIG]
            hint = "" if isinstance(name, FromEnv) else suggestion(name, known)
            at.fault_of_name(f"there is no interceptor {quoted(name)}{hint or listed(batteries())}")
            return WRONG
        if maker.side is not None and maker.side is not self.side:
            at.fault_of_name(f"{name} is for the other side; put it into the section {maker.side.value}")
            return WRONG
        return self._once(name, options, place, lambda: maker.read(options, self._imports))

    def _imported(self, at: At) -> Any:
        """What a module of the application has."""
        found = self._imports.find(at)
        if found is WRONG:
            return WRONG
        try:
            check(found)
        except TypeError as error:
            at.fault(str(error))
            return WRONG
        return found

    def _once(self, name: str, options: At, place: Place, make: Callable[[], Any]) -> Any:
        """The interceptor of a row: the one that is there already, or a new one."""
        said = json.dumps(plain(options.node), sort_keys=True)
        self._numbers[place, name, said] += 1
        key = Key(place, name, said, self._numbers[place, name, said])
        made = self._kept.get(key)
        made = make() if made is None else made
        if made is not WRONG:
            self.made[key] = made
        return made

    # - tables -

    def _choice(self, kind: str, at: At, place: Place) -> Any:
        if kind == TARGETS and self.side is Side.SERVER:
            at.fault_of_name("a server has no targets; write methods, or put it into the section client")
            return WRONG
        if not isinstance(at.value, dict):
            at.fault(f"must be a table from patterns to lists of interceptors, not {quoted(at.value)}")
            return WRONG
        rows = {pattern: self._row(kind, pattern, row, place) for pattern, row in at.fields().items()}
        return Choice({pattern: row for pattern, row in rows.items() if row is not None})

    def _row(self, kind: str, pattern: str, at: At, place: Place) -> Row | None:
        if isinstance(pattern, FromEnv):
            at.fault_of_name("a pattern must be in the file itself, since `describe` and the log show it")
            return None
        stack = self.stack(at, (*place, f"{kind} {pattern}"))
        where = f"{at.faults.file}:{at.node.key_line}: {at.path}"
        if kind == TARGETS:
            return Row(where, When(ByTarget(pattern), stack))
        patterns = several_patterns(pattern)
        faults = list(faults_of(patterns, "the pattern"))
        for fault in faults:
            at.fault_of_name(fault)
        return None if faults else Row(where, When(Patterns(patterns), stack))

    # - gRPC's own -

    def _service_config(self, at: At) -> Any:
        if self.side is Side.SERVER:
            at.fault_of_name("a service config is for clients; put it into the section client")
            return WRONG
        odd = list(_odd(at))
        for one in odd:
            one.fault(f"{quoted(one.value)} is no JSON")
        text = json.dumps(plain(at.node))
        faults = [] if odd else judged(text)[1]
        for fault in faults:
            self._tell(fault, at)
        if odd or faults:
            return WRONG
        return from_service_config(text)

    def _tell(self, fault: str, at: At) -> None:
        """A fault of a service config, where its field is, or the innermost that is there."""
        path, _, text = fault.removeprefix("field:").partition(" error:")
        root, where = at.path, cast(At | None, at)
        for name in re.findall(r"\w+", path):
            if where is not None:
                at, where = where, where.parts().get(name)
        node = (at if where is None else where).node
        at.faults.add(node.line, f"{root}.{path}".rstrip("."), HIDDEN if has_secret(node) else text)


def several_patterns(text: str) -> list[str]:
    """The patterns of one row: several are in braces around all of them, {/shop.v1.Orders/*,/shop.v1.Carts/*}."""
    depth, patterns, begun = 0, list[str](), 1
    for place, character in enumerate(text):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth == 0 and place < len(text) - 1:
            return [text]
        if (depth == 1 and character == ",") or (depth == 0 and character == "}"):
            patterns.append(text[begun:place])
            begun = place + 1
    return patterns if depth == 0 and patterns else [text]


def one_pattern(patterns: Sequence[str]) -> str:
    """Several patterns as one row has them."""
    return patterns[0] if len(patterns) == 1 else f"{{{','.join(patterns)}}}"


def _odd(at: At) -> Iterator[At]:
    """The values in it that JSON does not have."""
    if isinstance(at.value, Odd):
        yield at
    for part in at.parts().values():
        yield from _odd(part)


def _not(at: At) -> str:
    return f", not {quoted(at.value)}" if not isinstance(at.value, dict) else f"; it has {len(at.value)} fields"
