"""Interceptors as grpcio itself offers them, written the way its examples are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio

from bench.families import Dial, Family
from bench.families.counting import SeenCall, aseen, seen
from bench.places import Mode, Side, What

# Sync client


class Client(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
):
    """Passes every call on."""

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return continuation(details, request)

    def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        return continuation(details, request)

    def intercept_stream_unary(self, continuation: Any, details: Any, requests: Any) -> Any:
        return continuation(details, requests)


class ObservingClient(Client):
    """Looks at the status code, as a metric does."""

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        call = continuation(details, request)
        call.code()
        return call


class TappingClient(Client):
    """Sees each message of a stream."""

    def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        return SeenCall(continuation(details, request))

    def intercept_stream_unary(self, continuation: Any, details: Any, requests: Any) -> Any:
        return continuation(details, seen(requests))


# Asyncio client. grpc.aio registers an object for the first arity it matches only: one class each.


class AioClient(grpc.aio.UnaryUnaryClientInterceptor):
    """Passes every call on."""

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return await continuation(details, request)


class AioObservingClient(grpc.aio.UnaryUnaryClientInterceptor):
    """Looks at the status code, as a metric does."""

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        call = await continuation(details, request)
        await call.code()
        return call


class AioResponsesClient(grpc.aio.UnaryStreamClientInterceptor):
    """Sees each response of a stream."""

    async def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        return aseen(await continuation(details, request))


class AioRequestsClient(grpc.aio.StreamUnaryClientInterceptor):
    """Sees each request of a stream."""

    async def intercept_stream_unary(self, continuation: Any, details: Any, requests: Any) -> Any:
        return await continuation(details, aseen(requests))


# Server


def _passing(behaviour: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(request: Any, context: Any) -> Any:
        return behaviour(request, context)

    return wrapped


def _observing(behaviour: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(request: Any, context: Any) -> Any:
        try:
            return behaviour(request, context)
        finally:
            context.code()

    return wrapped


def _seeing_requests(behaviour: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(requests: Any, context: Any) -> Any:
        return behaviour(seen(requests), context)

    return wrapped


def _seeing_responses(behaviour: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(request: Any, context: Any) -> Any:
        return seen(behaviour(request, context))

    return wrapped


def _apassing(behaviour: Callable[..., Any]) -> Callable[..., Any]:
    async def wrapped(request: Any, context: Any) -> Any:
        return await behaviour(request, context)

    return wrapped


def _aobserving(behaviour: Callable[..., Any]) -> Callable[..., Any]:
    async def wrapped(request: Any, context: Any) -> Any:
        try:
            return await behaviour(request, context)
        finally:
            context.code()

    return wrapped


def _aseeing_requests(behaviour: Callable[..., Any]) -> Callable[..., Any]:
    async def wrapped(requests: Any, context: Any) -> Any:
        return await behaviour(aseen(requests), context)

    return wrapped


def _aseeing_responses(behaviour: Callable[..., Any]) -> Callable[..., Any]:
    async def wrapped(request: Any, context: Any) -> Any:
        async for message in aseen(behaviour(request, context)):
            yield message

    return wrapped


WRAPPERS = {
    "noop": _passing,
    "observe": _observing,
    "requests": _seeing_requests,
    "responses": _seeing_responses,
}
AIO_WRAPPERS = {
    "noop": _apassing,
    "observe": _aobserving,
    "requests": _aseeing_requests,
    "responses": _aseeing_responses,
}


def rewrapped(handler: Any, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Any:
    """The handler with its behaviour wrapped; of the kinds of RPC, those that are measured."""
    codec = handler.request_deserializer, handler.response_serializer
    if handler.unary_unary:
        return grpc.unary_unary_rpc_method_handler(wrap(handler.unary_unary), *codec)
    if handler.unary_stream:
        return grpc.unary_stream_rpc_method_handler(wrap(handler.unary_stream), *codec)
    return grpc.stream_unary_rpc_method_handler(wrap(handler.stream_unary), *codec)


class Server(grpc.ServerInterceptor):
    """Wraps the handler's behaviour, anew for each RPC: grpcio asks each time."""

    def __init__(self, what: What) -> None:
        self._wrap = WRAPPERS[what]

    def intercept_service(self, continuation: Any, details: Any) -> Any:
        handler = continuation(details)
        return handler and rewrapped(handler, self._wrap)


class AioServer(grpc.aio.ServerInterceptor):
    """Wraps the handler's behaviour, anew for each RPC: grpcio asks each time."""

    def __init__(self, what: What) -> None:
        self._wrap = AIO_WRAPPERS[what]

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        handler = await continuation(details)
        return handler and rewrapped(handler, self._wrap)


CLIENTS = {"noop": Client, "observe": ObservingClient, "requests": TappingClient, "responses": TappingClient}
AIO_CLIENTS: dict[What, Callable[[], grpc.aio.ClientInterceptor]] = {
    "noop": AioClient,
    "observe": AioObservingClient,
    "requests": AioRequestsClient,
    "responses": AioResponsesClient,
}


class Native:
    """grpcio's own interceptors exist everywhere."""

    def covers(self, mode: Mode, side: Side) -> bool:
        return True

    def sync_client(self, channel: grpc.Channel, what: What, count: int) -> grpc.Channel:
        return grpc.intercept_channel(channel, *(CLIENTS[what]() for _ in range(count)))

    def aio_client(self, dial: Dial, what: What, count: int) -> grpc.aio.Channel:
        return dial([AIO_CLIENTS[what]() for _ in range(count)])

    def sync_server(self, what: What, count: int) -> list[grpc.ServerInterceptor]:
        return [Server(what) for _ in range(count)]

    def aio_server(self, what: What, count: int) -> list[grpc.aio.ServerInterceptor]:
        return [AioServer(what) for _ in range(count)]


FAMILY: Family = Native()
