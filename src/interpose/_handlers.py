"""Handlers that were wrapped before: each is compiled once, though grpc asks for it at every RPC."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

from interpose._codec import bearable
from interpose._method import Kind

MAX_METHODS = 4096  # handlers remembered; a generic handler may answer to any name that a peer makes up

_ATTRIBUTE = {kind: kind.value for kind in Kind}  # RpcMethodHandler keeps its function under the name of its kind

_MAKE: dict[Kind, Any] = {
    Kind.UNARY_UNARY: grpc.unary_unary_rpc_method_handler,
    Kind.UNARY_STREAM: grpc.unary_stream_rpc_method_handler,
    Kind.STREAM_UNARY: grpc.stream_unary_rpc_method_handler,
    Kind.STREAM_STREAM: grpc.stream_stream_rpc_method_handler,
}


class Compiled:
    """A cache from handlers to what was made of them, by method name and the handler's identity."""

    def __init__(self, compile: Callable[[Any, str], Any]) -> None:
        self._compile = compile
        self._known: dict[str, tuple[Any, Any]] = {}

    def get(self, handler: Any, name: str) -> Any:
        """What `compile(handler, name)` gave, now or before. A generic handler may give another handler at any time."""
        known = self._known.get(name)
        if known is not None and known[0] is handler:
            return known[1]
        made = self._compile(handler, name)
        if len(self._known) < MAX_METHODS or name in self._known:
            self._known[name] = handler, made
        return made


def kind_of(handler: Any) -> Kind:
    """The kind of RPC that a handler serves: what it says, never what its response looks like."""
    return Kind.of(handler.request_streaming, handler.response_streaming)


def function_of(handler: Any) -> Any:
    """The handler's function."""
    return getattr(handler, _ATTRIBUTE[kind_of(handler)])


def with_function(handler: Any, function: Any, *, deserializer: Any = None, serializer: Any = None) -> Any:
    """The handler with another function; and with these (de)serializers, or its own in a form that grpc can bear."""
    return _MAKE[kind_of(handler)](
        function,
        deserializer or bearable(handler.request_deserializer),
        serializer or bearable(handler.response_serializer),
    )
