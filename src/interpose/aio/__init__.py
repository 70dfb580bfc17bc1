"""The shell for grpc.aio: the only room, beside `sync`, that sends, sleeps and waits."""

from __future__ import annotations

import grpc.aio

from interpose._clock import Clock
from interpose._flow import Interceptor
from interpose.aio.channel import Channel
from interpose.aio.server import Handlers

__all__ = ["Channel", "Handlers", "intercept"]


def intercept(channel: grpc.aio.Channel, interceptors: tuple[Interceptor, ...], clock: Clock) -> Channel:
    """A channel with interceptors; put on one that has some already, they become one stack with the new ones outermost."""
    if isinstance(channel, Channel):
        return Channel(channel._native, (*interceptors, *channel._interceptors), clock)
    return Channel(channel, interceptors, clock)
