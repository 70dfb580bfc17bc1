"""Metrics over all workers: the folder that prometheus_client counts in."""

import sys
import tempfile
from pathlib import Path
from types import ModuleType

import pytest

from interpose.serving import CannotServe
from interpose.serving.metrics import VARIABLE, SharedMetrics


@pytest.fixture
def marked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    """What prometheus_client was told of processes that have ended."""
    told: list[tuple[int, str]] = []
    package, module = ModuleType("prometheus_client"), ModuleType("prometheus_client.multiprocess")
    module.mark_process_dead = lambda pid, path: told.append((pid, path))  # type: ignore[attr-defined]
    package.multiprocess = module  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "prometheus_client", package)
    monkeypatch.setitem(sys.modules, "prometheus_client.multiprocess", module)
    monkeypatch.delenv(VARIABLE, raising=False)
    return told


def test_a_folder_of_its_own(marked: list[tuple[int, str]]) -> None:
    """It is there for the workers, and gone afterwards."""
    metrics = SharedMetrics()
    there = Path(metrics.environment[VARIABLE]).is_dir()
    metrics.close()

    assert there
    assert not Path(metrics.folder).exists()


def test_a_folder_that_was_given_stays(
    marked: list[tuple[int, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment names it, and whoever has set that reads it."""
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    metrics = SharedMetrics()
    metrics.close()

    assert metrics.folder == str(tmp_path)
    assert tmp_path.is_dir()


def test_a_worker_that_has_ended_counts_no_more_in_flight(marked: list[tuple[int, str]]) -> None:
    """prometheus_client is told of one that has counted; it need not be installed for others."""
    metrics = SharedMetrics()
    (Path(metrics.folder) / "gauge_livesum_7.db").touch()

    metrics.dead(7)
    metrics.dead(8)
    metrics.close()

    assert marked == [(7, metrics.folder)]


def test_a_machine_that_lets_nobody_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container whose file system is read only: said before any worker starts, with what to set."""
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", "/no/folder")

    with pytest.raises(CannotServe, match=f"set {VARIABLE}, or TMPDIR"):
        SharedMetrics()
