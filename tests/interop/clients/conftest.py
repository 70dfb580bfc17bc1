"""What the tests with clients of other makes share."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.interop.clients.jobs import Maker


@pytest.fixture(scope="session")
def command(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Maker], list[str]]:
    """What runs a client, compiled once where it has to be."""
    made: dict[str, list[str]] = {}

    def of(make: Maker) -> list[str]:
        if make.name not in made:
            made[make.name] = make.command(tmp_path_factory.mktemp(make.name.replace(" ", "-")))
        return made[make.name]

    return of
