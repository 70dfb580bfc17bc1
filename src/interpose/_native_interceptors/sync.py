"""The sync shell's native interceptor: the hook by which grpc asks it, and attempts that go through grpc's continuation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import grpc

from interpose import errors
from interpose._method import Kind
from interpose._shell.codec import plain
from interpose._shell.native import Hooked, options_of
from interpose.sync.channel import StreamStream, StreamUnary, UnaryStream, UnaryUnary


class _Details(NamedTuple):
    """What grpc's continuation takes."""

    method: str
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: bool | None
    compression: Any


class _Continued:
    """grpc's continuation, called like a multi-callable."""

    def __init__(self, continuation: Callable[[Any, Any], Any], path: str, streams: bool, blocks: bool) -> None:
        self._continuation = continuation
        self._path = path
        self._streams = streams
        self._blocks = blocks

    def __call__(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> Any:
        details = _Details(self._path, timeout, metadata, credentials, wait_for_ready, compression)
        return self._continuation(details, map(plain, request) if self._streams else plain(request))

    def with_call(self, *arguments: Any) -> tuple[Any, Any]:
        call = self(*arguments)
        return call.result(), call

    def future(self, *arguments: Any, **options: Any) -> Any:
        if self._blocks:
            raise errors.Internal(
                "grpc's hook for native interceptors cannot start a blocking call without waiting for it, which hedging "
                "and calls that end with an incoming RPC need: use stub.future(…), or intercept_channel",
                local=True,
            )
        return self(*arguments, **options)


def _blocks(continuation: Any) -> bool:
    """Does it wait for the response? grpc calls the hook alike for `stub(…)` and `stub.future(…)`, and says it nowhere."""
    return ".future." not in getattr(continuation, "__qualname__", "")


class Hook(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """A native interceptor for all four kinds."""

    def __init__(self, route: Hooked, name: str) -> None:
        self._route = route
        self._name = name

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return self._unary(Kind.UNARY_UNARY, UnaryUnary, continuation, client_call_details, request)

    def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return self._unary(Kind.STREAM_UNARY, StreamUnary, continuation, client_call_details, request_iterator)

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        stub = self._stub(Kind.UNARY_STREAM, UnaryStream, continuation, client_call_details, blocks=False)
        return stub(request, **options_of(client_call_details))

    def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        stub = self._stub(Kind.STREAM_STREAM, StreamStream, continuation, client_call_details, blocks=False)
        return stub(request_iterator, **options_of(client_call_details))

    def _unary(self, kind: Kind, stubs: Any, continuation: Any, details: Any, request: Any) -> Any:
        blocks = _blocks(continuation)
        stub = self._stub(kind, stubs, continuation, details, blocks)
        if not blocks:
            return stub.future(request, **options_of(details))
        _, call = stub.with_call(request, **options_of(details))
        return call

    def _stub(self, kind: Kind, stubs: Any, continuation: Any, details: Any, blocks: bool) -> Any:
        native = _Continued(continuation, details.method, kind.request_streaming, blocks)
        return stubs(self._route(kind, details.method, native))

    def __repr__(self) -> str:
        return self._name


HOOKS = (Hook,)
