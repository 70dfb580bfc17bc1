"""README and docs are run: the python blocks of a page in order, in one process and one namespace.

A block that begins with ```proto shop.proto is compiled first, and python blocks import `shop_pb2` and `shop_pb2_grpc`. One
that begins with ```json shop.json is a file in the folder where they run.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.protos.compiled import compile_ruled
from tests.support.forked import Forks

ROOT = Path(__file__).parents[1]
PAGES = [page for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))] if page.exists()]

FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>```+)(?P<language>[\w-]*)")
FILE = re.compile(r"^```(?:json|toml) (?P<name>\w+\.(?:json|toml))\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
PROTO = re.compile(r"^```proto (?P<name>\w+\.proto)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
NOT_RUN = re.compile(r"^\s*<!-- not run: \S.*-->\s*$")  # stands directly above the block, and gives a reason


def program(page: str) -> str:
    """The python blocks of a page where they stand, all else blank: so a traceback points into the page."""
    lines = ("" if language != "python" else line for line, language in classified(page))
    return "\n".join(lines)


def prose(page: str) -> list[str]:
    return [line for line, language in classified(page) if language is None]


def classified(page: str) -> Iterator[tuple[str, str | None]]:
    """Each line with the language of the block that it is in: None for prose, "" where it must not run."""
    fence, language, above = None, "", ""
    for line in page.splitlines():
        mark = FENCE.match(line)
        if fence is None and mark:
            fence, language = mark, "" if NOT_RUN.match(above) else mark["language"]
            yield line, ""
        elif fence and line.strip() == fence["ticks"]:
            fence = None
            yield line, ""
        elif fence:
            yield line.removeprefix(fence["indent"]), language
        else:
            yield line, None
        above = line


def write_files(page: str, folder: Path) -> None:
    """Put what the page calls a file, and what protoc makes of the named protos of a page where its python finds it."""
    for found in FILE.finditer(page):
        (folder / found["name"]).write_text(found["text"], "utf-8")
    protos = {found["name"]: found["text"] for found in PROTO.finditer(page)}
    for name, text in protos.items():
        (folder / name).write_text(text, "utf-8")
    if protos:
        compile_ruled(folder, *protos)


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    """What runs the programs of the pages."""
    opened = Forks()
    yield opened
    opened.close()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
@pytest.mark.slow
def test_what_a_page_shows_works(page: Path, tmp_path: Path, forks: Forks) -> None:
    """Every python block of the page runs to its end, without a warning."""
    text = page.read_text("utf-8")
    code = program(text)
    if not code.strip():
        pytest.skip("shows no python")
    write_files(text, tmp_path)

    status, errors = forks.run(code, page, tmp_path)

    assert status == 0, errors


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_has_a_title(page: Path) -> None:
    """A page says at its head what it is about."""
    assert any(line.startswith("# ") for line in prose(page.read_text("utf-8")))


def test_blocks_keep_their_lines() -> None:
    """Python is kept where it stands, dedented; prose, consoles and blocks with a reason are left out."""
    page = """\
# Title
```python
x = 1
```
```console
$ interpose
```
<!-- not run: needs a server -->
```python
y = 2
```
- a list
  ```python
  if x:
      z = 3
  ```
"""

    assert [line for line in enumerate(program(page).splitlines(), 1) if line[1]] == [
        (3, "x = 1"),
        (14, "if x:"),
        (15, "    z = 3"),
    ]


def test_only_a_reason_directly_above_stops_a_block() -> None:
    """A comment without a reason, or with a line in between, opts nothing out."""
    block = "```python\nx = 1\n```\n"

    assert "x = 1" in program(f"<!-- not run: -->\n{block}")
    assert "x = 1" in program(f"<!-- not run: slow -->\nSee:\n{block}")
    assert "x = 1" not in program(f"<!-- not run: slow -->\n{block}")


def test_a_comment_in_a_block_is_no_title() -> None:
    """A line that begins with # inside a block is not an H1."""
    assert prose("```python\n# not a title\n```\nText") == ["Text"]
