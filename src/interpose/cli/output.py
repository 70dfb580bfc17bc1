"""Where output goes: colours and indented JSON for people at a terminal, plain text and one line of JSON for pipes."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.highlighter import JSONHighlighter
from rich.table import Table
from rich.text import Text

from interpose.cli.messages import shown

_IN_COLOURS = JSONHighlighter()  # not rich's JSON, which reads and writes the text anew, and takes escapes out of it


def is_terminal() -> bool:
    """Does a person read it?"""
    return sys.stdout.isatty()


def write(text: str = "") -> None:
    """A line, at once."""
    click.echo(text)


def write_json(value: Any, *, lines: bool = False) -> None:
    """A value as JSON: set for people on a terminal, one line for pipes, or if that is asked for."""
    if lines or not is_terminal():
        write(shown(value))
    else:
        Console().print(_IN_COLOURS(shown(value, indent=2)), soft_wrap=True)


def write_table(columns: Sequence[str], rows: Iterable[Sequence[str]], numbers: Iterable[str] = ()) -> None:
    """A table on a terminal; in a pipe a line for each row, with tabs between its cells and the columns' names first.

    numbers: the columns that are flush right.
    """
    if is_terminal():
        Console().print(table(columns, rows, numbers))
        return
    for row in (columns, *rows):
        write("\t".join(row))


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], numbers: Iterable[str] = ()) -> Table:
    """A table for rich. What is in it is text, never markup."""
    right = set(numbers)
    made = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        made.add_column(name, justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*map(Text, row))
    return made
