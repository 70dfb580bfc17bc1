"""What of a protobuf message may be shown: a dict that JSON can hold, without its secrets and of bounded size.

Nothing of protobuf is imported here. A message of a runtime can only exist once the application has done so.
"""

from __future__ import annotations

import importlib
import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from json.encoder import encode_basestring_ascii
from typing import Any, NamedTuple, TypeAlias

from interpose.mechanisms.options import is_whole
from interpose.mechanisms.runtimes import readable

REDACTED = "[REDACTED]"
MORE = "…"  # stands for what is left out: the key of a cut message, and a message below the deepest level
CUT = "cut"

MAX_BYTES = 4096  # of JSON, for one message
MAX_DEPTH = 16  # levels of nesting
LEAST_BYTES = 64  # there has to be room for "[REDACTED]" and the mark of a cut
AROUND = 4  # characters around a field: a colon, a comma, and a space behind each
MAX_PLANS = 1024  # message types and places that are kept compiled; far beyond what one service has
MAX_TEXT = 1024  # characters of one text
MAX_NAME = 256  # characters of a type's name, its URL, or a key of a map
MAX_OPTION_DEPTH = 4  # levels of custom options that are searched for a mark

# google/protobuf/descriptor.proto, FieldDescriptorProto.Type and .Label
_GROUP, _MESSAGE, _BYTES, _ENUM = 10, 11, 12, 14
_LABEL_REPEATED = 3
_TRANSPARENT = frozenset({"google.protobuf.Struct", "google.protobuf.Value", "google.protobuf.ListValue"})
_ANY = "google.protobuf.Any"
_NOT_FINITE = {math.inf: "Infinity", -math.inf: "-Infinity"}  # as in protobuf's own JSON

_RULE = re.compile(r"(?:\*|[A-Za-z_]\w*)(?:\.(?:\*|[A-Za-z_]\w*))*", re.ASCII)

Names: TypeAlias = tuple[str, ...]
State: TypeAlias = frozenset[Names]  # of each rule that has begun to match: what of it is still to come


class Redactor:
    """Give what may be shown of a message: `Redactor("password", "card.number")(message)`.

    Field names as in the proto, enums by name, bytes as their size. Fields whose proto says `debug_redact`, and those
    that a rule names, are "[REDACTED]" if they are set; what they hold is not looked at.

    rules: names joined by dots. A rule hides a field if the path to it, or its full name in the proto, ends with the
        rule: "number", "card.number", "pay.v1.Card.number". `*` stands for any one name: "card.*" hides all fields of
        each `card` and each `Card`. The full name of a message type hides all such messages. Names are compared without
        regard to case, "_" and "-". Lists, `Any` and `Struct` add nothing to a path. The key of a map is a name too if
        it is text, so "password" hides `labels["password"]`; "labels.key" hides all keys, "labels.value" all values.
    max_bytes: of the JSON that shows one message; what is beyond is left out, and "…" says so. A text is cut at 1024
        characters.
    max_depth: levels of nesting that are shown.

    An `Any` is opened if its type is known here and it is not longer than `max_bytes`; else its type and size are shown.
    Unknown fields are not shown. Messages of proto-plus are shown like google's. So are those of protobuf-py, but for
    extensions and what is in an `Any`. All else, messages of betterproto2 included, is shown by its type and length:
    "<str, 5>", "<shop.Order>".

    Defaults: 4096 bytes and 16 levels: enough to recognize a message by, and not much for a log. ValueError listing every
    fault of these.
    """

    def __init__(self, *rules: str, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH) -> None:
        faults = list(_faults(rules, max_bytes, max_depth))
        if faults:
            raise ValueError(f"Redactor: {'; '.join(faults)}")
        self._rules = _Rules(tuple(map(_rule, rules)))
        self._max_bytes = max_bytes
        self._max_depth = max_depth

    def __call__(self, message: Any) -> Any:
        """What may be shown of it: a dict that JSON can hold; a text for all that is no protobuf message."""
        read = readable(message)
        if read is None:
            return type_and_size(message)
        return _Showing(self._rules, self._max_bytes, self._max_depth).whole(read)


