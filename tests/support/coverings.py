"""Of a test with many sets of parameters, as few as show each value of each parameter, or each pair of values, once."""

from __future__ import annotations

from collections import defaultdict
from itertools import combinations
from typing import Any
from zlib import crc32

import pytest

from interpose.testing import PLACES

Trait = tuple[int, Any]  # which parameter, and its value

PLACE = {str(place): (place.asyncio, place.side, place.kind) for place in PLACES}


def covering(items: list[pytest.Item], together: int) -> list[pytest.Item]:
    """Those, in their order. `together`: of how many parameters at once each combination of values is shown.

    The sixteen places count as stack, side and kind: four of them show all of these, and eight each pair.
    """
    tests: dict[tuple[Any, str], list[pytest.Item]] = defaultdict(list)
    for item in items:
        tests[item.parent, getattr(item, "originalname", item.name)].append(item)
    kept = {item for sets in tests.values() for item in _cover({item: _traits(item) for item in sets}, together)}
    return [item for item in items if item in kept]


def _traits(item: pytest.Item) -> list[Trait]:
    # The ids, one for each `parametrize`: its values may be of any type. pytest has no public name for them.
    ids = item.callspec._idlist if hasattr(item, "callspec") else ()
    return [
        (parameter, (position, value))
        for parameter, name in enumerate(ids)
        for position, value in enumerate(PLACE.get(name, (name,)))
    ]


def _cover(traits: dict[pytest.Item, list[Trait]], together: int) -> list[pytest.Item]:
    """The one that shows most of what has not been seen, again and again, until all has."""
    if all(len(found) <= together for found in traits.values()):
        return list(traits)
    shown = {item: set(combinations(found, together)) for item, found in traits.items()}
    # In an order of its own for each test, so that not all tests leave out the same combinations.
    drawn = sorted(shown, key=lambda item: crc32(item.nodeid.encode()))
    chosen: list[pytest.Item] = []
    unseen = set[Any]().union(*shown.values())
    while unseen:
        best = max(drawn, key=lambda item: len(shown[item] & unseen))
        chosen.append(best)
        unseen -= shown[best]
    return chosen
