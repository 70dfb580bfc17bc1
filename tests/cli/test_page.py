"""docs/cli.md: each command line on the page is one that the commands take."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from interpose.__main__ import COMMANDS, PLAIN
from interpose.cli.running import command_of

PAGE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text("utf-8")
LINES = [line.removeprefix("$ ") for line in PAGE.splitlines() if line.startswith("$ ") and "interpose " in line]


@pytest.mark.parametrize("line", LINES)
def test_a_line_of_the_page_can_be_typed(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All its words and flags are known, and their values can be read."""
    monkeypatch.chdir(tmp_path)
    for name in re.findall(r"[\w.]+\.(?:pem|key|proto)\b", line):
        (tmp_path / name).touch()
    words = shlex.split(line[line.index("interpose ") :])

    context = command_of(words[1]).make_context(" ".join(words[:2]), words[2:])

    assert context.params


def test_the_page_has_all_commands() -> None:
    """In its table, and each in a line that can be typed."""
    assert all(f"| `interpose {word} " in PAGE for word in COMMANDS)
    assert {line[line.index("interpose ") :].split()[1] for line in LINES} == COMMANDS.keys() - PLAIN.keys()
