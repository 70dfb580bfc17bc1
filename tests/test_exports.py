"""The front door: what is public, and that it is explained."""

import inspect
import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

import interpose
from interpose import context, errors

PUBLIC = [
    "AsyncFlow",
    "Belongs",
    "Call",
    "Flow",
    "Idempotency",
    "Interceptor",
    "Kind",
    "Metadata",
    "Method",
    "Outcome",
    "Side",
    "StatusError",
    "chain",
    "context",
    "current_call",
    "deadline",
    "describe",
    "detached",
    "errors",
    "identity",
    "intercept_channel",
    "intercept_server",
    "native_interceptors",
    "request_id",
    "serve",
    "server_interceptor",
    "wait",
    "when",
]
ALIASES = {"AsyncFlow", "Flow", "Interceptor"}  # of types: the page of `_flow` explains them


def documented() -> Iterator[tuple[str, Any]]:
    """Every public name with its value: of the front door, of its classes, and of its modules."""
    for name in interpose.__all__:
        value = getattr(interpose, name)
        if name in ALIASES:
            continue
        yield name, value
        if inspect.isclass(value):
            yield from ((f"{name}.{member}", part) for member, part in members(value))
        if inspect.ismodule(value):
            yield from ((f"{name}.{member}", part) for member, part in own(value))


def members(kind: type) -> Iterator[tuple[str, Any]]:
    """The public methods and properties that a class of ours defines itself."""
    for name, value in vars(kind).items():
        if not name.startswith("_") and (inspect.isroutine(value) or isinstance(value, property)):
            yield name, value


def own(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """The public functions and classes that a module defines itself."""
    for name, value in vars(module).items():
        if not name.startswith("_") and getattr(value, "__module__", "") == module.__name__:
            yield name, value


def test_what_is_public() -> None:
    """A new public name is a decision: it is written down here as well."""
    assert interpose.__all__ == sorted(interpose.__all__)
    assert interpose.__all__ == PUBLIC


def test_all_of_it_is_there() -> None:
    """`from interpose import *` finds each name."""
    names: dict[str, Any] = {}
    exec("from interpose import *", names)

    assert set(interpose.__all__) <= names.keys()


DOCUMENTED = dict(documented())


@pytest.mark.parametrize("name", DOCUMENTED)
def test_every_public_name_is_explained(name: str) -> None:
    """It has a docstring, which is a sentence."""
    doc = inspect.getdoc(DOCUMENTED[name])

    assert doc, f"{name} has no docstring"
    assert doc.strip().split("\n\n")[0].rstrip().endswith((".", "?", ":", "…", ")")), f"{name}: {doc.splitlines()[0]}"


def test_the_modules_are_lifted() -> None:
    """`interpose.errors` and `interpose.context` come with the front door."""
    assert interpose.errors is errors
    assert interpose.context is context


def test_importing_is_all_that_importing_does() -> None:
    """No thread is started, no logger is configured, and no package beyond grpcio is imported."""
    program = """
import sys, threading, logging
import interpose
assert threading.active_count() == 1, threading.enumerate()
assert not logging.getLogger("interpose").handlers
assert not logging.getLogger().handlers
beyond = {"google", "pytest", "opentelemetry", "prometheus_client", "redis"} & sys.modules.keys()
assert not beyond, beyond
"""

    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stderr
