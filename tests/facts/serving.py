"""A server of each sort and a native client to it: what the tests of the server facts share.

Sorts: "sync" (a `grpc.server`), "plain" (a `grpc.aio.server` with plain handlers), "async" (the same with async ones).
An asyncio server runs in a thread of its own, so that every test may wait like a plain program.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from interpose import Call, Flow, Interceptor, Kind, Metadata, Outcome, intercept_server, server_interceptor
from interpose._clock import SYSTEM, Clock
from interpose.testing import FaultProxy
from interpose.testing.echo import decode, encode
from tests.support.patience import PATIENCE

SERVICE = "facts.Server"
KINDS = [kind.value for kind in Kind]
STREAMED = ["unary_stream", "stream_stream"]  # kinds whose responses stream

MAKE: dict[str, Callable[..., Any]] = {
    "unary_unary": grpc.unary_unary_rpc_method_handler,
    "unary_stream": grpc.unary_stream_rpc_method_handler,
    "stream_unary": grpc.stream_unary_rpc_method_handler,
    "stream_stream": grpc.stream_stream_rpc_method_handler,
}


@dataclass
class Reply:
    """How an RPC ended for its caller."""

    messages: list[str]
    code: grpc.StatusCode
    details: str
    initial: Metadata
    trailing: Metadata

    @property
    def ok(self) -> bool:
        return self.code is grpc.StatusCode.OK


class Watch:
    """An interceptor that keeps every outcome it is told, and the thread it was told on."""

    def __init__(self) -> None:
        self.begun = 0
        self.outcomes: list[Outcome] = []
        self.threads: list[str] = []
        self._told = threading.Semaphore(0)

    def __call__(self, call: Call) -> Flow:
        self.begun += 1
        outcome = yield call
        self.outcomes.append(outcome)
        self.threads.append(threading.current_thread().name)
        self._told.release()

    def next(self) -> Outcome:
        """Wait for an outcome; gives the latest."""
        assert self._told.acquire(timeout=PATIENCE), "no outcome"
        return self.outcomes[-1]

    def only(self) -> Outcome:
        """Wait for the outcome; there is one, of one RPC."""
        outcome = self.next()
        assert len(self.outcomes) == self.begun == 1
        return outcome


class Client:
    """A native client of a server, and the server. kind: of the RPCs for which none is said."""

    def __init__(
        self,
        channel: grpc.Channel,
        target: str,
        server: Any,
        stop: Callable[[float | None], None],
        kind: str = "unary_unary",
    ) -> None:
        self.channel = channel
        self.target = target
        self.server = server
        self.stop = stop
        self._kind = kind

    @contextmanager
    def cut_off(self) -> Iterator[tuple[Client, FaultProxy]]:
        """A client whose connection can be cut with `black_hole`: the server has to see by itself that time is up.

        A client says that its deadline has passed as if it cancelled. If its request took longer on its way than that
        news, as on a busy machine, the server cannot tell the two apart.
        """
        with FaultProxy(self.target) as proxy, grpc.insecure_channel(proxy.target) as channel:
            yield Client(channel, proxy.target, self.server, self.stop, self._kind), proxy

    def stub(self, kind: str | None = None, name: str | None = None) -> Any:
        """The native multi-callable of a method."""
        kind = kind or self._kind
        return getattr(self.channel, kind)(f"/{SERVICE}/{name or kind}", encode, decode)

    def start(
        self, *requests: str, kind: str | None = None, timeout: float | None = PATIENCE, stream: Any = None
    ) -> Any:
        """Start an RPC; gives its native call: a future, or an iterator of responses."""
        kind = kind or self._kind
        stub = self.stub(kind)
        argument = (stream or iter(requests or ("a",))) if kind.startswith("stream") else (*requests, "a")[0]
        return (stub if kind.endswith("stream") else stub.future)(argument, timeout=timeout)

    def call(
        self,
        *requests: str,
        kind: str | None = None,
        name: str | None = None,
        timeout: float | None = PATIENCE,
        metadata: Any = None,
        stream: Any = None,
    ) -> Reply:
        """Perform one RPC to its end. stream: the requests as an iterator, instead of `requests`."""
        kind = kind or self._kind
        streaming = stream if stream is not None else iter(requests or ("a",))
        argument = streaming if kind.startswith("stream") else (*requests, "a")[0]
        messages: list[str] = []
        ended: Any
        try:
            if kind.endswith("stream"):
                ended = self.stub(kind, name)(argument, timeout=timeout, metadata=metadata)
                messages.extend(ended)
            else:
                response, ended = self.stub(kind, name).with_call(argument, timeout=timeout, metadata=metadata)
                messages.append(response)
        except grpc.RpcError as error:
            ended = error
        return Reply(
            messages,
            ended.code(),
            ended.details() or "",
            Metadata.trusted(ended.initial_metadata()),
            Metadata.trusted(ended.trailing_metadata()),
        )


@contextmanager
def serving(
    sort: str,
    handlers: dict[str, Any],
    *flows: Interceptor,
    interceptors: Sequence[Any] | None = None,
    workers: int = 4,
    limit: int | None = None,
    services: Sequence[Any] = (),
    clock: Clock = SYSTEM,
    around: Sequence[Interceptor] | None = None,
) -> Iterator[Client]:
    """Serve these handlers, functions by the kind of RPC, with `flows` around them.

    interceptors: native interceptor objects for grpc, instead of `flows`. With neither the server is bare.
    around: flows that `intercept_server` puts around the server, instead of `flows`.
    limit: grpc's maximum_concurrent_rpcs. services: generic handlers, or functions that add a servicer to a server.
    """
    if interceptors is None:
        interceptors = [server_interceptor(*flows, clock=clock)] if flows else []
    given = list(interceptors)
    pool = futures.ThreadPoolExecutor(workers)
    made = {kind: _handler(kind, function) for kind, function in handlers.items()}
    serve = _sync if sort == "sync" else _asyncio

    def dress(server: Any) -> Any:
        dressed = server if around is None else intercept_server(server, *around, clock=clock)
        _add(dressed, [grpc.method_handlers_generic_handler(SERVICE, made), *services])
        return dressed

    with serve(pool, given, limit, dress) as (server, port, stop):
        target = f"127.0.0.1:{port}"
        channel = grpc.insecure_channel(target, [("grpc.enable_retries", 0)])
        try:
            yield Client(channel, target, server, stop)
        finally:
            channel.close()
    pool.shutdown()


def _handler(kind: str, function: Any) -> Any:
    return MAKE[kind](function, decode, encode) if callable(function) else function


def _add(server: Any, services: Sequence[Any]) -> None:
    for service in services:
        if isinstance(service, grpc.GenericRpcHandler):
            server.add_generic_rpc_handlers((service,))
        else:
            service(server)


@contextmanager
def _sync(pool: Any, interceptors: list[Any], limit: int | None, dress: Callable[[Any], Any]) -> Iterator[Any]:
    server = dress(grpc.server(pool, interceptors=interceptors, maximum_concurrent_rpcs=limit))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()

    def stop(grace: float | None) -> None:
        assert server.stop(grace).wait(PATIENCE), "stop() did not return"

    try:
        yield server, port, stop
    finally:
        stop(None)


def _release(tasks: set[Any]) -> None:
    """Let go of the threads of plain generators whose client left: grpc.aio keeps them in Queue.put(), with or without us."""
    if all(getattr(task.get_coro(), "__qualname__", "") == "Queue.put" for task in tasks):  # all RPCs have ended
        for task in tasks:
            task.cancel()


@contextmanager
def _asyncio(pool: Any, interceptors: list[Any], limit: int | None, dress: Callable[[Any], Any]) -> Iterator[Any]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="facts", daemon=True)
    thread.start()

    def run(work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(PATIENCE)

    async def begin() -> tuple[Any, int]:
        server = dress(grpc.aio.server(pool, interceptors=interceptors, maximum_concurrent_rpcs=limit))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return server, port

    async def finish() -> None:
        await server.stop(None)
        idle = loop.run_in_executor(None, pool.shutdown)
        async with asyncio.timeout(PATIENCE / 2):
            while not idle.done() or len(asyncio.all_tasks()) > 1:
                _release(asyncio.all_tasks() - {asyncio.current_task()})
                await asyncio.wait([idle], timeout=0.005)
                await asyncio.sleep(0)
        await loop.shutdown_asyncgens()
        await loop.shutdown_default_executor()

    server, port = run(begin())
    try:
        yield server, port, lambda grace: run(server.stop(grace))
    finally:
        try:
            run(finish())
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(PATIENCE)
            loop.close()
