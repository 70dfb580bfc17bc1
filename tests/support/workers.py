"""Coverage in the workers of xdist: `coverage run` measures the process that it starts, and no child of it."""

from __future__ import annotations

import os

import coverage
import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Measure this worker, if its parent is measured; what is imported before this, the parent has imported, too."""
    if "COVERAGE_RUN" not in os.environ or not hasattr(config, "workerinput"):
        return
    measured = coverage.Coverage(data_suffix=True)
    measured.start()
    config.add_cleanup(measured.save)
    config.add_cleanup(measured.stop)  # the last one added is called first
