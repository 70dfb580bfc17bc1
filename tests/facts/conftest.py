"""The loop and the servers that the tests of a file share."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.facts.hosting import HOSTS, LOOP


@pytest.fixture(scope="module")
def hosts() -> Iterator[None]:
    """A loop, and a running server of each sort: see `tests/facts/hosting.py`."""
    with ExitStack() as running:
        running.enter_context(LOOP.running())
        for host in HOSTS.values():
            running.enter_context(host.running())
        yield
