"""Handlers with interceptors around them: each is compiled once, though grpc may ask for it at every RPC."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable
from typing import Any

import grpc

from interpose._clock import Clock
from interpose._flow import Interceptor, Layers, layers
from interpose._method import Kind, Method
from interpose._shell.codec import guarded

MAX_METHODS = 4096  # handlers remembered; a generic handler may answer to any name that a peer makes up

_ATTRIBUTE = {kind: kind.value for kind in Kind}  # RpcMethodHandler keeps its function under the name of its kind

_MAKE: dict[Kind, Any] = {
    Kind.UNARY_UNARY: grpc.unary_unary_rpc_method_handler,
    Kind.UNARY_STREAM: grpc.unary_stream_rpc_method_handler,
    Kind.STREAM_UNARY: grpc.stream_unary_rpc_method_handler,
    Kind.STREAM_STREAM: grpc.stream_stream_rpc_method_handler,
}


class Endpoint:
    """What is compiled once per handler of a server: the method, the layers around it, and its function."""

    __slots__ = ("handler", "layers", "method")

    def __init__(
        self,
        handler: Any,
        name: str,
        interceptors: tuple[Interceptor, ...],
        clock: Clock,
        *,
        asyncio: bool,
        declared: bool = False,
    ) -> None:
        self.method = Method(name, kind_served(handler), declared=declared, clock=clock)
        self.layers: Layers = layers(interceptors, self.method, asyncio=asyncio)
        self.handler = function_of(handler)

    @property
    def parts(self) -> tuple[Method, Layers, Any]:
        """All of it, for what is called once per RPC and unpacks it once."""
        return self.method, self.layers, self.handler


class Compiled:
    """A cache from handlers to what was made of them, by method name and the handler's identity.

    declared: does a servicer say that there is a method of this name, rather than a handler that answers to any?
    """

    def __init__(self, compile: Callable[..., Any]) -> None:
        self.compile = compile
        self._known: dict[str, tuple[Any, Any]] = {}

    def get(self, handler: Any, name: str, declared: bool = False) -> Any:
        """What `compile(handler, name)` gave, now or before.

        A generic handler may give another handler at any time.
        """
        known = self._known.get(name)
        if known is not None and known[0] is handler:
            return known[1]
        made = self.compile(handler, name, declared=True) if declared else self.compile(handler, name)
        if len(self._known) < MAX_METHODS or name in self._known:
            self._known[name] = handler, made
        return made


def kind_served(handler: Any) -> Kind:
    """The kind of RPC that a handler serves: what it says, never what its response looks like."""
    return Kind.of(handler.request_streaming, handler.response_streaming)


def function_of(handler: Any) -> Any:
    """The handler's function."""
    return getattr(handler, _ATTRIBUTE[kind_served(handler)])


def with_function(handler: Any, function: Any, *, deserializer: Any = None, serializer: Any = None) -> Any:
    """The handler with another function; and with these (de)serializers, or its own in a form that grpc can handle."""
    return _MAKE[kind_served(handler)](
        function,
        deserializer or guarded(handler.request_deserializer),
        serializer or guarded(handler.response_serializer),
    )


# --- servers that handlers are registered with ------------------------------------------------------------------------


class Generic(grpc.GenericRpcHandler):
    """A generic handler that finds handlers with interceptors around them."""

    def __init__(self, native: Any, wrapped: Callable[[Any, str, bool], Any]) -> None:
        self._native = native
        self._wrapped = wrapped
        self._declared = isinstance(native, grpc.ServiceRpcHandler)

    def service(self, handler_call_details: Any) -> Any:
        """The handler of a method, or None."""
        found = self._native.service(handler_call_details)
        return None if found is None else self._wrapped(found, handler_call_details.method, self._declared)

    def __getattr__(self, name: str) -> Any:  # the service's name, where it has one
        return getattr(self._native, name)


def generics(given: Iterable[Any], wrapped: Callable[[Any, str, bool], Any]) -> list[Any]:
    """Generic handlers with `wrapped` around what they find; what is none is left for grpc to refuse."""
    return [Generic(native, wrapped) if hasattr(native, "service") else native for native in given]


def refuse_late(server: Any) -> None:
    """ValueError for a server that has handlers already: they would run without the interceptors."""
    if any(map(_has_handlers, (server, getattr(server, "_state", None), getattr(server, "_server", None)))):
        raise ValueError(
            f"{server!r} has handlers already, which would run without the interceptors: "
            "call intercept_server first, and register the handlers with what it returns"
        )


def _has_handlers(part: Any) -> bool:
    """Does this part of a server keep handlers? grpc's asyncio server, in C, shows them to the garbage collector alone.

    Its `__dict__` is not asked for: from then on each attribute of it would cost grpc more, at every RPC.
    """
    kept = gc.get_referents(part)
    kept += [inner for held in kept if isinstance(held, dict) for inner in held.values()]
    items = [
        item
        for held in kept
        if isinstance(held, (list, dict))
        for item in (held.values() if isinstance(held, dict) else held)
    ]
    return any(isinstance(item, (grpc.GenericRpcHandler, grpc.RpcMethodHandler)) for item in items)
