"""Clients of other makes, each a program that does jobs: a line of JSON asks for a call, another says how it has ended.

A job has `id`, `method` (Unary, Down, Up or Both, of peer.proto) and `text`; and, where that is wanted, `metadata`, `open` (its
request stream is not closed), `timeout` (a deadline) and `cancel_after`, both in seconds. An ending has `id`, `code`,
`details`, `messages` (the first 40 letters of each), `word` (a list: the trailing metadata of that key) and, if there is
one, `rich`: a google.rpc.Status in base64.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from tests.support.needs import GO_SOURCES, INTEROP, JARS

HERE = Path(__file__).parent
STARTING_LIMIT = 60.0  # seconds after which a program counts as hung; they start slowly on a busy machine

Command = Callable[[Path], list[str]]  # what runs the program; a folder for what is compiled


def _script(program: str, name: str) -> Command:
    return lambda _: [program, str(HERE / name)]


def go_built(source: Path, folder: Path) -> list[str]:
    """What runs a program in Go, compiled in this folder."""
    binary = folder / source.stem
    modules = {**os.environ, "GO111MODULE": "off", "GOPATH": str(GO_SOURCES.parent)}
    subprocess.run(["go", "build", "-o", binary, source], check=True, timeout=240, env=modules)
    return [str(binary)]


def _java(folder: Path) -> list[str]:
    jars = ":".join(map(str, JARS))
    subprocess.run(["javac", "-cp", jars, "-d", folder, HERE / "PeerClient.java"], check=True, timeout=120)
    return ["java", "-XX:TieredStopAtLevel=1", "-Xmx256m", "-cp", f"{folder}:{jars}", "PeerClient"]


@dataclass(frozen=True)
class Maker:
    """A make of client. need: what tests/support/needs.py knows it by. lacks: what its jobs and endings are without."""

    name: str
    command: Command
    version: Callable[[], str]
    need: str | None = None
    lacks: frozenset[str] = frozenset()


def _node(package: str) -> Callable[[], str]:
    return lambda: str(json.loads((INTEROP / "node_modules" / package / "package.json").read_text("utf-8"))["version"])


def _debian(package: str) -> Callable[[], str]:
    def version() -> str:
        found = subprocess.run(
            ["dpkg-query", "-W", "-f", "${Version}", package], check=True, capture_output=True, text=True
        )
        return re.split(r"[^\d.]", found.stdout)[0]

    return version


MAKES = [
    Maker("grpcio", _script(sys.executable, "grpcio_client.py"), partial(metadata.version, "grpcio")),
    Maker("grpclib", _script(sys.executable, "grpclib_client.py"), partial(metadata.version, "grpclib")),
    Maker(
        "connectrpc",
        _script(sys.executable, "connectrpc_client.py"),
        partial(metadata.version, "connectrpc"),
        "connectrpc",
    ),
    Maker("grpc-js", _script("node", "grpc_js.js"), _node("@grpc/grpc-js"), "node"),
    Maker("nice-grpc", _script("node", "nice_grpc.js"), _node("nice-grpc"), "node"),
    Maker("grpc-go", partial(go_built, HERE / "client.go"), _debian("golang-google-grpc-dev"), "go"),
    Maker("grpc-java", _java, _debian("libgrpc-java"), "java"),
    Maker("ruby", _script("ruby", "client.rb"), _debian("ruby-grpc"), "ruby"),
]
# A process for each call, so it has no connection that a server could drain.
BUF = Maker(
    "buf curl",
    _script(sys.executable, "buf_client.py"),
    partial(metadata.version, "buf-bin"),
    lacks=frozenset({"cancel_after", "word", "streams"}),
)


def pairs(makes: Iterable[Maker], rare: Collection[str] = ()) -> Iterator[Any]:
    """Each make with both stacks; but with one of them, in turns, where the suite runs it. rare: it runs none of these."""
    for number, make in enumerate(makes):
        for on_loop in (False, True):
            marks = [pytest.mark.needs(make.need)] if make.need else []
            if on_loop is bool(number % 2) or make.name in rare:
                marks.append(pytest.mark.rare)
            yield pytest.param(make, on_loop, marks=marks, id=f"{make.name}-{'asyncio' if on_loop else 'sync'}")


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
