"""The edges of a process, in their short form: its exit, its forks, its garbage collector, its flags."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import interpose
from tests.torture import process

TIMES = 2

pytestmark = pytest.mark.slow  # processes that are started and end


@pytest.mark.parametrize("which", process.EXITS)
def test_a_process_with_open_streams_exits(which: str) -> None:
    """It ends within seconds, and no traceback has us in it."""
    assert process.exits(which, TIMES) == []


def test_a_fork_leaves_open_streams_alone() -> None:
    """Children make calls of all kinds on channels of their own; the parent's channel and its open stream go on."""
    assert process.forks() is None


def test_finalizers_run_inside_every_lock() -> None:
    """Dropped calls are collected wherever a lock of ours is taken, while calls of all kinds run: no deadlock."""
    assert process.collects() is None


@pytest.mark.parametrize("flag", process.FLAGS)
def test_the_interpreter_has_flags(flag: str) -> None:
    """Every place works, and nothing is said on stderr: without asserts, in development mode, with warnings as errors."""
    assert process.flagged(flag) is None


SOURCES = sorted(Path(interpose.__file__).parent.rglob("*.py"))


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def called(function: ast.AST) -> set[str]:
    """The names of what a function calls."""
    calls = [node.func for node in ast.walk(function) if isinstance(node, ast.Call)]
    return {call.attr if isinstance(call, ast.Attribute) else getattr(call, "id", "") for call in calls}


def locks(function: ast.AST) -> set[str]:
    """What it takes by `with` or `acquire`, or waits for."""
    held = [
        ast.unparse(item.context_expr)
        for node in ast.walk(function)
        if isinstance(node, ast.With)
        for item in node.items
    ]
    return {*held, *(called(function) & {"acquire", "wait", "join", "result"})}


def finalizing(tree: ast.AST) -> dict[str, set[str]]:
    """What a module's finalizers take, they and the functions of the module that they call, by name."""
    known: dict[str, ast.Module] = {}
    for function in functions(tree):
        known.setdefault(function.name, ast.Module([], [])).body.append(function)
    reached: dict[str, set[str]] = {}
    new = {"__del__"} & set(known)
    while new:
        reached |= {name: locks(known[name]) for name in new}
        # `cancel` is that of grpc's call: ours is left to another thread.
        new = {name for reaching in new for name in called(known[reaching])} & set(known) - set(reached) - {"cancel"}
    return reached


def test_finalizers_take_no_lock() -> None:
    """No `__del__` of ours, nor what it calls in its own module, takes a lock or waits."""
    found = {source.name: finalizing(ast.parse(source.read_text())) for source in SOURCES}
    finalizers = {name: reached for name, reached in found.items() if reached}

    assert finalizers
    assert {name: taken for name, reached in finalizers.items() for taken in reached.values() if taken} == {}


def test_locks_are_made_where_the_collector_test_finds_them() -> None:
    """Every module takes `Lock` and `Condition` as attributes of `threading`, which that test puts its own into.

    An `RLock` may be imported: a finalizer that runs on the thread that holds it takes it once more.
    """
    importing = [
        source.name
        for source in SOURCES
        for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module == "threading"
        if any(alias.name != "RLock" for alias in node.names)
    ]

    assert importing == []
