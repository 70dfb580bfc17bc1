"""Descriptors of protobuf as the text of a proto, with full names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

INDENT = "  "
_NAMES = {
    number: name.removeprefix("TYPE_").lower()
    for name, number in vars(FieldDescriptor).items()
    if name.startswith("TYPE_")
}
_IDEMPOTENCY = ("", "NO_SIDE_EFFECTS", "IDEMPOTENT")  # MethodOptions.IdempotencyLevel


def text_of(descriptor: Any) -> str:
    """The text of a service, a method, a message or an enum."""
    if hasattr(descriptor, "methods"):
        return _block(f"service {descriptor.full_name}", map(_method, descriptor.methods))
    if hasattr(descriptor, "containing_service"):
        return f"// of service {descriptor.containing_service.full_name}\n{_method(descriptor)}"
    if hasattr(descriptor, "values"):
        return _block(f"enum {descriptor.full_name}", _values(descriptor))
    return _block(f"message {descriptor.full_name}", _members(descriptor))


def _block(head: str, lines: Iterator[str]) -> str:
    body = "".join(f"{INDENT}{line}\n" for part in lines for line in part.splitlines())
    return f"{head} {{\n{body}}}" if body else f"{head} {{}}"


def _method(method: Any) -> str:
    request = f"{'stream ' if method.client_streaming else ''}{method.input_type.full_name}"
    response = f"{'stream ' if method.server_streaming else ''}{method.output_type.full_name}"
    options = method.GetOptions()
    marks = [f"idempotency_level = {_IDEMPOTENCY[options.idempotency_level]}"] if options.idempotency_level else []
    marks += ["deprecated = true"] if options.deprecated else []
    end = f" {{ {' '.join(f'option {mark};' for mark in marks)} }}" if marks else ";"
    return f"rpc {method.name}({request}) returns ({response}){end}"


def _values(enum: Any) -> Iterator[str]:
    yield from (f"{value.name} = {value.number};" for value in enum.values)


def _members(message: Any) -> Iterator[str]:
    """Fields, those of a oneof together where its first is."""
    shown: set[str] = set()
    for field in message.fields:
        oneof = _oneof(field)
        if oneof is None:
            yield _field(field)
        elif oneof.name not in shown:
            shown.add(oneof.name)
            yield _block(f"oneof {oneof.name}", map(_field, oneof.fields))


def _oneof(field: Any) -> Any:
    """The oneof that a field is in; those that protobuf makes of `optional` are none."""
    oneof = field.containing_oneof
    return None if oneof is None or (len(oneof.fields) == 1 and oneof.name == f"_{field.name}") else oneof


def _field(field: Any) -> str:
    return f"{_label(field)}{_kind(field)} {field.name} = {field.number}{_marks(field)};"


def _label(field: Any) -> str:
    if _entry(field) is not None:
        return ""
    if _is_repeated(field):
        return "repeated "
    return "optional " if field.containing_oneof is not None and _oneof(field) is None else ""


def _is_repeated(field: Any) -> bool:
    # `label` went in protobuf 7, and `is_repeated` came in 6.30.
    repeated = getattr(field, "is_repeated", None)
    return bool(field.label == FieldDescriptor.LABEL_REPEATED if repeated is None else repeated)


def _entry(field: Any) -> Any:
    """Of a map: the message of its entries."""
    kind = field.message_type
    return kind if kind is not None and kind.GetOptions().map_entry else None


def _kind(field: Any) -> str:
    entry = _entry(field)
    if entry is not None:
        return f"map<{', '.join(_kind(entry.fields_by_name[name]) for name in ('key', 'value'))}>"
    named = field.message_type or field.enum_type
    return _NAMES[field.type] if named is None else str(named.full_name)


def _marks(field: Any) -> str:
    options = field.GetOptions()
    marks = [f"{name} = true" for name in ("deprecated", "debug_redact") if getattr(options, name, False)]
    return f" [{', '.join(marks)}]" if marks else ""
