"""Server interceptors with one method to write: `intercept`."""

from __future__ import annotations

import abc
import inspect
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
from grpc import aio as grpc_aio

from interpose._shell.handlers import kind_served
from interpose.compat.grpc_interceptor._shapes import Reading, Written, shaped
from interpose.compat.grpc_interceptor._wrapped import behaviour, remade, wrapped


class ServerInterceptor(grpc.ServerInterceptor, metaclass=abc.ABCMeta):
    """An interceptor for `grpc.server(interceptors=[…])`: inherit, and write `intercept`."""

    @abc.abstractmethod
    def intercept(
        self, method: Callable[..., Any], request_or_iterator: Any, context: grpc.ServicerContext, method_name: str
    ) -> Any:
        """Answer one RPC, by calling `method(request_or_iterator, context)` or in its stead.

        method:              the handler, or the next interceptor.
        request_or_iterator: the request message; for a request stream an iterator of messages.
        context:             what grpc gives to handlers.
        method_name:         "/package.Service/Method".

        Return what `method` gives, or something in its place: the response message; for a response stream an iterator
        of messages, whose exceptions come while it is read, after this method has returned.
        """
        return method(request_or_iterator, context)

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """What grpc calls at every RPC. Write `intercept` and leave this alone."""
        handler = continuation(handler_call_details)
        if handler is None:  # a method that the server does not have
            return None
        return wrapped(self, _wrap).get(handler, handler_call_details.method)


def _wrap(interceptor: ServerInterceptor, handler: Any, name: str) -> Any:
    function = behaviour(handler)

    def behave(request_or_iterator: Any, context: Any) -> Any:
        return interceptor.intercept(function, request_or_iterator, context, name)

    return remade(handler, behave)


class AsyncServerInterceptor(grpc_aio.ServerInterceptor, metaclass=abc.ABCMeta):
    """An interceptor for `grpc.aio.server(interceptors=[…])`: inherit, and write `intercept`."""

    @abc.abstractmethod
    async def intercept(
        self,
        method: Callable[..., Any],
        request_or_iterator: Any,
        context: grpc_aio.ServicerContext[Any, Any],
        method_name: str,
    ) -> Any:
        """Answer one RPC, by calling `method(request_or_iterator, context)` or in its stead.

        method:              the handler, or the next interceptor. For a unary response it gives an awaitable, for a
            response stream an async iterator; where the handler calls `context.write`, an awaitable, which may be
            iterated too, and then gives what the handler writes.
        request_or_iterator: the request message; for a request stream an async iterator of messages. A handler that
            calls `context.read` reads from the iterator that `method` is given.
        context:             what grpc gives to async handlers.
        method_name:         "/package.Service/Method".

        Return the response message; for a response stream an async iterator of messages, or be an async generator.
        """
        response_or_iterator = method(request_or_iterator, context)
        if hasattr(response_or_iterator, "__aiter__"):
            return response_or_iterator
        return await response_or_iterator

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """What grpc calls at every RPC. Write `intercept` and leave this alone."""
        handler = await continuation(handler_call_details)
        if not handler:  # a method that the server does not have
            return None
        return wrapped(self, _wrap_async).get(handler, handler_call_details.method)


def _wrap_async(interceptor: AsyncServerInterceptor, handler: Any, name: str) -> Any:
    kind, function = kind_served(handler), behaviour(handler)
    writes = kind.response_streaming and inspect.iscoroutinefunction(function)
    method = shaped(function, kind)

    if kind.request_streaming:

        def intercepted(requests: Any, context: Any) -> Any:
            def proceed(given: Any, context: Any) -> Any:
                # A handler may call context.read(): let it read what the interceptor put in the place of the requests.
                return method(given, context if given is requests else Reading(context, given))

            return interceptor.intercept(proceed, requests, context, name)
    else:

        def intercepted(requests: Any, context: Any) -> Any:
            return interceptor.intercept(method, requests, context, name)

    if writes:
        return remade(handler, _writing(intercepted))
    return remade(handler, (_generating if kind.response_streaming else _answering)(intercepted))


# What grpc is given says by its shape what it is: a coroutine function, or an async generator function.


def _answering(intercepted: Callable[..., Any]) -> Callable[..., Any]:
    async def behave(request_or_iterator: Any, context: Any) -> Any:
        return await intercepted(request_or_iterator, context)

    return behave


def _writing(intercepted: Callable[..., Any]) -> Callable[..., Any]:
    async def behave(request_or_iterator: Any, context: Any) -> None:
        messages = await _ended(intercepted(request_or_iterator, context))
        if not messages:
            return
        try:
            async for message in messages:
                await context.write(message)
        finally:
            await _close(messages)

    return behave


def _generating(intercepted: Callable[..., Any]) -> Callable[..., Any]:
    async def behave(request_or_iterator: Any, context: Any) -> AsyncIterator[Any]:
        messages = await _ended(intercepted(request_or_iterator, context))
        if not messages:
            return
        try:
            async for message in messages:
                yield message
        finally:
            await _close(messages)

    return behave


async def _close(messages: Any) -> None:
    """When the client leaves, grpc drops us in the middle: let the generators inside of us hear of it."""
    close = getattr(messages, "aclose", None)
    if close is not None:
        await close()


async def _ended(answer: Any) -> Any:
    """What an interceptor answered, once all that had to be awaited was: `return method(…)` gives an awaitable."""
    while isinstance(answer, Written) or (not hasattr(answer, "__aiter__") and inspect.isawaitable(answer)):
        answer = await answer
    return answer


class MethodName:
    """The three parts of a method's name.

    package: "foo.bar", as the proto declares it; empty if it declares none.
    service: "SearchService".
    method:  "Search".
    """

    def __init__(self, package: str, service: str, method: str) -> None:
        self.package = package
        self.service = service
        self.method = method

    def __repr__(self) -> str:
        return f"MethodName(package='{self.package}', service='{self.service}', method='{self.method}')"

    @property
    def fully_qualified_service(self) -> str:
        """The service with its package in front: "foo.bar.SearchService"."""
        return f"{self.package}.{self.service}" if self.package else self.service


def parse_method_name(method_name: str) -> MethodName:
    """The parts of "/foo.bar.SearchService/Search", as `intercept` is given it.

    ValueError if there are not two slashes.
    """
    _, qualified, method = method_name.split("/")
    package, _, service = qualified.rpartition(".")
    return MethodName(package, service, method)
