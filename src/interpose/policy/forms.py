"""The forms that an option may have in a file: what fits, how it is read, how it is written, and how editors know it.

form = form_of(Retry's hint for codes, "codes")
form.fits(["UNAVAILABLE"])       by its shape alone, so that of several forms the right one finds the faults
form.read(at, reading)           {StatusCode.UNAVAILABLE}, or WRONG after noting what is wrong
form.write({StatusCode.UNAVAILABLE})     ["UNAVAILABLE"]
form.schema()                    what of JSON Schema says the same
"""

from __future__ import annotations

import builtins
import enum
import importlib
import logging
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any, TypeAlias, TypeGuard

from grpc import StatusCode

from interpose.mechanisms.json_fields import suggestion
from interpose.policy.document import At, FromEnv, Missing, alternatives, quoted

Schema: TypeAlias = dict[str, Any]

SECONDS = {"s": 1, "m": 60, "h": 3600}

VARIABLE: Schema = {"type": "string", "pattern": r"\$\{"}  # of the environment, wherever a number or name may be
_OR_VARIABLE: Schema = {"$ref": "#/$defs/variable"}

_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)(ms|[smh])")
_NUMBER = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?")
_IMPORT = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


class Wrong(enum.Enum):
    """What stands for a value that cannot be read; what is wrong with it has been noted."""

    WRONG = enum.auto()


WRONG = Wrong.WRONG


class Unwritable(Exception):
    """A value that a file cannot hold."""


class Imports:
    """The names "module:name" that a file may use, each imported when it is first asked for."""

    def __init__(self, allowed: Collection[str]) -> None:
        self.allowed = frozenset(allowed)

    def find(self, at: At) -> Any:
        """What the name at this place means; WRONG, with a fault, if it is not allowed or not there."""
        if isinstance(at.value, FromEnv):
            at.fault("must be in the file itself: the environment does not say what is imported")
            return WRONG
        name = str(at.value)
        if name not in self.allowed:
            at.fault(f"{quoted(at.value)} may not be imported here; allow it: allow=[{name!r}], or --allow {name}")
            return WRONG
        module, _, path = name.partition(":")
        try:
            value = importlib.import_module(module)
            for part in path.split("."):
                value = getattr(value, part)
        except Exception as error:
            at.fault(f"{quoted(at.value)} cannot be imported: {type(error).__name__}: {error}")
            return WRONG
        return value


class Form(ABC):
    """One form. words: what it may be, for "must be …". known: the names of which one may have been meant."""

    words: Sequence[str]
    known: Sequence[str] = ()

    @property
    def said(self) -> str:
        """It in words."""
        return alternatives(self.words)

    @abstractmethod
    def schema(self) -> Schema:
        """The same as JSON Schema."""

    @abstractmethod
    def fits(self, value: Any) -> bool:
        """Is a value of this shape, whether it is a good one or not?"""

    @abstractmethod
    def read(self, at: At, imports: Imports) -> Any:
        """The option; WRONG if it cannot be read, which is noted."""

    @abstractmethod
    def write(self, option: Any) -> Any:
        """The option as a file has it. Unwritable if this is not its form."""

    def read_or_refuse(self, at: At, imports: Imports) -> Any:
        """The option, if the value is of this shape; WRONG and a fault otherwise."""
        if isinstance(at.value, Missing):
            return WRONG
        if self.fits(at.value):
            return self.read(at, imports)
        return self.refuse(at)

    def refuse(self, at: At) -> Any:
        """Note that the value must be another; WRONG."""
        meant = "" if isinstance(at.value, FromEnv) else suggestion(at.value, self.known)
        at.fault(f"must be {self.said}, not {quoted(at.value)}{meant}")
        return WRONG


class _Plain(Form):
    """A form that needs nothing but the value."""

    def read(self, at: At, imports: Imports) -> Any:
        return number_of(at.value) if not isinstance(self, Text) else str(at.value)


def number_of(value: Any) -> Any:
    """A value as it is, but a text from the environment as the number, flag or none that it says."""
    if not isinstance(value, FromEnv):
        return value
    word = {"true": True, "false": False}.get(value.strip().lower())
    if word is not None:
        return word
    if _NUMBER.fullmatch(value.strip()):
        return float(value) if "." in value else int(value)
    return value


