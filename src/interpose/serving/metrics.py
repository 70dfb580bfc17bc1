"""Metrics over all workers: prometheus_client's multi-process mode, set up and cleaned up."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from interpose.serving.options import CannotServe

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"  # prometheus_client's; it has to be set before that is imported


class SharedMetrics:
    """A folder in which every worker counts; one that the environment names already is used, and stays."""

    def __init__(self) -> None:
        given = os.environ.get(VARIABLE)
        self._own = given is None
        self.folder = _made() if given is None else given

    @property
    def environment(self) -> dict[str, str]:
        """What the workers' environment has beside ours."""
        return {VARIABLE: self.folder}

    def dead(self, pid: int) -> None:
        """A worker has ended: what it was doing at the moment no longer counts, what it has done still does."""
        if not any(Path(self.folder).glob(f"gauge_live*_{pid}.db")):
            return  # it counts nothing
        from prometheus_client.multiprocess import mark_process_dead

        mark: Any = mark_process_dead  # it has no types
        mark(pid, self.folder)

    def close(self) -> None:
        """All workers have ended."""
        if self._own:
            shutil.rmtree(self.folder, ignore_errors=True)


def _made() -> str:
    """A new folder. CannotServe if there can be none."""
    try:
        return tempfile.mkdtemp(prefix="interpose-metrics-")
    except OSError:
        raise CannotServe(
            f"there is no folder for the metrics of the workers: set {VARIABLE}, or TMPDIR, to one that can be written to"
        ) from None
