"""Environment variables from a file, one a line: NAME=value."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from interpose.serving.options import CannotServe

_LINE = re.compile(r"(?:export\s+)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)\s*=\s*(?P<value>.*)")
_QUOTED = re.compile(r"""(?P<quote>['"])(?P<text>.*?)(?P=quote)\s*(?:#.*)?""")


def load(path: str) -> None:
    """Set the variables of a file; those that the environment has already stay as they are.

    Lines may be empty, begin with `#` or with `export`. A value may be in quotes; without them it ends before ` #`.
    Nothing is expanded. CannotServe lists every line that is none of this, without its value.
    """
    try:
        pairs = dict(_pairs(path, Path(path).read_text("utf-8").splitlines()))
    except (OSError, UnicodeDecodeError) as error:
        raise CannotServe(f"cannot read the file of environment variables {path}: {error}") from None
    for name, value in pairs.items():
        os.environ.setdefault(name, value)


def _pairs(path: str, lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    wrong: list[int] = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        found = _LINE.fullmatch(text)
        value = None if found is None else _value(found["value"])
        if found is None or value is None:
            wrong.append(number)
        else:
            yield found["name"], value
    if wrong:
        raise CannotServe(f"{path}: write NAME=value, or NAME='value', in line {', '.join(map(str, wrong))}")


def _value(text: str) -> str | None:
    """The value that is meant; None for one whose quotes do not fit."""
    if text[:1] not in ("'", '"'):
        return re.split(r"\s+#", text, maxsplit=1)[0].rstrip()
    found = _QUOTED.fullmatch(text)
    return None if found is None else found["text"]
