"""An asyncio server with interceptors: around its handlers, as they are registered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import grpc
import grpc.aio

from interpose._clock import Clock
from interpose._flow import Interceptor
from interpose._shell.handlers import generics
from interpose._shell.serving import Wrapped
from interpose.aio.plain import Plain
from interpose.aio.server import Handlers


class Server(Wrapped, grpc.aio.Server):
    """A `grpc.aio.Server` over grpc's own."""

    def __init__(self, native: grpc.aio.Server, interceptors: tuple[Interceptor, ...], clock: Clock) -> None:
        super().__init__(native, interceptors, asyncio=True)
        self._handlers = Handlers(interceptors, clock, self._stop)
        self._plain: dict[str, Any] = {}  # plain handlers that were registered, by the names of their methods
        self._first = True  # is nothing registered yet?

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        self._begin()
        given = list(generic_rpc_handlers)
        self._registered.add_generic(given)
        self._native.add_generic_rpc_handlers(generics(given, self._handlers.get))

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, Any]) -> None:
        self._begin()
        compiled = {}
        for name, handler in method_handlers.items():
            path = f"/{service_name}/{name}"
            made = self._handlers.compile(handler, path, declared=True)
            if isinstance(made, Plain):
                self._plain[path] = handler
            else:
                compiled[name] = made
        self._registered.add(method_handlers, f"/{service_name}/")
        self._native.add_registered_method_handlers(service_name, compiled)

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

    def __init__(self, plain: Mapping[str, Any], handlers: Handlers) -> None:
        self._plain = plain
        self._handlers = handlers

    def service(self, handler_call_details: Any) -> Any:
        handler = self._plain.get(handler_call_details.method)
        return None if handler is None else self._handlers.get(handler, handler_call_details.method, declared=True)
