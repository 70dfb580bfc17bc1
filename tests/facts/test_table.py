"""The table of facts and the tests know each other: docs/design/grpc-facts.md."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "design" / "grpc-facts.md"
ID = re.compile(r"[CSAPRE]-\d+")
HELD_BY = re.compile(r"`(?P<file>[a-z_/]+\.py)(?:::(?P<name>test_\w+))?`")


def rows() -> dict[str, list[str]]:
    """The cells of each row of the page, by its id; a second row of an id fails."""
    found: dict[str, list[str]] = {}
    for line in PAGE.read_text("utf-8").splitlines():
        name, *cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| ") and ID.fullmatch(name):
            assert name not in found, f"{name} has two rows"
            found[name] = cells
    return found


def marked() -> dict[str, list[str]]:
    """The ids that each test of this folder names in its marker, by `facts/file.py::test`."""
    return {
        f"facts/{file.name}::{node.name}": [
            ast.literal_eval(argument)
            for mark in node.decorator_list
            if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.fact"
            for argument in mark.args
        ]
        for file in sorted(Path(__file__).parent.glob("test_*.py"))
        if file != Path(__file__)
        for node in found_in(file)
    }


def found_in(file: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [
        node
        for node in ast.parse(file.read_text("utf-8")).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    ]


ROWS = rows()
MARKED = marked()
HELD = {name: cells for name, cells in ROWS.items() if len(cells) == 4}


def test_the_table_is_whole() -> None:
    """Each id that was ever given has its row, with every cell filled."""
    last = {"C": 23, "S": 26, "A": 16, "P": 5, "R": 62, "E": 6}

    assert sorted(ROWS) == sorted(f"{section}-{number}" for section in last for number in range(1, last[section] + 1))
    assert {name: cells for name, cells in ROWS.items() if not all(cells)} == {}


def test_every_test_names_rows() -> None:
    """A test here is marked with the facts that it holds, and they are rows that apply."""
    assert MARKED
    assert {test: ids for test, ids in MARKED.items() if not ids or not set(ids) <= set(HELD)} == {}


@pytest.mark.parametrize("name", HELD)
def test_every_row_is_held(name: str) -> None:
    """A row names tests of this folder that name it, and others that exist."""
    named = [(match["file"], match["name"]) for match in HELD_BY.finditer(HELD[name][3])]
    own = [f"{file}::{test}" for file, test in named if file.startswith("facts/")]
    others = [(TESTS / file, test) for file, test in named if not file.startswith("facts/")]

    assert own and [test for test in own if name not in MARKED.get(test, [])] == []
    assert [file for file, _ in others if not file.exists()] == []
    assert [test for file, test in others if test and test not in {node.name for node in found_in(file)}] == []


def test_what_does_not_apply_says_why() -> None:
    """The other rows have no test, and a sentence in its place."""
    assert {name: cells[2] for name, cells in ROWS.items() if name not in HELD and not cells[2].endswith(".")} == {}
