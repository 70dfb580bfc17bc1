"""The shell for sync grpc: the only room, beside `aio`, that sends, sleeps and waits."""

from __future__ import annotations

import grpc

from interpose._clock import Clock
from interpose._flow import Interceptor
from interpose._shell.handlers import refuse_late
from interpose.sync.channel import Channel
from interpose.sync.server import handlers
from interpose.sync.serving import Server

__all__ = ["Channel", "Server", "handlers", "intercept", "serve"]


def intercept(channel: grpc.Channel, interceptors: tuple[Interceptor, ...], clock: Clock) -> Channel:
    """A channel with interceptors; put on one that has some already, they become one stack with the new ones outermost."""
    if isinstance(channel, Channel):
        return Channel(channel._native, (*interceptors, *channel._interceptors), clock)
    return Channel(channel, interceptors, clock)


def serve(server: grpc.Server, interceptors: tuple[Interceptor, ...], clock: Clock) -> Server:
    """A server with interceptors; put on one that has some already, they become one stack with the new ones outermost."""
    refuse_late(server)
    if isinstance(server, Server):
        return Server(server._native, (*interceptors, *server._interceptors), clock)
    return Server(server, interceptors, clock)