class _Rules:
    """The rules, compiled for each message type at each place where it is met."""

    def __init__(self, rules: tuple[Names, ...]) -> None:
        self._rules = rules
        self._plans: dict[tuple[Any, State], _Plan] = {}

    def plan(self, descriptor: Any, state: State) -> _Plan:
        """How messages of this type are shown where the path to them has led to `state`."""
        plan = self._plans.get((descriptor, state))
        if plan is None:
            if len(self._plans) >= MAX_PLANS:
                self._plans.clear()
            plan = self._plans[descriptor, state] = _Plan(self, descriptor, state)
        return plan

    def follow(self, state: State, name: str) -> tuple[bool, State]:
        """One name further on the path: does a rule end here, and what may end later?"""
        if not self._rules:
            return False, state
        name = _alike(name)
        rests = [rule[1:] for rule in (*self._rules, *state) if rule[0] in {name, "*"}]
        return () in rests, frozenset(rest for rest in rests if rest)

    def end(self, full_name: str) -> bool:
        """Does the full name of a field end with a rule?"""
        names = _names(full_name)
        return any(_matches(rule, names[-len(rule) :]) for rule in self._rules)

    def are(self, full_name: str) -> bool:
        """Is the full name of a message type a rule?"""
        return any(_matches(rule, _names(full_name)) for rule in self._rules if rule != ("*",))


class _Field(NamedTuple):
    """How one field is shown."""

    name: str
    hidden: bool
    state: State  # for the messages that it holds
    entry: Any  # of a map: the descriptor of its entries
    enum: Any  # the names of its values, by number; None for other types
    is_message: bool
    is_bytes: bool
    is_repeated: bool


class _Plan:
    """How messages of one type are shown, where they are met. Its fields are compiled when first seen."""

    __slots__ = ("_fields", "_rules", "_state", "_transparent", "hidden", "is_any")

    def __init__(self, rules: _Rules, descriptor: Any, state: State) -> None:
        self._rules = rules
        self._state = state
        self._fields: dict[int, _Field] = {}
        self._transparent = descriptor.full_name in _TRANSPARENT
        self.is_any = descriptor.full_name == _ANY
        self.hidden = rules.are(descriptor.full_name)

    def field(self, descriptor: Any) -> _Field:
        """How this field is shown. Extensions are among the fields; no two have the same number."""
        field = self._fields.get(descriptor.number)
        if field is None:
            field = self._fields[descriptor.number] = self._compiled(descriptor)
        return field

    def _compiled(self, descriptor: Any) -> _Field:
        named, state = self._rules.follow(self._state, descriptor.name)
        kind = descriptor.message_type
        return _Field(
            name=f"[{descriptor.full_name}]" if descriptor.is_extension else descriptor.name,
            hidden=named or self._rules.end(descriptor.full_name) or is_marked(options_of(descriptor)),
            state=state | self._state if self._transparent else state,
            entry=kind if kind is not None and kind.GetOptions().map_entry else None,
            enum=None if descriptor.enum_type is None else descriptor.enum_type.values_by_number,
            is_message=descriptor.type in {_MESSAGE, _GROUP},
            is_bytes=descriptor.type == _BYTES,
            is_repeated=_is_repeated(descriptor),
        )


class _Full(Exception):
    """There is no room for more."""


