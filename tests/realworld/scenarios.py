"""What a scenario is, and what several of them share."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc

from interpose import Call, Flow

PATIENCE = 120.0  # seconds after which a scenario counts as hung; a JVM starts slowly


@dataclass(frozen=True)
class Scenario:
    """Something real, with Interpose in it.

    name: of the row. packages: whose versions it has. stack: what Interpose does there. holds: what `run` insists on, in a
    sentence; it raises if that is not so. program: what has to be on the path.
    """

    name: str
    packages: tuple[str, ...]
    stack: str
    holds: str
    run: Callable[[], None]
    program: str | None = None


class Watch:
    """An interceptor that notes how each RPC has ended."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def __call__(self, call: Call) -> Flow:
        outcome = yield call
        self.seen.append((call.method.name, outcome.code.name))

    def codes(self, method: str) -> list[str]:
        """How the RPCs of a method have ended, in that order."""
        return [code for name, code in self.seen if name == method]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def serving(*handlers: grpc.GenericRpcHandler) -> Iterator[str]:
    """A fake server on sync; gives its target."""
    pool = futures.ThreadPoolExecutor(8)
    server = grpc.server(pool)
    server.add_generic_rpc_handlers(handlers)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait(PATIENCE)
        pool.shutdown()


@contextmanager
def refused(kind: type[BaseException], part: str) -> Iterator[None]:
    """The block raises an error of this kind, with this part in its text."""
    try:
        yield
    except kind as error:
        if part not in str(error):
            raise
        return
    raise AssertionError(f"no {kind.__name__}")


class Failing:
    """UNAVAILABLE for the first so many calls of each method; then what the handler gives."""

    def __init__(self, times: int) -> None:
        self._times = times
        self.calls: dict[str, int] = {}

    def check(self, method: str, context: Any) -> None:
        self.calls[method] = self.calls.get(method, 0) + 1
        if self.calls[method] <= self._times:
            context.abort(grpc.StatusCode.UNAVAILABLE, "not yet")
