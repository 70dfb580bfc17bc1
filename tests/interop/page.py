"""The tables of docs/peers.md. Each is compared with what a run shows, or written from it.

A cell that says something else than the run fails the test. With PEERS_PAGE=write the run fills the cells, and nothing fails:
`scripts/interop --page` sets it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "peers.md"
WRITING = os.environ.get("PEERS_PAGE") == "write"
AT_RANDOM = "at random: "
OR = " or "

Table = dict[str, dict[str, str]]  # row, column, cell


def table(first: str) -> Table:
    """The table whose first column has this heading. A column is named by what stands before its version."""
    head, *rows = _lines(PAGE.read_text("utf-8"), first)
    columns = [name(column) for column in head[1:]]
    return {row[0]: dict(zip(columns, row[1:], strict=True)) for row in rows[1:]}


def versions(first: str) -> dict[str, str]:
    """The version in the heading of each column that has one."""
    head = _lines(PAGE.read_text("utf-8"), first)[0]
    return {name(column): column.rpartition(" ")[2] for column in head[1:] if column != name(column)}


def name(column: str) -> str:
    """A heading without its version."""
    return re.sub(r" [\d.]+$", "", column)


def of_version(first: str, column: str, version: Callable[[], str]) -> None:
    """Leave out a make of another version than the page's: `make interop` says so, and a new release fails no old commit."""
    if not WRITING and (of_page := versions(first)[column]) != (here := version()):
        pytest.skip(f"docs/peers.md is of {column} {of_page}, and here is {here}")


def compare_version(first: str, column: str, version: str) -> None:
    """Hold the version in a column's heading to the one that is installed."""
    if WRITING:
        text = PAGE.read_text("utf-8")
        begin, end = _span(text, first)
        written = text[begin:end].replace(f"| {column} {versions(first)[column]} |", f"| {column} {version} |")
        PAGE.write_text(text[:begin] + written + text[end:], "utf-8")
    found = versions(first)[column]
    assert found == version, (
        f"docs/peers.md is of {column} {found}, and here is {version}; `scripts/interop --page` writes it"
    )


def cell_of(seen: Mapping[str, str]) -> str:
    """One cell for what the kinds of RPC have shown: what most of them did, and behind it those that did not."""
    shown = list(seen.values())
    usual = max(shown, key=shown.count)
    others = {one: [kind for kind in seen if seen[kind] == one] for one in shown if one != usual}
    return "; ".join([usual, *(f"{', '.join(kinds)}: {one}" for one, kinds in others.items())])


def compare(first: str, column: str, cells: Mapping[str, str | Sequence[str]]) -> None:
    """Hold the cells of a column to the page. Several texts for a cell: each of them may be seen, at random."""
    if WRITING:
        _write(first, column, cells)
    found = {row: columns[column] for row, columns in table(first).items()}
    wrong = {row: (found.get(row), cell) for row, cell in cells.items() if not _says(found.get(row, ""), cell)}
    assert not wrong, (
        f"docs/peers.md, {column}: what it says, and what was seen: {wrong}; `scripts/interop --page` writes it"
    )


def _says(cell: str, seen: str | Sequence[str]) -> bool:
    if isinstance(seen, str):
        return cell == _escaped(seen)
    return {_escaped(one) for one in seen} <= set(cell.removeprefix(AT_RANDOM).split(OR))


def _write(first: str, column: str, cells: Mapping[str, str | Sequence[str]]) -> None:
    text = PAGE.read_text("utf-8")
    lines = _lines(text, first)
    place = [name(heading) for heading in lines[0]].index(column)
    for line in lines[2:]:
        if line[0] in cells:
            line[place] = _written(line[place], cells[line[0]])
    begin, end = _span(text, first)
    written = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    PAGE.write_text(text[:begin] + written + text[end:], "utf-8")


def _written(before: str, seen: str | Sequence[str]) -> str:
    if isinstance(seen, str):
        return _escaped(seen)
    known = before.removeprefix(AT_RANDOM).split(OR) if before.startswith(AT_RANDOM) else []
    found = sorted({*known, *map(_escaped, seen)})
    return AT_RANDOM + OR.join(found) if len(found) > 1 else found[0]


def _lines(text: str, first: str) -> list[list[str]]:
    begin, end = _span(text, first)
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in text[begin:end].splitlines()]


def _span(text: str, first: str) -> tuple[int, int]:
    found = re.search(rf"^\| {re.escape(first)} \|.*\n(?:\|.*\n)*", text, re.MULTILINE)
    assert found is not None, f"docs/peers.md has no table that begins with {first!r}"
    return found.span()


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
