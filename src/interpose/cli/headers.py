"""Metadata on a command line: `-H 'key: value'`. What it holds is often a secret, so no error repeats it."""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Iterable, Mapping

import click

from interpose.mechanisms.redaction import without_secrets
from interpose.mechanisms.text import one_line

_KEY = re.compile(r"[0-9a-z_.-]+", re.ASCII)  # gRPC over HTTP2, "Custom-Metadata"
_VALUE = re.compile(r"[\x20-\x7e]*", re.ASCII)
_VARIABLE = re.compile(r"\$\{(\w+)\}", re.ASCII)
BINARY = "-bin"
MOST = 1024  # characters of one line of metadata that are shown

Pairs = tuple[tuple[str, str | bytes], ...]


def parsed(headers: Iterable[str], environment: Mapping[str, str] = os.environ) -> Pairs:
    """The metadata that was given. `${NAME}` in a value is the variable of that name; `-bin` keys have base64.

    BadParameter that names the key, or the place if there is none, and not the value.
    """
    return tuple(_pair(number, header, environment) for number, header in enumerate(headers, 1))


def _pair(number: int, header: str, environment: Mapping[str, str]) -> tuple[str, str | bytes]:
    key, colon, value = header.partition(":")
    key = key.strip().lower()
    if not colon or not _KEY.fullmatch(key):
        raise click.BadParameter(
            f"header {number} is no key:value; a key has letters, digits, '-', '_' and '.'", param_hint="-H"
        )
    if key.startswith("grpc-"):
        raise click.BadParameter(f"{key} is gRPC's own: names that begin with 'grpc-' cannot be sent", param_hint="-H")
    value = _expanded(key, value.strip(), environment)
    if key.endswith(BINARY):
        return key, _decoded(key, value)
    if not _VALUE.fullmatch(value):
        raise click.BadParameter(
            f"the value of {key} has more than printable ASCII; a key that ends in -bin takes base64", param_hint="-H"
        )
    return key, value


def _expanded(key: str, value: str, environment: Mapping[str, str]) -> str:
    def variable(found: re.Match[str]) -> str:
        name = found[1]
        if name not in environment:
            raise click.BadParameter(f"{key} needs the variable {name}, which is not set", param_hint="-H")
        return environment[name]

    return _VARIABLE.sub(variable, value)


def _decoded(key: str, value: str) -> bytes:
    padded = value + "=" * (-len(value) % 4)  # gRPC itself sends it without padding
    try:
        return base64.b64decode(padded, validate=True)
    except binascii.Error:
        raise click.BadParameter(f"the value of {key} is not base64, as -bin keys need it", param_hint="-H") from None


def shown(metadata: Iterable[tuple[str, str | bytes]]) -> list[str]:
    """A line for each, without what looks like a secret; of bytes their number only."""
    return [
        f"{key}: <{len(value)} bytes>"
        if isinstance(value, bytes)
        else without_secrets(one_line(f"{key}: {value}", MOST))
        for key, value in metadata
    ]
