"""Log records as JSON, one object on each line."""

from __future__ import annotations

import json
import logging
import math
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from json.encoder import encode_basestring_ascii
from operator import itemgetter
from typing import Any, TextIO, cast

from interpose.mechanisms.options import insist

MAX_VALUES = 10_000  # of one record; more would be a mistake, or somebody's trick
MAX_DEPTH = 16  # levels of nesting
LAST_SECOND = 253402300799.0  # of the year 9999
MAX_KEYS = 256  # names of fields that are kept ready; more than an application has
MAX_FLAT = 100  # fields of a record that is looked at as a whole
MAX_WHOLE = 2**63
_FLAT = {str, bool, type(None)}
MAX_BITS = 1024  # of a number; Python refuses to write very long ones

MORE = "…"  # stands for what is left out
# The attribute of a record that holds its message without what varies, for machines that group by it.
MACHINE_READABLE = "_machine_readable"
_OWN = {"message", "asctime", "taskName", MACHINE_READABLE}  # taskName: since 3.12
STANDARD = tuple(logging.LogRecord("", 0, "", 0, "", (), None).__dict__)  # what each record has, in this order
_USUAL = frozenset({*STANDARD, *_OWN})
_BROKEN = (Exception, SystemExit, GeneratorExit)  # what a broken `__str__` may raise; Ctrl-C goes on


class Said(str):
    """The message of a record for machines, and as JSON together with the fields in front of it, which are known ahead.

    fields: texts by name, one at least. If a filter has changed one of them, the record is written without this.
    """

    __slots__ = ("json", "read", "values")
    json: str
    read: Callable[[Mapping[str, Any]], Any]  # gives the fields of a record as they are now
    values: Any  # what that gave at first

    def __new__(cls, message: str, fields: Mapping[str, str]) -> Said:
        said = super().__new__(cls, message)
        said.json = text_of(message) + _members(fields)
        said.read = itemgetter(*fields)
        said.values = said.read(fields)
        return said

    def __reduce__(self) -> Any:
        return str, (str(self),)  # in another process it is but a text


