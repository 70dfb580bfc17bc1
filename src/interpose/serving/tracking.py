"""The RPCs under way: each handler notes when it begins and ends, so that the server can wait for it, or end it."""

from __future__ import annotations

import functools
import inspect
from asyncio import current_task
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import grpc
import grpc.aio

from interpose._method import Kind
from interpose._shell.handlers import Compiled, function_of, generics, kind_of
from interpose.serving.options import CannotServe

Running: TypeAlias = dict[Any, Any]  # grpc's contexts of the RPCs under way; on asyncio with the task of each
Behavior: TypeAlias = Callable[..., Any]

_MAKE: dict[Kind, Any] = {
    Kind.UNARY_UNARY: grpc.unary_unary_rpc_method_handler,
    Kind.UNARY_STREAM: grpc.unary_stream_rpc_method_handler,
    Kind.STREAM_UNARY: grpc.stream_unary_rpc_method_handler,
    Kind.STREAM_STREAM: grpc.stream_stream_rpc_method_handler,
}


class _Tracked:
    """A server whose handlers note their RPCs in `running`. pool: threads of their own for its sync handlers."""

    def __init__(self, native: Any, running: Running, pool: ThreadPoolExecutor | None = None) -> None:
        self._native = native
        self._running = running
        self._pool = pool
        self._compiled = Compiled(self._compile)
        self.services: dict[str, None] = {}  # the names of the services, in the order of registration

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        given = list(generic_rpc_handlers)
        for handler in given:
            if name := service_of(handler):
                self.services[name] = None
        self._native.add_generic_rpc_handlers(generics(given, self._compiled.get))

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, Any]) -> None:
        compiled = {name: self._compile(handler, name) for name, handler in method_handlers.items()}
        self._native.add_registered_method_handlers(service_name, compiled)

    def _compile(self, handler: Any, name: str) -> Any:
        function = function_of(handler)
        behavior = functools.update_wrapper(self._around(function, kind_of(handler)), function)
        if self._pool is not None:
            behavior.experimental_thread_pool = self._pool  # type: ignore[attr-defined]  # grpc reads it
        return _MAKE[kind_of(handler)](behavior, handler.request_deserializer, handler.response_serializer)

    def _around(self, function: Behavior, kind: Kind) -> Behavior:
        raise NotImplementedError

    def add_insecure_port(self, address: str) -> int:
        return int(self._native.add_insecure_port(address))

    def add_secure_port(self, address: str, server_credentials: grpc.ServerCredentials) -> int:
        return int(self._native.add_secure_port(address, server_credentials))

    def start(self) -> Any:
        return self._native.start()

    def stop(self, grace: float | None) -> Any:
        return self._native.stop(grace)

    def wait_for_termination(self, timeout: float | None = None) -> Any:
        return self._native.wait_for_termination(timeout)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._native, name)


class Tracked(_Tracked, grpc.Server):
    """A `grpc.Server` over grpc's own."""

    def _around(self, function: Behavior, kind: Kind) -> Behavior:
        if is_async(function):
            raise CannotServe(
                f"{function.__qualname__} is async, but the server is a sync one: "
                "write `async def` for the application too, or add --loop asyncio"
            )
        return tracked(function, kind, self._running)


class TrackedOnLoop(_Tracked, grpc.aio.Server):
    """A `grpc.aio.Server` over grpc's own."""

    def _around(self, function: Behavior, kind: Kind) -> Behavior:
        if inspect.isasyncgenfunction(function):
            return _generating(function, self._running)
        if inspect.iscoroutinefunction(function):
            return _awaiting(function, self._running)
        return tracked(function, kind, self._running)


def service_of(handler: Any) -> str | None:
    """The name of the service that a generic handler serves, where it has one."""
    return handler.service_name() if hasattr(handler, "service_name") else None


def is_async(function: Behavior) -> bool:
    """Does it need an event loop?"""
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def tracked(function: Behavior, kind: Kind, running: Running) -> Behavior:
    """A plain handler that notes its RPC."""
    if getattr(function, "experimental_non_blocking", False):
        return _non_blocking(function, running)
    return (_iterating if kind.response_streaming else _answering)(function, running)


def _answering(function: Behavior, running: Running) -> Behavior:
    def behave(argument: Any, context: Any) -> Any:
        running[context] = None
        try:
            return function(argument, context)
        finally:
            del running[context]

    return behave


def _iterating(function: Behavior, running: Running) -> Behavior:
    def behave(argument: Any, context: Any) -> Iterator[Any]:
        running[context] = None
        try:
            yield from function(argument, context) or ()
        finally:
            del running[context]

    return behave


def _non_blocking(function: Behavior, running: Running) -> Behavior:
    """For handlers that return at once and send later, like the health service's Watch."""

    def behave(argument: Any, context: Any, send: Any) -> None:
        running[context] = None
        if not context.add_callback(lambda: running.pop(context, None)):
            running.pop(context, None)
        function(argument, context, send)

    return behave


def _awaiting(function: Behavior, running: Running) -> Behavior:
    async def behave(argument: Any, context: Any) -> Any:
        running[context] = current_task()
        try:
            return await function(argument, context)
        finally:
            del running[context]

    return behave


def _generating(function: Behavior, running: Running) -> Behavior:
    async def behave(argument: Any, context: Any) -> AsyncIterator[Any]:
        running[context] = current_task()
        messages = function(argument, context)
        try:
            async for message in messages:
                yield message
        finally:
            del running[context]
            await messages.aclose()

    return behave
