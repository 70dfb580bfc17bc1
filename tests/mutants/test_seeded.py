"""The seeded faults still fit the source; `scripts/mutants` says which of them the suite catches."""

from collections import Counter
from pathlib import Path

import pytest

from tests.mutants.seeded import AREAS, Mutant, mutants

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("mutant", mutants(), ids=lambda mutant: f"{mutant.area}: {mutant.name}")
def test_a_fault_fits_the_source(mutant: Mutant) -> None:
    """Its line is there once, what it becomes is Python too, and the tests that are run first exist."""
    source = (ROOT / "src" / mutant.file).read_text("utf-8")

    patched = mutant.patched(source)

    compile(patched, mutant.file, "exec")
    assert patched != source
    assert all((ROOT / "tests" / path).exists() for path in mutant.tests)


def test_each_area_has_its_share() -> None:
    """At least sixty faults in all, spread over the areas, each with a name of its own."""
    found = mutants()

    assert all(count >= AREAS[area] for area, count in Counter(mutant.area for mutant in found).items())
    assert len({(mutant.area, mutant.name) for mutant in found}) == len(found) >= sum(AREAS.values())


def test_a_line_that_is_gone_is_said() -> None:
    """A fault whose line was changed must be written anew, rather than be left out in silence."""
    mutant = Mutant("core", "gone", "x.py", "one = 1", "one = 2", ())

    with pytest.raises(ValueError, match="has the line 0 times: one = 1"):
        mutant.patched("two = 2\n")