class JsonFormatter(logging.Formatter):
    """Write each record as one JSON object on one line: `handler.setFormatter(JsonFormatter())`.

    `time` (RFC 3339, UTC), `level`, `logger`, `message`, then all extra fields of the record, then `exception` and
    `stack` if there are. An extra field with one of these names is written as "extra.time" and so on. It is plain
    ASCII: all else is escaped, so a record is one line whatever it holds. What JSON cannot hold is written as text.
    It never raises.
    """

    def __init__(self) -> None:
        super().__init__()

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line, without its end."""
        try:
            said = record.__dict__.get(MACHINE_READABLE)
            if type(said) is Said and (line := _known(record, said)):
                return line
            fields = self._fields(record)
            return json.dumps(fields if _is_plain(fields) else _Plain().of(fields))
        except _BROKEN as error:  # a record that is none
            return json.dumps({"level": "ERROR", "message": f"<record not shown: {type(error).__name__}>"})

    def _fields(self, record: logging.LogRecord) -> dict[str, Any]:
        ours = {
            "time": _safe(rfc3339, record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": str(record.__dict__.get(MACHINE_READABLE) or _message(record)),
        }
        behind: dict[str, Any] = {}
        if record.exc_info or record.exc_text:
            behind["exception"] = _safe(self._exception, record)
        if record.stack_info:
            behind["stack"] = record.stack_info
        extras = {name: value for name, value in record.__dict__.items() if name not in _USUAL}
        taken = ours.keys() | behind.keys()
        named = {f"extra.{name}" if name in taken else name: value for name, value in extras.items()}
        return {**ours, **named, **behind}

    def _exception(self, record: logging.LogRecord) -> str | None:
        # `exc_text` is what another formatter made of it already, or all that is left of it in another process.
        if isinstance(record.exc_info, tuple):
            return self.formatException(record.exc_info)
        return record.exc_text


class JsonLines:
    """Let `AccessLog` write lines of JSON into a stream without `logging`: `AccessLog(JsonLines(sys.stdout))`.

    The lines are those of `JsonFormatter`, and cost less than half. No handler and no filter sees them. Each is one
    call of the stream's `write`, so lines of several threads do not mix; a stream that is not line-buffered is flushed
    after each.

    stream: a text stream, open for writing; `sys.stderr` unless given.
    level:  of `logging`; what is below it is not written. Default INFO (20), the level of a record of a call that went well.
    name:   what the field "logger" says.

    ValueError listing every fault of the options.
    """

    def __init__(
        self, stream: TextIO | None = None, *, level: int = logging.INFO, name: str = "interpose.access"
    ) -> None:
        # None where a process has no stderr, which is a fault like any other.
        out = cast("TextIO", sys.stderr if stream is None else stream)
        insist(
            "JsonLines",
            (_is_stream(out), f"stream must be an open text stream, like sys.stdout, not {out!r:.100}"),
            (type(level) is int, f"level must be one of logging, like logging.INFO, not {level!r}"),
            (isinstance(name, str), f"name must be text, like 'interpose.access', not {name!r}"),
        )
        self._stream = out
        self._level = level
        self._name = name

    def isEnabledFor(self, level: int) -> bool:
        """Is a record of this level written?"""
        return level >= self._level

    def write(self, level: int, message: str, fields: Mapping[str, Any]) -> None:
        """Write one record."""
        self._prepared(level, message, {})(members_of(fields))

    def _prepared(self, level: int, message: str, fields: Mapping[str, str]) -> Callable[[str], None]:
        """What writes records that have these in common; it is given what each has more, as `members_of` makes it."""
        head = f'{_source(logging.getLevelName(level), self._name)}, "message": {text_of(message)}{_members(fields)}'
        put, flush, now = self._stream.write, self._stream.flush, time.time
        buffered = not getattr(self._stream, "line_buffering", False)

        def write(members: str) -> None:
            put(f'{{"time": "{rfc3339(now())}", {head}{members}}}\n')
            if buffered:
                flush()

        return write

    def __repr__(self) -> str:
        return f"<JsonLines: {self._name}>"


def _is_stream(stream: object) -> bool:
    """Does it take text?"""
    try:
        stream.write("")  # type: ignore[attr-defined]
    except Exception:  # bytes are wanted, or it is closed, or anything else
        return False
    return callable(getattr(stream, "flush", None))


def _known(record: logging.LogRecord, said: Said) -> str:
    """The line of a record most of which is known; empty if there is anything in it that takes a closer look."""
    attributes = record.__dict__
    try:
        behind = record.exc_info or record.exc_text or record.stack_info
        if behind or len(attributes) > MAX_FLAT or said.read(attributes) != said.values:
            return ""
        more: list[str] = []
        for name, value in reversed(attributes.items()):
            if value is said:
                break
            if name not in _USUAL:
                more.append(_KEYS[name] + _ENCODE[type(value)](value))
        more.reverse()
        time, source = rfc3339(record.created), _source(record.levelname, record.name)
        return f'{{"time": "{time}", {source}, "message": {said.json}{"".join(more)}}}'
    except _BROKEN:
        return ""


text_of = encode_basestring_ascii


def members_of(fields: Mapping[str, Any]) -> str:
    """Fields as they follow others in an object of JSON: each behind a comma."""
    try:
        return "".join([_KEYS[name] + _ENCODE[type(value)](value) for name, value in fields.items()])
    except KeyError:  # a value of another type, like a list
        named = {f"extra.{name}" if name in _FIRST else name: value for name, value in fields.items()}
        return f", {json.dumps(_Plain().of(named))[1:-1]}"


class _Keys(dict[str, str]):
    """The names of fields, each with what is around it."""

    def __missing__(self, name: str) -> str:
        key = f", {text_of(f'extra.{name}' if name in _FIRST else name)}: "
        if len(self) < MAX_KEYS:
            self[name] = key
        return key


def _members(fields: Mapping[str, str]) -> str:
    """Fields that are texts, as they follow others."""
    return "".join(_KEYS[name] + text_of(value) for name, value in fields.items())


_FIRST = frozenset(("time", "level", "logger", "message"))
_KEYS = _Keys()


@lru_cache(64)  # an application has a few
def _source(level: str, logger: str) -> str:
    """Where a record comes from."""
    return f'"level": {text_of(level)}, "logger": {text_of(logger)}'


def _number_of(value: float) -> str:
    return repr(value) if value - value == 0.0 else text_of(str(value))  # as by `isfinite`, which has to be called


def _whole_number_of(value: int) -> str:
    return repr(value) if -MAX_WHOLE < value < MAX_WHOLE else json.dumps(_Plain().of(value))


_ENCODE: dict[type, Callable[[Any], str]] = {str: text_of, float: _number_of, int: _whole_number_of}


def _is_plain(fields: dict[Any, Any]) -> bool:
    """Is it what nearly every record is: short, flat, and of nothing that could surprise?"""
    return len(fields) <= MAX_FLAT and all(map(_is_flat, fields.values())) and all(type(name) is str for name in fields)


def _is_flat(value: Any) -> bool:
    kind = type(value)
    if kind is float:
        return math.isfinite(value)
    return kind in _FLAT or (kind is int and -MAX_WHOLE < value < MAX_WHOLE)


class _Plain:
    """Values that JSON can hold, made of any: as many as there is room for."""

    def __init__(self) -> None:
        self._left = MAX_VALUES

    def of(self, value: Any, depth: int = 0) -> Any:
        self._left -= 1
        return value if value is None or value is True or value is False else _safe(self._of, value, depth)

    def _of(self, value: Any, depth: int) -> Any:
        # By the methods of the built-in types: a class that inherits from one may have methods that raise.
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, int):
            bits = int.bit_length(value)
            return int.__int__(value) if bits <= MAX_BITS else f"<int, {bits} bits>"
        if isinstance(value, float):
            number = float.__float__(value)
            return number if math.isfinite(number) else str(number)
        if not isinstance(value, (dict, list, tuple, set, frozenset)):
            return _text(value)
        return MORE if depth >= MAX_DEPTH or self._left <= 0 else self._nested(value, depth + 1)

    def _nested(self, value: Any, depth: int) -> Any:
        if isinstance(value, dict):
            return {_text(key): self.of(part, depth) for key, part in self._within(value.items(), (MORE, MORE))}
        return [self.of(part, depth) for part in self._within(value, MORE)]

    def _within(self, parts: Iterable[Any], more: Any) -> Iterable[Any]:
        """The parts that there is room for, and a mark if there are others."""
        for part in parts:
            if self._left <= 0:
                yield more
                return
            yield part


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except _BROKEN as error:  # its arguments do not fit
        return f"{_text(record.msg)} <arguments not shown: {type(error).__name__}>"


def _safe(make: Any, *arguments: Any) -> Any:
    try:
        return make(*arguments)
    except _BROKEN as error:
        return f"<not shown: {type(error).__name__}>"


def _text(value: Any) -> str:
    try:
        return repr(value) if isinstance(value, (bytes, bytearray)) else str.__str__(str(value))
    except _BROKEN as error:
        return f"<{type(value).__name__}, not shown: {type(error).__name__}>"


def rfc3339(seconds: float) -> str:
    """A date as RFC 3339 has it, in UTC; one before 1970 or beyond its last year is the nearest that it has."""
    begin, text = _last
    # Half a microsecond more: of half a second, a clock may show a little less.
    milliseconds = int((seconds - begin) * 1e3 + 5e-4) if begin <= seconds < begin + 1.0 else 1000
    return text + _REST[milliseconds] if milliseconds < 1000 else _other_second(seconds)


_last = (0.0, "1970-01-01T00:00:00")  # a second, and its text: nearly every record is of the same


def _other_second(seconds: float) -> str:
    """A date in another second than the last one was in."""
    global _last  # noqa: PLW0603  both at once, so that threads may share it
    milliseconds = int(max(0.0, min(seconds, LAST_SECOND)) * 1e3 + 5e-4)
    second = milliseconds // 1000
    _last = (float(second), _second(second))
    return _second(second) + _REST[milliseconds % 1000]


@lru_cache(16)  # of long RPCs: when they began, and now
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat()


_REST = tuple(f".{rest:03d}Z" for rest in range(1000))
