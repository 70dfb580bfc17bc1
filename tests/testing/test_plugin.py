"""The pytest plugin, in a pytest of its own: the fixtures, their ids and places, beside both plugins for async tests."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

IMPORTS = """
import grpc, pytest
from interpose.testing import failed, ok
"""
PASSES = f"""{IMPORTS}
def passes(call):
    yield call
"""


def run(folder: Path, test: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a test file in a process where only the named plugins are loaded."""
    (folder / "test_it.py").write_text(test, "utf-8")
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "interpose_pytest", *options, "test_it.py"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=50, check=False)


def ids(folder: Path, marker: str) -> list[str]:
    """The places in which a test with this marker would run."""
    done = run(folder, f"{IMPORTS}\n@pytest.mark.rpc({marker})\ndef test_it(rpc): ...\n", "--collect-only")
    return [line.partition("[")[2].rstrip("]") for line in done.stdout.splitlines() if "::" in line]


def test_a_test_runs_in_all_places(tmp_path: Path) -> None:
    """Sixteen, each with an id that says where it is; what the test opened is closed."""
    done = run(
        tmp_path,
        f"""{PASSES}
from interpose.testing import no_thread_leaks

@pytest.fixture(autouse=True)
def tidy():
    with no_thread_leaks():
        yield

def test_it(tidy, rpc):
    opened = rpc(passes, script=[failed(grpc.StatusCode.UNAVAILABLE), ok()])
    assert not opened.call("hello").ok
    assert opened.call("hello").ok
    assert len(opened.attempts) == 2
    assert str(rpc.place).startswith(("aio-", "sync-"))
""",
        "-vv",
    )

    assert "16 passed" in done.stdout, done.stdout
    assert "test_it[aio-server-stream_unary] PASSED" in done.stdout


@pytest.mark.parametrize(
    ("marker", "places"),
    [
        ('places="sync-client-*"', [f"sync-client-{kind}" for kind in ("unary_unary", "unary_stream")]),
        (
            'places=["*-client-unary_unary", "aio-server-stream_*"]',
            ["sync-client-unary_unary", "aio-client-unary_unary"],
        ),
        (
            "places=lambda place: place.kind.response_streaming",
            ["sync-client-unary_stream", "sync-client-stream_stream"],
        ),
        ('"aio-*"', ["aio-client-unary_unary"]),
    ],
    ids=["glob", "globs", "function", "by position"],
)
def test_places_can_be_chosen(tmp_path: Path, marker: str, places: list[str]) -> None:
    """By a glob on the ids, by several, or by a function of the place."""
    chosen = ids(tmp_path, marker)

    assert chosen[: len(places)] == places
    assert 0 < len(chosen) < 16


def test_markers_narrow_each_other(tmp_path: Path) -> None:
    """One on the module, say, and one on the test."""
    test = f"""{IMPORTS}
pytestmark = pytest.mark.rpc(places="aio-*")

@pytest.mark.rpc(places="*-unary_stream")
def test_it(rpc): ...
"""

    done = run(tmp_path, test, "--collect-only")

    assert "2 tests collected" in done.stdout


@pytest.mark.parametrize(
    ("marker", "complaint"),
    [
        ('places="async-*"', "none of sync-client-unary_unary, "),
        ("", "takes `places`"),
        ("places=7", "takes `places`"),
        ('where="aio-*"', "takes `places`"),
    ],
)
def test_places_that_are_wrong(tmp_path: Path, marker: str, complaint: str) -> None:
    """The test is not run, and the message says which and why."""
    done = run(tmp_path, f"{IMPORTS}\n@pytest.mark.rpc({marker})\ndef test_it(rpc): ...\n")

    assert done.returncode != 0
    assert "test_it.py::test_it: " in done.stdout + done.stderr
    assert complaint in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("marker", "options"),
    [
        ("pytest.mark.asyncio", ["-p", "pytest_asyncio.plugin", "-o", "asyncio_default_fixture_loop_scope=function"]),
        ("pytest.mark.anyio", ["-p", "anyio.pytest_plugin"]),
    ],
    ids=["pytest-asyncio", "anyio"],
)
def test_beside_plugins_for_async_tests(tmp_path: Path, marker: str, options: list[str]) -> None:
    """An async test takes the fixtures like any other, whichever plugin runs it."""
    test = f"""{PASSES}
import asyncio

@pytest.fixture
def anyio_backend():
    return "asyncio"

@{marker}
@pytest.mark.rpc(places="*-client-unary_unary")
async def test_it(rpc, fake_clock):
    opened = rpc(passes, clock=fake_clock)
    reply = await asyncio.to_thread(opened.call, "hello")
    assert reply.messages == ["hello"]
"""

    done = run(tmp_path, test, *options)

    assert "2 passed" in done.stdout, done.stdout + done.stderr


def test_a_clock_of_its_own(tmp_path: Path) -> None:
    """`fake_clock` stands still until the test moves it, and begins anew for each test."""
    test = """
import pytest

@pytest.mark.parametrize("time", [1, 2])
def test_it(fake_clock, time):
    assert fake_clock.now() == 1000
    fake_clock.advance(30)
    assert fake_clock.now() == 1030
"""

    done = run(tmp_path, test)

    assert "2 passed" in done.stdout, done.stdout + done.stderr


def test_it_costs_nothing_where_it_is_not_used(tmp_path: Path) -> None:
    """It is loaded in every project; neither grpc nor Interpose is imported for tests that do not ask."""
    test = """
import sys

def test_it():
    assert "interpose_pytest" in sys.modules
    assert not {"grpc", "interpose"} & set(sys.modules)
"""

    done = run(tmp_path, test)

    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_it_is_found_by_pytest(tmp_path: Path) -> None:
    """By its entry point, and its marker is explained."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--markers"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )

    assert '@pytest.mark.rpc(places="aio-server-*")' in done.stdout
