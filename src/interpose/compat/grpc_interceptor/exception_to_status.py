"""Statuses for what handlers raise."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any, NoReturn

import grpc
from grpc import aio as grpc_aio

from interpose.compat.grpc_interceptor._wrapped import met
from interpose.compat.grpc_interceptor.exceptions import GrpcException
from interpose.compat.grpc_interceptor.server import AsyncServerInterceptor, ServerInterceptor, _close


class ExceptionToStatusInterceptor(ServerInterceptor):
    """Ends an RPC with the status of the `GrpcException` that its handler raised.

    status_on_unknown_exception: the code for other exceptions, whose `repr` becomes the details. If None, they stay
        grpc's affair, which answers UNKNOWN. A handler that has set a code keeps it.

    For other rules inherit, and write `handle_exception`. A handler that aborts has chosen its status: that is no
    exception to handle.

    ValueError for OK, which is no failure.
    """

    _status_on_unknown_exception: grpc.StatusCode | None = None  # for heirs whose `__init__` does not call ours

    def __init__(self, status_on_unknown_exception: grpc.StatusCode | None = None) -> None:
        self._status_on_unknown_exception = _failure(status_on_unknown_exception)

    def handle_exception(
        self, ex: Exception, request_or_iterator: Any, context: grpc.ServicerContext, method_name: str
    ) -> NoReturn:
        """Say how an RPC ends whose handler raised `ex`: call `context.abort`, or raise. The rest is as for `intercept`.

        It has to raise, since there is no response; if it does not, `ex` is raised, and a response stream ends there.
        """
        if isinstance(ex, GrpcException):
            context.abort(ex.status_code, ex.details)
        elif self._status_on_unknown_exception is not None and _undecided(context):
            context.abort(self._status_on_unknown_exception, repr(ex))
        raise ex

    def intercept(
        self, method: Callable[..., Any], request_or_iterator: Any, context: grpc.ServicerContext, method_name: str
    ) -> Any:
        """Answer one RPC; grpc's part."""
        try:
            response = method(request_or_iterator, context)
        except Exception as ex:
            if not _aborted(ex, context):
                self.handle_exception(ex, request_or_iterator, context, method_name)
            raise
        if self._streams(method_name, response):
            return self._guarded(request_or_iterator, context, method_name, response)
        return response

    def _streams(self, method_name: str, response: Any) -> bool:
        """Is it a response stream? The handler knows; a message may be iterable, as a `Struct` is."""
        handler = met(self, method_name)
        if handler is not None:
            return bool(handler.response_streaming)
        return isinstance(response, Iterable) and not hasattr(response, "DESCRIPTOR")

    def _guarded(
        self, request_or_iterator: Any, context: grpc.ServicerContext, method_name: str, messages: Any
    ) -> Iterator[Any]:
        try:
            # grpc itself asks for no more than __next__.
            yield from messages if hasattr(messages, "__iter__") else _Iterated(messages)
        except Exception as ex:
            if _aborted(ex, context):
                raise
            self.handle_exception(ex, request_or_iterator, context, method_name)


class AsyncExceptionToStatusInterceptor(AsyncServerInterceptor):
    """The same for asyncio servers; `handle_exception` is a coroutine function there."""

    _status_on_unknown_exception: grpc.StatusCode | None = None  # for heirs whose `__init__` does not call ours

    def __init__(self, status_on_unknown_exception: grpc.StatusCode | None = None) -> None:
        self._status_on_unknown_exception = _failure(status_on_unknown_exception)

    async def handle_exception(
        self, ex: Exception, request_or_iterator: Any, context: grpc_aio.ServicerContext[Any, Any], method_name: str
    ) -> NoReturn:
        """Say how an RPC ends whose handler raised `ex`: await `context.abort`, or raise.

        It has to raise, since there is no response; if it does not, `ex` is raised, and a response stream ends there.
        """
        if isinstance(ex, GrpcException):
            await context.abort(ex.status_code, ex.details)
        elif self._status_on_unknown_exception is not None and _undecided(context):
            await context.abort(self._status_on_unknown_exception, repr(ex))
        raise ex

    async def intercept(
        self,
        method: Callable[..., Any],
        request_or_iterator: Any,
        context: grpc_aio.ServicerContext[Any, Any],
        method_name: str,
    ) -> Any:
        """Answer one RPC; grpc's part."""
        try:
            response = method(request_or_iterator, context)
            if not hasattr(response, "__aiter__"):
                return await response
        except Exception as ex:
            if not _aborted(ex, context):
                await self.handle_exception(ex, request_or_iterator, context, method_name)
            raise
        return self._guarded(request_or_iterator, context, method_name, response)

    async def _guarded(
        self, request_or_iterator: Any, context: Any, method_name: str, messages: Any
    ) -> AsyncIterator[Any]:
        try:
            async for message in messages:
                yield message
        except Exception as ex:
            if _aborted(ex, context):
                raise
            await self.handle_exception(ex, request_or_iterator, context, method_name)
        finally:
            await _close(messages)


class _Iterated:
    """An iterator that has `__next__` alone."""

    def __init__(self, messages: Any) -> None:
        self._messages = messages

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return next(self._messages)


def _failure(code: grpc.StatusCode | None) -> grpc.StatusCode | None:
    if code is grpc.StatusCode.OK:
        raise ValueError("The status code for unknown exceptions cannot be OK")
    return code


def _undecided(context: Any) -> bool:
    """Has the handler set no code?"""
    return not context.code()


def _aborted(ex: Exception, context: Any) -> bool:
    """Was it raised by `context.abort`? On sync servers that is a bare `Exception()`."""
    return isinstance(ex, grpc_aio.AbortError) or (type(ex) is Exception and not ex.args and not _undecided(context))
