"""The names and values of OpenTelemetry's semantic conventions for RPC: those of today, and those of before.

https://opentelemetry.io/docs/specs/semconv/rpc/grpc/, release candidate of 2026-08. The package of constants lags behind
it, so the names are listed here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Literal, NamedTuple, TypeAlias
from urllib.parse import unquote

from grpc import StatusCode

from interpose._method import UNKNOWN, Method, Side
from interpose.mechanisms.options import must_be
from interpose.mechanisms.text import one_line

Semconv: TypeAlias = Literal["new", "old", "both"]
SEMCONVS = ("new", "old", "both")
OPT_IN = "OTEL_SEMCONV_STABILITY_OPT_IN"  # a list; "rpc/dup" asks for both

# The attribute was renamed the day after the release 1.44.0 of the conventions; the next one will settle it.
STATUS = "rpc.status_code"
STATUSES = (STATUS, "rpc.response.status_code")

SCOPE = "interpose"  # the instrumentation scope of our spans and metrics
OTHER = "_OTHER"  # the method where the path is none, and where there are too many
MAX_NAME = 256  # characters of a path that is no method, and of a user agent

# Which codes are an error on a server; on a client all but OK are.
SERVER_ERRORS = frozenset(
    (
        StatusCode.UNKNOWN,
        StatusCode.DEADLINE_EXCEEDED,
        StatusCode.UNIMPLEMENTED,
        StatusCode.INTERNAL,
        StatusCode.UNAVAILABLE,
        StatusCode.DATA_LOSS,
    )
)

# Seconds: the advice for rpc.server.call.duration and rpc.client.call.duration.
BOUNDARIES = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)

Value: TypeAlias = str | int
Attributes: TypeAlias = Mapping[str, Value]


def chosen(semconv: Semconv | None) -> Semconv:
    """What was asked for, by the option or the environment. A new library begins with the new names."""
    if semconv is not None:
        return semconv
    return "both" if "rpc/dup" in map(str.strip, os.environ.get(OPT_IN, "").split(",")) else "new"


# What the two options must be.
ONE_SEMCONV = must_be('"new", "old", "both" or None', lambda semconv: semconv is None or semconv in SEMCONVS)
ONE_STATUS = must_be(f'"{STATUSES[0]}" or "{STATUSES[1]}"', STATUSES.__contains__)


class Conventions(NamedTuple):
    """Which names are used. Where both have a name, like `rpc.method`, the value is the new one's."""

    new: bool
    old: bool
    status: str  # the name of the new attribute for the code

    @classmethod
    def of(cls, semconv: Semconv | None, status: str) -> Conventions:
        """Those that were asked for."""
        semconv = chosen(semconv)
        return cls(semconv != "old", semconv != "new", status)

    def span_name(self, method: Method) -> str:
        """What a span of this method is called."""
        if not self.new:
            return method.full_name if is_known(method) else one_line(method.full_name, MAX_NAME)
        return _path(method) if is_known(method) else "grpc"

    def of_method(self, method: Method) -> dict[str, Value]:
        """What is known of a method before it is called; on a client the server too."""
        attributes: dict[str, Value] = {}
        if self.old:
            attributes |= {"rpc.system": "grpc", "rpc.service": method.service, "rpc.method": method.name}
        if self.new:
            attributes |= {"rpc.system.name": "grpc", "rpc.method": _path(method) if is_known(method) else OTHER}
        address, port = server_of(str(method.target or ""))
        if self.new and address:
            attributes |= {"server.address": address} | ({} if port is None else {"server.port": port})
        return attributes

    def of_path(self, method: Method) -> dict[str, Value]:
        """The name that a client used or a peer made up, where it is none of a method; for spans."""
        return {} if is_known(method) or not self.new else {"rpc.method_original": one_line(method.full_name, MAX_NAME)}

    def of_code(self, code: StatusCode, side: Side) -> dict[str, Value]:
        """What is known at the end."""
        attributes: dict[str, Value] = {}
        if self.old:
            attributes["rpc.grpc.status_code"] = code.value[0]
        if self.new:
            attributes[self.status] = code.name
            if is_error(code, side):
                attributes["error.type"] = code.name
        return attributes

    def endings(self, side: Side) -> dict[StatusCode, tuple[bool, dict[str, Value]]]:
        """Of each code: is it an error, and what it says."""
        return _endings(self, side)

    def of_peer(self, peer: str) -> Attributes:
        """The attributes of a client, from the peer as grpc writes it."""
        return _of_peer(self, peer)


def is_known(method: Method) -> bool:
    """Is its path one of a method?"""
    return method.service != UNKNOWN


def is_error(code: StatusCode, side: Side) -> bool:
    """Is it an error for those who see it on this side?"""
    return code in SERVER_ERRORS if side is Side.SERVER else code is not StatusCode.OK


@lru_cache(32)  # all that there can be
def _endings(conventions: Conventions, side: Side) -> dict[StatusCode, tuple[bool, dict[str, Value]]]:
    return {code: (is_error(code, side), conventions.of_code(code, side)) for code in StatusCode}


def _path(method: Method) -> str:
    return f"{method.service}/{method.name}"


_PEER = re.compile(r"ipv[46]:(.+):(\d+)")


@lru_cache(1024)  # connections; of more, it is read again
def _of_peer(conventions: Conventions, peer: str) -> Attributes:
    found = _PEER.fullmatch(unquote(peer))
    address, port = (found[1].strip("[]"), int(found[2])) if found else (one_line(peer, MAX_NAME), None)
    attributes: dict[str, Value] = {}
    if conventions.new:
        attributes |= {"network.peer.address": address} | ({} if port is None else {"network.peer.port": port})
    if conventions.old and port is not None:
        attributes |= {"net.peer.ip": address, "net.peer.port": str(port)}
        attributes |= {"net.peer.name": "localhost"} if address in ("127.0.0.1", "::1") else {}
    return attributes


_HOST = re.compile(r"(\[[^\]]+\]|[^:/,\[\]]+)(?::(\d{1,5}))?")  # and its port


def server_of(target: str) -> tuple[str, int | None]:
    """The address and port that a channel's target says, as the conventions read it; a target of any other kind whole."""
    scheme, _, rest = target.partition(":")
    if scheme == "unix":
        return rest.removeprefix("//"), None
    host = target
    if scheme in {"dns", "ipv4", "ipv6"}:
        host = rest.split("/", 3)[-1] if rest.startswith("//") else rest
    found = _HOST.fullmatch(unquote(host))
    return (found[1].strip("[]"), int(found[2]) if found[2] else None) if found else (target, None)
