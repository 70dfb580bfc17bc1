"""From interceptors to what a file would say of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from interpose._flow import Chain, Interceptor, When, check, name_of
from interpose._patterns import Patterns
from interpose.interceptors.service_config import PerMethod
from interpose.policy.building import METHODS, SERVICE_CONFIG, TARGETS, one_pattern
from interpose.policy.choice import ByTarget, Choice
from interpose.policy.forms import Imported, Unwritable
from interpose.policy.registry import batteries


def dump(stack: Interceptor | Iterable[Interceptor]) -> list[Any]:
    """What a policy file says of a stack: a list for the section `client` or `server`.

        json.dumps({"client": dump([RequestId(), Retry(attempts=3)])})

    `load` makes the same stack of it. Functions are written as "module:name", and need `allow` there. What the file of a
    loaded policy has from the environment is in it as it is.

    ValueError that lists every interceptor that no file can hold, like one with a function that has no name, or with
    secrets, which it does not keep.
    """
    given: Any = [stack] if callable(stack) else list(stack)
    for interceptor in given:
        check(interceptor)
    faults: list[str] = []
    entries = list(_entries(given, faults))
    if faults:
        raise ValueError(f"dump: no file can hold {'; '.join(faults)}")
    return entries


def _entries(interceptors: Iterable[Any], faults: list[str]) -> Iterator[Any]:
    for interceptor in interceptors:
        try:
            yield from _written(interceptor, faults)
        except Unwritable as error:
            faults.append(f"{name_of(interceptor)}{f': {error}' if str(error) else ''}")


def _written(interceptor: Any, faults: list[str]) -> Iterator[Any]:
    """One interceptor, as one entry; those of a chain one after the other."""
    if isinstance(interceptor, Choice):
        rows = list(interceptor.interceptors)
        yield {
            _kind(rows): {
                pattern: list(_entries(row.when.interceptors, faults)) for pattern, row in interceptor.rows.items()
            }
        }
    elif isinstance(interceptor, When):
        yield {METHODS: {_pattern(interceptor): list(_entries(interceptor.interceptors, faults))}}
    elif isinstance(interceptor, PerMethod):
        if interceptor.config is None:
            raise Unwritable("its budget or hooks were given beside the JSON")
        yield {SERVICE_CONFIG: json.loads(interceptor.config)}
    elif isinstance(interceptor, Chain):
        yield from _entries(interceptor.interceptors, faults)
    elif (maker := batteries().get(type(interceptor).__name__)) is not None and maker.owns(interceptor):
        yield maker.write(interceptor)
    else:
        yield Imported().write(interceptor)


def _kind(rows: list[Any]) -> str:
    return TARGETS if any(isinstance(row.condition, ByTarget) for row in rows) else METHODS


def _pattern(row: When) -> str:
    """The condition of a row, as a file has it."""
    if not isinstance(row.condition, Patterns):
        raise Unwritable("its condition is a function")
    return one_pattern(row.condition.given)
