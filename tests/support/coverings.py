"""Of a test with many sets of parameters, as few as show each value of each parameter."""

from __future__ import annotations

from collections import defaultdict
from typing import Any
from zlib import crc32

import pytest

from interpose.testing import PLACES

Trait = tuple[int, Any]  # which parameter, and its value

PLACE = {str(place): (place.asyncio, place.side, place.kind) for place in PLACES}


def covering(items: list[pytest.Item]) -> list[pytest.Item]:
    """Those, in their order. The sixteen places count as stack, side and kind: four of them show all of these."""
    tests: dict[tuple[Any, str], list[pytest.Item]] = defaultdict(list)
    for item in items:
        tests[item.parent, getattr(item, "originalname", item.name)].append(item)
    kept = {item for sets in tests.values() for item in _cover({item: _traits(item) for item in sets})}
    return [item for item in items if item in kept]


def _traits(item: pytest.Item) -> list[Trait]:
    # The ids, one for each `parametrize`: its values may be of any type. pytest has no public name for them.
    ids = item.callspec._idlist if hasattr(item, "callspec") else ()
    return [
        (parameter, (position, value))
        for parameter, name in enumerate(ids)
        for position, value in enumerate(PLACE.get(name, (name,)))
    ]


def _cover(traits: dict[pytest.Item, list[Trait]]) -> list[pytest.Item]:
    """The one that shows most of what has not been seen, again and again, until all has."""
    if all(len(found) <= 1 for found in traits.values()):
        return list(traits)
    shown = {item: set(found) for item, found in traits.items()}
    # In an order of its own for each test, so that not all tests show the same combinations.
    drawn = sorted(shown, key=lambda item: crc32(item.nodeid.encode()))
    chosen: list[pytest.Item] = []
    unseen = set[Trait]().union(*shown.values())
    while unseen:
        best = max(drawn, key=lambda item: len(shown[item] & unseen))
        chosen.append(best)
        unseen -= shown[best]
    return chosen
