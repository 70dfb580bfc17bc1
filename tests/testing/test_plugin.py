"""The pytest plugin, in a pytest of its own: the fixtures, their ids and places, beside both plugins for async tests.

What depends on the plugins that are loaded runs in a process of its own, the rest in this one.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import interpose_pytest
from interpose.testing import no_thread_leaks

pytest_plugins = ["pytester"]

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


@pytest.mark.slow
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
@pytest.mark.slow
def test_places_can_be_chosen(tmp_path: Path, marker: str, places: list[str]) -> None:
    """By a glob on the ids, by several, or by a function of the place."""
    chosen = ids(tmp_path, marker)

    assert chosen[: len(places)] == places
    assert 0 < len(chosen) < 16


@pytest.mark.slow
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
    ("marker", "options"),
    [
        ("pytest.mark.asyncio", ["-p", "pytest_asyncio.plugin", "-o", "asyncio_default_fixture_loop_scope=function"]),
        ("pytest.mark.anyio", ["-p", "anyio.pytest_plugin"]),
    ],
    ids=["pytest-asyncio", "anyio"],
)
@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


# --- in this process --------------------------------------------------------------------------------------------------


class Seen:
    """A plugin that keeps the ids of the tests that passed, what pytest complained of, and its exit status."""

    def __init__(self) -> None:
        self.passed: list[str] = []
        self.complaints: list[str] = []
        self.status: int | None = None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            self.passed.append(report.nodeid.partition("[")[2].rstrip("]"))

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        self.status = int(exitstatus)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.complaints.append(report.longreprtext)


@pytest.fixture
def alone(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A folder for tests that run in this process, with the plugins that are given to it and pytest's own."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    return pytester


def watch(alone: pytest.Pytester, test: str) -> Seen:
    """Run a test file here, with warnings as errors."""
    seen = Seen()
    alone.makepyfile(test)
    alone.inline_run(
        "-q", "--strict-markers", "-W", "error", "-p", "no:cacheprovider", plugins=[interpose_pytest, seen]
    )
    return seen


def test_a_test_runs_here_in_the_places_that_it_names(alone: pytest.Pytester) -> None:
    """Its markers narrow each other, be they globs or a function; what it opened is closed behind it."""
    test = f"""{PASSES}
pytestmark = pytest.mark.rpc(places=["aio-*", "sync-client-*"])

@pytest.mark.rpc(places=lambda place: place.kind.response_streaming)
@pytest.mark.rpc("*-client-*")
def test_it(rpc):
    first = rpc(passes, script=[failed(grpc.StatusCode.UNAVAILABLE), ok()])
    second = rpc(script=[ok("other")])
    assert not first.call("hello").ok and first.call("hello").ok
    assert second.call("hello").messages == ["other"]
    assert rpc.place.kind.response_streaming
"""

    with no_thread_leaks():
        seen = watch(alone, test)

    assert seen.complaints == []
    assert seen.passed == [
        f"{stack}-client-{kind}" for stack in ("sync", "aio") for kind in ("unary_stream", "stream_stream")
    ]


def test_without_a_marker_it_runs_in_all_places_here(alone: pytest.Pytester) -> None:
    """Sixteen; a test by the side of it that asks for nothing runs once."""
    seen = watch(alone, "def test_it(rpc): ...\ndef test_other(fake_clock): assert fake_clock.now() == 1000\n")

    assert len(seen.passed) == len(set(seen.passed)) == 16 + 1
    assert seen.passed[-1] == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("marker", "complaint"),
    [
        ('places="async-*"', "test_it: none of sync-client-unary_unary, "),
        ("", "test_it: the marker `rpc` takes `places`"),
        ("places=7", "test_it: the marker `rpc` takes `places`"),
        ('where="aio-*"', "test_it: the marker `rpc` takes `places`"),
    ],
)
def test_places_that_are_wrong(alone: pytest.Pytester, marker: str, complaint: str) -> None:
    """The test is not run, and the message says which and why."""
    seen = watch(alone, f"import pytest\n\n@pytest.mark.rpc({marker})\ndef test_it(rpc): ...\n")

    assert (seen.passed, seen.status) == ([], pytest.ExitCode.INTERRUPTED)
    assert [complaint in told for told in seen.complaints] == [True]


def test_a_fixture_of_that_name_is_the_test_s_own(alone: pytest.Pytester) -> None:
    """A project that has an `rpc` already keeps it, and its tests run as often as before."""
    test = """
import pytest

@pytest.fixture
def rpc():
    return "my own"

def test_it(rpc):
    assert rpc == "my own"
"""

    assert watch(alone, test).passed == [""]
