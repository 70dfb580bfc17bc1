"""One Redis server for all tests of this folder, emptied before each."""

from collections.abc import Iterator

import pytest

from tests.contrib.redis.server import RedisServer


@pytest.fixture(scope="session")
def running() -> Iterator[RedisServer]:
    """The server, which runs as long as the tests do."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def server(running: RedisServer) -> RedisServer:
    """The server, with nothing in it: no keys, no scripts, no numbers."""
    running.client.flushall()
    running.client.script_flush()
    running.client.config_resetstat()
    return running
