"""docs/design/defaults.md has each number that is a default, and says where it comes from."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from tests.pages.messages import ROOT
from tests.pages.public import MODULES
from tests.pages.test_contract import constructors_and_functions

ROW = re.compile(r"^\| `(?P<default>[\w.]+\(.+\))` \| (?P<unit>[^|]+) \| (?P<source>[^|]+) \|$", re.MULTILINE)
SAME = re.compile(r"as for `([\w.]+)`")

FEWEST = 3  # words of a source; less names nothing that could be looked up


class Row(NamedTuple):
    """A default as one would write it: `Retry(attempts=4)`."""

    default: str
    unit: str
    source: str


def rows() -> list[Row]:
    page = (ROOT / "docs" / "design" / "defaults.md").read_text("utf-8")
    return [Row(*row.groups()) for row in ROW.finditer(page)]


def defaults() -> Iterator[str]:
    """Those that are numbers other than 0 and 1, which mean "none", "all" or "one": the page begins with those that do not."""
    for one in constructors_and_functions():
        for parameter in one.parameters:
            if isinstance(parameter.default, (int, float)) and parameter.default not in (0, 1):
                yield f"{without_module(one.name)}({parameter.name}={parameter.default!r})"


def without_module(name: str) -> str:
    """The name as a user writes it: `Echo.serve`, which is in `interpose.testing`."""
    module = max((module for module in MODULES if name.startswith(f"{module}.")), key=len)
    return name.removeprefix(f"{module}.")


def test_each_default_is_there_once() -> None:
    """With the value that the signature has; and none that is no longer one."""
    assert sorted(row.default for row in rows()) == sorted(defaults())


def test_each_default_has_a_source() -> None:
    """In words that can be looked up: of this row, or of the one that it names."""
    missing = [row.default for row in rows() if len(row.source.split()) < FEWEST]

    assert missing == []
    assert all(row.unit.strip() for row in rows())


def test_a_source_that_is_that_of_another_row_exists() -> None:
    """What is behind "as for" is the name of another row, or of its option."""
    names = {name for row in rows() for name in re.findall(r"[\w.]+", row.default)}

    assert {name for row in rows() for name in SAME.findall(row.source)} - names == set()


def test_files_that_measure_are_there() -> None:
    """A measurement is repeated by what the page names."""
    sources = "\n".join(row.source for row in rows())
    files = re.findall(r"`((?:tests|bench)/[\w/]+\.py)`", sources)
    files += [f"bench/{module}.py" for module in re.findall(r"`python -m bench\.(\w+)`", sources)]

    assert files
    assert [name for name in files if not (ROOT / name).is_file()] == []
