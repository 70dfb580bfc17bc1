"""Rich errors: google.rpc messages that travel with a status. Needs the extra `status`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc

try:
    from google.protobuf import any_pb2, message, symbol_database
    from google.rpc import error_details_pb2, status_pb2
except ImportError as missing:  # pragma: no cover - the suite has the package; tests/contrib checks the text without it
    raise ImportError('rich error details need a package more: pip install "interpose[status]"') from missing


STANDARD = error_details_pb2.DESCRIPTOR  # imported, so that its messages are known when a status is opened


def pack(code: grpc.StatusCode, details: str, messages: Sequence[Any]) -> bytes:
    """The `google.rpc.Status` that carries these messages, as bytes for the trailing metadata."""
    status = status_pb2.Status(code=code.value[0], message=details)
    for part in messages:
        if isinstance(part, any_pb2.Any):
            status.details.append(part)
        elif isinstance(part, message.Message):
            status.details.add().Pack(part)
        else:
            raise TypeError(f"rich error details are protobuf messages, not {part!r:.100}: put text into the details")
    packed: bytes = status.SerializeToString()
    return packed


def unpack(packed: Any) -> tuple[Any, ...]:
    """The messages of a packed Status; types not known here stay `Any`, and what cannot be read gives none."""
    try:
        status = status_pb2.Status.FromString(packed)
        return tuple(_opened(part) for part in status.details)
    except (message.DecodeError, TypeError):
        return ()


def _opened(part: any_pb2.Any) -> Any:
    try:
        known = symbol_database.Default().GetSymbol(part.TypeName())
    except KeyError:
        return part
    opened = known()
    part.Unpack(opened)
    return opened
