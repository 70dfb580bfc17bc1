"""What is public: the names of the modules that have a page in the reference, and the attributes of their classes."""

from __future__ import annotations

import dataclasses
import enum
import importlib
import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from website.make import REFERENCE

# Those of the drop-in have the names of the package that it replaces.
MODULES = tuple(name for name in REFERENCE if not name.startswith("interpose.compat"))


def names() -> Iterator[tuple[str, Any]]:
    """Each public name, like "interpose.Call" and "interpose.Call.peer", with its value; once, where it is met first."""
    met: set[int] = set()
    for module in map(importlib.import_module, MODULES):
        for name, value in exported(module):
            if inspect.ismodule(value) or id(value) in met:
                continue
            met.add(id(value))
            yield f"{module.__name__}.{name}", value
            if inspect.isclass(value):
                yield from ((f"{module.__name__}.{name}.{member}", part) for member, part in members(value))


def exported(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """What a module is imported for: its `__all__`, or what it defines itself."""
    listed = getattr(module, "__all__", None)
    for name, value in vars(module).items():
        if name in listed if listed is not None else is_own(module, name, value):
            yield name, value


def is_own(module: ModuleType, name: str, value: Any) -> bool:
    return not name.startswith("_") and getattr(value, "__module__", "") == module.__name__


def members(kind: type) -> Iterator[tuple[str, Any]]:
    """The methods, properties and fields of a class of ours, inherited ones of private classes included."""
    found: dict[str, Any] = {}
    for owner in reversed(kind.__mro__):
        if owner.__module__.partition(".")[0] == "interpose":
            found.update(_own_members(owner))
    yield from found.items()


def _own_members(owner: type) -> Iterator[tuple[str, Any]]:
    for name, value in vars(owner).items():
        if not name.startswith("_") and (inspect.isroutine(value) or isinstance(value, enum.Enum) or _is_data(value)):
            yield name, value
    if dataclasses.is_dataclass(owner):
        yield from ((field.name, field) for field in dataclasses.fields(owner) if not field.name.startswith("_"))


def _is_data(value: object) -> bool:
    """A property, or a slot."""
    return inspect.isdatadescriptor(value) and not isinstance(value, type)
