"""The RPCs under way: each handler notes when it begins and ends, so that the server can wait for it, or end it."""

from __future__ import annotations

import functools
import gc
import inspect
from abc import ABC, abstractmethod
from asyncio import Task, current_task
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Any, TypeAlias

import grpc
import grpc.aio

from interpose._method import Kind
from interpose._shell.handlers import Compiled, function_of, generics, kind_served
from interpose.serving.options import CannotServe

Running: TypeAlias = dict[Any, Any]  # grpc's contexts of the RPCs under way; on asyncio with the task of each
Behavior: TypeAlias = Callable[..., Any]

HANDLERS = (grpc.GenericRpcHandler, grpc.RpcMethodHandler)

_MAKE: dict[Kind, Any] = {
    Kind.UNARY_UNARY: grpc.unary_unary_rpc_method_handler,
    Kind.UNARY_STREAM: grpc.unary_stream_rpc_method_handler,
    Kind.STREAM_UNARY: grpc.stream_unary_rpc_method_handler,
    Kind.STREAM_STREAM: grpc.stream_stream_rpc_method_handler,
}


class _Tracked(ABC):
    """A server whose handlers note their RPCs in `running`. pool: threads of their own for its sync handlers."""

    def __init__(self, native: Any, running: Running, pool: ThreadPoolExecutor | None = None) -> None:
        self._native = native
        self._running = running
        self._pool = pool
        self._sender = None if pool is None else ThreadPoolExecutor(1, "interpose-sender")  # one: in their order
        self._compiled = Compiled(self._compile)
        self.services: dict[str, None] = {}  # the names of the services, in the order of registration

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        given = list(generic_rpc_handlers)
        for handler in given:
            if name := service_of(handler):
                self.services[name] = None
            for one in getattr(handler, "_method_handlers", {}).values():  # of those that grpc itself makes
                self._check(one)
        self._native.add_generic_rpc_handlers(generics(given, self._get))

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, Any]) -> None:
        compiled = {name: self._compile(handler, name) for name, handler in method_handlers.items()}
        self._native.add_registered_method_handlers(service_name, compiled)

    def flush(self, seconds: float) -> None:
        """Wait until what was to be sent has been, for so long at most."""
        if self._sender is not None:
            wait([self._sender.submit(int)], seconds)

    def close(self) -> None:
        """Nothing is sent any more."""
        if self._sender is not None:
            self._sender.shutdown(wait=False)

    def take_over(self) -> None:
        """Note the RPCs of the handlers that the server has already. Nothing public shows them."""
        for held in _held(self._native):
            if isinstance(held, list):
                for name in filter(None, map(service_of, held)):
                    self.services[name] = None
                held[:] = generics(held, self._get)
            else:
                held.update({name: self._compile(handler, name) for name, handler in held.items()})

    def _get(self, handler: Any, name: str, declared: bool = False) -> Any:
        """The handler to serve an RPC with."""
        return self._compiled.get(handler, name)

    def _check(self, handler: Any) -> None:  # noqa: B027  on a loop every sort can run
        """CannotServe for a handler that cannot run here."""

    @abstractmethod
    def _compile(self, handler: Any, name: str) -> Any:
        """The handler with its RPCs noted."""

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

    def _check(self, handler: Any) -> None:
        function = function_of(handler)
        if is_async(function):
            raise CannotServe(
                f"{function.__qualname__} is async, but the server is a sync one: "
                "write `async def` for the application too, or add --loop asyncio"
            )

    def _compile(self, handler: Any, name: str) -> Any:
        self._check(handler)
        function = function_of(handler)
        behavior = plain(function, kind_served(handler), self._running)
        if self._pool is not None and getattr(function, "experimental_non_blocking", False):
            # grpc's health service sends under its lock, for which the serving thread may wait that the send needs.
            quiet = _non_blocking(function, self._running, None, self._sender)
            behavior = functools.update_wrapper(quiet, function)
        if self._pool is not None:
            behavior.experimental_thread_pool = self._pool  # type: ignore[attr-defined]  # grpc reads it
        return made(handler, behavior)


