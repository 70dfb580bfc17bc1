"""Plain handlers on an asyncio server: the sync shell around them, in the pool thread that grpc runs them on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextvars import Context
from typing import Any, cast

from interpose._flow import Driver, Wait
from interpose._grpcio.plain import Pulled, Told
from interpose._shell.codec import EncodedAhead
from interpose._shell.handlers import Endpoint, with_function
from interpose.sync.server import behavior as plain_behavior
from interpose.sync.server import records

__all__ = ["Plain", "records"]


class Plain:
    """A plain handler on an asyncio server: the sync shell around it, in the context of each RPC."""

    def __init__(self, handler: Any, endpoint: Endpoint, record: type[Any]) -> None:
        self._handler = handler
        self._endpoint = endpoint
        self._record = record

    def bound(self, context: Context, loop: asyncio.AbstractEventLoop) -> Any:
        """The handler for one RPC."""
        task = asyncio.current_task(loop)
        assert task is not None  # grpc's, for this RPC

        def waiter(_: Driver, step: Wait) -> Wait:
            """Awaited on the loop, no longer than the RPC lasts; the thread waits for the Future of that."""
            future = asyncio.run_coroutine_threadsafe(_awaited(cast("Awaitable[Any]", step.awaitable)), loop)
            loop.call_soon_threadsafe(task.add_done_callback, lambda _: future.cancel())
            return Wait(future, step.deadline)

        behavior, kind = plain_behavior(self._endpoint, self._record, waiter), self._endpoint.method.kind
        encoded = EncodedAhead(self._handler.response_serializer) if kind.response_streaming else None

        def behave(argument: Any, native: Any) -> Any:
            told = Told(native, task, loop, encoded)
            if kind.request_streaming:
                argument = told.confirmed(argument)
            return context.run(behavior, argument, told)

        if not kind.response_streaming:
            return with_function(self._handler, behave)

        def stream(argument: Any, native: Any) -> Any:
            messages = Pulled(behave(argument, native), context, loop)
            loop.call_soon_threadsafe(task.add_done_callback, messages.when_over)
            return messages.pulled()

        return with_function(self._handler, stream, serializer=encoded)


async def _awaited(awaitable: Awaitable[Any]) -> Any:
    return await awaitable