class Null(_Plain):
    """None. word: also as the text "none", for TOML has no other."""

    words = ("none",)

    def __init__(self, word: bool = True) -> None:
        self._word = word

    def schema(self) -> Schema:
        return {"enum": [None, "none"]} if self._word else {"type": "null"}

    def fits(self, value: Any) -> bool:
        return value is None or (self._word and value == "none")

    def read(self, at: At, imports: Imports) -> None:
        return None

    def write(self, option: Any) -> Any:
        if option is not None:
            raise Unwritable
        return "none" if self._word else None


class Flag(_Plain):
    """True or False."""

    words = ("true or false",)

    def schema(self) -> Schema:
        return {"anyOf": [{"type": "boolean"}, _OR_VARIABLE]}

    def fits(self, value: Any) -> bool:
        return isinstance(number_of(value), bool)

    def write(self, option: Any) -> bool:
        if not isinstance(option, bool):
            raise Unwritable
        return option


class Whole(_Plain):
    """A whole number."""

    words = ("a whole number like 4",)

    def schema(self) -> Schema:
        return {"anyOf": [{"type": "integer"}, _OR_VARIABLE]}

    def fits(self, value: Any) -> bool:
        value = number_of(value)
        return isinstance(value, int) and not isinstance(value, bool)

    def write(self, option: Any) -> int:
        if not self.fits(option):
            raise Unwritable
        return int(option)


class Real(_Plain):
    """A number."""

    words = ("a number like 0.5",)

    def schema(self) -> Schema:
        return {"anyOf": [{"type": "number"}, _OR_VARIABLE]}

    def fits(self, value: Any) -> bool:
        value = number_of(value)
        return isinstance(value, (int, float)) and not isinstance(value, bool)

    def write(self, option: Any) -> float:
        if not self.fits(option):
            raise Unwritable
        number: float = option
        return number


class Duration(Form):
    """A length of time: "250ms", "2s", "1.5m", "1h", or a number of seconds."""

    words = ('a duration like "250ms", "2s", "5m" or "1h"',)

    def schema(self) -> Schema:
        text = {"type": "string", "pattern": f"^{_DURATION.pattern}$"}
        return {"anyOf": [{"type": "number"}, text, _OR_VARIABLE]}

    def fits(self, value: Any) -> bool:
        return Real().fits(value) or (isinstance(value, str) and _DURATION.fullmatch(value) is not None)

    def read(self, at: At, imports: Imports) -> Any:
        found = _DURATION.fullmatch(at.value) if isinstance(at.value, str) else None
        if found is None:
            return number_of(at.value)
        number = float(found[1]) if "." in found[1] else int(found[1])
        return number / 1000 if found[2] == "ms" else number * SECONDS[found[2]]

    def write(self, option: Any) -> Any:
        if not Real().fits(option):
            raise Unwritable
        text = f"{option!r}s"
        return text if _DURATION.fullmatch(text) else option


class Text(_Plain):
    """A text."""

    words = ("a text",)

    def schema(self) -> Schema:
        return {"type": "string"}

    def fits(self, value: Any) -> bool:
        return isinstance(value, str)

    def write(self, option: Any) -> str:
        if not isinstance(option, (str, Path, IPv4Network, IPv6Network)) or isinstance(option, enum.Enum):
            raise Unwritable
        return str(option).replace("${", "$${")


class Logger(Text):
    """A logger, by its name."""

    words = ('the name of a logger, like "shop.calls"',)

    def read(self, at: At, imports: Imports) -> logging.Logger:
        return logging.getLogger(str(at.value))

    def write(self, option: Any) -> str:
        if not isinstance(option, logging.Logger):
            raise Unwritable
        return option.name


class Names(Form):
    """One of some names, each of which stands for a value: codes, members of an enum, words, flags of a library."""

    def __init__(self, values: Mapping[str, Any], said: str = "") -> None:
        self._values = dict(values)
        self.known = list(values)
        self.words = [said] if said else [quoted(name) for name in values]

    def schema(self) -> Schema:
        return {"anyOf": [{"enum": list(self._values)}, _OR_VARIABLE]}

    def fits(self, value: Any) -> bool:
        return isinstance(value, str) and value in self._values

    def read(self, at: At, imports: Imports) -> Any:
        return self._values[at.value]

    def write(self, option: Any) -> str:
        for name, value in self._values.items():
            if value is option or (isinstance(option, str) and option in (name, value)):
                return name
        raise Unwritable


CODES = Names({code.name: code for code in StatusCode}, 'the name of a status code, like "UNAVAILABLE"')


