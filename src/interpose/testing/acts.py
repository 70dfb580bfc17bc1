"""Acts: what the other side of an RPC does in one attempt; and scripts of them.

[failed(grpc.StatusCode.UNAVAILABLE), ok("hello")]      fails once, then answers
[failed(grpc.StatusCode.UNAVAILABLE), ...]              fails for ever: what is before the dots is repeated
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from types import EllipsisType
from typing import Any, TypeAlias

import grpc

from interpose._method import Kind
from interpose.errors import StatusError
from interpose.testing.codec import joined

REPEATS = 3  # responses to a unary request with a response stream

Pairs: TypeAlias = tuple[tuple[str, str | bytes], ...]


@dataclass(frozen=True)
class Act:
    """What the other side does in one attempt. Made by `ok`, `failed` and `raised`; their keywords are these fields.

    responses: what it answers; None: it echoes (see `answer`).
    code, details: how it ends.
    error: what its handler raises instead of ending with a status.
    after: how many responses of a stream it sends before it fails.
    delay: seconds before it answers. hang: it never does.
    unread: it fails before it reads any request of a stream.
    die: the connection breaks, and no status is sent.
    initial, trailing: metadata in front of the response and behind it.
    """

    responses: tuple[Any, ...] | None = None
    code: grpc.StatusCode = grpc.StatusCode.OK
    details: str = ""
    error: BaseException | None = None
    after: int = 0
    delay: float = 0.0
    hang: bool = False
    unread: bool = False
    die: bool = False
    initial: Pairs = ()
    trailing: Pairs = ()

    @property
    def fails(self) -> bool:
        """Does it end in anything but an answer?"""
        return self.code is not grpc.StatusCode.OK or self.error is not None

    def aborted(self) -> Act:
        """With a status in the place of a `StatusError` that is raised, for a server that does not know those."""
        error = self.error
        if not isinstance(error, StatusError):
            return self
        trailing = (*self.trailing, *error.trailing_metadata())
        return replace(self, error=None, code=error.code(), details=error.details(), trailing=trailing)

    def answer(self, kind: Kind, requests: Sequence[Any]) -> list[Any]:
        """The whole answer: as scripted, or an echo of the requests.

        The echo of a unary request is itself, or three of it as a stream; that of a request stream is each of its
        messages, or the one text that joins them with ","; of protobuf messages the last.
        """
        if self.responses is not None:
            return list(self.responses)
        if kind.request_streaming:
            return list(requests) if kind.response_streaming else [joined(list(requests))]
        return list(requests) * (REPEATS if kind.response_streaming else 1)

    def sent(self, kind: Kind, requests: Sequence[Any]) -> list[Any]:
        """The responses that leave before it ends: all of them, or those before the failure."""
        if not self.fails:
            return self.answer(kind, requests)
        return self.answer(kind, requests)[: self.after] if kind.response_streaming else []


def ok(*responses: Any, **more: Any) -> Act:
    """It answers: `ok("hello")`; `ok("a", "b")` on a response stream; `ok()` echoes the requests."""
    return Act(responses or None, **more)


def failed(
    code: grpc.StatusCode,
    details: str = "as scripted",
    *,
    pushback: float | str | None = None,
    trailing: Iterable[tuple[str, str | bytes]] = (),
    **more: Any,
) -> Act:
    """It fails with this code: `failed(grpc.StatusCode.UNAVAILABLE, after=2)` breaks a stream after two messages.

    pushback: what the server asks of a retry, in the trailer `grpc-retry-pushback-ms` (gRFC A6): seconds to wait, or a
    text that is sent as it is, like "-1" for *do not retry*.

    ValueError for OK, and for what is no code.
    """
    if code is grpc.StatusCode.OK or not isinstance(code, grpc.StatusCode):
        raise ValueError(f"failed: code must be a grpc.StatusCode other than OK, not {code!r}; to answer, write ok()")
    pairs = tuple(trailing)
    if pushback is not None:
        pairs += (("grpc-retry-pushback-ms", pushback if isinstance(pushback, str) else str(round(pushback * 1000))),)
    return Act(code=code, details=details, trailing=pairs, **more)


def raised(error: BaseException, **more: Any) -> Act:
    """Its handler raises this: `raised(KeyError("id"))`."""
    return Act(error=error, **more)


def died(**more: Any) -> Act:
    """The connection breaks before a status was sent, as when a server is killed: `died(after=1)`."""
    return Act(die=True, code=grpc.StatusCode.UNAVAILABLE, **more)


class Script:
    """Acts in order, handed out once each; what is before `...` for ever."""

    def __init__(self, acts: Iterable[Any | EllipsisType], *others: type) -> None:
        """others: what may be in it beside acts."""
        self._acts = list(acts)
        self._taken = 0
        self._lock = threading.Lock()
        self._repeats = ... in self._acts
        for position, act in enumerate(self._acts):
            if not isinstance(act, (Act, EllipsisType, *others)):
                raise TypeError(f"a script is made of acts like ok() and failed(code), not of {act!r}")
            if act is ... and (not position or position + 1 < len(self._acts)):
                raise ValueError("a script's ... must be at its end, behind the act that it repeats")

    def take(self) -> Any | None:
        """The next act; None when the script has run out."""
        with self._lock:
            position, self._taken = self._taken, self._taken + 1
        if self._repeats:
            return self._acts[min(position, len(self._acts) - 2)]
        return self._acts[position] if position < len(self._acts) else None

    @property
    def left(self) -> list[Any]:
        """The acts that were not taken, without the one that repeats, however often."""
        return self._acts[self._taken : len(self._acts) - 2 * self._repeats]

    @property
    def deadly(self) -> bool:
        """Does a connection break in it?"""
        return any(isinstance(act, Act) and act.die for act in self._acts)

    def __len__(self) -> int:
        return len(self._acts)
