"""Docstrings as a contract: what it raises, in which unit, with which default, and on which thread a function of yours runs.

The tests read signatures and sources. They hold that it is said; whether it is true, the tests of each part hold.
"""

from __future__ import annotations

import ast
import enum
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import Any, TypeGuard

import pytest

from interpose import errors
from interpose.mechanisms.options import insist
from tests.pages.messages import SOURCE, Function, Module
from tests.pages.public import names

UNIT = re.compile(r"\b(seconds?|s|ms|bytes?|KiB|share|ratio|rates?|per cent|numbers?|part)\b")
WHERE = re.compile(r"\b(threads?|loop|tasks?)\b")
RAISES = re.compile(r"\brais(es?|ed|ing)\b")

COLLECT = {"insist", "check_options"}  # what raises ValueError with all faults of the options

# Values that Interpose makes and a user reads: they have no options.
READ_ONLY = ("State", "Details", "Fault", "Played", "Sent", "Attempt", "Reply")
# Made by Interpose too, and given to flows.
OF_FLOWS = {"interpose.Call", "interpose.Method", "interpose.Outcome"}


@dataclass(frozen=True, slots=True)
class Public:
    """A function, or a class by its constructor. code: the functions that run when it is called."""

    name: str
    doc: str
    parameters: tuple[inspect.Parameter, ...]
    code: tuple[FunctionType, ...]


@cache
def callables() -> tuple[Public, ...]:
    return tuple(found for name, value in names() if (found := _public(name, value)) is not None)


def _public(name: str, value: Any) -> Public | None:
    function = getattr(value, "__func__", value)  # of a class method or a static one
    if inspect.isclass(value):
        if issubclass(value, enum.Enum | BaseException | tuple) or getattr(value, "_is_protocol", False):
            return None
        code = [vars(value)[part] for part in ("__init__", "__post_init__") if part in vars(value)]
    elif inspect.isroutine(function):
        code = [function]
    else:
        return None
    try:
        parameters = tuple(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # a TypedDict, or what C has made
        return None
    return Public(name, inspect.getdoc(value) or "", parameters, tuple(filter(_is_written, map(inspect.unwrap, code))))


def _is_written(code: object) -> TypeGuard[FunctionType]:
    """Is it a function of a file, and not one that `dataclass` has made?"""
    return inspect.isfunction(code) and Path(code.__code__.co_filename).is_relative_to(SOURCE)


def constructors_and_functions() -> Iterator[Public]:
    """Those that a user gives options to."""
    for one in callables():
        if one.name not in OF_FLOWS and not one.name.endswith(READ_ONLY):
            yield one


def raised_by(function: Any) -> set[str]:
    """The classes of exceptions that it raises itself."""
    path, line = Path(function.__code__.co_filename), function.__code__.co_firstlineno
    written = Module.of(path, SOURCE if path.is_relative_to(SOURCE) else path.parent).functions[function.__name__]
    return {name for node in written if _first_line(node) == line for name in _raised(node)}


def _first_line(node: Function) -> int:
    """Where it begins, with its decorators."""
    return min(part.lineno for part in (node, *node.decorator_list))


def _raised(node: ast.AST) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue  # runs later, or never
        if isinstance(child, ast.Raise) and isinstance(child.exc, ast.Call):
            name = ast.unparse(child.exc.func).rpartition(".")[2]
            if name[:1].isupper():
                yield name
        if isinstance(child, ast.Call) and ast.unparse(child.func) in COLLECT:
            yield "ValueError"
        yield from _raised(child)


def annotation_of(parameter: inspect.Parameter) -> str:
    """The annotation, as it is written."""
    return str(parameter.annotation)


def is_function(parameter: inspect.Parameter) -> bool:
    """May a user give a function of their own?"""
    return "Callable" in annotation_of(parameter) or parameter.name.startswith("on_")


def shown(number: float) -> re.Pattern[str]:
    """A number as a docstring may have it: 262144 as "256 KiB" or "262,144"."""
    forms = [f"{number:g}", f"{number:,}", str(number)]
    if number >= 1024 and number % 1024 == 0:
        forms.append(f"{number // 1024} KiB")
    return re.compile(r"(?<![\d.])(" + "|".join(map(re.escape, forms)) + r")(?![\d]|\.\d)")


@pytest.mark.slow
def test_what_it_raises_is_said() -> None:
    """Each exception that a constructor or a function raises itself is named."""
    missing = [
        f"{one.name}: {name}"
        for one in callables()
        for name in sorted(set().union(*map(raised_by, one.code)))
        if name not in one.doc and one.name not in BETWEEN_PARTS
    ]

    assert missing == []


def test_numbers_have_units() -> None:
    """An option that is a fraction says of what, one of bytes says so."""
    missing = [
        f"{one.name}: {parameter.name}"
        for one in constructors_and_functions()
        for parameter in one.parameters
        if parameter.name != "now"  # everywhere seconds of a clock: docs/own-parts.md
        if ("float" in annotation_of(parameter) and not is_function(parameter) and not UNIT.search(one.doc))
        or ("bytes" in parameter.name and not re.search(r"\b(bytes?|KiB)\b", one.doc))
    ]

    assert [name for name in missing if name.rpartition(":")[0] not in BETWEEN_PARTS] == []


def test_defaults_are_said() -> None:
    """A default that is a number other than 0 and 1 is there, where the docstring says what is so by default."""
    missing = [
        f"{one.name}: {parameter.name} {parameter.default}"
        for one in constructors_and_functions()
        if not one.name.startswith("interpose.testing.")  # a test sees them in the signature, and depends on none
        for parameter in one.parameters
        if isinstance(parameter.default, (int, float)) and parameter.default not in (0, 1)
        if not ("efault" in one.doc and shown(parameter.default).search(one.doc))
    ]

    assert missing == []


def test_functions_of_yours_have_a_thread() -> None:
    """It is said on which thread or in which loop a function runs that is given, and what follows if it raises."""
    missing = [
        f"{one.name}: {parameter.name}"
        for one in constructors_and_functions()
        for parameter in one.parameters
        if is_function(parameter) and not (WHERE.search(one.doc) and RAISES.search(one.doc))
    ]

    assert missing == []


def test_the_reading_of_a_source() -> None:
    """What a function raises itself counts; not what another one in it will, nor what it raises again."""

    def sample(value: int) -> object:
        insist("sample", (value > 0, "value must be above 0"))
        if value > 10:
            raise errors.OutOfRange("too much")

        def later() -> None:
            raise KeyError(value)

        return later

    assert raised_by(sample) == {"ValueError", "OutOfRange"}


@pytest.mark.parametrize(
    ("number", "text", "there"),
    [
        (262_144, "256 KiB is kept", True),
        (100_000, "By default 100,000", True),
        (0.05, "0.05 s", True),
        (5.0, "5 s", True),
        (5.0, "0.5 s, 15 s, 5.5 s", False),
        (20, "200", False),
    ],
)
def test_numbers_as_they_are_written(number: float, text: str, there: bool) -> None:
    """In one of the usual forms, and as a whole."""
    assert bool(shown(number).search(text)) is there


# What parts of Interpose ask of each other: see tests/pages/test_public.py.
BETWEEN_PARTS = {
    "interpose.contrib.redis.RedisStore.answer_to",
    "interpose.contrib.redis.RedisStore.without",
    *(f"interpose.interceptors.{algorithm}.within" for algorithm in ("Aimd", "Gradient", "Vegas")),
}
