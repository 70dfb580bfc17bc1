"""The dummy service, and a client that is connected to it."""

# The arguments have the names that they always had.
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent import futures
from contextlib import contextmanager
from inspect import iscoroutine
from typing import Any, TypeAlias

import grpc
from grpc import aio as grpc_aio

from interpose._shell.native import EOF
from interpose.compat.grpc_interceptor.client import AsyncClientInterceptor, ClientInterceptor
from interpose.compat.grpc_interceptor.server import AsyncServerInterceptor, ServerInterceptor
from interpose.compat.grpc_interceptor.testing.protos import dummy_pb2_grpc
from interpose.compat.grpc_interceptor.testing.protos.dummy_pb2 import DummyResponse

SpecialCaseFunction: TypeAlias = Callable[[str, Any], Any]
"""Of a request's input and the servicer context: gives the output. For an asyncio service it may be a coroutine function."""


class _Service(dummy_pb2_grpc.DummyServiceServicer):
    """Answers what it is asked, but for the special cases: input → function that gives the output, or raises."""

    def __init__(self, special_cases: Mapping[str, SpecialCaseFunction]) -> None:
        self._special_cases = special_cases

    def _answer(self, request: Any, context: Any) -> Any:
        case = self._special_cases.get(request.input)
        return request.input if case is None else case(request.input, context)

    async def _awaited(self, request: Any, context: Any) -> Any:
        answer = self._answer(request, context)
        return await answer if iscoroutine(answer) else answer


