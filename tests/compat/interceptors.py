"""User code as it is written for the package: six interceptors for either kind of server, on the classes of an `Api`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

from tests.compat.apis import Api
from tests.compat.services import Book, Text, act_of

NAMES = ("watch", "rewrite", "status", "unknown is internal", "own rules", "gate")


def upper(message: Text) -> Text:
    return Text(message.text.upper())


def quoted(message: Text) -> Text:
    return Text(f"<{message.text}>")


def is_abort(error: Exception) -> bool:
    return type(error) is Exception or isinstance(error, grpc.aio.AbortError)


def sync(api: Api, book: Book, kind: str) -> dict[str, Callable[[], Any]]:  # noqa: C901  six classes, and nothing else
    """What makes each of them, for sync servers."""
    streams = kind.endswith("stream")

    class Watch(api.ServerInterceptor):
        def intercept(self, method, request_or_iterator, context, method_name):
            book.add(context, "watch", method_name, isinstance(request_or_iterator, Text))
            try:
                answer = method(request_or_iterator, context)
            except Exception as error:
                book.add(context, "watch saw", type(error).__name__, str(error), context.code())
                raise
            book.add(context, "watch got", isinstance(answer, Text), context.code())
            return answer

    class Rewrite(api.ServerInterceptor):
        def intercept(self, method, request_or_iterator, context, method_name):
            if isinstance(request_or_iterator, Text):
                request_or_iterator = upper(request_or_iterator)
            else:
                request_or_iterator = (upper(request) for request in request_or_iterator)
            if streams:
                return self._each(method, request_or_iterator, context)
            return quoted(method(request_or_iterator, context))

        def _each(self, method, request_or_iterator, context):
            try:
                for message in method(request_or_iterator, context):
                    yield quoted(message)
            except Exception as error:
                book.add(context, "rewrite saw", type(error).__name__, str(error))
                raise
            finally:
                book.add(context, "rewrite is over")

    class OwnRules(api.ExceptionToStatusInterceptor):
        def handle_exception(self, ex, request_or_iterator, context, method_name):
            if not is_abort(ex):
                book.add(context, "own rules saw", type(ex).__name__, method_name)
            if isinstance(ex, ValueError):
                context.abort(grpc.StatusCode.OUT_OF_RANGE, f"by our rules: {ex}")
            super().handle_exception(ex, request_or_iterator, context, method_name)

    class Gate(api.ServerInterceptor):
        def intercept(self, method, request_or_iterator, context, method_name):
            act = act_of(context)
            if act == "refused":
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "who is it?")
            if act == "refused grpc":
                raise api.exceptions.PermissionDenied("not you")
            if act == "cached":
                return iter([Text("from"), Text("cache")]) if streams else Text("from cache")
            return method(request_or_iterator, context)

    return {
        "watch": Watch,
        "rewrite": Rewrite,
        "status": api.ExceptionToStatusInterceptor,
        "unknown is internal": lambda: api.ExceptionToStatusInterceptor(grpc.StatusCode.INTERNAL),
        "own rules": OwnRules,
        "gate": Gate,
    }


def aio(api: Api, book: Book, kind: str) -> dict[str, Callable[[], Any]]:  # noqa: C901  six classes, and nothing else
    """The same for asyncio servers, as the package's documentation has it."""
    streams = kind.endswith("stream")

    async def answered(method: Any, request_or_iterator: Any, context: Any) -> Any:
        answer = method(request_or_iterator, context)
        return answer if hasattr(answer, "__aiter__") else await answer

    class Watch(api.AsyncServerInterceptor):
        async def intercept(self, method, request_or_iterator, context, method_name):
            book.add(context, "watch", method_name, isinstance(request_or_iterator, Text))
            try:
                answer = await answered(method, request_or_iterator, context)
            except Exception as error:
                book.add(context, "watch saw", type(error).__name__, str(error), context.code())
                raise
            book.add(context, "watch got", isinstance(answer, Text), hasattr(answer, "__aiter__"), context.code())
            return answer

    class Rewrite(api.AsyncServerInterceptor):
        async def intercept(self, method, request_or_iterator, context, method_name):
            if isinstance(request_or_iterator, Text):
                request_or_iterator = upper(request_or_iterator)
            else:
                request_or_iterator = self._upper(request_or_iterator)
            if streams:
                return self._each(method, request_or_iterator, context)
            return quoted(await method(request_or_iterator, context))

        async def _upper(self, requests):
            async for request in requests:
                yield upper(request)

        async def _each(self, method, request_or_iterator, context):
            try:
                async for message in method(request_or_iterator, context):
                    yield quoted(message)
            except Exception as error:
                book.add(context, "rewrite saw", type(error).__name__, str(error))
                raise
            finally:
                book.add(context, "rewrite is over")

    class OwnRules(api.AsyncExceptionToStatusInterceptor):
        async def handle_exception(self, ex, request_or_iterator, context, method_name):
            if not is_abort(ex):
                book.add(context, "own rules saw", type(ex).__name__, method_name)
            if isinstance(ex, ValueError):
                await context.abort(grpc.StatusCode.OUT_OF_RANGE, f"by our rules: {ex}")
            await super().handle_exception(ex, request_or_iterator, context, method_name)

    class Gate(api.AsyncServerInterceptor):
        async def intercept(self, method, request_or_iterator, context, method_name):
            act = act_of(context)
            if act == "refused":
                await context.abort(grpc.StatusCode.UNAUTHENTICATED, "who is it?")
            if act == "refused grpc":
                raise api.exceptions.PermissionDenied("not you")
            if act == "cached":
                return self._cached() if streams else Text("from cache")
            return await answered(method, request_or_iterator, context)

        async def _cached(self):
            yield Text("from")
            yield Text("cache")

    return {
        "watch": Watch,
        "rewrite": Rewrite,
        "status": api.AsyncExceptionToStatusInterceptor,
        "unknown is internal": lambda: api.AsyncExceptionToStatusInterceptor(grpc.StatusCode.INTERNAL),
        "own rules": OwnRules,
        "gate": Gate,
    }
