"""Rich errors: google.rpc messages that travel with a status. Needs the extra `status`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import grpc

from interpose._details import sendable
from interpose._kind import kind_of

try:
    from google.protobuf import any_pb2, descriptor_pool, message, message_factory
    from google.rpc import error_details_pb2, status_pb2
except ImportError as missing:
    raise ImportError('rich error details need a package more: pip install "interpose[status]"') from missing


_log = logging.getLogger("interpose")

STANDARD = error_details_pb2.DESCRIPTOR  # imported, so that its messages are known when a status is opened


def pack(code: grpc.StatusCode, details: str, messages: Sequence[Any]) -> bytes:
    """The `google.rpc.Status` that carries these messages, as bytes for the trailing metadata.

    TypeError for what is no protobuf message.
    """
    status = status_pb2.Status(code=code.value[0], message=_utf8(details))
    for part in messages:
        if isinstance(part, any_pb2.Any):
            status.details.append(part)
        elif isinstance(part, message.Message):
            status.details.add().Pack(part)
        else:
            raise TypeError(f"rich error details are protobuf messages, not {kind_of(part)}: put text into the details")
    packed: bytes = status.SerializeToString()
    return packed


def unpack(packed: Any) -> tuple[Any, ...]:
    """The messages of a packed Status; what is not known or not readable here stays `Any`. No bytes make it raise."""
    try:
        status = status_pb2.Status.FromString(packed)
    except (message.DecodeError, TypeError):
        return ()
    return tuple(_opened(part) for part in status.details)


def _opened(part: any_pb2.Any) -> Any:
    try:
        kind = descriptor_pool.Default().FindMessageTypeByName(part.TypeName())
        opened = message_factory.GetMessageClass(kind)()
        part.Unpack(opened)
    except (KeyError, message.DecodeError):
        return part
    return opened


def fitted(packed: Any, details: str, room: int) -> bytes | None:
    """A packed Status in at most `room` bytes, with those of its messages that fit, in order; None if none does.

    details: the text beside it. Where the peer gets less of that, so it is in the status: grpcio-status insists
        that they are the same.
    """
    try:
        given = status_pb2.Status.FromString(packed)
    except message.DecodeError:  # packed by hand: whole, or not at all
        return packed if len(packed) <= room else None
    except TypeError:
        return None
    told = sendable(details) if given.message == _utf8(details) else given.message
    if told == given.message and len(packed) <= room:
        return bytes(packed)
    fits = status_pb2.Status(code=given.code, message=told)
    for part in given.details:
        fits.details.append(part)
        if fits.ByteSize() > room:
            del fits.details[-1]
    if fits.ByteSize() > room or (given.details and not fits.details):
        return None
    if left_out := len(given.details) - len(fits.details):
        _log.error("%d of %d error details are left out: they are too large", left_out, len(given.details))
    return fits.SerializeToString() or None


def _utf8(text: str) -> str:
    """The text, of characters that a message takes."""
    return text.encode("utf-8", "replace").decode("utf-8")
