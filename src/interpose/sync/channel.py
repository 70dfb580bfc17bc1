"""The sync shell's channel: a `grpc.Channel` whose stubs run every call through a stack of interceptors."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, cast

import grpc

from interpose import errors
from interpose._call import NOTHING, Call
from interpose._clock import Clock
from interpose._flow import Interceptor, Race, Wait, drive, layers
from interpose._messages import compose, request_of, show_initial_metadata
from interpose._method import Kind, Method, Side
from interpose._native import (
    Route,
    deadline_of,
    exception_of,
    expired,
    failure,
    no_waiting,
    time_left,
)
from interpose._outcome import OK, Outcome
from interpose.sync.calls import Exchange, InactiveCall, ResponseStream, UnaryFuture, finished, typed
from interpose.sync.requests import Requests


class Channel(grpc.Channel):  # type: ignore[misc]  # grpc.Channel is untyped
    """A channel with interceptors; everything that is no call goes straight to the native channel."""

    def __init__(self, native: grpc.Channel, interceptors: tuple[Interceptor, ...], clock: Clock) -> None:
        self._native = native
        self._interceptors = interceptors
        self._clock = clock
        self._pauses: set[Callable[[], object]] = set()

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> UnaryUnary:
        return UnaryUnary(self._route(Kind.UNARY_UNARY, self._native.unary_unary, method, *args, **kwargs))

    def unary_stream(self, method: str, *args: Any, **kwargs: Any) -> UnaryStream:
        return UnaryStream(self._route(Kind.UNARY_STREAM, self._native.unary_stream, method, *args, **kwargs))

    def stream_unary(self, method: str, *args: Any, **kwargs: Any) -> StreamUnary:
        return StreamUnary(self._route(Kind.STREAM_UNARY, self._native.stream_unary, method, *args, **kwargs))

    def stream_stream(self, method: str, *args: Any, **kwargs: Any) -> StreamStream:
        return StreamStream(self._route(Kind.STREAM_STREAM, self._native.stream_stream, method, *args, **kwargs))

    def _route(
        self,
        kind: Kind,
        native: Callable[..., Any],
        path: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        **registered: Any,  # _registered_method, which generated stubs give
    ) -> Route:
        method = Method(path, kind)

        def make(serializer: Any) -> Any:
            return native(path, serializer, response_deserializer, **registered)

        return Route(method, layers(self._interceptors, method), make, request_serializer, self._clock, self._pauses)

    def subscribe(self, callback: Callable[..., object], try_to_connect: bool | None = False) -> None:
        self._native.subscribe(callback, try_to_connect=try_to_connect)

    def unsubscribe(self, callback: Callable[..., object]) -> None:
        self._native.unsubscribe(callback)

    def close(self) -> None:
        """Close the native channel; calls that wait for a later attempt end too."""
        self._native.close()
        for end in list(self._pauses):
            end()

    def __enter__(self) -> Channel:
        return self

    def __exit__(self, *exc_info: object) -> bool:
        self.close()
        return False


class _Starter:
    """A stub method whose RPCs do not block: the common part of all four."""

    __slots__ = ("_route",)

    def __init__(self, route: Route) -> None:
        self._route = route

    def _start(
        self,
        begin: Callable[[Any], Any],
        request: Any,
        timeout: float | None,
        metadata: Any,
        credentials: Any,
        wait_for_ready: bool | None,
        compression: Any,
    ) -> Exchange:
        route = self._route
        deadline = deadline_of(timeout, route.clock)
        streaming = route.method.kind.request_streaming
        call = Call(
            route.method,
            Side.CLIENT,
            None if streaming else request,
            timeout,
            metadata,
            credentials,
            wait_for_ready,
            compression,
            deadline,
        )
        requests = Requests(request, route.encode) if streaming else None
        exchange = Exchange(route, drive(route.layers, call), copy_context(), deadline, begin, requests)
        exchange.turn(None)
        return exchange


def _future(native: Any) -> Any:
    return native.future


def _itself(native: Any) -> Any:
    return native


class _UnaryResponse(_Starter):
    """A stub method with a unary response: blocking, or as a future."""

    __slots__ = ()

    def __call__(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> Any:
        return self._run(request, timeout, metadata, credentials, wait_for_ready, compression)[0].response

    def with_call(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> tuple[Any, UnaryFuture]:
        outcome, deadline = self._run(request, timeout, metadata, credentials, wait_for_ready, compression)
        return outcome.response, finished(self._route, outcome, deadline)

    def future(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> UnaryFuture:
        return UnaryFuture(self._start(_future, request, timeout, metadata, credentials, wait_for_ready, compression))

    def _run(
        self, request: Any, timeout: Any, metadata: Any, credentials: Any, wait_for_ready: Any, compression: Any
    ) -> tuple[Outcome, float | None]:
        """Turn the drive in the caller's own thread. Gives the outcome and the RPC's deadline; raises its failure."""
        route = self._route
        deadline = deadline_of(timeout, route.clock)
        requests = None
        if route.method.kind.request_streaming:
            requests, request = Requests(request, route.encode), None
        call = Call(
            route.method, Side.CLIENT, request, timeout, metadata, credentials, wait_for_ready, compression, deadline
        )
        # The flows run in a context of their own, the native call in the application's: nothing leaks either way.
        context = copy_context()
        turn = drive(route.layers, call)
        answer: Any = None
        try:
            while True:
                step = context.run(turn.send, answer)
                while type(step) is Wait:
                    step = context.run(turn.throw, no_waiting(step))
                if type(step) is Race:
                    outcome = Exchange(route, turn, context, deadline, _future, requests).run(step)
                    break
                answer = self._perform(cast(Call, step), requests, deadline)
        except StopIteration as end:
            outcome = end.value
        if outcome._code is not OK:
            raise exception_of(outcome, InactiveCall)
        return outcome, deadline

    def _perform(self, call: Call, requests: Requests | None, deadline: float | None) -> Outcome:
        """Send the call and wait for its end."""
        route, asks = self._route, call._asks
        if asks.delay:
            self._pause(asks.delay)
        now = route.clock.now
        started = now()
        timeout = time_left(call, deadline, started)
        if timeout is not None and timeout <= 0:
            return expired()
        upload, error, response, native, received = None, None, None, None, 0
        try:
            if requests is None:
                send, request = route.native, call._request if asks is NOTHING else request_of(call)
            else:
                upload = requests.upload(call)
                send, request = route.sender(upload), iter(upload)
            response, native = send.with_call(
                request, timeout, call._metadata, call._credentials, call._wait_for_ready, call._compression
            )
            received = 1
            if asks is not NOTHING:
                show_initial_metadata(call, native.initial_metadata())
                on_response = compose(asks.responses)
                response = response if on_response is None else on_response(response)
        except errors.StatusError as raised:
            error = raised
        except grpc.RpcError as raised:
            error = typed(raised)
        except BaseException as raised:
            error = raised
        elapsed = now() - started
        if upload is None:
            if error is None:
                return Outcome(OK, response, "", None, 1, 1, elapsed, True, native)
            return failure(error, 1, received, elapsed, True, native)
        again = upload.close()
        error = upload.error or error
        if error is None:
            return Outcome(OK, response, "", None, upload.sent, 1, elapsed, again, native)
        return failure(error, upload.sent, received, elapsed, again, native)

    def _pause(self, seconds: float) -> None:
        """Wait until the call is to be sent; no longer than the channel is open."""
        woken = threading.Event()
        pauses = self._route.pauses
        pauses.add(woken.set)
        try:
            self._route.clock.sleep(seconds, woken)
        finally:
            pauses.discard(woken.set)


class _ResponseStream(_Starter):
    """A stub method with a response stream."""

    __slots__ = ()

    def __call__(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> ResponseStream:
        return ResponseStream(
            self._start(_itself, request, timeout, metadata, credentials, wait_for_ready, compression)
        )


class UnaryUnary(_UnaryResponse, grpc.UnaryUnaryMultiCallable):  # type: ignore[misc]
    """One request, one response."""


class StreamUnary(_UnaryResponse, grpc.StreamUnaryMultiCallable):  # type: ignore[misc]
    """A stream of requests, one response."""


class UnaryStream(_ResponseStream, grpc.UnaryStreamMultiCallable):  # type: ignore[misc]
    """One request, a stream of responses."""


class StreamStream(_ResponseStream, grpc.StreamStreamMultiCallable):  # type: ignore[misc]
    """A stream each way."""
