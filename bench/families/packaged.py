"""Interceptors written with the grpc-interceptor package, the way its documentation does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
from grpc_interceptor import AsyncServerInterceptor, ClientInterceptor, ServerInterceptor

from bench.families import Dial, Family
from bench.families.counting import SeenCall, aseen, seen
from bench.places import Mode, Side, What


class Client(ClientInterceptor):
    """Passes every call on."""

    def intercept(self, method: Any, request_or_iterator: Any, call_details: Any) -> Any:
        return method(request_or_iterator, call_details)


class ObservingClient(ClientInterceptor):
    """Looks at the status code, as a metric does."""

    def intercept(self, method: Any, request_or_iterator: Any, call_details: Any) -> Any:
        call = method(request_or_iterator, call_details)
        call.code()
        return call


class RequestsClient(ClientInterceptor):
    """Sees each request of a stream."""

    def intercept(self, method: Any, request_or_iterator: Any, call_details: Any) -> Any:
        return method(seen(request_or_iterator), call_details)


class ResponsesClient(ClientInterceptor):
    """Sees each response of a stream."""

    def intercept(self, method: Any, request_or_iterator: Any, call_details: Any) -> Any:
        return SeenCall(method(request_or_iterator, call_details))


class Server(ServerInterceptor):
    """Passes every call on."""

    def intercept(self, method: Any, request_or_iterator: Any, context: Any, method_name: str) -> Any:
        return method(request_or_iterator, context)


class ObservingServer(ServerInterceptor):
    """Looks at the status code, as a metric does."""

    def intercept(self, method: Any, request_or_iterator: Any, context: Any, method_name: str) -> Any:
        try:
            return method(request_or_iterator, context)
        finally:
            context.code()


class RequestsServer(ServerInterceptor):
    """Sees each request of a stream."""

    def intercept(self, method: Any, request_or_iterator: Any, context: Any, method_name: str) -> Any:
        return method(seen(request_or_iterator), context)


class ResponsesServer(ServerInterceptor):
    """Sees each response of a stream."""

    def intercept(self, method: Any, request_or_iterator: Any, context: Any, method_name: str) -> Any:
        return seen(method(request_or_iterator, context))


class AioServer(AsyncServerInterceptor):
    """Passes every call on."""

    async def intercept(self, method: Any, request_or_iterator: Any, context: Any, method_name: str) -> Any:
        response_or_iterator = method(request_or_iterator, context)
        if hasattr(response_or_iterator, "__aiter__"):
            return response_or_iterator
        return await response_or_iterator


class AioObservingServer(AsyncServerInterceptor):
    """Looks at the status code, as a metric does."""

    async def intercept(self, method: Any, request_or_iterator: Any, context: Any, method_name: str) -> Any:
        try:
            response_or_iterator = method(request_or_iterator, context)
            if hasattr(response_or_iterator, "__aiter__"):
                return response_or_iterator
            return await response_or_iterator
        finally:
            context.code()


class AioRequestsServer(AsyncServerInterceptor):
    """Sees each request of a stream."""

    async def intercept(self, method: Any, request_or_iterator: Any, context: Any, method_name: str) -> Any:
        return await method(aseen(request_or_iterator), context)


class AioResponsesServer(AsyncServerInterceptor):
    """Sees each response of a stream."""

    async def intercept(self, method: Any, request_or_iterator: Any, context: Any, method_name: str) -> Any:
        return aseen(method(request_or_iterator, context))


CLIENTS: dict[What, Callable[[], ClientInterceptor]] = {
    "noop": Client,
    "observe": ObservingClient,
    "requests": RequestsClient,
    "responses": ResponsesClient,
}
SERVERS: dict[What, Callable[[], ServerInterceptor]] = {
    "noop": Server,
    "observe": ObservingServer,
    "requests": RequestsServer,
    "responses": ResponsesServer,
}
AIO_SERVERS: dict[What, Callable[[], AsyncServerInterceptor]] = {
    "noop": AioServer,
    "observe": AioObservingServer,
    "requests": AioRequestsServer,
    "responses": AioResponsesServer,
}


class Packaged:
    """grpc-interceptor has no asyncio client."""

    def covers(self, mode: Mode, side: Side) -> bool:
        return (mode, side) != ("aio", "client")

    def sync_client(self, channel: grpc.Channel, what: What, count: int) -> grpc.Channel:
        return grpc.intercept_channel(channel, *(CLIENTS[what]() for _ in range(count)))

    def aio_client(self, dial: Dial, what: What, count: int) -> grpc.aio.Channel:
        raise NotImplementedError("grpc-interceptor has no asyncio client; ask covers() first")

    def sync_server(self, what: What, count: int) -> list[grpc.ServerInterceptor]:
        return [SERVERS[what]() for _ in range(count)]

    def aio_server(self, what: What, count: int) -> list[grpc.aio.ServerInterceptor]:
        return [AIO_SERVERS[what]() for _ in range(count)]


FAMILY: Family = Packaged()
