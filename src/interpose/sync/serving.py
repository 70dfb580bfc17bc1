"""A sync server with interceptors: around its handlers, as they are registered."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Any

import grpc

from interpose._clock import Clock
from interpose._flow import Interceptor, named
from interpose._shell.answer import Stop
from interpose._shell.handlers import generics
from interpose._shell.serving import Registered, check_served
from interpose.sync.server import handlers


class Server(grpc.Server):
    """A `grpc.Server` over grpc's own."""

    def __init__(self, native: grpc.Server, interceptors: tuple[Interceptor, ...], clock: Clock) -> None:
        self._native: Any = native
        self._interceptors = interceptors
        self._stop = Stop()
        self._registered = Registered(asyncio=False)
        self._handlers = handlers(interceptors, clock, self._stop)

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        given = list(generic_rpc_handlers)
        self._registered.add_generic(given)
        self._native.add_generic_rpc_handlers(generics(given, self._handlers.get))

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, Any]) -> None:
        compiled = {
            name: self._handlers.compile(handler, f"/{service_name}/{name}")
            for name, handler in method_handlers.items()
        }
        self._registered.add(method_handlers, f"/{service_name}/")
        self._native.add_registered_method_handlers(service_name, compiled)

    def add_insecure_port(self, address: str) -> int:
        return int(self._native.add_insecure_port(address))

    def add_secure_port(self, address: str, server_credentials: grpc.ServerCredentials) -> int:
        return int(self._native.add_secure_port(address, server_credentials))

    def start(self) -> None:
        check_served(self._interceptors, self._registered.served())
        self._native.start()

    def stop(self, grace: float | None) -> threading.Event:
        self._stop.begin(grace)
        stopped: threading.Event = self._native.stop(grace)
        return stopped

    def wait_for_termination(self, timeout: float | None = None) -> bool:
        return bool(self._native.wait_for_termination(timeout))

    def __repr__(self) -> str:
        return f"<intercepted server: {named(self._interceptors)}>"

    def __getattr__(self, name: str) -> Any:  # what newer versions of grpc add to their server
        return getattr(self._native, name)
