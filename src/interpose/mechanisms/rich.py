"""A google.rpc.Status packed by hand: a guard must not need protobuf to say why it refuses."""

from __future__ import annotations


def status(code: int, text: str, name: str, message: bytes) -> bytes:
    """A `google.rpc.Status` with one message in it, serialized.

    code, text: the same as those of the RPC, or readers refuse it. name: the full name of the message's type.
    """
    detail = delimited(1, f"type.googleapis.com/{name}".encode()) + delimited(2, message)
    return number(1, code) + delimited(2, utf8(text)) + delimited(3, detail)


def number(field: int, value: int) -> bytes:
    """A field with a number that is not negative; nothing for 0, as proto3 has it."""
    return _varint(field << 3) + _varint(value) if value else b""


def delimited(field: int, value: bytes) -> bytes:
    """A field with text, bytes or a message."""
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def utf8(text: str) -> bytes:
    """Text as protobuf takes it."""
    return text.encode("utf-8", "replace")


def _varint(value: int) -> bytes:
    """A number as protobuf writes it: seven bits a byte, the lowest first."""
    low, high = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + _varint(high) if high else bytes([low])
