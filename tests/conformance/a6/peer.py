"""A server without Interpose, which does in each attempt exactly the steps that a test gives it.

with peer((read(1), fail(UNAVAILABLE)), (attempt(1), read(1), send("answer"))) as server:
    channel = grpc.insecure_channel(server.target)

Every kind of RPC is served as if both directions streamed: on the wire they are the same, and steps can be mixed freely.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import grpc

from interpose import Kind
from interpose.testing.echo import SERVICE, decode, encode
from tests.support.patience import PATIENCE

PUSHBACK = "grpc-retry-pushback-ms"
ATTEMPT = "x-retry-attempt"


@dataclass
class Turn:
    """One attempt as the server saw it.

    half_closed: did it read the end of the requests? left: has the client gone before the end?
    """

    stream: Iterator[str]
    context: Any
    metadata: tuple[tuple[str, str | bytes], ...]
    tell: Callable[[], None]
    requests: list[str] = field(default_factory=list)
    half_closed: bool = False
    left: bool = False

    def values(self, key: str) -> list[str | bytes]:
        """All values of a metadata key."""
        return [value for name, value in self.metadata if name == key]

    def note(self, request: str) -> None:
        """Keep a request, and tell whoever waits for it."""
        self.requests.append(request)
        self.tell()


Step: TypeAlias = Callable[[Turn], Iterator[str]]


class Peer:
    """The server, and what it saw."""

    def __init__(self, attempts: tuple[tuple[Step, ...], ...]) -> None:
        self._attempts = attempts
        self._changed = threading.Condition()
        self._ended = 0
        self.target = ""
        self.turns: list[Turn] = []

    @property
    def numbers(self) -> list[list[str | bytes]]:
        """The number that each attempt carried."""
        return [turn.values(ATTEMPT) for turn in self.turns]

    @property
    def requests(self) -> list[list[str]]:
        """What each attempt brought, as far as it was read."""
        return [turn.requests for turn in self.turns]

    def wait_begun(self, attempts: int = 1) -> None:
        """Block until that many attempts have begun."""
        self._wait(lambda: len(self.turns) >= attempts, f"{attempts} attempts to begin")

    def wait_ended(self, attempts: int = 1) -> None:
        """Block until that many attempts have ended."""
        self._wait(lambda: self._ended >= attempts, f"{attempts} attempts to end")

    def wait_read(self, messages: int, *, attempt: int) -> None:
        """Block until that many requests of an attempt, the first of which is 0, were read."""
        self._wait(
            lambda: len(self.turns) > attempt and len(self.turns[attempt].requests) >= messages, f"{messages} requests"
        )

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        with self._changed:
            if not self._changed.wait_for(condition, PATIENCE):
                raise TimeoutError(f"waited for {what}, saw {self.turns}")

    def _tell(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def serve(self, requests: Iterator[str], context: Any) -> Iterator[str]:
        """Do the steps of the next attempt."""
        turn = Turn(requests, context, tuple(context.invocation_metadata()), self._tell)
        context.add_callback(self._tell)
        with self._changed:
            number = len(self.turns)
            self.turns.append(turn)
            self._changed.notify_all()
        if number >= len(self._attempts):
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "one attempt more than there should be")
        try:
            for step in self._attempts[number]:
                yield from step(turn)
        except BaseException:
            turn.left = not context.is_active()
            raise
        finally:
            with self._changed:
                self._ended += 1
                self._changed.notify_all()


@contextmanager
def peer(
    *attempts: tuple[Step, ...], streams: int | None = None, options: Sequence[tuple[str, Any]] = ()
) -> Iterator[Peer]:
    """Serve these attempts, one after the other; one more is refused with UNIMPLEMENTED.

    streams: how many may be open at a time on a connection; others wait at the client. options: others of the server.
    """
    served = Peer(attempts)
    handler = grpc.stream_stream_rpc_method_handler(served.serve, decode, encode)
    limit = [] if streams is None else [("grpc.max_concurrent_streams", streams)]
    with futures.ThreadPoolExecutor(8) as pool:
        server = grpc.server(pool, options=[*options, *limit])
        methods = {kind.value: handler for kind in Kind}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
        served.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        try:
            yield served
        finally:
            server.stop(None).wait(PATIENCE)


# --- steps ------------------------------------------------------------------------------------------------------------


def read(messages: int) -> Step:
    """Read that many requests, and no more."""

    def step(turn: Turn) -> Iterator[str]:
        for _ in range(messages):
            turn.note(next(turn.stream))
        yield from ()

    return step


def read_all(turn: Turn) -> Iterator[str]:
    """Read the requests to their end."""
    for request in turn.stream:
        turn.note(request)
    turn.half_closed = True
    yield from ()


def headers(*pairs: tuple[str, str]) -> Step:
    """Send the metadata that stands in front of the response."""

    def step(turn: Turn) -> Iterator[str]:
        turn.context.send_initial_metadata(pairs)
        yield from ()

    return step


def send(*messages: str) -> Step:
    """Send these responses."""

    def step(turn: Turn) -> Iterator[str]:
        yield from messages

    return step


def pushback(*values: str) -> Step:
    """Ask for a retry later, or for none: with these values beside the status."""
    return trailers(*((PUSHBACK, value) for value in values))


def trailers(*pairs: tuple[str, str]) -> Step:
    """Send these beside the status."""

    def step(turn: Turn) -> Iterator[str]:
        turn.context.set_trailing_metadata(pairs)
        yield from ()

    return step


def fail(code: grpc.StatusCode, details: str = "as scripted") -> Step:
    """End with this status."""

    def step(turn: Turn) -> Iterator[str]:
        turn.context.abort(code, details)
        yield from ()

    return step


def wait_for(event: threading.Event) -> Step:
    """Do nothing until the test says so."""

    def step(turn: Turn) -> Iterator[str]:
        assert event.wait(PATIENCE), "the test never said so"
        yield from ()

    return step


def wait_for_the_client_to_go(turn: Turn) -> Iterator[str]:
    """Answer nothing, until the client has gone."""
    gone = threading.Event()
    if turn.context.add_callback(gone.set):
        assert gone.wait(PATIENCE), "the client never went"
    turn.left = True
    yield from ()