class TrackedOnLoop(_Tracked, grpc.aio.Server):
    """A `grpc.aio.Server` over grpc's own."""

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, Any]) -> None:
        # What is registered is not looked up in the RPC's task, which a plain handler has to know.
        plains = {name: one for name, one in method_handlers.items() if not is_async(function_of(one))}
        asyncs = {name: one for name, one in method_handlers.items() if name not in plains}
        self.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service_name, plains),))
        super().add_registered_method_handlers(service_name, asyncs)

    def _get(self, handler: Any, name: str, declared: bool = False) -> Any:
        if is_async(function_of(handler)):
            return super()._get(handler, name, declared)
        behavior = plain(function_of(handler), kind_served(handler), self._running, current_task())
        return made(handler, behavior)

    def _compile(self, handler: Any, name: str) -> Any:
        function = function_of(handler)
        if not is_async(function):  # of a server that was ready: its task is not known
            return made(handler, plain(function, kind_served(handler), self._running))
        around = _generating if inspect.isasyncgenfunction(function) else _awaiting
        return made(handler, functools.update_wrapper(around(function, self._running), function))


def _held(native: Any) -> list[Any]:
    """The lists of generic handlers, and dictionaries of others, that a server keeps; see `_has_handlers`."""
    parts = filter(None, (getattr(native, "_state", None), getattr(native, "_server", None)))
    kept = [
        held
        for part in parts
        for held in (*gc.get_referents(part), *(vars(part).values() if hasattr(part, "__dict__") else ()))
    ]
    found = {id(held): held for held in kept if isinstance(held, list | dict) and held}
    return [
        held
        for held in found.values()
        if isinstance(next(iter(held.values() if isinstance(held, dict) else held)), HANDLERS)
    ]


def service_of(handler: Any) -> str | None:
    """The name of the service that a generic handler serves, where it has one."""
    return handler.service_name() if hasattr(handler, "service_name") else None


def is_async(function: Behavior) -> bool:
    """Does it need an event loop?"""
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def made(handler: Any, behavior: Behavior) -> Any:
    """The handler with another function."""
    return _MAKE[kind_served(handler)](behavior, handler.request_deserializer, handler.response_serializer)


def plain(function: Behavior, kind: Kind, running: Running, task: Task[Any] | None = None) -> Behavior:
    """A plain handler that notes its RPC. task: that of the RPC, on an asyncio server."""
    make = _iterating if kind.response_streaming else _answering
    if getattr(function, "experimental_non_blocking", False):
        make = _non_blocking
    return functools.update_wrapper(make(function, running, task), function)


def _answering(function: Behavior, running: Running, task: Task[Any] | None) -> Behavior:
    def behave(argument: Any, context: Any) -> Any:
        running[context] = task
        try:
            return function(argument, context)
        finally:
            del running[context]

    return behave


def _iterating(function: Behavior, running: Running, task: Task[Any] | None) -> Behavior:
    def behave(argument: Any, context: Any) -> Iterator[Any]:
        running[context] = task
        try:
            yield from function(argument, context) or ()
        finally:
            del running[context]

    return behave


def _non_blocking(
    function: Behavior, running: Running, task: Task[Any] | None, sender: ThreadPoolExecutor | None = None
) -> Behavior:
    """For handlers that return at once and send later, like the health service's Watch."""

    def behave(argument: Any, context: Any, send: Any) -> None:
        running[context] = task
        if not context.add_callback(lambda: running.pop(context, None)):
            running.pop(context, None)
        function(argument, context, send if sender is None else functools.partial(_later, sender, send))

    return behave


def _later(sender: ThreadPoolExecutor, send: Any, message: Any) -> None:
    with suppress(RuntimeError):  # the server has stopped, and the sender with it
        sender.submit(send, message)


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
