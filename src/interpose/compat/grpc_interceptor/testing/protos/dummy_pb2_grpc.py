"""The dummy service's stub and servicer, as generated code has them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import grpc

from interpose._method import Kind
from interpose._shell.handlers import _MAKE
from interpose.compat.grpc_interceptor.testing.protos.dummy_pb2 import DESCRIPTOR, DummyRequest, DummyResponse

_SERVICE = DESCRIPTOR.services_by_name["DummyService"]
_KINDS = {method.name: Kind.of(method.client_streaming, method.server_streaming) for method in _SERVICE.methods}


def _path(method: str) -> str:
    return f"/DummyService/{method}"


class DummyServiceStub:
    """The client of the service."""

    Execute: Any
    ExecuteClientStream: Any
    ExecuteServerStream: Any
    ExecuteClientServerStream: Any

    def __init__(self, channel: Any) -> None:
        for method, kind in _KINDS.items():
            make = getattr(channel, kind.value)
            call = make(
                _path(method),
                request_serializer=DummyRequest.SerializeToString,
                response_deserializer=DummyResponse.FromString,
            )
            setattr(self, method, call)


class DummyServiceServicer:
    """The service with nothing in it: inherit, and write its methods."""

    def Execute(self, request: Any, context: Any) -> Any:
        return _unimplemented(context)

    def ExecuteClientStream(self, request_iterator: Any, context: Any) -> Any:
        return _unimplemented(context)

    def ExecuteServerStream(self, request: Any, context: Any) -> Any:
        return _unimplemented(context)

    def ExecuteClientServerStream(self, request_iterator: Any, context: Any) -> Any:
        return _unimplemented(context)


def _unimplemented(context: Any) -> Any:
    context.set_code(grpc.StatusCode.UNIMPLEMENTED)
    context.set_details("Method not implemented!")
    raise NotImplementedError("Method not implemented!")


def add_DummyServiceServicer_to_server(servicer: Any, server: Any) -> None:
    """Let the server, sync or asyncio, serve it."""
    handlers = {
        method: _MAKE[kind](
            getattr(servicer, method),
            request_deserializer=DummyRequest.FromString,
            response_serializer=DummyResponse.SerializeToString,
        )
        for method, kind in _KINDS.items()
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("DummyService", handlers),))


def _simple(method: str) -> Any:
    """A call without a channel, by grpc's experimental API."""

    def call(
        request: Any,
        target: str,
        options: Any = (),
        channel_credentials: Any = None,
        call_credentials: Any = None,
        insecure: bool = False,
        compression: Any = None,
        wait_for_ready: bool | None = None,
        timeout: float | None = None,
        metadata: Any = None,
    ) -> Any:
        return getattr(import_module("grpc.experimental"), _KINDS[method].value)(
            request,
            target,
            _path(method),
            DummyRequest.SerializeToString,
            DummyResponse.FromString,
            options,
            channel_credentials,
            insecure,
            call_credentials,
            compression,
            wait_for_ready,
            timeout,
            metadata,
        )

    return staticmethod(call)


class DummyService:
    """The service without a stub: `DummyService.Execute(request, target, insecure=True)`."""

    Execute = _simple("Execute")
    ExecuteClientStream = _simple("ExecuteClientStream")
    ExecuteServerStream = _simple("ExecuteServerStream")
    ExecuteClientServerStream = _simple("ExecuteClientServerStream")
