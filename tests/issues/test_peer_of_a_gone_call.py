"""Clients that leave while plain handlers of an asyncio server begin do not crash the process."""

import subprocess
import sys

import pytest

PROGRAM = """
from tests.torture.torn import measure

seen = measure("plain", "iterated", seed=1, count=1_000)
assert len(seen.ended) == len(seen.begun) > 500
"""


@pytest.mark.slow
def test_clients_that_leave_early_do_not_crash_the_process() -> None:
    """A thousand uploads to plain handlers are torn within 20 ms, and the process lives (in one of its own: it crashed)."""
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=50, check=False)

    assert ended.returncode == 0, ended.stderr[-2000:]
