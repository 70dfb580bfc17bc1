"""The asyncio shell's channel: a `grpc.aio.Channel` whose stubs run every call through a stack of interceptors."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, ClassVar

import grpc
import grpc.aio

from interpose._clock import Clock
from interpose._flow import Driver, Interceptor, unused
from interpose._grpcio.direct import Direct, direct, in_flight
from interpose._method import Kind
from interpose._shell.channel import Layered, call_of
from interpose._shell.native import Route
from interpose._shell.straight import begin
from interpose.aio.calls import StraightCall, StreamStreamCall, StreamUnaryCall, UnaryStreamCall, UnaryUnaryCall
from interpose.aio.exchange import Exchange
from interpose.aio.requests import Requests

NATIVE_INTERCEPTORS = tuple(f"_{kind.value}_interceptors" for kind in Kind)


class Channel(Layered, grpc.aio.Channel):
    """A channel with interceptors; everything that is no call goes straight to the native channel."""

    _packs = True  # grpc.aio does not report a serializer that fails
    _native: grpc.aio.Channel

    def __init__(self, native: grpc.aio.Channel, interceptors: tuple[Interceptor, ...], clock: Clock) -> None:
        super().__init__(native, interceptors, clock)
        self._loop: asyncio.AbstractEventLoop | None = getattr(native, "_loop", None)  # on which grpc does its part
        self._in_flight = in_flight(native)
        # Libraries append to these of grpc's own lists (api-core, pymilvus): what they append runs below our flows.
        for name in NATIVE_INTERCEPTORS:
            setattr(self, name, getattr(native, name, []))

    def _stub(self, route: Route) -> Any:
        route.native = direct(route.native, self._in_flight)
        return STUBS[route.method.kind](route, self._loop)

    async def close(self, grace: float | None = None) -> None:
        """Close the native channel; calls that wait for a later attempt end too."""
        self._pauses.close()
        await self._native.close(grace)
        self._pauses.close()
        unused(self._interceptors)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self._native.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._native.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self._native.channel_ready()

    async def __aenter__(self) -> Channel:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()


class _Starter:
    """A stub method: the common part of all four."""

    __slots__ = ("_loop", "_route")

    call: ClassVar[type[Any]]  # what the application gets

    def __init__(self, route: Route, loop: asyncio.AbstractEventLoop | None) -> None:
        self._route = route
        self._loop = loop

    def _start(
        self,
        request: Any,
        timeout: float | None,
        metadata: Any,
        credentials: Any,
        wait_for_ready: bool | None,
        compression: Any,
    ) -> Exchange:
        route = self._route
        loop = self._loop or asyncio.get_running_loop()
        if loop.is_closed():
            raise RuntimeError(
                "the event loop in which this channel was made is closed: make it in the loop that uses it"
            )
        requests = Requests(request, route.encode) if route.uploads else None
        call = call_of(route, request, timeout, metadata, credentials, wait_for_ready, compression)
        driver = Driver(route.layers)
        exchange = Exchange(route, driver, copy_context(), call._deadline, requests, loop)
        exchange.turn(driver.start, call)
        return exchange


class _OneRequest(_Starter):
    """One that takes a message."""

    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> Any:
        return self.call(self._start(request, timeout, metadata, credentials, wait_for_ready, compression))


class _RequestStream(_Starter):
    """One that takes a stream, or nothing: then its application writes."""

    def __call__(
        self,
        request_iterator: Any = None,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> Any:
        return self.call(self._start(request_iterator, timeout, metadata, credentials, wait_for_ready, compression))


class UnaryUnary(_OneRequest, grpc.aio.UnaryUnaryMultiCallable):  # type: ignore[type-arg]  # older ones are not generic
    """One request, one response."""

    call = UnaryUnaryCall

    def __init__(self, route: Route, loop: asyncio.AbstractEventLoop | None) -> None:
        super().__init__(route, loop)
        self._way = route.native if type(route.native) is Direct else None

    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> UnaryUnaryCall:
        route, way, loop = self._route, self._way, self._loop
        if way is None or way.interceptors or loop is None or loop.is_closed() or route.pauses.closed:
            return self.call(self._start(request, timeout, metadata, credentials, wait_for_ready, compression))
        call = call_of(route, request, timeout, metadata, credentials, wait_for_ready, compression)
        context = copy_context()
        frames, asked, taken = context.run(begin, route.layers, call)
        if taken is not None:
            driver, step = taken
            exchange = Exchange(route, driver, context, call._deadline, None, loop)
            exchange.go_on(step)
            return UnaryUnaryCall(exchange)
        straight = StraightCall(route, loop, context, frames, asked)
        straight.send(way)
        return straight


class UnaryStream(_OneRequest, grpc.aio.UnaryStreamMultiCallable):  # type: ignore[type-arg]  # older ones are not generic
    """One request, a stream of responses."""

    call = UnaryStreamCall


class StreamUnary(_RequestStream, grpc.aio.StreamUnaryMultiCallable):  # type: ignore[type-arg]  # older ones are not generic
    """A stream of requests, one response."""

    call = StreamUnaryCall


class StreamStream(_RequestStream, grpc.aio.StreamStreamMultiCallable):  # type: ignore[type-arg]  # older ones are not generic
    """A stream each way."""

    call = StreamStreamCall


STUBS: dict[Kind, Callable[[Route, asyncio.AbstractEventLoop | None], Any]] = {
    Kind.UNARY_UNARY: UnaryUnary,
    Kind.UNARY_STREAM: UnaryStream,
    Kind.STREAM_UNARY: StreamUnary,
    Kind.STREAM_STREAM: StreamStream,
}