class DummyService(_Service):
    """For sync servers. A unary answer is the input, or all inputs joined; a stream has a message per letter or per input.

    special_cases: functions by input, which give the output in its stead, or raise.
    """

    def Execute(self, request: Any, context: grpc.ServicerContext) -> Any:
        return DummyResponse(output=self._answer(request, context))

    def ExecuteClientStream(self, request_iter: Iterable[Any], context: grpc.ServicerContext) -> Any:
        return DummyResponse(output="".join(self._answer(request, context) for request in request_iter))

    def ExecuteServerStream(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        for letter in self._answer(request, context):
            yield DummyResponse(output=letter)

    def ExecuteClientServerStream(self, request_iter: Iterable[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        for request in request_iter:
            yield DummyResponse(output=self._answer(request, context))


class AsyncDummyService(_Service):
    """The same for asyncio servers, with async generators."""

    async def Execute(self, request: Any, context: Any) -> Any:
        return DummyResponse(output=await self._awaited(request, context))

    async def ExecuteClientStream(self, request_iter: AsyncIterable[Any], context: Any) -> Any:
        return DummyResponse(output="".join([await self._awaited(request, context) async for request in request_iter]))

    async def ExecuteServerStream(self, request: Any, context: Any) -> AsyncIterator[Any]:
        for letter in await self._awaited(request, context):
            yield DummyResponse(output=letter)

    async def ExecuteClientServerStream(self, request_iter: AsyncIterable[Any], context: Any) -> AsyncIterator[Any]:
        async for request in request_iter:
            yield DummyResponse(output=await self._awaited(request, context))


class AsyncReadWriteDummyService(_Service):
    """The same for asyncio servers, with `context.read` and `context.write`."""

    async def Execute(self, request: Any, context: Any) -> Any:
        return DummyResponse(output=await self._awaited(request, context))

    async def ExecuteClientStream(self, unused_request: Any, context: Any) -> Any:
        outputs = [await self._awaited(request, context) async for request in _read(context)]
        return DummyResponse(output="".join(outputs))

    async def ExecuteServerStream(self, request: Any, context: Any) -> None:
        for letter in await self._awaited(request, context):
            await context.write(DummyResponse(output=letter))

    async def ExecuteClientServerStream(self, request_iter: Any, context: Any) -> None:
        async for request in _read(context):
            await context.write(DummyResponse(output=await self._awaited(request, context)))


async def _read(context: Any) -> AsyncIterator[Any]:
    while (request := await context.read()) is not EOF:
        yield request


@contextmanager
def dummy_client(
    special_cases: Mapping[str, SpecialCaseFunction],
    interceptors: Sequence[ServerInterceptor | grpc.ServerInterceptor | grpc_aio.ServerInterceptor] | None = None,
    client_interceptors: Sequence[ClientInterceptor] | Sequence[AsyncClientInterceptor] | Sequence[Any] | None = None,
    aio_server: bool = False,
    aio_client: bool = False,
    aio_read_write: bool = False,
) -> Generator[dummy_pb2_grpc.DummyServiceStub]:
    """A stub of the dummy service; the rest is as for `dummy_channel`.

    TypeError for interceptors that are not of the server's kind.
    """
    for interceptor in interceptors or ():
        if isinstance(interceptor, AsyncServerInterceptor) != aio_server and not _serves(interceptor, aio_server):
            raise TypeError("Set aio_server correctly")
    with dummy_channel(
        special_cases, interceptors, client_interceptors, aio_server, aio_client, aio_read_write
    ) as channel:
        yield dummy_pb2_grpc.DummyServiceStub(channel)


def _serves(interceptor: object, aio_server: bool) -> bool:
    """Does grpc take it for such a server? Interceptors that are not of this package do not inherit from its classes."""
    return isinstance(interceptor, grpc_aio.ServerInterceptor if aio_server else grpc.ServerInterceptor)


@contextmanager
def dummy_channel(
    special_cases: Mapping[str, SpecialCaseFunction],
    interceptors: Sequence[ServerInterceptor | grpc.ServerInterceptor | grpc_aio.ServerInterceptor] | None = None,
    client_interceptors: Sequence[ClientInterceptor] | Sequence[AsyncClientInterceptor] | Sequence[Any] | None = None,
    aio_server: bool = False,
    aio_client: bool = False,
    aio_read_write: bool = False,
) -> Generator[Any]:
    """A channel to a server of the dummy service, which stops with the block.

    special_cases:       functions by input, which give the output in its stead, or raise.
    interceptors:        the server's, the first outermost.
    client_interceptors: the channel's, the first outermost; for an asyncio channel each an `AsyncClientInterceptor`.
    aio_server:          serve with asyncio, on a thread of its own.
    aio_client:          give an asyncio channel; only with `aio_server`.
    aio_read_write:      serve with `context.read` and `context.write`.
    """
    if aio_client and any(not isinstance(each, AsyncClientInterceptor) for each in client_interceptors or ()):
        raise TypeError("Client interceptors not supported with async channel")
    if aio_client and not aio_server:
        raise ValueError("aio_server must be True if aio_client is True")
    service = (AsyncReadWriteDummyService if aio_read_write else AsyncDummyService) if aio_server else DummyService
    serve = _serve_aio if aio_server else _serve
    with serve(service(special_cases), interceptors or ()) as server:
        target = f"localhost:{server.port}"
        if aio_client:
            # The caller may have no loop that runs; the server's closes the channel.
            server.channel = grpc_aio.insecure_channel(target, interceptors=_unpacked(client_interceptors))
            yield server.channel
            return
        with grpc.insecure_channel(target) as channel:
            intercepting: Sequence[Any] = client_interceptors or ()
            yield grpc.intercept_channel(channel, *intercepting)


def _unpacked(interceptors: Sequence[Any] | None) -> list[grpc_aio.ClientInterceptor]:
    return [native for interceptor in interceptors or () for native in interceptor]


class _Server:
    """A server that runs."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.channel: grpc_aio.Channel | None = None  # to be closed with it


@contextmanager
def _serve(service: Any, interceptors: Sequence[Any]) -> Generator[_Server]:
    pool = futures.ThreadPoolExecutor(max_workers=1)
    server = grpc.server(pool, interceptors=list(interceptors))
    dummy_pb2_grpc.add_DummyServiceServicer_to_server(service, server)
    port = server.add_insecure_port("localhost:0")
    server.start()
    try:
        yield _Server(port)
    finally:
        # A special case may hang for ever: that is no reason to hang as well.
        server.stop(None).wait(1)
        pool.shutdown(wait=False)


@contextmanager
def _serve_aio(service: Any, interceptors: Sequence[Any]) -> Generator[_Server]:
    started: futures.Future[tuple[_Server, Callable[[], object]]] = futures.Future()

    async def serve() -> None:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        native = grpc_aio.server(interceptors=tuple(interceptors))
        dummy_pb2_grpc.add_DummyServiceServicer_to_server(service, native)
        server = _Server(native.add_insecure_port("localhost:0"))
        await native.start()
        started.set_result((server, lambda: loop.call_soon_threadsafe(stop.set)))
        await stop.wait()
        await native.stop(None)
        if server.channel is not None:
            await server.channel.close()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    thread = threading.Thread(target=run, name="dummy server")
    thread.start()
    try:
        server, stop = started.result()
        try:
            yield server
        finally:
            stop()
    finally:
        thread.join()
