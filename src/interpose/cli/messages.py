"""Messages of protobuf as JSON: read from an argument or from lines, made to fit a type, and written."""

from __future__ import annotations

import base64
import difflib
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

import click
from google.protobuf import descriptor_pool, empty_pb2, json_format, message_factory
from google.protobuf.message import DecodeError
from grpc import RpcError

from interpose.cli import exits

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]]')  # what opens and closes, but for what is in a text
UNFIT = (json_format.ParseError, TypeError, ValueError, AttributeError, RecursionError)  # what ParseDict raises
_DECODER = json.JSONDecoder()
_TRANSPARENT = "google.protobuf."  # Timestamp, Struct, Any …: each has a JSON of its own


class BadMessage(click.ClickException):
    """A message that is no JSON, or does not fit its type. The text says where, and what would fit."""

    exit_code = exits.WRONG


# --- reading ----------------------------------------------------------------------------------------------------------


def values(lines: Iterable[str]) -> Iterator[Any]:
    """Each JSON value as soon as its last line has come: one per line, or set over several, or several in one line.

    BadMessage for what is no JSON, with the number of the line.
    """
    held, depth, first = "", 0, 1
    for number, line in enumerate(lines, 1):
        first = first if held else number
        held += line
        depth += sum(1 if mark in "{[" else -1 for mark in _TOKEN.findall(line) if mark in "{}[]")
        if depth <= 0:
            yield from _decoded(held, first)
            held, depth = "", 0
    yield from _decoded(held, first)


def _decoded(text: str, first: int) -> Iterator[Any]:
    """The values of a text that begins at this line."""
    at = _next(text, 0)
    while at < len(text):
        try:
            value, at = _DECODER.raw_decode(text, at)
        except json.JSONDecodeError as error:
            where = f"line {first + error.lineno - 1}, column {error.colno}"
            raise BadMessage(f'this is no JSON at {where}: {error.msg}; write \'{{"field": "value"}}\'') from None
        except RecursionError:
            raise BadMessage(f"the JSON at line {first} is nested too deep") from None
        yield value
        at = _next(text, at)


def _next(text: str, at: int) -> int:
    return len(text) - len(text[at:].lstrip())


def message_of(value: Any, kind: Any, pool: Any) -> Any:
    """The JSON value as a message of this type. BadMessage that names each field that does not fit."""
    try:
        return _parsed(value, kind, pool)
    except UNFIT as error:
        faults = list(_faults(value, kind, pool, "")) or [_reason(error)]
        raise BadMessage(f"the message does not fit {kind.full_name}: {'; '.join(faults)}") from None


def _parsed(value: Any, kind: Any, pool: Any) -> Any:
    """The message. One of UNFIT is raised if the value does not fit."""
    if not (isinstance(value, dict) or kind.full_name.startswith(_TRANSPARENT)):
        raise TypeError("it must be an object")  # protobuf takes [] for one
    known: Any = _Known(pool)
    return json_format.ParseDict(value, message_factory.GetMessageClass(kind)(), descriptor_pool=known)


def _faults(value: Any, kind: Any, pool: Any, path: str) -> Iterator[str]:
    """What does not fit, each with the path to it: each field is tried by itself, and what is in it too."""
    if kind.full_name.startswith(_TRANSPARENT):
        return
    if not isinstance(value, dict):
        yield f"{path or 'it'} must be an object like {{}}, not {json.dumps(value):.80}"
        return
    for name, part in value.items():
        yield from _field_faults(name, part, kind, pool, f"{path}.{name}" if path else name)


def _field_faults(name: str, part: Any, kind: Any, pool: Any, path: str) -> Iterator[str]:
    field = _field(kind, name)
    if field is None:
        if not name.startswith("["):  # of an extension
            yield f"there is no field {path}{_instead(name, kind)}"
        return
    try:
        _parsed({name: part}, kind, pool)
    except UNFIT as error:
        deeper = list(_inner_faults(field, part, pool, path))
        yield from deeper or [f"{path}: {_reason(error)}"]


def _inner_faults(field: Any, part: Any, pool: Any, path: str) -> Iterator[str]:
    """Of a field with messages in it: what does not fit within those."""
    kind: Any = field.message_type
    parts: list[tuple[Any, Any]]
    if kind is None:
        return
    if kind.GetOptions().map_entry:
        kind = kind.fields_by_name["value"].message_type
        parts = list(part.items()) if kind is not None and isinstance(part, dict) else []
    elif isinstance(part, list):
        parts = list(enumerate(part))
    else:
        yield from _faults(part, kind, pool, path)
        return
    for key, each in parts:
        yield from _faults(each, kind, pool, f"{path}[{json.dumps(key)}]")


def _field(kind: Any, name: str) -> Any:
    return kind.fields_by_camelcase_name.get(name) or kind.fields_by_name.get(name)


def _instead(name: str, kind: Any) -> str:
    names = [field.json_name for field in kind.fields]
    close = difflib.get_close_matches(name, names, 3, 0.5) or names[:12]
    return f": write {', '.join(close)}" if close else f": {kind.full_name} has none"


def _reason(error: Exception) -> str:
    """The innermost part of what protobuf says, without the path that it leaves half out."""
    text = str(error).rpartition(" field: ")[2].split("\n")[0]
    return re.sub(r" at \w+(?:[.\[].*)?$", "", text.rstrip(".")).rstrip(".")


# --- writing ----------------------------------------------------------------------------------------------------------


def as_json(message: Any, pool: Any, *, defaults: bool = False) -> Any:
    """The message as JSON has it. Of an `Any` whose type is not known only the type is shown.

    defaults: show fields too that have their default.
    """
    known: Any = _Shown(pool)
    return json_format.MessageToDict(message, descriptor_pool=known, always_print_fields_with_no_presence=defaults)


def shown(value: Any, indent: int | None = None) -> str:
    """JSON text that may go to a terminal: what cannot be printed is escaped, so that no server steers it."""
    printable = json.dumps(value, ensure_ascii=False).isprintable()
    return json.dumps(value, ensure_ascii=not printable, indent=indent)


def opened(part: Any, pool: Any) -> tuple[str, dict[str, Any]]:
    """The type of an `Any` and what is in it, as JSON; if the type is not known or it cannot be read, its bytes."""
    name = part.type_url.rpartition("/")[2]
    with suppress(KeyError, DecodeError):
        return name, as_json(message_factory.GetMessageClass(_found(name, pool)).FromString(part.value), pool)
    return name, {"value": base64.b64encode(part.value).decode()}


def _found(name: str, pool: Any) -> Any:
    """The type of this name, of the server's or of those known here. KeyError if there is none."""
    with suppress(KeyError, RpcError):  # what a pool raises that asks a server
        return pool.FindMessageTypeByName(name)
    return descriptor_pool.Default().FindMessageTypeByName(name)


class _Known:
    """A pool for messages that are read: an `Any` may hold what the server knows, and google's own types."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    def FindMessageTypeByName(self, name: str) -> Any:
        return _found(name, self._pool)


class _Shown(_Known):
    """A pool for messages that are written: all types are known, and those that are not have no fields."""

    def FindMessageTypeByName(self, name: str) -> Any:
        with suppress(KeyError):
            return _found(name, self._pool)
        return empty_pb2.Empty.DESCRIPTOR
