"""An echo service for the four kinds of RPC, scripted per attempt, as plain and as async handlers.

with Echo([failed(grpc.StatusCode.UNAVAILABLE), ok("hello")]).serve() as target:
    with grpc.insecure_channel(target) as channel:
        Stub(channel).unary_unary("hi")

It speaks text without protobuf. How it answers where the script says nothing: `Act.answer`.
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterable, Iterator
from concurrent import futures
from contextlib import ExitStack, aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import EllipsisType
from typing import Any

import grpc
import grpc.aio

from interpose._attach import server_interceptor
from interpose._clock import FOREVER, SYSTEM, Clock
from interpose._flow import Interceptor
from interpose._method import Kind
from interpose.testing.acts import Act, Script
from interpose.testing.codec import decode, encode
from interpose.testing.proxy import FaultProxy

SERVICE = "interpose.testing.Echo"
OK = Act()
GONE_TIMEOUT = 10.0  # real seconds until an asyncio server has noticed that its client has gone


def path(kind: Kind) -> str:
    """The full method name that serves a kind: "/interpose.testing.Echo/unary_unary" …"""
    return f"/{SERVICE}/{kind.value}"


class Stub:
    """The client's methods, on a sync or an asyncio channel: `Stub(channel).unary_stream("hello")`."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel

    @cached_property
    def unary_unary(self) -> Any:
        return self.method(Kind.UNARY_UNARY)

    @cached_property
    def unary_stream(self) -> Any:
        return self.method(Kind.UNARY_STREAM)

    @cached_property
    def stream_unary(self) -> Any:
        return self.method(Kind.STREAM_UNARY)

    @cached_property
    def stream_stream(self) -> Any:
        return self.method(Kind.STREAM_STREAM)

    def method(self, kind: Kind) -> Any:
        """The method of a kind, as a new multi-callable."""
        return getattr(self._channel, kind.value)(path(kind), encode, decode)


@dataclass
class Attempt:
    """One attempt as the server saw it.

    time_remaining: seconds until its deadline when it arrived; None without one.
    requests, responses: what came in, texts or protobuf messages, and how many responses were handed to grpc.
    ended: has the handler ended? cancelled: had the client gone before, or its time run out?
    """

    kind: Kind
    metadata: tuple[tuple[str, str | bytes], ...]
    time_remaining: float | None
    requests: list[Any] = field(default_factory=list)
    responses: int = 0
    ended: bool = False
    cancelled: bool = False

    def values(self, key: str) -> list[str | bytes]:
        """All values of a metadata key."""
        return [value for name, value in self.metadata if name == key]


