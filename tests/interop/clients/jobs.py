"""Clients of other makes, each a program that does jobs: a line of JSON asks for a call, another says how it has ended.

A job has `id`, `method` (Unary, Down, Up or Both, of peer.proto) and `text`; and, where that is wanted, `open` (its request
stream is not closed), `timeout` (a deadline) and `cancel_after`, both in seconds. An ending has `id`, `code`, `details`,
`messages` (the first 40 letters of each) and, if there is one, `rich`: what google.rpc.Status says, in base64.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.needs import GO_SOURCES, JARS

HERE = Path(__file__).parent
STARTING_LIMIT = 60.0  # seconds after which a program counts as hung; they start slowly on a busy machine

Command = Callable[[Path], list[str]]  # what runs the program; a folder for what is compiled


def _script(program: str, name: str) -> Command:
    return lambda _: [program, str(HERE / name)]


def _go(folder: Path) -> list[str]:
    binary = folder / "client-go"
    modules = {**os.environ, "GO111MODULE": "off", "GOPATH": str(GO_SOURCES.parent)}
    subprocess.run(["go", "build", "-o", binary, HERE / "client.go"], check=True, timeout=240, env=modules)
    return [str(binary)]


def _java(folder: Path) -> list[str]:
    jars = ":".join(map(str, JARS))
    subprocess.run(["javac", "-cp", jars, "-d", folder, HERE / "PeerClient.java"], check=True, timeout=120)
    return ["java", "-XX:TieredStopAtLevel=1", "-Xmx256m", "-cp", f"{folder}:{jars}", "PeerClient"]


@dataclass(frozen=True)
class Maker:
    """A make of client. need: what tests/support/needs.py knows it by."""

    name: str
    command: Command
    need: str | None = None


MAKES = [
    Maker("grpcio", _script(sys.executable, "grpcio_client.py")),
    Maker("grpclib", _script(sys.executable, "grpclib_client.py")),
    Maker("connectrpc", _script(sys.executable, "connectrpc_client.py"), "connectrpc"),
    Maker("grpc-js", _script("node", "grpc_js.js"), "node"),
    Maker("nice-grpc", _script("node", "nice_grpc.js"), "node"),
    Maker("grpc-go", _go, "go"),
    Maker("grpc-java", _java, "java"),
    Maker("ruby", _script("ruby", "client.rb"), "ruby"),
]


class Foreign:
    """A client that is running."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._count = 0

    def begin(self, method: str, text: str = "hello", **options: Any) -> str:
        """Ask for a call, and do not wait for it; gives its id."""
        self._count += 1
        job = {"id": str(self._count), "method": method, "text": text, **options}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return str(job["id"])

    def ended(self) -> dict[str, Any]:
        """How the next call that ends has ended."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the program has ended; what it said stands in the output of this test"
        ending: dict[str, Any] = json.loads(line)
        return ending

    def call(self, method: str, text: str = "hello", **options: Any) -> dict[str, Any]:
        """A call from its begin to its end, while no other runs."""
        asked = self.begin(method, text, **options)
        ending = self.ended()
        assert ending.pop("id") == asked, ending
        return ending


@contextmanager
def running(command: list[str], target: str) -> Iterator[Foreign]:
    """Run a client of this target until the end of the block, at which all of its calls must have ended."""
    with subprocess.Popen([*command, target], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Foreign(process)
            assert process.stdin is not None
            process.stdin.close()
            process.wait(STARTING_LIMIT)
        finally:
            process.kill()
