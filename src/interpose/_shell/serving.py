"""What is registered with a server, compared with the tables of its interceptors when it starts.

An interceptor that has a table of methods may have a method `check_served(served)`, which gives the faults that it finds:
one text each. Servers of `intercept_server` ask all of their stack in `start()`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import grpc

from interpose._flow import Chain, Interceptor, named
from interpose._method import Method
from interpose._served import Served
from interpose._shell.answer import Stop
from interpose._shell.handlers import generics, kind_served


class Registered:
    """The handlers that were registered with one server."""

    def __init__(self, *, asyncio: bool) -> None:
        self._methods: dict[str, Method] = {}
        self._generic = False
        self._asyncio = asyncio

    def add(self, handlers: Mapping[str, Any], prefix: str = "") -> None:
        """Handlers by the names of their methods, with this in front."""
        for name, handler in handlers.items():
            self._methods[f"{prefix}{name}"] = Method(f"{prefix}{name}", kind_served(handler))

    def add_generic(self, handlers: Iterable[Any]) -> None:
        """Generic handlers. grpc's own, of one service, are known by the table that they have; others may serve anything."""
        for handler in handlers:
            table = getattr(handler, "_method_handlers", None)
            if isinstance(table, Mapping):
                self.add(table)
            else:
                self._generic = True

    def served(self) -> Served:
        """What the server serves, as far as that is known by now."""
        return Served(tuple(self._methods.values()), self._generic, self._asyncio)


class Wrapped:
    """What the servers of both stacks have in common: a native server, and what was registered with it."""

    _handlers: Any  # those of the shell, with the interceptors around them: `get` and `compile`

    def __init__(self, native: Any, interceptors: tuple[Interceptor, ...], *, asyncio: bool) -> None:
        self._native = native
        self._interceptors = interceptors
        self._stop = Stop()
        self._registered = Registered(asyncio=asyncio)

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        given = list(generic_rpc_handlers)
        self._registered.add_generic(given)
        self._native.add_generic_rpc_handlers(generics(given, self._handlers.get))

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, Any]) -> None:
        compiled = {
            name: self._handlers.compile(handler, f"/{service_name}/{name}", declared=True)
            for name, handler in method_handlers.items()
        }
        self._registered.add(method_handlers, f"/{service_name}/")
        self._register(service_name, compiled)

    def _register(self, service: str, handlers: dict[str, Any]) -> None:
        """Have them served."""
        self._native.add_registered_method_handlers(service, handlers)

    def add_insecure_port(self, address: str) -> int:
        return int(self._native.add_insecure_port(address))

    def add_secure_port(self, address: str, server_credentials: grpc.ServerCredentials) -> int:
        return int(self._native.add_secure_port(address, server_credentials))

    def _check_served(self) -> None:
        """The server is about to start. ValueError listing every fault that its interceptors find in their tables."""
        check_served(self._interceptors, self._registered.served())

    def __repr__(self) -> str:
        return f"<intercepted server: {named(self._interceptors)}>"

    def __getattr__(self, name: str) -> Any:  # what newer versions of grpc add to their server
        return getattr(self._native, name)


def check_served(interceptors: Iterable[Interceptor], served: Served) -> None:
    """ValueError listing every fault that the interceptors of a server find in their tables."""
    faults = list(faults_of(interceptors, served))
    if faults:
        raise ValueError("; ".join(faults))


def faults_of(interceptors: Iterable[Interceptor], served: Served) -> Iterator[str]:
    """Every fault that they find; those inside of a chain look at the methods that the chain has something for."""
    for interceptor in interceptors:
        if (check := getattr(interceptor, "check_served", None)) is not None:
            yield from check(served)
        elif isinstance(interceptor, Chain):
            applies = tuple(method for method in served.methods if interceptor.select(method))
            yield from faults_of(interceptor.interceptors, served._replace(methods=applies))
