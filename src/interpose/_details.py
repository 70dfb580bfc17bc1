"""Codes and texts that grpc can carry, and how long they may be."""

from __future__ import annotations

from concurrent.futures import CancelledError
from itertools import accumulate
from typing import Any

import grpc

# bytes on the wire; of more than 8 KiB of trailers a client makes RESOURCE_EXHAUSTED, whatever the status was. The text
# travels twice with packed details, which need some room beside it.
MAX_DETAILS = 2048
MAX_STATUS = 7168  # the same with the trailing metadata; leaves room for what gRPC itself puts beside them


_OF_FUTURES = (CancelledError, StopIteration)  # an asyncio server takes these for its own, coming from a thread
_PLAIN = frozenset(range(0x20, 0x7F)) - {ord("%")}  # bytes of a grpc-message that travel as they are, others as %XX
_BY_NUMBER = {code.value[0]: code for code in grpc.StatusCode}

# What an outcome says of an RPC whose caller no longer listens.
GONE = {
    grpc.StatusCode.CANCELLED: "the client cancelled",
    grpc.StatusCode.DEADLINE_EXCEEDED: "the deadline passed",
    grpc.StatusCode.UNAVAILABLE: "the server was stopped",
}
CANCELLED_OR_STOPPED = "the client cancelled, or the server was stopped"  # grpc does not let an interceptor know


def status_code(code: Any) -> grpc.StatusCode:
    """A status code from what a handler gave: also a number; UNKNOWN for what is none."""
    return code if isinstance(code, grpc.StatusCode) else _BY_NUMBER.get(code, grpc.StatusCode.UNKNOWN)


def text(details: Any) -> str:
    """Details as text."""
    if isinstance(details, bytes):
        return details.decode("utf-8", "replace")
    return "" if details is None else str(details)


def sendable(details: str) -> str:
    """Details that reach the client: cut to a size that does not change the status, and of characters that UTF-8 has."""
    encoded = details.encode("utf-8", "replace")
    if len(encoded) > MAX_DETAILS // 3:
        sizes = accumulate(1 if byte in _PLAIN else 3 for byte in encoded)
        fitting = sum(size <= MAX_DETAILS for size in sizes)
        if fitting < len(encoded):
            encoded = encoded[:fitting] + f"… ({len(encoded)} bytes)".encode()
    return encoded.decode("utf-8", "ignore")


def field_size(key: str, value: str | bytes) -> int:
    """Bytes of a header field as HTTP/2 counts them (RFC 9113, 6.5.2)."""
    if isinstance(value, bytes):
        length = 4 * ((len(value) + 2) // 3)  # base64
    else:
        length = sum(1 if byte in _PLAIN else 3 for byte in value.encode("utf-8", "replace"))
    return 32 + len(key) + length


def can_be_details(error: BaseException) -> bool:
    """Can grpc log this exception, and answer with it? It can do so with exceptions whose text can be had and sent."""
    if not isinstance(error, Exception) or isinstance(error, _OF_FUTURES):
        return False
    try:
        return len(str(error).encode()) <= MAX_DETAILS // 3  # bytes that are not plain ASCII travel as three
    except BaseException:
        return False


def described(error: BaseException) -> str:
    """The text of an exception as sync grpc puts it, for those that grpc itself would choke on."""
    try:
        return f"Exception calling application: {error}"
    except BaseException:
        return "Calling application raised unprintable Exception!"
