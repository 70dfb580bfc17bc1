"""An application whose calls last until the server ends them, for clients of any make."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

from interpose import Kind
from tests.interop.calling import service
from tests.serving.driving import STARTING


class Waiting:
    """Handlers that wait for the end of their RPC."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)

    def app(self, server: Any) -> None:
        def wait(request: Any, context: Any) -> Any:
            over = threading.Event()
            added = context.add_callback(over.set)
            self.entered.release()
            if added:
                over.wait(STARTING)
            return request

        def stream(request: Any, context: Any) -> Iterator[Any]:
            yield request
            yield wait(request, context)

        def upload(requests: Any, context: Any) -> Any:
            return wait(next(requests), context)

        handlers = {Kind.UNARY_UNARY: wait, Kind.UNARY_STREAM: stream, Kind.STREAM_UNARY: upload}
        server.add_generic_rpc_handlers((service(handlers),))

    async def async_app(self, server: Any) -> None:
        async def wait(request: Any, context: Any) -> Any:
            self.entered.release()
            await asyncio.sleep(STARTING)  # cut short by the end of its RPC
            return request

        async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
            yield request
            yield await wait(request, context)

        async def upload(requests: Any, context: Any) -> Any:
            return await wait(await anext(requests), context)

        handlers = {Kind.UNARY_UNARY: wait, Kind.UNARY_STREAM: stream, Kind.STREAM_UNARY: upload}
        server.add_generic_rpc_handlers((service(handlers),))