class _Showing:
    """The showing of one message: how much room is left."""

    __slots__ = ("_full", "_max_bytes", "_max_depth", "_room", "_rules")

    def __init__(self, rules: _Rules, max_bytes: int, max_depth: int) -> None:
        self._rules = rules
        self._max_bytes = max_bytes
        self._max_depth = max_depth
        self._room = max_bytes - _length(MORE) - _length(CUT) - AROUND
        self._full = False

    def whole(self, message: Any) -> Any:
        shown = self._message(message, frozenset(), 0)
        if self._full:
            shown[MORE] = CUT
        return shown

    def _message(self, message: Any, state: State, depth: int) -> Any:
        plan = self._rules.plan(message.DESCRIPTOR, state)
        if plan.hidden:
            return self._text(REDACTED)
        if depth >= self._max_depth:
            return self._text(MORE)
        self._take(2)
        if plan.is_any:
            return self._any(message, plan, state, depth)
        shown: dict[str, Any] = {}
        for descriptor, value in message.ListFields():
            field = plan.field(descriptor)
            if not self._put(shown, field.name, self._field, field, value, depth):
                break
        return shown

    def _put(self, into: dict[str, Any], name: str, show: Callable[..., Any], *arguments: Any) -> bool:
        """Show something under its name; False once there is no room."""
        if not self._full:
            try:
                self._take(_length(name) + AROUND)
                into[name] = show(*arguments)
            except _Full:
                self._full = True
        return not self._full

    def _field(self, field: _Field, value: Any, depth: int) -> Any:
        if field.hidden:
            return self._text(REDACTED)
        if field.entry is not None:
            return self._map(field, value, depth)
        if field.is_repeated:
            return self._list(field, value, depth)
        return self._value(field, value, depth)

    def _value(self, field: _Field, value: Any, depth: int) -> Any:
        if field.is_message:
            return self._message(value, field.state, depth + 1)
        if field.is_bytes:
            return self._text(f"<bytes, {len(value)}>")
        if field.enum is not None:
            known = field.enum.get(value)
            return self._number(value) if known is None else self._text(known.name)
        return self._text(value) if isinstance(value, str) else self._number(value)

    def _list(self, field: _Field, values: Iterable[Any], depth: int) -> list[Any]:
        self._take(2)
        shown: list[Any] = []
        for value in values:
            try:
                self._take(2)
                shown.append(self._value(field, value, depth))
            except _Full:
                self._full = True
            if self._full:
                break
        return shown

    def _map(self, field: _Field, values: Any, depth: int) -> dict[str, Any]:
        self._take(2)
        entry = self._rules.plan(field.entry, field.state)
        key_kind, kind = (entry.field(field.entry.fields_by_name[name]) for name in ("key", "value"))
        shown: dict[str, Any] = {}
        for number, (key, value) in enumerate(values.items(), 1):
            named, below = self._rules.follow(field.state, key) if isinstance(key, str) else (False, field.state)
            name = f"[REDACTED {number}]" if key_kind.hidden else _short(_key(key))
            here = kind._replace(hidden=named or kind.hidden, state=field.state | kind.state | below)
            if not self._put(shown, name, self._field, here, value, depth):
                break
        return shown

    def _any(self, message: Any, plan: _Plan, state: State, depth: int) -> dict[str, Any]:
        fields = message.DESCRIPTOR.fields_by_name
        shown: dict[str, Any] = {}
        url = REDACTED if plan.field(fields["type_url"]).hidden else _short(message.type_url)
        self._put(shown, "@type", self._text, url)
        packed = message.value
        opened = _opened(message) if len(packed) <= self._max_bytes else None
        if plan.field(fields["value"]).hidden:
            self._put(shown, "value", self._text, REDACTED)
        elif opened is None:
            self._put(shown, "value", self._text, f"<bytes, {len(packed)}>")
        else:
            self._put(shown, "value", self._message, opened, state, depth + 1)
        return shown

    def _number(self, value: Any) -> Any:
        if isinstance(value, float) and not math.isfinite(value):
            return self._text(_NOT_FINITE.get(value, "NaN"))
        self._take(len(repr(value)))
        return value

    def _text(self, text: str) -> str:
        shown = text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}{MORE}"
        self._take(_length(shown))
        return shown

    def _take(self, length: int) -> None:
        if length > self._room:
            raise _Full
        self._room -= length


def type_and_size(value: Any) -> str:
    """What may be shown of something that is no protobuf message: "<str, 5>", "<shop.Order>" if it has no size."""
    kind = type(value)
    name = _short(kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}")
    try:
        return f"<{name}, {len(value)}>"
    except Exception:  # it has no length, or a broken one
        return f"<{name}>"


def without_secrets(text: str) -> str:
    """Text for people, without what looks like a secret in it: the value behind a name like "password" or "api-key",
    credentials behind "Bearer" and in a URL, and JSON web tokens. What looks like none, stays.
    """
    for pattern, left in _SECRETS:
        text = pattern.sub(left, text)
    return text


_NAMES = r"(?:passw(?:or)?d|passphrase|secret|token|credentials?|(?:api|access|private)[_-]?key|session[_-]?id)"

# Each looks at a character a few times at most, however the text is made.
_SECRETS = tuple(
    (re.compile(pattern, re.IGNORECASE | re.ASCII), left)
    for pattern, left in (
        (r"((?:authorization|cookie)[\"']?\s{0,4}[:=]).*", rf"\1 {REDACTED}"),
        (r"\b(bearer|(?:basic|digest)(?= {1,4}[a-z]*(?-i:[A-Z0-9=]))) {1,4}[\w.~+/=-]{6,}", rf"\1 {REDACTED}"),
        (r"://[^/\s@]{1,256}@", f"://{REDACTED}@"),
        (r"\beyJ[\w-]{4,}\.[\w-]+\.[\w-]*", REDACTED),  # {" in base64
        (
            rf"({_NAMES}[\"']?\s{{0,4}}[:=]\s{{0,4}})(?!{re.escape(REDACTED)})(?:\"[^\"]*\"?|'[^']*'?|[^\s,;&]+)",
            rf"\1{REDACTED}",
        ),
    )
)


