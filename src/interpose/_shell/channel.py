"""What the channels of both stacks have in common: how a stub method is compiled."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

from interpose._call import Begun, Call
from interpose._clock import Clock
from interpose._flow import Interceptor, layers, named
from interpose._method import Kind, Method, Target
from interpose._order import warn_of_order
from interpose._shell.codec import decoder
from interpose._shell.native import Pauses, Route, deadline_of


class Layered:
    """A native channel with interceptors."""

    _packs: ClassVar[bool]  # see `Route`

    def __init__(self, native: Any, interceptors: tuple[Interceptor, ...], clock: Clock) -> None:
        self._native = native
        self._interceptors = interceptors
        self._clock = clock
        self._pauses = Pauses()
        self._target = Target.of(native)

    def __repr__(self) -> str:
        return f"<intercepted channel to {str(self._target) or 'an unknown target'}: {named(self._interceptors)}>"

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return self._stub(self._route(Kind.UNARY_UNARY, self._native.unary_unary, method, *args, **kwargs))

    def unary_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return self._stub(self._route(Kind.UNARY_STREAM, self._native.unary_stream, method, *args, **kwargs))

    def stream_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return self._stub(self._route(Kind.STREAM_UNARY, self._native.stream_unary, method, *args, **kwargs))

    def stream_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return self._stub(self._route(Kind.STREAM_STREAM, self._native.stream_stream, method, *args, **kwargs))

    @abstractmethod
    def _stub(self, route: Route) -> Any:
        """The stub method for a route, of this stack and of the route's kind."""

    def _route(
        self,
        kind: Kind,
        native: Callable[..., Any],
        path: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        *more: Any,  # _registered_method: from native interceptors above,
        **registered: Any,  # and from generated stubs
    ) -> Route:
        declared = any((*more, *registered.values()))
        method = Method(path, kind, self._target, request_serializer, declared=declared, clock=self._clock)

        def make(serializer: Any) -> Any:
            # grpc.aio makes None of a message that cannot be deserialized, and the RPC a success.
            return native(path, serializer, decoder(response_deserializer), *more, **registered)

        compiled = layers(self._interceptors, method)
        return Route(method, compiled, make, request_serializer, self._clock, self._pauses, self._packs)


def stacked(kind: type[Any], native: Any, interceptors: tuple[Interceptor, ...], clock: Clock) -> Any:
    """A channel or server of this kind of ours; put on one that has interceptors, those become the inner ones of one stack."""
    if isinstance(native, kind):
        native, interceptors = native._native, (*interceptors, *native._interceptors)
    warn_of_order(interceptors)
    return kind(native, interceptors, clock)


def call_of(
    route: Route,
    request: Any,
    timeout: float | None,
    metadata: Any,
    credentials: Any,
    wait_for_ready: bool | None,
    compression: Any,
) -> Call:
    """The call of an RPC that its application has just begun."""
    call = Begun()
    call._method, call._request = route.method, None if route.uploads else request
    call._timeout, call._metadata, call._credentials = timeout, metadata, credentials
    call._wait_for_ready, call._compression = wait_for_ready, compression
    call._deadline = None if timeout is None else deadline_of(timeout, route.clock)
    return call
