"""What Interpose says to its users: the texts that it raises, logs, and answers with, found in the source.

A message begins at a `raise`, at a line of the log above DEBUG, or at a call that makes a status or collects a fault. From
there names are followed: to what a variable was given, to a constant, to what a function of the same module returns.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeAlias

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "interpose"

# Rooms and files whose messages are not for a user of the library.
LEFT_OUT = {
    "demo": "the program behind `make demo`, which explains itself",
    "compat": "the words of the package that it replaces, where they are not about its own use",
    "_wording.py": "patterns of what grpc says",
}

LEVELS = {"info", "warning", "error", "exception", "critical", "log"}  # DEBUG is for those who read the source

# Calls whose arguments a user gets to see: those that make a status, and those that collect faults for one error.
SAYERS = {
    *("insist", "check_options", "Fault", "note", "add_note", "Outcome", "_refuse", "_fault", "_report"),
    *("_refused", "_denied", "_shed"),  # of guards and limits
}
COLLECTORS = {"faults.add", "faults.append", "reasons.append"}

# Functions that return or yield faults; their callers put them into an error.
ANSWERS = {"unfit", "check_served"}

SENTENCE = re.compile(r"(?:\b[A-Za-z'`]+\b.* ){2}.*\w")  # three words; less is a name, a unit or a part of another text
SLOT = re.compile(r"%[-.\d]*[sdrfgx]|%%")

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
Text: TypeAlias = ast.Constant | ast.JoinedStr

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
TEXTS = (ast.Constant, ast.JoinedStr)
LEAVES = (ast.Constant, ast.expr_context, ast.alias)
NAMES = (ast.Name, ast.Attribute)


@dataclass(frozen=True, slots=True)
class Message:
    """where: file and line. text: with … in the place of each value that is put in."""

    where: str
    text: str


def messages() -> list[Message]:
    """All of them, in the order of the source."""
    paths = [path for path in sorted(SOURCE.rglob("*.py")) if not _is_left_out(path, SOURCE)]
    return list(dict.fromkeys(message for path in paths for message in of(path, SOURCE)))


def texts() -> list[str]:
    """Every text of the same files, whatever it is for: a part of a message may be put together far from where it is said."""
    paths = [path for path in sorted(SOURCE.rglob("*.py")) if not _is_left_out(path, SOURCE)]
    return [message.text for path in paths for message in Module.of(path, SOURCE).every_text()]


def of(path: Path, root: Path) -> Iterator[Message]:
    """Those of a file."""
    module = Module.of(path, root)
    for seed, function in module.seeds:
        for text in module.texts(seed, function, frozenset()):
            if SENTENCE.search(text.text):
                yield text


class Module:
    """A file of the source, and where its names come from."""

    def __init__(self, path: Path, root: Path) -> None:
        self.name, self.root = path.relative_to(root).as_posix(), root
        self.tree = ast.parse(path.read_text("utf-8"))
        self.functions: dict[str, list[Function]] = {}
        self.constants: dict[str, ast.expr] = {}
        self.imports: dict[str, str] = {}
        # Where messages begin, each with the function that it is in.
        self.seeds: list[tuple[ast.AST, Function | None]] = []
        self.literals: list[Text] = []
        self._read(self.tree, None)
        for statement in self.tree.body:
            if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                self.constants[statement.targets[0].id] = statement.value

    @staticmethod
    @cache
    def of(path: Path, root: Path) -> Module:
        return Module(path, root)

    def _read(self, node: ast.AST, function: Function | None) -> None:
        """Note what is in a part of the tree."""
        for child in ast.iter_child_nodes(node):
            inside = function
            if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
                continue  # a docstring, which could keep a row of the page alive that no message has
            if isinstance(child, TEXTS):
                self.literals.append(child)
            elif isinstance(child, FUNCTIONS):
                inside = child
                self.functions.setdefault(child.name, []).append(child)
                self.seeds += [(part, child) for part in (_given(child) if child.name in ANSWERS else ())]
            elif isinstance(child, ast.Raise) and child.exc is not None:
                self.seeds.append((child.exc, function))
            elif isinstance(child, ast.Call) and _says(child):
                self.seeds.append((child, function))
            elif isinstance(child, ast.ImportFrom) and (child.module or "").startswith("interpose"):
                names = {alias.asname or alias.name: alias.name for alias in child.names}
                self.imports.update({name: f"{child.module}:{there}" for name, there in names.items()})
            if not isinstance(child, LEAVES):
                self._read(child, inside)

    def every_text(self) -> Iterator[Message]:
        for literal in self.literals:
            yield from self._text(literal)

    def texts(self, node: ast.AST, function: Function | None, seen: frozenset[str]) -> Iterator[Message]:
        """The texts that an expression may come to."""
        if isinstance(node, TEXTS):
            yield from self._text(node)
            return
        if isinstance(node, NAMES):
            yield from self._named(node, function, seen)
        for child in ast.iter_child_nodes(node):
            yield from self.texts(child, function, seen)

    def _text(self, node: Text) -> Iterator[Message]:
        if isinstance(node, ast.Constant):
            text = SLOT.sub("…", node.value) if isinstance(node.value, str) else ""
        else:
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
        if text:
            yield Message(f"{self.name}:{node.lineno}", " ".join(text.split()))

    def _named(
        self, node: ast.Name | ast.Attribute, function: Function | None, seen: frozenset[str]
    ) -> Iterator[Message]:
        name = node.id if isinstance(node, ast.Name) else node.attr
        if name in seen:
            return
        seen |= {name}
        if isinstance(node, ast.Name):
            for value in _assigned(function).get(name, ()) if function else ():
                yield from self.texts(value, function, seen)
            if name in self.constants:
                yield from self.texts(self.constants[name], None, seen)
            if name in self.imports:
                yield from self._imported(*self.imports[name].split(":"))
        for called in self.functions.get(name, ()):
            for part in _given(called):
                yield from self.texts(part, called, seen)

    def _imported(self, module: str, name: str) -> Iterator[Message]:
        path = self.root.parent / (module.replace(".", "/") + ".py")
        if not path.exists() or _is_left_out(path, self.root):
            return
        there = Module.of(path, self.root)
        if name in there.constants:
            yield from there.texts(there.constants[name], None, frozenset({name}))
        for called in there.functions.get(name, ()):
            for part in _given(called):
                yield from there.texts(part, called, frozenset({name}))


def _is_left_out(path: Path, root: Path) -> bool:
    return path.relative_to(root).parts[0] in LEFT_OUT


def _says(call: ast.Call) -> bool:
    """Does a user get to see what is given here?"""
    function = call.func
    name = (
        function.attr if isinstance(function, ast.Attribute) else function.id if isinstance(function, ast.Name) else ""
    )
    owner = ast.unparse(function.value) if isinstance(function, ast.Attribute) else ""
    if name in LEVELS and "log" in owner:
        return True
    return name in SAYERS or f"{owner}.{name}" in COLLECTORS or (owner == "errors" and name[:1].isupper())


@cache
def _given(function: Function) -> tuple[ast.expr, ...]:
    """What a function returns or yields."""
    returned = (node.value for node in ast.walk(function) if isinstance(node, ast.Return | ast.Yield))
    return tuple(value for value in returned if value is not None)


@cache
def _assigned(function: Function) -> dict[str, list[ast.expr]]:
    """What the variables of a function are given."""
    given: dict[str, list[ast.expr]] = {}
    for node in ast.walk(function):
        if isinstance(node, ast.Assign | ast.NamedExpr):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                for part in target.elts if isinstance(target, ast.Tuple) else [target]:
                    if isinstance(part, ast.Name):
                        given.setdefault(part.id, []).append(node.value)
    return given
