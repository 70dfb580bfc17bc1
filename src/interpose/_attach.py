"""The front door: interceptors put on a channel or a server, or made into an object for a server."""

from __future__ import annotations

from typing import Any, TypeVar

import grpc
import grpc.aio

from interpose import aio, sync
from interpose._clock import SYSTEM, Clock
from interpose._flow import Interceptor, check, check_fit, check_side, check_sync, named
from interpose._method import Side
from interpose._order import warn_of_order
from interpose._shell.channel import stacked
from interpose._shell.handlers import refuse_late

C = TypeVar("C")
S = TypeVar("S")


def intercept_channel(channel: C, *interceptors: Interceptor, clock: Clock = SYSTEM) -> C:
    """Run every call made on `channel` through these interceptors; the first is outermost.

    channel: a `grpc.Channel` or a `grpc.aio.Channel`; what comes back is one of the same kind, with everything it can do.
    clock: time for deadlines and delays; tests hand in their own.

    TypeError for anything that is no channel or no interceptor. ValueError for an interceptor that belongs on a server.
    """
    if not isinstance(channel, grpc.Channel | grpc.aio.Channel):
        raise TypeError(
            f"{channel!r} is no channel: intercept_channel(channel, *interceptors) begins with what "
            "grpc.insecure_channel, grpc.secure_channel or their twins in grpc.aio return"
        )
    for interceptor in interceptors:
        check(interceptor)
    check_side(interceptors, Side.CLIENT)
    wrapped: Any
    if isinstance(channel, grpc.Channel):
        check_sync(interceptors)
        check_fit(interceptors, asyncio=False)
        wrapped = stacked(sync.Channel, channel, interceptors, clock)
    else:
        check_fit(interceptors, asyncio=True)
        wrapped = stacked(aio.Channel, channel, interceptors, clock)
    result: C = wrapped
    return result


def intercept_server(server: S, *interceptors: Interceptor, clock: Clock = SYSTEM) -> S:
    """Run every RPC that `server` handles through these interceptors; the first is outermost.

        server = intercept_server(grpc.server(pool), AccessLog(), ExceptionToStatus())
        orders_pb2_grpc.add_OrdersServicer_to_server(Orders(), server)

    server: a `grpc.Server` or a `grpc.aio.Server` without handlers; register them with what comes back, which is one of
        the same kind, with everything it can do. Interceptors that it was made with are outside of these.
    clock: time for deadlines and delays; tests hand in their own.

    It costs less than `server_interceptor`, since handlers are wrapped when they are registered, and outcomes say so
    when the server's `stop()` ended an RPC.

    TypeError for anything that is no server or no interceptor. ValueError for a server that has handlers already, or an
    interceptor that belongs on a channel.
    """
    if not isinstance(server, grpc.Server | grpc.aio.Server):
        raise TypeError(
            f"{server!r} is no server: intercept_server(server, *interceptors) begins with what grpc.server or "
            "grpc.aio.server returns"
        )
    for interceptor in interceptors:
        check(interceptor)
    check_side(interceptors, Side.SERVER)
    refuse_late(server)
    wrapped: Any
    if isinstance(server, grpc.Server):
        check_sync(interceptors, "server")
        check_fit(interceptors, asyncio=False)
        wrapped = stacked(sync.Server, server, interceptors, clock)
    else:
        check_fit(interceptors, asyncio=True)
        wrapped = stacked(aio.Server, server, interceptors, clock)
    result: S = wrapped
    return result


class ServerInterceptor(grpc.ServerInterceptor, grpc.aio.ServerInterceptor):
    """A stack of interceptors as both kinds of server take it. Made by `server_interceptor`."""

    def __init__(self, interceptors: tuple[Interceptor, ...], clock: Clock) -> None:
        self._interceptors = interceptors
        self._sync = sync.handlers(interceptors, clock)
        self._aio = aio.Handlers(interceptors, clock)

    def intercept_service(self, continuation: Any, details: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]  # both of them
        """What grpc calls once per RPC; on a sync server under its lock, so nothing but a look-up happens here."""
        found = continuation(details)
        if found is None:  # a method that a sync server does not have
            return None
        if hasattr(found, "request_streaming"):
            return self._sync.get(found, details.method)
        return self._aio.intercepted(found, details)

    def __repr__(self) -> str:
        return f"server_interceptor({named(self._interceptors)})"


def server_interceptor(*interceptors: Interceptor, clock: Clock = SYSTEM) -> ServerInterceptor:
    """These interceptors as one object for `grpc.server(interceptors=[…])` or `grpc.aio.server(interceptors=[…])`.

    The first is outermost. One object serves any number of servers, of both kinds. An `async def` generator runs on
    asyncio servers only; a sync server answers its RPCs with INTERNAL, and the log says so at the first one.

    TypeError for anything that is no interceptor. ValueError for one that belongs on a channel.
    """
    for interceptor in interceptors:
        check(interceptor)
    check_side(interceptors, Side.SERVER)
    warn_of_order(interceptors)
    return ServerInterceptor(interceptors, clock)
