"""The asyncio shell's native interceptors: the hooks by which grpc asks them, and attempts that go through its continuation."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterable, AsyncIterator
from functools import partial
from importlib import import_module
from typing import Any, ClassVar

import grpc
import grpc.aio

from interpose import errors
from interpose._method import Kind
from interpose._shell.codec import plain
from interpose._shell.native import Hooked, options_of
from interpose.aio.channel import StreamStream, StreamUnary, UnaryStream, UnaryUnary


def _private(name: str) -> Any:
    """A class of grpc.aio's own; RuntimeError where this grpcio has none of that name."""
    try:
        return getattr(import_module("grpc.aio._interceptor"), name)
    except (ImportError, AttributeError):
        raise RuntimeError(
            f"native_interceptors: grpcio {grpc.__version__} has no grpc.aio._interceptor.{name}, which the asyncio hook "
            "needs: use intercept_channel instead"
        ) from None


class Hook:
    """One of the four for asyncio."""

    kind: ClassVar[Kind]
    stubs: ClassVar[Any]
    calls: ClassVar[str]  # the name of grpc's call that waits for an interceptor to give the one behind it

    def __init__(self, route: Hooked, name: str) -> None:
        self._route = route
        self._name = name
        self._calls = _private(self.calls)

    async def intercepted(self, continuation: Any, details: Any, request: Any) -> Any:
        """The hook, which grpc calls by a name of its own for each kind."""
        begin = partial(self._begin, continuation, details.method)
        stub = self.stubs(self._route(self.kind, details.method, begin), asyncio.get_running_loop())
        if not self.kind.request_streaming:
            return stub(request, **options_of(details))
        calls: list[weakref.ref[Any]] = []
        call = stub(_noted(request, calls), **options_of(details))
        call._done_writing_flag = False  # grpc's call in front of it looks at this before it takes a message to write
        calls.append(weakref.ref(call))
        return call

    def _begin(
        self,
        continuation: Any,
        method: Any,
        request: Any,
        *,
        timeout: float | None,
        metadata: Any,
        credentials: Any,
        wait_for_ready: bool | None,
        compression: Any,
    ) -> Any:
        """Start an attempt: a call at once, though the continuation gives one only when it was awaited."""
        if compression is not None:
            raise errors.Internal("grpc.aio's hook for native interceptors passes no compression on", local=True)
        request = _messages(request) if self.kind.request_streaming else plain(request)
        behind = _Behind(continuation)
        pairs = grpc.aio.Metadata(*(metadata or ()))
        loop = asyncio.get_running_loop()
        return self._calls(
            [behind], request, timeout, pairs, credentials, wait_for_ready, None, method, None, None, loop
        )

    def __repr__(self) -> str:
        return self._name


class _Behind:
    """An interceptor that gives what the continuation of another one gives."""

    def __init__(self, continuation: Any) -> None:
        self._continuation = continuation

    async def _give(self, _: Any, details: Any, request: Any) -> Any:
        return await self._continuation(details, request)

    intercept_unary_unary = intercept_unary_stream = intercept_stream_unary = intercept_stream_stream = _give


class OfUnaryUnary(Hook, grpc.aio.UnaryUnaryClientInterceptor):
    kind, stubs, calls = Kind.UNARY_UNARY, UnaryUnary, "InterceptedUnaryUnaryCall"

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await self.intercepted(continuation, client_call_details, request)


class OfUnaryStream(Hook, grpc.aio.UnaryStreamClientInterceptor):
    kind, stubs, calls = Kind.UNARY_STREAM, UnaryStream, "InterceptedUnaryStreamCall"

    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await self.intercepted(continuation, client_call_details, request)


class OfStreamUnary(Hook, grpc.aio.StreamUnaryClientInterceptor):
    kind, stubs, calls = Kind.STREAM_UNARY, StreamUnary, "InterceptedStreamUnaryCall"

    async def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return await self.intercepted(continuation, client_call_details, request_iterator)


class OfStreamStream(Hook, grpc.aio.StreamStreamClientInterceptor):
    kind, stubs, calls = Kind.STREAM_STREAM, StreamStream, "InterceptedStreamStreamCall"

    async def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return await self.intercepted(continuation, client_call_details, request_iterator)


HOOKS = (OfUnaryUnary, OfUnaryStream, OfStreamUnary, OfStreamStream)


async def _messages(requests: AsyncIterable[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield plain(request)


async def _noted(requests: Any, calls: list[weakref.ref[Any]]) -> AsyncIterator[Any]:
    """The requests; at their end it is noted on the call that no more are taken."""
    if isinstance(requests, AsyncIterable):
        async for request in requests:
            yield request
    else:
        for request in requests:
            yield request
    if (call := calls[0]()) is not None:
        call._done_writing_flag = True
