"""Of a test with many sets of parameters, as few as show each value of each parameter once."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

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


def _traits(item: pytest.Item) -> set[Trait]:
    # The ids, one for each `parametrize`: its values may be of any type. pytest has no public name for them.
    ids = item.callspec._idlist if hasattr(item, "callspec") else ()
    return {
        (parameter, (position, value))
        for parameter, name in enumerate(ids)
        for position, value in enumerate(PLACE.get(name, (name,)))
    }


def _cover(traits: dict[pytest.Item, set[Trait]]) -> list[pytest.Item]:
    """The one that shows most of what has not been seen, again and again, until all has."""
    if len(traits) == 1:
        return list(traits)
    chosen: list[pytest.Item] = []
    unseen = set().union(*traits.values())
    while unseen:
        best = max(traits, key=lambda item: len(traits[item] & unseen))
        chosen.append(best)
        unseen -= traits[best]
    return chosen
