"""How an RPC that failed is shown: its code, its details, the messages of google.rpc by name, and what to do."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import click
import grpc
from google.protobuf import descriptor_pool
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from interpose._wording import Meaning, meaning_of
from interpose.cli import exits
from interpose.cli.messages import opened, shown
from interpose.errors import RICH_KEY
from interpose.mechanisms.text import one_line

STANDARD = error_details_pb2.DESCRIPTOR  # imported, so that its messages are known when a status is opened
MOST = 4096  # characters of a server's text that are shown

HINTS = {
    Meaning.UNCONNECTED: "is the server running there, and is the address right? One with TLS needs --tls, and only that",
    Meaning.TOO_LARGE: "--max-msg-sz BYTES lets larger messages in",
}


class Refused(click.ClickException):
    """What was asked makes no sense, and nothing was sent."""

    exit_code = exits.WRONG


class Unreachable(click.ClickException):
    """There is nothing there, or it does not answer."""

    exit_code = exits.of_code(grpc.StatusCode.UNAVAILABLE)

    @classmethod
    def of(cls, target: str, why: str = "") -> Unreachable:
        """The error of a server to which no connection can be made."""
        return cls(f"{target} cannot be reached{': ' if why else ''}{why}; {HINTS[Meaning.UNCONNECTED]}")


class Failed(click.ClickException):
    """An RPC ended with another code than OK."""

    def __init__(self, text: str, error: Any, pool: Any, *, as_json: bool) -> None:
        super().__init__(text)
        self.code = error.code()
        self._error = error
        self._details = list(_details(error, pool))  # while the server can still be asked for their types
        self._as_json = as_json

    def lines(self, name: str) -> list[str]:
        """A line that says what happened, and one for each detail and note; or all as a line of JSON. name: the command's."""
        if self._as_json:
            return [shown(self._json())]
        details = [f"  {one_line(kind, MOST)} {shown(value)}" for kind, value in self._details]
        notes = [f"  {one_line(note, MOST)}" for note in getattr(self._error, "__notes__", ())]
        return [f"{name}: {self.message}", *details, *notes]

    def _json(self) -> dict[str, Any]:
        error, details = self._error, [{"@type": kind, **value} for kind, value in self._details]
        return {"code": error.code().name, "message": error.details() or "", "details": details}


def _details(error: Any, pool: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """The messages that travel with the status: the name of each, and what is in it."""
    packed = dict(error.trailing_metadata() or ()).get(RICH_KEY, b"")
    with suppress(DecodeError):  # a server may send anything
        yield from (opened(part, pool) for part in status_pb2.Status.FromString(packed).details)


@contextmanager
def failing(what: str, target: str, pool: Any = None, *, as_json: bool = False) -> Generator[None, None, None]:
    """Let a failed RPC be reported as one of this target. what: the method that was called, or what was wanted of it."""
    try:
        yield
    except grpc.RpcError as error:
        raise Failed(_text(what, target, error), error, pool or descriptor_pool.Default(), as_json=as_json) from error


def _text(what: str, target: str, error: Any) -> str:
    code, details = error.code(), one_line(error.details() or "", MOST)
    meaning = meaning_of(code, error.details() or "")
    if meaning is Meaning.UNCONNECTED:
        return Unreachable.of(target, details).message
    hint = f"; {HINTS[meaning]}" if meaning in HINTS else ""
    return f"{what} ended with {code.name}{': ' if details else ''}{details}{hint}"
