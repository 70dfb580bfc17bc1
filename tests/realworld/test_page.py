"""docs/realworld.md has a row for each scenario, and says what it insists on."""

import re

from tests.realworld.__main__ import PAGE, scenarios


def test_the_page_has_what_is_run() -> None:
    """Row by row, in that order; the versions are those of the run that wrote it."""
    rows = [re.split(r" ?\| ?", line)[1:-1] for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| ")][
        1:
    ]

    assert [(name, stack, holds) for name, _, stack, holds in rows] == [
        (one.name, one.stack, one.holds) for one in scenarios()
    ]
    for (_, versions, _, _), one in zip(rows, scenarios(), strict=True):
        assert re.sub(r" [\d.]+(b\d+)?", "", versions) == ", ".join(one.packages)
