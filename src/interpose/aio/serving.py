"""An asyncio server with interceptors: around its handlers, as they are registered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import grpc
import grpc.aio

from interpose._clock import Clock
from interpose._flow import Interceptor
from interpose._shell.serving import Wrapped
from interpose.aio.plain import Plain
from interpose.aio.server import Handlers


class Server(Wrapped, grpc.aio.Server):
    """A `grpc.aio.Server` over grpc's own."""

    def __init__(self, native: grpc.aio.Server, interceptors: tuple[Interceptor, ...], clock: Clock) -> None:
        super().__init__(native, interceptors, asyncio=True)
        self._handlers = Handlers(interceptors, clock, self._stop)
        self._plain: dict[str, Plain] = {}  # plain handlers that were registered, by the names of their methods
        self._first = True  # is nothing registered yet?

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        self._begin()
        super().add_generic_rpc_handlers(generic_rpc_handlers)

    def _register(self, service: str, handlers: dict[str, Any]) -> None:
        self._begin()
        plain = {name: handler for name, handler in handlers.items() if isinstance(handler, Plain)}
        self._plain |= {f"/{service}/{name}": handler for name, handler in plain.items()}
        super()._register(service, {name: handlers[name] for name in handlers if name not in plain})

    def _begin(self) -> None:
        """In front of all generic handlers: a registered method comes before a generic one of the same name."""
        if self._first:
            self._first = False
            self._native.add_generic_rpc_handlers((_Bound(self._plain, self._handlers),))

    async def start(self) -> None:
        self._check_served()
        await self._native.start()

    async def stop(self, grace: float | None) -> None:
        self._stop.begin(grace)
        await self._native.stop(grace)

    async def wait_for_termination(self, timeout: float | None = None) -> bool:
        return bool(await self._native.wait_for_termination(timeout))


class _Bound(grpc.GenericRpcHandler):
    """Registered plain handlers: grpc asks for a generic one in the RPC's task, to whose context it is bound there."""

    def __init__(self, plain: Mapping[str, Plain], handlers: Handlers) -> None:
        self._plain = plain
        self._handlers = handlers

    def service(self, handler_call_details: Any) -> Any:
        handler = self._plain.get(handler_call_details.method)
        return None if handler is None else self._handlers.bound(handler)
