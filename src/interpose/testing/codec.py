"""How the messages of the echo service travel: text as it is, protobuf messages with the name of their type.

Client and server are in one process, so a type that one of them has sent is known to the other.
"""

from __future__ import annotations

from typing import Any

MARK = b"\0protobuf:"  # begins no text that anybody would write
_END = b"\0"

_types: dict[bytes, Any] = {}  # of messages that were sent, by their full names


def encode(message: Any) -> bytes:
    """A text, bytes, or a protobuf message as bytes; asyncio servers encode text themselves before they ask."""
    if not is_message(message):
        encoded: bytes = message.encode() if isinstance(message, str) else message
        return encoded
    name = message.DESCRIPTOR.full_name.encode()
    _types.setdefault(name, type(message))
    return b"".join((MARK, name, _END, message.SerializeToString()))


def decode(data: bytes) -> Any:
    """The message that `encode` made these bytes of, or bytes as text."""
    if not data.startswith(MARK):
        return data.decode()
    name, _, packed = data.removeprefix(MARK).partition(_END)
    return _types[name].FromString(packed)


def is_message(value: Any) -> bool:
    """Is it a message of google's protobuf? Asked without an import of it."""
    return hasattr(value, "DESCRIPTOR") and hasattr(value, "SerializeToString")


def joined(messages: list[Any]) -> Any:
    """The one answer to a request stream: texts joined with ",", or the last protobuf message."""
    return messages[-1] if messages and is_message(messages[-1]) else ",".join(map(str, messages))