def options_of(field: Any) -> Any:
    """A field's options. In a pool of its own they know the custom ones only if they are read again with its types."""
    options, pool = field.GetOptions(), getattr(getattr(field, "file", None), "pool", None)
    if pool is None:
        return options
    try:
        kind = pool.FindMessageTypeByName(options.DESCRIPTOR.full_name)
    except KeyError:  # so nothing in this pool can have custom ones
        return options
    if kind is options.DESCRIPTOR:
        return options
    factory = importlib.import_module("google.protobuf.message_factory")  # of a runtime that is loaded
    return factory.GetMessageClass(kind).FromString(options.SerializeToString())


def is_marked(options: Any, depth: int = 0) -> bool:
    """Does a field's `debug_redact` hide it, or a custom option with an enum value that has that mark?

    As protobuf's own text format decides it: descriptor.proto, FieldOptions and EnumValueOptions.
    """
    if getattr(options, "debug_redact", False):
        return True
    if depth >= MAX_OPTION_DEPTH:
        return True  # options are not nested as deep; what cannot be judged is not shown
    return any(_marks(field, value, depth) for field, value in options.ListFields())


def _marks(field: Any, value: Any, depth: int) -> bool:
    """Is a secret marked by this option?"""
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        kind = field.message_type.fields_by_name["value"]
        return any(_marks(kind, each, depth) for each in value.values())
    values = value if _is_repeated(field) else (value,)
    if field.enum_type is not None:
        known = [field.enum_type.values_by_number.get(number) for number in values]
        return any(each is not None and getattr(each.GetOptions(), "debug_redact", False) for each in known)
    return field.message_type is not None and any(is_marked(each, depth + 1) for each in values)


def _is_repeated(field: Any) -> bool:
    # `label` went in protobuf 7, and `is_repeated` came in 6.30.
    repeated = getattr(field, "is_repeated", None)
    return bool(field.label == _LABEL_REPEATED if repeated is None else repeated)


def _opened(message: Any) -> Any:
    """The message in an `Any`, or None if its type is not known here or it cannot be read."""
    factory = sys.modules.get("google.protobuf.message_factory")
    if factory is None:
        return None
    try:
        found = message.DESCRIPTOR.file.pool.FindMessageTypeByName(message.type_url.rpartition("/")[2])
        return factory.GetMessageClass(found).FromString(message.value)
    except Exception:  # of the name or the bytes, which a peer chose
        return None


def _key(key: Any) -> str:
    return str(key).lower() if isinstance(key, bool) else str(key)


def _short(text: str) -> str:
    return text if len(text) <= MAX_NAME else f"{text[:MAX_NAME]}{MORE}"


def _length(text: str) -> int:
    """How long it is in JSON."""
    return len(encode_basestring_ascii(text))


def _alike(name: str) -> str:
    """The same for `card_number`, `cardNumber` and `Card-Number`."""
    return name.replace("_", "").replace("-", "").lower()


def _names(dotted: str) -> Names:
    return tuple(map(_alike, dotted.split(".")))


def _rule(text: str) -> Names:
    return _names(text.removeprefix("*.") or text)  # it is looked for at every depth as it is


def _matches(rule: Names, names: Names) -> bool:
    return len(rule) == len(names) and all(wanted in {name, "*"} for wanted, name in zip(rule, names, strict=True))


def _faults(rules: tuple[Any, ...], max_bytes: Any, max_depth: Any) -> Iterator[str]:
    for rule in rules:
        if not isinstance(rule, str) or not _RULE.fullmatch(rule):
            yield f"a rule is made of names joined by dots, like 'card.number' or '*.password', not {rule!r}"
    if not is_whole(max_bytes, LEAST_BYTES, sys.maxsize):
        yield f"max_bytes must be a whole number from {LEAST_BYTES}, not {max_bytes!r}"
    if not is_whole(max_depth, 1, 100):
        yield f"max_depth must be a whole number from 1 to 100, not {max_depth!r}"
