"""The benchmark of stacks: that what it times really happens."""

from __future__ import annotations

import pytest

from bench import stacks
from bench.places import MODES, Mode
from bench.wire import Sample


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_a_round(mode: Mode) -> None:
    """One sample of each stack, of raw several; and a ratio of each but raw."""
    [measured] = stacks.in_fresh_processes(mode, 1, 1)

    assert {stacks.RAW, stacks.AGAIN, stacks.METRICS} <= set(measured)
    assert len(measured[stacks.RAW]) == stacks.RAW_TURNS
    assert set(stacks.ratios([measured])) == set(measured) - {stacks.RAW}


def test_a_table() -> None:
    """Ratios are formed within a round, and held against their limits."""
    raw = [Sample(1.0, 1.0, 2.0), Sample(2.0, 2.0, 4.0), Sample(9.0, 9.0, 18.0)]
    measured = {stacks.RAW: raw, stacks.METRICS: [Sample(2.1, 2.1, 4.2)], "other": [Sample(3.0, 3.0, 6.0)]}
    figures = stacks.ratios([measured])

    lines = list(stacks.table({"sync": figures, "aio": {}}))

    assert lines[2] == "| metrics | ×1.050 ±0.000, at most ×1.06: PASS | – |"
    assert lines[3] == "| other | ×1.500 ±0.000 | – |"
