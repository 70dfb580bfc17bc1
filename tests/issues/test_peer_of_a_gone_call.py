"""Clients that leave while plain handlers of an asyncio server begin: the process lives."""

import subprocess
import sys

import pytest

PROGRAM = """
from tests.torture.torn import measure

seen = measure("plain", "iterated", seed=1, count=400)
assert len(seen.ended) == len(seen.begun) > 400 / 5  # on a busy machine many are torn before they reach a handler
"""


@pytest.mark.slow
def test_clients_may_leave_early() -> None:
    """Four hundred uploads to plain handlers are torn within 20 ms: each is told its end, in a process that lives."""
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=50, check=False)

    assert ended.returncode == 0, ended.stderr[-2000:]
