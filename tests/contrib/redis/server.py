"""A real Redis server for tests, on a free port of the loopback interface."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis

PATIENCE = 20  # seconds


class RedisServer:
    """Runs as long as it is entered; `stop` and `start` restart it, empty, on the same port. options: of redis-server."""

    def __init__(self, *options: str) -> None:
        self._options = options
        self._folder = tempfile.TemporaryDirectory()
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0
        self.client: Any = None  # a client for the test itself

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._folder.cleanup()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.port = self.port or free_port()
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir"]
        log = Path(self._folder.name) / "log"
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                [*command, self._folder.name, *self._options], stdout=out, stderr=subprocess.STDOUT
            )
        retry = redis.retry.Retry(redis.backoff.ConstantBackoff(0.01), PATIENCE * 100)
        errors = [redis.ConnectionError, redis.exceptions.BusyLoadingError]
        self.client = redis.Redis(port=self.port, retry=retry, retry_on_error=errors)
        assert self.client.ping(), log.read_text()

    def stop(self) -> None:
        """Kill it."""
        assert self._process is not None
        self.client.close()
        self._process.kill()
        self._process.wait(PATIENCE)

    def times(self, command: str) -> int:
        """How often the server has run a command since `client.config_resetstat()`."""
        stats: dict[str, Any] = self.client.info("commandstats")
        return int(stats.get(f"cmdstat_{command}", {}).get("calls", 0))


def free_port() -> int:
    """A port that is free at the moment, and below those that connections take."""
    import socket

    while True:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            port: int = found.getsockname()[1]
        if port < 55_000:  # a cluster adds 10,000 for its bus
            return port
