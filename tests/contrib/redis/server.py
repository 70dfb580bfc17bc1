"""A real Redis server for tests, on a free port of the loopback interface."""

from __future__ import annotations

import socket
import subprocess
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis

from tests.support.patience import PATIENCE


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
        self.client = client_of(self._process, self.port)

    def stop(self) -> None:
        """Kill it."""
        assert self._process is not None
        if self.client is not None:
            self.client.close()
        self._process.kill()
        self._process.wait(PATIENCE)

    def times(self, command: str) -> int:
        """How often the server has run a command since `client.config_resetstat()`."""
        stats: dict[str, Any] = self.client.info("commandstats")
        return int(stats.get(f"cmdstat_{command}", {}).get("calls", 0))


class LosingProxy:
    """Stands before Redis, passes all on, and once loses the answer to an EVALSHA, and the connection with it."""

    def __init__(self, port: int) -> None:
        self._redis = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.lost = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE)
        self._listener.close()

    def _serve(self) -> None:
        """One connection after the other, one question after the other."""
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            with client, socket.create_connection(("127.0.0.1", self._redis)) as server:
                while question := client.recv(65536):
                    server.sendall(question)
                    answer = server.recv(65536)
                    if b"EVALSHA" in question and not self.lost.is_set():
                        self.lost.set()
                        break
                    client.sendall(answer)


def client_of(process: subprocess.Popen[bytes], port: int) -> Any:
    """A client of a server that is starting, once it answers."""
    client = redis.Redis(port=port)
    while process.poll() is None:
        with suppress(redis.ConnectionError):
            client.ping()
            return client
    client.close()
    raise RuntimeError(f"{process.args!r} has ended, with {process.returncode}")


def free_port() -> int:
    """A port that is free at the moment, and below those that connections take."""
    while True:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            port: int = found.getsockname()[1]
        if port < 55_000:  # a cluster adds 10,000 for its bus
            return port