class Echo:
    """The service, and what it saw.

    script: an act per attempt, of which the last may be followed by `...`; when it has run out, the service echoes.
    """

    def __init__(self, script: Iterable[Act | EllipsisType] = ()) -> None:
        self._script = Script(script)
        self._closed = threading.Event()
        self._changed = threading.Condition()
        self._break: Callable[[], futures.Future[None]] | None = None
        self._bare = False  # served without Interpose, to which a raised StatusError is an exception like any other
        self.attempts: list[Attempt] = []

    @contextmanager
    def serve(
        self, *interceptors: Interceptor, clock: Clock = SYSTEM, workers: int = 8, unix: bool = False
    ) -> Generator[str]:
        """Serve on a sync server with these interceptors, and give the target to connect to.

        workers: threads that run handlers. unix: on a unix socket rather than a free port of the loopback interface.
        """
        with ExitStack() as closing:
            pool = closing.enter_context(futures.ThreadPoolExecutor(workers))
            server = grpc.server(pool, interceptors=_stack(interceptors, clock))
            server.add_generic_rpc_handlers((self.handlers(asyncio=False),))
            self._bare = not interceptors
            target = self._bound(server, unix, closing)
            server.start()
            closing.callback(lambda: server.stop(None).wait())
            closing.callback(self.close)
            yield target

    @asynccontextmanager
    async def serve_aio(
        self,
        *interceptors: Interceptor,
        clock: Clock = SYSTEM,
        workers: int = 8,
        unix: bool = False,
        plain: bool = False,
    ) -> AsyncGenerator[str]:
        """Serve on an asyncio server with these interceptors, and give the target to connect to.

        plain: with plain handlers, not async ones; they run in a pool of `workers` threads. Without interceptors those
            never learn that their client has gone: grpc does not notify them.
        """
        with ExitStack() as closing:
            pool = futures.ThreadPoolExecutor(workers)
            server = grpc.aio.server(pool, interceptors=_stack(interceptors, clock))
            server.add_generic_rpc_handlers((self.handlers(asyncio=True, plain=plain),))
            self._bare = not interceptors
            target = self._bound(server, unix, closing)
            await server.start()
            try:
                yield target
            finally:
                self.close()
                await server.stop(None)
                await _shut_down(pool)

    def _bound(self, server: Any, unix: bool, closing: ExitStack) -> str:
        """Bind the server; a script in which connections break needs something between it and its clients."""
        if unix:
            folder = closing.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
            target = f"unix:{Path(folder) / 'echo.sock'}"
            server.add_insecure_port(target)
        else:
            target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        if self._script.deadly:
            proxy = closing.enter_context(FaultProxy(target))
            self._break = proxy.dropping
            target = proxy.target
        return target

    def close(self) -> None:
        """Let the attempts that hang end."""
        self._closed.set()

    def wait_begun(self, attempts: int = 1, timeout: float = 20.0) -> None:
        """Block until that many attempts have begun; TimeoutError after `timeout` seconds."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.attempts) >= attempts, timeout):
                raise TimeoutError(f"not {attempts} attempts began: {self.attempts}")

    def wait_ended(self, attempts: int = 1, timeout: float = 20.0) -> None:
        """Block until that many attempts have ended; TimeoutError after `timeout` seconds."""
        with self._changed:
            if not self._changed.wait_for(lambda: sum(one.ended for one in self.attempts) >= attempts, timeout):
                raise TimeoutError(f"not {attempts} attempts ended: {self.attempts}")

    def handlers(self, *, asyncio: bool, plain: bool = False) -> grpc.GenericRpcHandler:
        """The four methods for a server of your own: async handlers for an asyncio one, or plain ones if asked."""
        service = _Async(self) if asyncio and not plain else _Sync(self)
        make = {
            Kind.UNARY_UNARY: grpc.unary_unary_rpc_method_handler,
            Kind.UNARY_STREAM: grpc.unary_stream_rpc_method_handler,
            Kind.STREAM_UNARY: grpc.stream_unary_rpc_method_handler,
            Kind.STREAM_STREAM: grpc.stream_stream_rpc_method_handler,
        }
        methods = {kind.value: make[kind](getattr(service, kind.value), decode, encode) for kind in Kind}
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    # - for the handlers -

    def begin(self, kind: Kind, context: Any) -> tuple[Attempt, Act]:
        """An attempt begins."""
        left = context.time_remaining()
        attempt = Attempt(kind, tuple(context.invocation_metadata()), None if left is None or left > FOREVER else left)
        with self._changed:
            self.attempts.append(attempt)
            act = self._script.take() or OK
            self._changed.notify_all()
        return attempt, act.aborted() if self._bare else act

    def end(self, attempt: Attempt) -> None:
        """An attempt has ended."""
        with self._changed:
            attempt.ended = True
            self._changed.notify_all()

    def broken(self) -> futures.Future[None]:
        """Break the connections. RuntimeError if the script does not say so, so that there is no proxy which could."""
        if self._break is None:
            raise RuntimeError("died(): a connection can be broken only where serve() has put a proxy before it")
        return self._break()


async def _shut_down(pool: futures.ThreadPoolExecutor) -> None:
    """Wait for the plain handlers to end, not on the loop: grpc has them wait for it."""
    closing = threading.Thread(target=pool.shutdown)
    closing.start()
    while closing.is_alive():  # noqa: ASYNC110  a thread sets no event of the loop
        await asyncio.sleep(0.001)


def _stack(interceptors: tuple[Interceptor, ...], clock: Clock) -> list[Any]:
    return [server_interceptor(*interceptors, clock=clock)] if interceptors else []


class _Sync:
    """The plain handlers."""

    def __init__(self, echo: Echo) -> None:
        self._echo = echo

    def unary_unary(self, request: Any, context: Any) -> Any:
        return next(self._answer(Kind.UNARY_UNARY, [request], context))

    def stream_unary(self, requests: Iterator[Any], context: Any) -> Any:
        return next(self._answer(Kind.STREAM_UNARY, requests, context))

    def unary_stream(self, request: Any, context: Any) -> Iterator[Any]:
        yield from self._answer(Kind.UNARY_STREAM, [request], context)

    def stream_stream(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:
        yield from self._answer(Kind.STREAM_STREAM, requests, context)

    def _answer(self, kind: Kind, requests: Iterable[Any], context: Any) -> Iterator[Any]:
        echo = self._echo
        attempt, act = echo.begin(kind, context)
        gone = threading.Event()
        if context.add_callback(gone.set) is False:  # it is over already; grpc.aio itself says None
            gone.set()
        try:
            if not act.unread:
                for request in requests:
                    attempt.requests.append(request)
            if act.initial:
                context.send_initial_metadata(act.initial)
            if not self._paused(act, gone) and kind.response_streaming:
                return
            if act.trailing:
                context.set_trailing_metadata(act.trailing)
            for response in act.sent(kind, attempt.requests):
                attempt.responses += 1
                yield response
            yield from self._end(act, kind, context, gone)
        except grpc.RpcError as error:
            if type(error) is grpc.RpcError:  # so grpc ends the request stream of a client that has gone
                gone.set()
            raise
        finally:
            attempt.cancelled = gone.is_set()
            echo.end(attempt)

    def _end(self, act: Act, kind: Kind, context: Any, gone: threading.Event) -> Iterator[str]:
        """Fail, if the act says so; the connection breaks under a handler that would have answered."""
        if act.error is not None:
            raise act.error
        if act.die:
            self._echo.broken().result()
            self._paused(Act(hang=True), gone)
            yield from () if kind.response_streaming else ("this is not heard",)
        elif act.fails and hasattr(context, "cancel"):
            context.abort(act.code, act.details)
        elif act.fails:
            # grpc.aio's own context for plain handlers, whose abort() does not wait for the last message to be written.
            context.set_code(act.code)
            context.set_details(act.details)
            yield from () if kind.response_streaming else ("this is not heard",)

    def _paused(self, act: Act, gone: threading.Event) -> bool:
        """Let the delay pass; False if the client has gone or the service was closed before, as for one that hangs."""
        end = SYSTEM.now() + (FOREVER if act.hang else act.delay)
        while (left := end - SYSTEM.now()) > 0:
            if gone.is_set() or self._echo._closed.wait(min(left, 0.005)):
                return False
        return True


class _Async:
    """The async handlers: generators where responses stream."""

    def __init__(self, echo: Echo) -> None:
        self._echo = echo

    async def unary_unary(self, request: Any, context: Any) -> Any:
        async with aclosing(self._answer(Kind.UNARY_UNARY, _each([request]), context)) as answer:
            return await anext(answer)

    async def stream_unary(self, requests: AsyncIterator[Any], context: Any) -> Any:
        async with aclosing(self._answer(Kind.STREAM_UNARY, requests, context)) as answer:
            return await anext(answer)

    async def unary_stream(self, request: Any, context: Any) -> AsyncIterator[Any]:
        async with aclosing(self._answer(Kind.UNARY_STREAM, _each([request]), context)) as answer:
            async for response in answer:
                yield response

    async def stream_stream(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        async with aclosing(self._answer(Kind.STREAM_STREAM, requests, context)) as answer:
            async for response in answer:
                yield response

    async def _answer(self, kind: Kind, requests: AsyncIterator[Any], context: Any) -> AsyncGenerator[Any]:
        echo = self._echo
        attempt, act = echo.begin(kind, context)
        try:
            if not act.unread:
                async for request in requests:
                    attempt.requests.append(request)
            if act.initial:
                await context.send_initial_metadata(act.initial)
            if act.delay or act.hang:
                await self._pause(act)
            if act.trailing:
                context.set_trailing_metadata(act.trailing)
            for response in act.sent(kind, attempt.requests):
                attempt.responses += 1
                yield response
            await self._end(act, context)
        except asyncio.CancelledError:
            attempt.cancelled = True
            raise
        finally:
            echo.end(attempt)

    async def _end(self, act: Act, context: Any) -> None:
        if act.error is not None:
            raise act.error
        if act.die:
            await asyncio.wrap_future(self._echo.broken())
            await asyncio.sleep(GONE_TIMEOUT)  # until grpc cancels this task
        elif act.fails:
            await context.abort(act.code, act.details)

    async def _pause(self, act: Act) -> None:
        while act.hang and not self._echo._closed.is_set():  # noqa: ASYNC110  closed from another thread
            await asyncio.sleep(0.005)
        await asyncio.sleep(act.delay)


async def _each(messages: Iterable[Any]) -> AsyncIterator[Any]:
    for message in messages:
        yield message
