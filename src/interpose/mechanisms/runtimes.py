"""Messages of other protobuf runtimes, as the redactor reads those of google's: by descriptor and set fields.

proto-plus wraps google's messages, so there the message within is read. protobuf-py (Buf's, imported as `protobuf`) has
descriptors of its own; they are given the names that google's have. Nothing of either is imported here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

# google/protobuf/descriptor.proto, FieldDescriptorProto.Type, as far as a redactor distinguishes types
_OTHER, _MESSAGE, _BYTES = 0, 11, 12


def readable(message: Any) -> Any | None:
    """The message with `DESCRIPTOR` and `ListFields()`, or None for what is no message of a runtime that is known here."""
    within = unwrapped(message)
    return _Message(within) if is_buf(within) else within


def unwrapped(message: Any) -> Any | None:
    """A message of google's runtime or protobuf-py's as it is, the one within a message of proto-plus, or None."""
    google, plus = map(sys.modules.get, ("google.protobuf.message", "proto"))
    if google is not None and isinstance(message, google.Message):
        return message
    if plus is not None and isinstance(message, getattr(plus, "Message", ())):
        kind: Any = type(message)
        return kind.pb(message)
    return message if is_buf(message) else None


def is_buf(message: Any) -> bool:
    """Is it a message of protobuf-py?"""
    buf = sys.modules.get("protobuf")
    return buf is not None and isinstance(message, getattr(buf, "Message", ()))


def size(message: Any) -> int:
    """Bytes that a message of google's runtime or protobuf-py's takes on the wire."""
    return len(message.to_binary()) if is_buf(message) else int(message.ByteSize())


# --- protobuf-py ----------------------------------------------------------------------------------------------------


class _Same:
    """A view of a descriptor: two of the same one are equal, so that what was compiled for it is found again."""

    __slots__ = ("_of",)

    def __init__(self, of: Any) -> None:
        self._of = of

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other._of is self._of

    def __hash__(self) -> int:
        return id(self._of)


class _Message:
    """A message. Its extensions count as unknown fields, which are not shown."""

    __slots__ = ("_message",)

    def __init__(self, message: Any) -> None:
        self._message = message

    @property
    def DESCRIPTOR(self) -> _MessageDescriptor:
        return _MessageDescriptor(self._message.desc())

    def ListFields(self) -> Iterator[tuple[_FieldDescriptor, Any]]:
        for field in self._message:
            yield _FieldDescriptor(field), _viewed(self._message[field])

    def __getattr__(self, name: str) -> Any:  # type_url and value of an `Any`
        return getattr(self._message, name)


class _Options(_Message):
    """Options of a field or an enum value, extensions included: each file imports those that it uses."""

    __slots__ = ("_file",)

    def __init__(self, options: Any, file: Any) -> None:
        super().__init__(options)
        self._file = file

    def ListFields(self) -> Iterator[tuple[_FieldDescriptor, Any]]:
        if self._message is not None:
            yield from super().ListFields()
            for extension in _extensions(self._file, set()):
                if extension.extendee.type_name == self._message.desc().type_name and extension.type in self._message:
                    yield _FieldDescriptor(extension), _viewed(self._message[extension.type])


def _extensions(file: Any, seen: set[str]) -> Iterator[Any]:
    """All that a file and those it imports declare."""
    if file.name not in seen:
        seen.add(file.name)
        yield from file.extensions
        for message in file.messages:
            yield from _nested_extensions(message)
        for imported in file.dependencies:
            yield from _extensions(imported, seen)


def _nested_extensions(message: Any) -> Iterator[Any]:
    yield from message.nested_extensions
    for nested in message.nested_messages:
        yield from _nested_extensions(nested)


def _viewed(value: Any) -> Any:
    """A value with the messages in it as views."""
    if hasattr(value, "desc") and not isinstance(value, int):
        return _Message(value)
    if isinstance(value, dict):
        return _Map(value)
    return map(_viewed, value) if isinstance(value, list) else value


class _Map:
    """A map, whose values are viewed one by one: there may be many, and room for few."""

    __slots__ = ("_map",)

    def __init__(self, values: Mapping[Any, Any]) -> None:
        self._map = values

    def items(self) -> Iterator[tuple[Any, Any]]:
        return ((key, _viewed(value)) for key, value in self._map.items())

    def values(self) -> Iterator[Any]:
        return map(_viewed, self._map.values())


class _MessageDescriptor(_Same):
    __slots__ = ()

    @property
    def full_name(self) -> str:
        return str(self._of.type_name)

    @property
    def fields_by_name(self) -> dict[str, _FieldDescriptor]:
        return {field.name: _FieldDescriptor(field) for field in self._of.fields}

    def GetOptions(self) -> _Flags:
        return _Flags(map_entry=False)


class _FieldDescriptor(_Same):
    """A field or an extension."""

    __slots__ = ()

    @property
    def name(self) -> str:
        return str(self._of.name)

    @property
    def number(self) -> int:
        return int(self._of.number)

    @property
    def is_extension(self) -> bool:
        return hasattr(self._of, "extendee")

    @property
    def full_name(self) -> str:
        return str(self._of.type_name) if self.is_extension else f"{self._of.parent.type_name}.{self.name}"

    @property
    def is_repeated(self) -> bool:
        return hasattr(self._of.value, "element") or hasattr(self._of.value, "key")

    @property
    def message_type(self) -> Any:
        value = self._of.value
        return _EntryDescriptor(self._of) if hasattr(value, "key") else _message_type(_kind(value))

    @property
    def enum_type(self) -> _EnumDescriptor | None:
        value = self._of.value
        return None if hasattr(value, "key") else _enum_type(_kind(value))

    @property
    def type(self) -> int:
        return _MESSAGE if hasattr(self._of.value, "key") else _type(_kind(self._of.value))

    def GetOptions(self) -> Any:
        file = self._of.file if self.is_extension else self._of.parent.file
        return _Options(self._of.proto.options, file)


def _kind(value: Any) -> Any:
    """The type of a field's values: a descriptor, or a scalar's."""
    for name in ("element", "message", "enum", "scalar"):
        if hasattr(value, name):
            return getattr(value, name)
    return None


def _message_type(kind: Any) -> _MessageDescriptor | None:
    return _MessageDescriptor(kind) if hasattr(kind, "fields") else None


def _enum_type(kind: Any) -> _EnumDescriptor | None:
    return _EnumDescriptor(kind) if hasattr(kind, "values") else None


def _type(kind: Any) -> int:
    if hasattr(kind, "fields"):
        return _MESSAGE
    return _BYTES if getattr(kind, "name", "") == "BYTES" else _OTHER


class _EntryDescriptor(_Same):
    """The entries of a map, as a message type of google's with a key and a value; of its field."""

    __slots__ = ()

    @property
    def full_name(self) -> str:
        # As protoc names the type: wallet_cards → WalletCardsEntry.
        return f"{self._of.parent.type_name}.{''.join(map(_capital, self._of.name.split('_')))}Entry"

    @property
    def fields_by_name(self) -> dict[str, _EntryField]:
        value = self._of.value
        return {"key": _EntryField(self, "key", 1, value.key), "value": _EntryField(self, "value", 2, value.value)}

    def GetOptions(self) -> _Flags:
        return _Flags(map_entry=True)


class _EntryField:
    """The key or the value of a map's entries."""

    is_extension = is_repeated = False

    def __init__(self, entry: _EntryDescriptor, name: str, number: int, kind: Any) -> None:
        self.name = name
        self.number = number
        self.full_name = f"{entry.full_name}.{name}"
        self.message_type = _message_type(kind)
        self.enum_type = _enum_type(kind)
        self.type = _type(kind)

    def GetOptions(self) -> _Options:
        return _Options(None, None)


class _EnumDescriptor:
    def __init__(self, enum: Any) -> None:
        self.values_by_number = {value.number: _EnumValue(value, enum.file) for value in enum.values}


class _EnumValue:
    def __init__(self, value: Any, file: Any) -> None:
        self.name = str(value.name)
        self._value = value
        self._file = file

    def GetOptions(self) -> _Options:
        return _Options(self._value.proto.options, self._file)


class _Flags:
    """Options of a message type, as far as they count here."""

    def __init__(self, *, map_entry: bool) -> None:
        self.map_entry = map_entry


def _capital(word: str) -> str:
    return word[:1].upper() + word[1:]
