"""What a file can make: batteries and their parts by name, with the options that their own signatures and annotations say."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from types import FunctionType
from typing import Any

from interpose._flow import Belongs
from interpose._method import Side
from interpose.mechanisms.json_fields import suggestion
from interpose.mechanisms.shown import given
from interpose.policy.document import HIDDEN, At, Node, has_secret, listed, quoted
from interpose.policy.forms import WRONG, Form, Imports, ListOf, Schema, Unwritable

# What a test hands in, and no file: where time and chance come from.
OF_TESTS = {"clock", "wall", "random"}


@dataclass(frozen=True)
class Option:
    """One option of a maker. several: it takes any number of values, `*names` in the signature."""

    name: str
    form: Form
    required: bool
    several: bool
    positional: bool
    default: Any = None


@dataclass(frozen=True)
class Maker:
    """A class or function that a file may name; `call` is imported when it is first needed."""

    name: str
    module: str
    form_of: Callable[[Maker, str, Any], Form | None] = field(repr=False)  # for an option's name and annotation

    @cached_property
    def call(self) -> Any:
        """The class or function. ImportError, with the line that installs it, if its extra is not there."""
        return getattr(import_module(self.module), self.name)

    @cached_property
    def side(self) -> Side | None:
        """The one side that it is for; None if it is for both, or cannot be imported."""
        try:
            belongs: Belongs | None = getattr(self.call, "belongs", None)
        except ImportError:  # which `read` makes a fault of
            return None
        return None if belongs is None else belongs.side

    @cached_property
    def options(self) -> dict[str, Option]:
        """Its options by name, without those for tests."""
        call, is_class = self.call, isinstance(self.call, type)
        hints = typing.get_type_hints(inspect.unwrap(call.__init__ if is_class else call))
        return {option.name: option for option in self._options(inspect.signature(call), hints)}

    def _options(self, signature: inspect.Signature, hints: Mapping[str, Any]) -> Iterator[Option]:
        for name, parameter in signature.parameters.items():
            several = parameter.kind is parameter.VAR_POSITIONAL
            form = None if name in OF_TESTS else self.form_of(self, name, hints[name])
            if form is not None:
                form = ListOf(form, single=True) if several else form
                required = parameter.default is parameter.empty and not several
                positional = several or parameter.kind is parameter.POSITIONAL_OR_KEYWORD
                yield Option(name, form, required, several, positional, parameter.default)

    @property
    def first(self) -> Option | None:
        """The option that may be given alone, without its name."""
        return next((option for option in self.options.values() if option.positional), None)

    # - from a file -

    def read(self, at: At, imports: Imports) -> Any:
        """What is made with the options at this place; WRONG, with all faults noted, if that is not possible."""
        try:
            options, first = self.options, self.first
        except ImportError as error:
            at.fault_of_name(f"cannot be used: {error}")
            return WRONG
        if isinstance(at.value, dict):
            return self._made(at.only(options), at, imports)
        if first is None:
            at.fault(f"takes its options as a table, not {quoted(at.value)}")
            return WRONG
        return self._made({first.name: at}, at, imports)

    def _made(self, fields: Mapping[str, At], at: At, imports: Imports) -> Any:
        values = {name: self.options[name].form.read_or_refuse(field, imports) for name, field in fields.items()}
        for name in self.required:
            if name not in fields:
                at.fault_of_name(f"{name} is missing; it must be {self.options[name].form.said}")
        good = {name: value for name, value in values.items() if value is not WRONG}
        if not good.keys() >= set(self.required):
            return WRONG
        try:
            made = self._called(good)
        except Exception as error:
            self._blame(error, {name: fields[name] for name in good}, at, len(good) == len(values))
            return WRONG
        return made if len(good) == len(values) else WRONG

    def _called(self, values: Mapping[str, Any]) -> Any:
        several = [value for name, value in values.items() if self.options[name].several]
        named = {name: value for name, value in values.items() if not self.options[name].several}
        return self.call(*(several[0] if several else ()), **named)

    def _blame(self, error: Exception, fields: Mapping[str, At], at: At, whole: bool) -> None:
        """Note what the constructor says, each fault where its option is.

        whole: it was given all that the file says; without that, what it says of options that it was not given may be
        no fault of the file.
        """
        for name, text in self._told(error):
            where = fields.get(name) or (next(iter(fields.values())) if len(fields) == 1 else None)
            if where is None and not whole:
                continue
            (where or at).fault(HIDDEN if self._may_show(text, where or at, at) else text)

    def _may_show(self, text: str, where: At, at: At) -> bool:
        """May a fault of `where` show a value of the environment: its own, or that of another option that it speaks of?"""
        if has_secret(where.node):
            return True
        others = at.fields() if isinstance(at.value, dict) else {}
        return any(has_secret(other.node) and re.search(rf"\b{name}\b", text) for name, other in others.items())

    def _told(self, error: Exception) -> Iterator[tuple[str, str]]:
        """What an error says, fault by fault, each with the name of the option that it begins with, if it does."""
        text = " ".join(str(error).split()) if isinstance(error, (ValueError, TypeError)) else ""
        text = re.sub(rf"^{self.name}(\(\))?:? ", "", text) or f"cannot be made: {type(error).__name__}"
        for fault in re.split(rf"; (?=(?:{'|'.join(self.options)}) )", text):
            name, _, rest = fault.partition(" ")
            yield (name, rest) if name in self.options else ("", fault)

    # - to a file -

    def owns(self, made: Any) -> bool:
        """Has it made this?"""
        try:
            call = self.call
        except ImportError:
            return False
        if isinstance(call, type):
            return type(made) is call
        if isinstance(made, FunctionType):
            return made.__module__ == call.__module__ and made.__qualname__.startswith(f"{call.__qualname__}.<locals>.")
        hint = typing.get_type_hints(call).get("return")
        return isinstance(hint, type) and type(made) is hint

    def write(self, made: Any) -> Any:
        """What it has made, as a file has it: its name alone, or a table of one field."""
        written = {
            name: self._written(name, value) for name, value in self._given(made).items() if name in self.options
        }
        first = self.first
        alone = first is not None and (first.required or first.several) and list(written) == [first.name]
        if first is not None and alone and not isinstance(written[first.name], dict):
            return {self.name: written[first.name]}
        return {self.name: written} if written else self.name

    def _written(self, name: str, value: Any) -> Any:
        try:
            return self.options[name].form.write(value)
        except Unwritable as error:
            raise Unwritable(str(error) or f"its {name}") from None

    def _given(self, made: Any) -> dict[str, Any]:
        """The options that it was made with."""
        if isinstance(made, FunctionType):
            found = dict(inspect.getclosurevars(made).nonlocals)
        elif "_given" in getattr(made, "__dict__", ()):
            found = given(made)
        else:
            found = {name: _attribute(made, name) for name in self.options}
            found = {name: value for name, value in found.items() if value != self.options[name].default}
        hidden = [name for name in found if name not in self.options and found[name] is not self._default(name)]
        if hidden:
            raise Unwritable(f"{self.name}({hidden[0]}=…)")
        return found

    def _default(self, name: str) -> Any:
        parameter = inspect.signature(self.call).parameters.get(name)
        return None if parameter is None else parameter.default

    # - for editors -

    @property
    def required(self) -> list[str]:
        """The options that have no default."""
        return [name for name, option in self.options.items() if option.required]

    @property
    def purpose(self) -> str:
        """The first line of its docstring."""
        return (inspect.getdoc(self.call) or "").partition("\n")[0]

    def schema(self) -> Schema:
        """Its options: a table, or the first of them alone."""
        said = _explained(inspect.getdoc(self.call) or "")
        table: Schema = {
            "type": "object",
            "properties": {
                name: {"description": said[name], **option.form.schema()} if name in said else option.form.schema()
                for name, option in self.options.items()
            },
            "required": self.required,
            "additionalProperties": False,
        }
        return {"anyOf": [table, self.first.form.schema()]} if self.first else table


def _explained(docstring: str) -> dict[str, str]:
    """What a docstring says of each option: "name: text", with the lines that are set further in."""
    said: dict[str, str] = {}
    names: list[str] = []
    for line in docstring.splitlines():
        begun = re.match(r"(\w+(?:, \w+)*):\s+(\S.*)", line)
        if begun:
            names = begun[1].split(", ")
            said |= dict.fromkeys(names, begun[2])
        elif names and line.startswith(" "):
            said |= {name: f"{said[name]} {line.strip()}" for name in names}
        else:
            names = []
    return said


class Parts(Form):
    """A value that is there by its name, like "by_method", or is made: {"exponential": {"initial": "50ms"}}.

    strict: a table with another name is of another form.
    """

    def __init__(self, makers: Iterable[Maker], ready: Mapping[str, Any], *, strict: bool = False) -> None:
        self.makers = {maker.name: maker for maker in makers}
        self.ready = dict(ready)
        self.strict = strict
        self.known = [*self.ready, *self.makers]
        self.words = [quoted(name) for name in self.known]

    def schema(self) -> Schema:
        named = [name for name, maker in self.makers.items() if not maker.required]
        tables = [single(name, {"$ref": f"#/$defs/{name}"}) for name in self.makers]
        return {"anyOf": [{"enum": [*self.ready, *named]}, *tables]}

    def fits(self, value: Any) -> bool:
        if isinstance(value, dict):
            return not self.strict or (len(value) == 1 and next(iter(value)) in self.makers)
        return isinstance(value, str) and (value in self.ready or value in self.makers)

    def read(self, at: At, imports: Imports) -> Any:
        if isinstance(at.value, str):
            if at.value in self.ready:
                return self.ready[at.value]
            nothing = Node({}, at.node.line, at.node.key_line)
            return self.makers[at.value].read(At(nothing, at.path, at.faults), imports)
        fields = at.fields()
        if len(fields) != 1:
            at.fault(f"must have one field, its name: {self.said}")
            return WRONG
        ((name, options),) = fields.items()
        if name not in self.makers:
            options.fault_of_name(f"unknown name{suggestion(name, self.known) or listed(self.known)}")
            return WRONG
        return self.makers[name].read(options, imports)

    def write(self, option: Any) -> Any:
        for name, value in self.ready.items():
            if value is option:
                return name
        for maker in self.makers.values():
            if maker.owns(option):
                return maker.write(option)
        raise Unwritable


def single(name: str, schema: Schema) -> Schema:
    """A table of one field."""
    return {"type": "object", "properties": {name: schema}, "required": [name], "additionalProperties": False}


def _attribute(made: Any, name: str) -> Any:
    """An option that an object keeps under its name; Unwritable if it does not."""
    for kept in (name, f"_{name}", _KEPT_AS.get(name, name)):
        if hasattr(made, kept):
            return getattr(made, kept)
    raise Unwritable(f"{type(made).__name__} does not show its {name}")


_KEPT_AS = {"number": "capacity"}  # of `calls`
