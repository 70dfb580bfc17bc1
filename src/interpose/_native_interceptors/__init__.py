"""A stack as native client interceptors of grpc, for libraries that make the channel themselves and take only those.

The shells do the work, as for `intercept_channel`. Only what they call is another: not a channel's multi-callable, but
the `continuation` that grpc hands to an interceptor.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

from interpose._clock import SYSTEM, Clock
from interpose._flow import Interceptor, Layers, check, check_side, check_sync, layers, named
from interpose._method import Kind, Method, Side, Target
from interpose._native_interceptors import aio, sync
from interpose._order import warn_of_order
from interpose._shell.native import Pauses, Route
from interpose.mechanisms.lru import Registry

MAX_METHODS = 1024  # whose stacks are kept compiled; of the rest the one used longest ago is compiled anew


def native_interceptors(*interceptors: Interceptor, asyncio: bool = False, clock: Clock = SYSTEM) -> list[Any]:
    """These interceptors as native ones, for libraries that take only such: `connect(interceptors=native_interceptors(…))`.

    asyncio: False: one object, which is all four of `grpc.UnaryUnaryClientInterceptor` and so on, for
        `grpc.intercept_channel`. True: four objects, for `interceptors=` of a `grpc.aio` channel, which registers an
        object for one kind of RPC only (https://github.com/grpc/grpc/issues/31442).

    Where you make the channel yourself, `intercept_channel` can do more. grpc's hook has these limits:

    - A blocking call can be sent again, but not started twice at once: `Hedge`, and calls that end with an incoming RPC
      (`PropagateContext` in a handler, unless `cancel=False`), end with INTERNAL, which says so. Futures and streams can.
    - The target is unknown: a `CircuitBreaker` keyed by target is one for all that this list is used for.
    - Closing the channel does not wake what waits to be sent again; it fails when it is sent.
    - Messages are not serialized yet: `call.encoded()`, which `Cache` and `Coalesce` need, works for messages of
      protobuf and for bytes. A buffered request stream counts other messages by their size in memory.
    - On asyncio the hook passes no compression on: a call that asks for one ends with INTERNAL.

    TypeError for what is no interceptor, and for an `async def` generator without `asyncio=True`. ValueError for an
    interceptor that belongs on a server.
    """
    for interceptor in interceptors:
        check(interceptor)
    check_side(interceptors, Side.CLIENT)
    if not asyncio:
        check_sync(interceptors)
    warn_of_order(interceptors)
    route, name = _Stack(interceptors, clock).route, f"native_interceptors({named(interceptors)})"
    return [hook(route, name) for hook in (aio.HOOKS if asyncio else sync.HOOKS)]


class _Stack:
    """The interceptors, compiled for each method."""

    def __init__(self, interceptors: tuple[Interceptor, ...], clock: Clock) -> None:
        self._interceptors = interceptors
        self._clock = clock
        self._pauses = Pauses()
        self._target = Target("")
        self._compiled = {kind: Registry(MAX_METHODS, partial(self._compile, kind)) for kind in Kind}

    def route(self, kind: Kind, path: str | bytes, native: Any) -> Route:
        """The way of one RPC, whose attempts call `native`."""
        method, compiled = self._compiled[kind][path.decode() if isinstance(path, bytes) else path]
        return Route(method, compiled, lambda _: native, _as_many_bytes, self._clock, self._pauses)

    def _compile(self, kind: Kind, path: str) -> tuple[Method, Layers]:
        method = Method(path, kind, self._target, _serialized, clock=self._clock)
        return method, layers(self._interceptors, method)


def _serialized(message: Any) -> bytes:
    """A request as bytes, for those that ask `Call.encoded`."""
    data: bytes = message if isinstance(message, bytes) else message.SerializeToString()
    return data


def _as_many_bytes(message: Any) -> bytes:
    """As many bytes as the message has, for those that count them; the message itself goes to grpc."""
    if isinstance(message, bytes):
        return message
    return bytes(message.ByteSize() if hasattr(message, "ByteSize") else sys.getsizeof(message))
