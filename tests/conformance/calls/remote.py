"""A server that does nothing by itself: the test orders every step of every RPC, so nothing depends on who is faster."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

import grpc

from interpose import Kind
from tests.support.patience import PATIENCE

THREADS = 16
SERVICE = "conformance.Puppet"

INITIAL = (("x-initial", "1"),)
TRAILING = (("x-trailing", "2"), ("x-trailing", "3"), ("x-trailing-bin", b"\x00\xff"))
DETAILS = "as ordered"

MAKE = {
    Kind.UNARY_UNARY: grpc.unary_unary_rpc_method_handler,
    Kind.UNARY_STREAM: grpc.unary_stream_rpc_method_handler,
    Kind.STREAM_UNARY: grpc.stream_unary_rpc_method_handler,
    Kind.STREAM_STREAM: grpc.stream_stream_rpc_method_handler,
}


@dataclass
class Remote:
    """The far end of one RPC. `arrived` and `gone` are done when it is at the server, and when it is over there."""

    name: str
    orders: SimpleQueue[tuple[str, Future[None]] | None] = field(default_factory=SimpleQueue)
    requests: list[str] = field(default_factory=list)
    arrived: Future[None] = field(default_factory=Future)
    gone: Future[None] = field(default_factory=Future)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What an RPC sends to be served by this one."""
        return (("x-remote", self.name),)

    def order(self, step: str) -> Future[None]:
        """Do this next: "initial", "message", "read all", or end with the code of that name. Gives when it is done."""
        obeyed: Future[None] = Future()
        self.orders.put((step, obeyed))
        return obeyed

    def release(self) -> None:
        """There are no more orders: let the server's thread go."""
        self.orders.put(None)


def happened(what: Future[None]) -> None:
    """Say so, once or twice."""
    with suppress(InvalidStateError):
        what.set_result(None)


class Puppet:
    """The service: it finds the remote that an RPC names, and obeys it."""

    def __init__(self) -> None:
        self._remotes: dict[str, Remote] = {}
        self._names = map(str, itertools.count())

    def remote(self) -> Remote:
        """The far end for one RPC to come."""
        remote = Remote(next(self._names))
        self._remotes[remote.name] = remote
        return remote

    def handler(self, kind: Kind) -> Any:
        def stream(request: Any, context: Any) -> Iterator[str]:
            return self._obey(kind, request, context)

        def unary(request: Any, context: Any) -> str:
            return next(self._obey(kind, request, context), "")  # without an answer it is over already

        return MAKE[kind](stream if kind.response_streaming else unary, bytes.decode, str.encode)

    def _obey(self, kind: Kind, request: Any, context: Any) -> Iterator[str]:
        remote = self._remotes.pop(dict(context.invocation_metadata())["x-remote"])
        if not context.add_callback(lambda: happened(remote.gone)):
            happened(remote.gone)
        happened(remote.arrived)
        for step, obeyed in iter(remote.orders.get, None):
            if step == "initial":
                context.send_initial_metadata(INITIAL)
            elif step == "message":
                yield "answer"
            elif step == "read all":
                remote.requests.extend(request if kind.request_streaming else [request])
            else:
                happened(obeyed)
                yield from self._end(kind, step, context)
                return
            happened(obeyed)

    def _end(self, kind: Kind, code: str, context: Any) -> Iterator[str]:
        context.set_trailing_metadata(TRAILING)
        if code != "OK":
            context.abort(grpc.StatusCode[code], DETAILS)
        if not kind.response_streaming:
            yield "answer"


@contextmanager
def serving() -> Iterator[tuple[str, Puppet]]:
    """A running server: its target and its service."""
    puppet = Puppet()
    pool = ThreadPoolExecutor(THREADS)
    # All threads now: one that came during a test would look as if the test had left it behind.
    together = threading.Barrier(THREADS)
    list(pool.map(lambda _: together.wait(PATIENCE), range(THREADS)))
    server = grpc.server(pool, options=(("grpc.so_reuseport", 0),))
    handlers = {kind.value: puppet.handler(kind) for kind in Kind}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}", puppet
    finally:
        server.stop(None).wait(PATIENCE)
        pool.shutdown()


def stubs(channel: Any) -> dict[Kind, Any]:
    """The four multi-callables of a channel, sync or asyncio."""
    return {kind: getattr(channel, kind.value)(f"/{SERVICE}/{kind.value}", str.encode, bytes.decode) for kind in Kind}
