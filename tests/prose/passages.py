"""Where the prose of a file is: its paragraphs, items, cells, docstrings, comments and messages, each with its line."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

FENCE = re.compile(r"^ *```")
HEADING = re.compile(r"^#+ ")
ITEM = re.compile(r"^ *(?:[-*]|\d+\.) ")
FIELD = re.compile(r"^`?\w+`?: ")  # an option in a docstring, with what it means
DIRECTIVE = re.compile(r"#\s*(?:noqa|type:|pragma|pyright:|mypy:|!)")

CODE = re.compile(r"`+[^`]+`+")
UNSEEN = re.compile(r"(?<=\])\([^)\s]*\)|<[^>]*>")  # the address of a link; a tag


class Kind(Enum):
    """What a passage is. Only in the first do sentences have a length that is measured."""

    PARAGRAPH = "paragraph"
    OTHER = "item, cell or heading"
    COMMENT = "comment"
    MESSAGE = "message"


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of prose, with its lines as they are in the file. line: of its first line, from 1."""

    line: int
    text: str
    kind: Kind


def of_page(page: str) -> Iterator[Passage]:
    """The prose of a Markdown page, without its code."""
    for number, block in _blocks(page):
        yield from _parts(number, block)


def of_source(source: str) -> Iterator[Passage]:
    """The docstrings, comments and messages of a Python file."""
    tree = ast.parse(source)
    docstrings = [found for node in ast.walk(tree) if (found := _docstring(node))]
    for constant in docstrings:
        yield from _of_docstring(constant)
    yield from _comments(source)
    yield from _messages(tree, {id(constant) for constant in docstrings})


def prose_of(text: str) -> str:
    """The same text, as long and with the same lines: code is one word, an address or a tag is none."""
    text = CODE.sub(lambda found: re.sub(r"[^\n]", "x", found[0]), text)
    return UNSEEN.sub(lambda found: re.sub(r"[^\n]", "\0", found[0]), text)


def _blocks(page: str) -> Iterator[tuple[int, list[str]]]:
    """The lines between blank ones, with the number of the first, code left out."""
    block: list[str] = []
    fenced = False
    for number, line in enumerate([*page.splitlines(), ""], 1):
        edge = FENCE.match(line)
        if edge or fenced or not line.strip():
            if block:
                yield number - len(block), block
            block = []
            fenced = fenced != bool(edge)
        else:
            block.append(line)


def _parts(number: int, block: list[str]) -> Iterator[Passage]:
    """A paragraph as a whole; items, cells and headings line by line, with the lines that go on."""
    if block[0].startswith("    "):
        return  # code by its indent
    start = 0
    for index in range(1, len(block) + 1):
        other = _is_other(block[start]) or block[start].startswith(" ")
        if index == len(block) or _is_other(block[index]) or (other and not block[index].startswith(" ")):
            yield Passage(number + start, "\n".join(block[start:index]), Kind.OTHER if other else Kind.PARAGRAPH)
            start = index


def _is_other(line: str) -> bool:
    return bool(ITEM.match(line) or HEADING.match(line)) or line.lstrip().startswith("|")


def _docstring(node: ast.AST) -> ast.Constant | None:
    if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or not node.body:
        return None
    first = node.body[0]
    found = first.value if isinstance(first, ast.Expr) else None
    return found if isinstance(found, ast.Constant) and isinstance(found.value, str) else None


def _of_docstring(constant: ast.Constant) -> Iterator[Passage]:
    """Its paragraphs; the fields of a list of options, and what is indented, are none."""
    text = str(constant.value)
    first, *rest = text.splitlines() or [""]
    indent = min((len(line) - len(line.lstrip()) for line in rest if line.strip()), default=0)
    lines = [first, *(line[indent:] for line in rest)]
    for number, block in _blocks("\n".join(lines)):
        start = 0
        for index in range(1, len(block) + 1):
            other = bool(FIELD.match(block[start]) or ITEM.match(block[start])) or block[start].startswith(" ")
            if index == len(block) or FIELD.match(block[index]) or (not other and block[index].startswith(" ")):
                kind = Kind.OTHER if other else Kind.PARAGRAPH
                yield Passage(constant.lineno + number - 1 + start, "\n".join(block[start:index]), kind)
                start = index


def _comments(source: str) -> Iterator[Passage]:
    """Each comment; the lines of one that has several are one passage."""
    lines: list[str] = []
    last, joins = 0, False
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT or DIRECTIVE.match(token.string):
            continue
        number, alone = token.start[0], not token.line[: token.start[1]].strip()
        if lines and not (joins and alone and number == last + 1):
            yield Passage(last - len(lines) + 1, "\n".join(lines), Kind.COMMENT)
            lines = []
        lines.append(token.string.lstrip("# "))
        last, joins = number, alone
    if lines:
        yield Passage(last - len(lines) + 1, "\n".join(lines), Kind.COMMENT)


def _messages(tree: ast.AST, docstrings: set[int]) -> Iterator[Passage]:
    """Each text of at least three words that is no docstring: errors, log lines, and what is printed."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            text = node.value
            if len(text.split()) >= 3:
                yield Passage(node.lineno, text, Kind.MESSAGE)
