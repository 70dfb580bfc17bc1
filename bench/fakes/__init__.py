"""grpcio without a network: channels that answer at once, contexts that know nothing.

They do per message and per call what grpcio does in Python (run the serializers, step an iterator)
and nothing else, so what remains is the middleware.
"""

from __future__ import annotations

from collections.abc import Sequence

REQUEST = b"q" * 32
REPLY = b"r" * 32

STREAM = 10_000
"""Messages of one stream: so many that its beginning and its end do not count."""

MESSAGES: Sequence[bytes] = [REQUEST] * STREAM

CODEC = bytes
"""Serializer and deserializer of the streams: as cheap as one gets, yet called for each message."""

METHOD = "/bench.v1.Echo/Say"
