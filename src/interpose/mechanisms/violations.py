"""What a message breaks of the rules in its proto, as text and as a google.rpc.BadRequest.

Violations are read as protovalidate's: a field path of names and subscripts, the id of the rule, and a message.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from interpose.mechanisms.rich import delimited, utf8
from interpose.mechanisms.text import one_line, within

BAD_REQUEST = "google.rpc.BadRequest"

# bytes. All trailers of a failure together may take 7 KiB (`MAX_STATUS`); this leaves room for the rest.
MAX_BAD_REQUEST = 4096
MAX_PART = 512  # of one path, one description, or one line: a map's keys are as long as the caller makes them

# google/rpc/error_details.proto: a reason has at most 63 characters, and matches this.
_REASON = re.compile(r"[A-Z][A-Z0-9_]{1,61}[A-Z0-9]")
_NO_WORD = re.compile(r"[^A-Z0-9]+")
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n", "\r": r"\r"})  # as protovalidate escapes map keys


def path(violation: Any, *, keys: bool = True) -> str:
    r"""Where it is, as protovalidate writes it: `items[3].labels["a.b\"c"].name`; empty for the message itself.

    keys: False leaves out what the keys of maps are, which is for logs.
    """
    field = violation.proto.field
    return "" if field is None else ".".join(_step(element, keys) for element in field.elements)


def _step(element: Any, keys: bool) -> str:
    subscript = element.subscript
    if subscript is None:
        return str(element.field_name)
    return f"{element.field_name}[{_subscript(subscript.field, subscript.value, keys)}]"


def _subscript(kind: str, value: Any, keys: bool) -> str:
    if kind != "index" and not keys:
        return "…"
    if kind == "string_key":
        return f'"{value.translate(_ESCAPES)}"'
    return str(value).lower()  # true and false, and whole numbers


def description(violation: Any) -> str:
    """What is wrong there."""
    proto = violation.proto
    said = str(proto.message or proto.rule_id or "is not valid")
    return f"key: {said}" if proto.for_key else said  # a path to a map's entry may mean either


def reason(violation: Any) -> str:
    """The id of the rule, for programs: `string.min_len` as `STRING_MIN_LEN`; empty for one that cannot be written so."""
    written = _NO_WORD.sub("_", str(violation.proto.rule_id).upper())
    return written if _REASON.fullmatch(written) else ""


def told(violations: Sequence[Any], more: bool) -> str:
    """All of it in a line for the caller: the first one, and how many there are beside it.

    more: there may be others that were not looked for. Keys of maps are left out, since details reach logs.
    """
    first = violations[0]
    where = path(first, keys=False)
    line = _line(f"{where}: {description(first)}" if where else description(first))
    if more:
        return f"{line}, and maybe more violations"
    others = len(violations) - 1
    return f"{line}, and {others} more violation{'s' if others > 1 else ''}" if others else line


def logged(violations: Iterable[Any]) -> str:
    """The same for a log: where, and by which rules; nothing of what the message holds."""
    return _line(", ".join(f"{path(one, keys=False)} [{one.proto.rule_id}]".lstrip() for one in violations))


def bad_request(violations: Iterable[Any]) -> bytes:
    """A `google.rpc.BadRequest` with as many of them as have room, serialized; at least the first, in parts that are cut."""
    packed = b""
    for violation in violations:
        parts = (path(violation), description(violation), reason(violation))
        fields = (delimited(number, _cut(part)) for number, part in enumerate(parts, 1) if part)
        packed_one = delimited(1, b"".join(fields))
        if len(packed) + len(packed_one) > MAX_BAD_REQUEST:
            break
        packed += packed_one
    return packed


def _line(text: str) -> str:
    return within(one_line(text, MAX_PART), MAX_PART)


def _cut(part: str) -> bytes:
    return utf8(within(part, MAX_PART))
