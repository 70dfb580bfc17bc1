"""Instructions of stacks: that what valgrind counts really happens."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bench import stack_instructions, stacks
from bench.places import MODES, Mode
from bench.processes import ROOT

PROGRAM = """
import sys
from bench import stack_instructions
for name in stack_instructions.names(sys.argv[1]):
    stack_instructions.perform(sys.argv[1], name, loops=2)
    print(name)
"""


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_each_stack_makes_its_rpcs(mode: Mode) -> None:
    """Ours, the market's, and the spans alone; in a process of its own, for loggers and exporters stay until it ends."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, mode], cwd=ROOT, check=True, capture_output=True, text=True)  # noqa: S603

    assert {stacks.RAW, stacks.METRICS, stacks.SAMPLED, *stack_instructions.SPANS} <= set(done.stdout.splitlines())


def test_a_table() -> None:
    """What each adds to raw of its own mode."""
    counts = {stacks.RAW: 600_000.0, stacks.METRICS: 660_000.0}

    assert list(stack_instructions.table({"sync": counts, "aio": {stacks.RAW: 800_000.0}}))[2:] == [
        "| raw | 600 k | 800 k |",
        "| metrics | +60 k, ×1.10 | – |",
    ]
