"""A till that is served, and the command line: each test runs commands as a shell would, in this process."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from interpose.__main__ import main
from tests.cli.till import Till, serving
from tests.facts.hosting import LOOP
from tests.protos.compiled import protoc

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def protos(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModuleType, ModuleType]:
    """The code made of till.proto: messages, and stubs."""
    home = tmp_path_factory.mktemp("till")
    known = resources.files("grpc_tools") / "_proto"  # google/protobuf/*.proto
    protoc(f"-I{HERE}", f"-I{known}", f"--python_out={home}", f"--grpc_python_out={home}", "till.proto")
    sys.path.insert(0, str(home))
    try:
        return importlib.import_module("till_pb2"), importlib.import_module("till_pb2_grpc")
    finally:
        sys.path.remove(str(home))


@pytest.fixture(scope="module")
def loop() -> Iterator[None]:
    """The event loop of the asyncio servers: the one that other files of tests have in their turn."""
    with LOOP.running():
        yield


@dataclass
class Served:
    """A till, and where it is served."""

    till: Till
    target: str


@pytest.fixture(params=["sync", "async"])
def served(request: pytest.FixtureRequest, protos: tuple[ModuleType, ModuleType], loop: None) -> Iterator[Served]:
    """A till behind a sync server and one behind an asyncio server."""
    messages, stubs = protos
    till = Till(messages)
    with serving(request.param, till, stubs) as target:
        yield Served(till, target)


@pytest.fixture
def shop(protos: tuple[ModuleType, ModuleType]) -> Iterator[Served]:
    """A till behind a sync server, for what does not depend on the server."""
    messages, stubs = protos
    till = Till(messages)
    with serving("sync", till, stubs) as target:
        yield Served(till, target)


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    out: str
    err: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Ended]:
    """Run `interpose` with these arguments. stdin: the text of its standard input. terminal: does it write to one?"""

    def run(*arguments: Any, stdin: str = "", terminal: bool = False) -> Ended:
        source = tmp_path / "stdin"
        source.write_text(stdin, "utf-8")
        with source.open(encoding="utf-8") as opened:
            monkeypatch.setattr(sys, "stdin", opened)
            monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
            status = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return Ended(status, out, err)

    return run
