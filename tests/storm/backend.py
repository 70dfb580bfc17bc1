"""A server's process, as the storm handles it: started, spoilt, stopped, killed, started again; and what it has written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.patience import PATIENCE


class Arrival(NamedTuple):
    """A call has reached a server. attempt: 0 for the first; at: seconds of the machine's monotonic clock."""

    number: int
    attempt: int
    at: float


class Backend:
    """One server; entered, it serves at `target`, a unix socket. Each start is a new process; the file goes on.

    sort: "async" or "plain", its handlers and with them grpc's stack. target: another place to serve at. work: seconds that
    a handler takes behind the execution of a call.
    """

    def __init__(
        self, folder: str, sort: str = "async", name: str = "server", target: str = "", work: float | None = None
    ) -> None:
        self._file = Path(folder) / f"{name}.log"
        self._sort = sort
        self._faults: dict[str, Any] = {}
        self._work = [] if work is None else [str(work)]
        self.target = target or f"unix:{Path(folder) / name}.sock"

    def __enter__(self) -> Backend:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, and wait until it serves."""
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-X",
                "faulthandler",
                "-m",
                "tests.storm.server",
                self.target,
                str(self._file),
                self._sort,
                *self._work,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "GRPC_VERBOSITY": "NONE", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        self._hear("ready")
        if self._faults:
            self.spoil(**self._faults)

    def spoil(self, **faults: float) -> None:
        """Let it inject these faults from now on (see `FaultInjection`), and no others; also after a restart."""
        self._faults = faults
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(faults) + "\n")
        self._process.stdin.flush()
        self._hear("ok")

    def kill(self) -> None:
        """End the process at once."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Stop it gracefully: it says GOAWAY and finishes what it has begun."""
        self._end(signal.SIGTERM)

    def begin_to_stop(self) -> None:
        """The same, without waiting for it."""
        self._process.send_signal(signal.SIGTERM)

    def _end(self, by: signal.Signals) -> None:
        self._process.send_signal(by)
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGABRT)  # faulthandler then tells where its threads stand
            self._process.wait(PATIENCE)
            raise
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def _hear(self, word: str) -> None:
        assert self._process.stdout is not None
        heard = self._process.stdout.readline().strip()
        if heard != word:
            raise RuntimeError(f"the server said {heard!r} instead of {word!r}")

    def footprint(self) -> tuple[int, int]:
        """How large the process is, in KiB, and how many threads it has; 0 where the system does not tell."""
        status = Path(f"/proc/{self._process.pid}/status")
        told = dict(line.split(":", 1) for line in status.read_text().splitlines()) if status.exists() else {}
        return int(told.get("VmRSS", "0").split()[0]), int(told.get("Threads", "0"))

    # - what it has written -

    def arrivals(self) -> list[Arrival]:
        """Each call that has reached it, attempt by attempt."""
        return [Arrival(int(line[1]), int(line[2]), float(line[3])) for line in self._lines("A")]

    def executions(self) -> Counter[int]:
        """How often each call was executed."""
        return Counter(int(line[1]) for line in self._lines("E"))

    def _lines(self, mark: str) -> list[list[str]]:
        return [line.split() for line in self._file.read_text().splitlines() if line.startswith(mark)]