class ErrorClass(Form):
    """A class of exceptions: one of Python's own by its name, any other as "module:name"."""

    words = ('an exception like "KeyError" or "module:Name"',)

    def schema(self) -> Schema:
        return {"type": "string"}

    def fits(self, value: Any) -> bool:
        return isinstance(value, str) and (Imported().fits(value) or _is_error(getattr(builtins, value, None)))

    def read(self, at: At, imports: Imports) -> Any:
        found = imports.find(at) if ":" in at.value else getattr(builtins, at.value)
        return found if found is WRONG or _is_error(found) else self.refuse(at)

    def write(self, option: Any) -> str:
        if not _is_error(option):
            raise Unwritable
        return option.__name__ if option.__module__ == "builtins" else Imported().write(option)


def _is_error(value: object) -> TypeGuard[type[BaseException]]:
    return isinstance(value, type) and issubclass(value, BaseException)


class Imported(Form):
    """What a module of the application has: "module:name", where the caller of `load` allows it."""

    words = ('a function as "module:name"',)

    def schema(self) -> Schema:
        return {"type": "string", "pattern": f"^{_IMPORT.pattern}$"}

    def fits(self, value: Any) -> bool:
        return isinstance(value, str) and _IMPORT.fullmatch(value) is not None

    def read(self, at: At, imports: Imports) -> Any:
        return imports.find(at)

    def write(self, option: Any) -> str:
        module, name = getattr(option, "__module__", None), getattr(option, "__qualname__", None)
        if module and name and _found(sys.modules.get(module), name) is option:
            return f"{module}:{name}"
        raise Unwritable


def _found(module: Any, path: str) -> Any:
    """What a module has under this name; None if nothing."""
    for part in path.split("."):
        module = getattr(module, part, None)
    return module


class ListOf(Form):
    """A list. single: one item may stand for the list that holds it alone."""

    def __init__(self, item: Form, make: Callable[[list[Any]], Any] = tuple, *, single: bool = False) -> None:
        self.item = item
        self._make = make
        self._single = single
        self.known = item.known if single else ()
        self.words = [*(item.words if single else ()), f"a list of {item.said}"]

    def schema(self) -> Schema:
        items: Schema = {"type": "array", "items": self.item.schema()}
        return {"anyOf": [items, self.item.schema()]} if self._single else items

    def fits(self, value: Any) -> bool:
        return isinstance(value, list) or (self._single and self.item.fits(value))

    def read(self, at: At, imports: Imports) -> Any:
        places = at.items() if isinstance(at.value, list) else [at]
        items = [self.item.read_or_refuse(place, imports) for place in places]
        return WRONG if WRONG in items else self._make(items)

    def write(self, option: Any) -> list[Any]:
        if isinstance(option, (str, bytes, Mapping)) or not isinstance(option, Iterable):
            raise Unwritable
        items = [self.item.write(part) for part in option]
        return sorted(items) if isinstance(option, (set, frozenset)) else items


class TableOf(Form):
    """A table whose names mean something themselves."""

    def __init__(self, name: Form, value: Form) -> None:
        self.name = name
        self.value = value
        self.words = [f"a table from {name.said} to {value.said}"]

    def schema(self) -> Schema:
        return {"type": "object", "additionalProperties": self.value.schema()}

    def fits(self, value: Any) -> bool:
        return isinstance(value, dict)

    def read(self, at: At, imports: Imports) -> Any:
        names = [self.name.read_or_refuse(name, imports) for name in at.names()]
        values = [self.value.read_or_refuse(field, imports) for field in at.fields().values()]
        return WRONG if WRONG in (*names, *values) else dict(zip(names, values, strict=True))

    def write(self, option: Any) -> dict[str, Any]:
        if not isinstance(option, Mapping):
            raise Unwritable
        return {self.name.write(name): self.value.write(value) for name, value in option.items()}


class OneOf(Form):
    """One of several forms; the first that the shape fits reads it."""

    def __init__(self, forms: Iterable[Form]) -> None:
        self.forms = tuple(forms)
        self.known = [name for form in self.forms for name in form.known]
        self.words = list(dict.fromkeys(word for form in self.forms for word in form.words))

    def schema(self) -> Schema:
        return {"anyOf": [form.schema() for form in self.forms]}

    def fits(self, value: Any) -> bool:
        return any(form.fits(value) for form in self.forms)

    def read(self, at: At, imports: Imports) -> Any:
        return next(form for form in self.forms if form.fits(at.value)).read(at, imports)

    def write(self, option: Any) -> Any:
        for form in self.forms:
            try:
                return form.write(option)
            except Unwritable:
                continue
        raise Unwritable
