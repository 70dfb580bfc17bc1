"""What each test of a server is given: a path for its socket, and a log that is put back."""

import logging
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from interpose.serving import run


@pytest.fixture
def path() -> Iterator[Path]:
    """Where to listen: a unix socket, whose path must be short."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "s"


@pytest.fixture(autouse=True)
def log_put_back() -> Iterator[None]:
    """The level of our log is as it was before."""
    log = logging.getLogger("interpose")
    level = log.level
    yield
    log.setLevel(level)


@pytest.fixture(autouse=True)
def hears_its_terminal() -> Iterator[None]:
    """SIGHUP is as in a terminal, though the suite may run under nohup, where servers leave it ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(autouse=True)
def process_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that leaves handlers behind ends its process, which here is that of the tests."""

    def leave() -> None:
        raise AssertionError("handlers were left behind")

    monkeypatch.setattr(run, "leave", leave)
