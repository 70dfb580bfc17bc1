"""The sync shell's channel: a `grpc.Channel` whose stubs run every call through a stack of interceptors."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import Context, copy_context
from typing import Any

import grpc

from interpose._call import NOTHING, Call
from interpose._flow import Driver, Wait, unused
from interpose._grpcio.blocking import blocking
from interpose._grpcio.sync_calls import InactiveCall, known
from interpose._messages import compose, request_of, show_initial_metadata
from interpose._method import Kind
from interpose._outcome import OK, Outcome, Received
from interpose._shell.channel import Layered, call_of
from interpose._shell.codec import Undecodable
from interpose._shell.native import (
    Route,
    cancelled,
    closing,
    completion_of,
    exception_of,
    expired,
    failure,
    locally_cancelled,
    no_waiting,
    pause_of,
    time_left,
    wait_of,
    wait_timed_out,
)
from interpose._shell.straight import begin, end
from interpose.errors import StatusError
from interpose.sync.calls import ResponseStream, UnaryFuture, finished
from interpose.sync.exchange import Exchange
from interpose.sync.requests import Requests


class Channel(Layered, grpc.Channel):
    """A channel with interceptors; everything that is no call goes straight to the native channel."""

    _packs = False

    def _stub(self, route: Route) -> Any:
        return STUBS[route.method.kind](route)

    def subscribe(self, callback: Any, try_to_connect: Any = False) -> None:
        self._native.subscribe(callback, try_to_connect=try_to_connect)

    def unsubscribe(self, callback: Any) -> None:
        self._native.unsubscribe(callback)

    def close(self) -> None:
        """Close the native channel; calls that wait for a later attempt end too."""
        self._pauses.close()
        self._native.close()
        self._pauses.close()  # what began to wait meanwhile
        unused(self._interceptors)

    def __enter__(self) -> Channel:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


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
        call = call_of(route, request, timeout, metadata, credentials, wait_for_ready, compression)
        requests = Requests(request, route.encode) if route.uploads else None
        driver = Driver(route.layers)
        exchange = Exchange(route, driver, copy_context(), call._deadline, begin, requests)
        exchange.turn(driver.start, call)
        return exchange


def _future(native: Any) -> Any:
    return native.future


def _itself(native: Any) -> Any:
    return native


class _UnaryResponse(_Starter):
    """A stub method with a unary response: blocking, or as a future."""

    __slots__ = ("_blocking", "_now")

    def __init__(self, route: Route) -> None:
        super().__init__(route)
        self._blocking = blocking(route.native, InactiveCall)
        self._now = route.clock.now

    def __call__(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> Any:
        return self._run(request, timeout, metadata, credentials, wait_for_ready, compression)._response

    def with_call(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> tuple[Any, UnaryFuture]:
        outcome = self._run(request, timeout, metadata, credentials, wait_for_ready, compression)
        return outcome.response, finished(self._route, outcome)

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
    ) -> Outcome:
        """Run the flows in the caller's own thread, to the RPC's end; raises its failure."""
        route = self._route
        was_open = not route.pauses.closed
        call = call_of(route, request, timeout, metadata, credentials, wait_for_ready, compression)
        deadline = call._deadline
        requests = Requests(request, route.encode) if route.uploads else None
        # The flows run in a context of their own, the native call in the application's: nothing leaks either way.
        context, layers = copy_context(), route.layers
        frames, asked, taken = context.run(begin, layers, call)
        if taken is None:
            outcome = self._perform(asked, requests, was_open)
            outcome._attempts = 1
            taken = context.run(end, layers, frames, outcome)
            if taken is not None:
                outcome = self._go_on(*taken, context, deadline, requests, was_open)
        else:
            outcome = self._go_on(*taken, context, deadline, requests, was_open)
        if outcome._code is not OK:
            error = exception_of(outcome, InactiveCall)
            try:
                raise error
            finally:  # its traceback holds this frame, and by that all that the caller's frames have
                del error, outcome, taken
        return outcome

    def _go_on(
        self, driver: Driver, step: Any, context: Context, deadline: float | None, requests: Any, was_open: bool
    ) -> Outcome:
        """Do what the flows ask for, to the RPC's end."""
        run, interrupted = context.run, None
        while not isinstance(step, Outcome):
            if isinstance(step, Call) and step._asks.scope is None:
                step = run(driver.tell, self._perform(step, requests, was_open))
            elif type(step) is Wait:
                tell, news = self._awaited(driver, step, deadline)
                interrupted = news if isinstance(news, KeyboardInterrupt) else None  # the application's, not the flow's
                step = run(tell, news)
            else:  # a race, or a call that somebody else may have to cancel
                exchange = Exchange(self._route, driver, context, deadline, _future, requests)
                exchange.was_open = was_open
                step = exchange.run(step)
        if interrupted is not None and step._code is not OK:
            raise interrupted
        return step

    def _perform(self, call: Call, requests: Any, was_open: bool) -> Outcome:
        """Send it, and wait for the end."""
        outcome = self._send(call) if requests is None else self._upload(call, requests)
        return closing(outcome, was_open) if self._route.pauses.closed else outcome

    def _awaited(self, driver: Driver, step: Wait, deadline: float | None) -> tuple[Callable[[Any], Any], Any]:
        """Wait for a Future, as a flow asked; how the driver gets what came."""
        future = step.awaitable
        if not isinstance(future, Future):
            return driver.fail, no_waiting(step)
        woken = threading.Event()
        future.add_done_callback(lambda _: woken.set())
        torn = self._slept(wait_of(step, deadline, self._now()), woken)
        if torn is not None:
            return driver.fail, torn
        if future.done():
            return completion_of(future, driver)
        return driver.fail, locally_cancelled() if self._route.pauses.closed else wait_timed_out()

    def _send(self, call: Call, messages: Any = None) -> Outcome:
        """Send a unary request, or these messages, and wait for the end."""
        plain = call._asks is NOTHING
        if not plain and call._asks.delay and (unsent := self._pause(call)) is not None:
            return unsent
        now = self._now
        started = now()
        timeout = call._timeout
        if timeout is not None or call._deadline is not None:
            timeout = time_left(call, started)
            if timeout is not None and timeout <= 0:
                return expired()
        received, native = 0, None
        try:
            request = messages or (call._request if plain else request_of(call))
            response, native = self._blocking(
                request, timeout, call._metadata, call._credentials, call._wait_for_ready, call._compression
            )
            if isinstance(native, StatusError):
                return failure(native, 1, 0, now() - started, True, native)
            received = 1
            if type(response) is Undecodable:
                response.fail("response")
            if not plain:
                response = shown(call, response, native)
        except BaseException as raised:
            error = known(raised)
            return failure(error, 1, received, now() - started, True, native or _ended(error))
        outcome = Received()
        outcome._response, outcome._elapsed, outcome._ended = response, now() - started, native
        outcome._initial_metadata = outcome._trailing_metadata = None
        return outcome

    def _upload(self, call: Call, requests: Any) -> Outcome:
        """Send a request stream, and wait for the end."""
        upload = requests.upload(call)
        outcome = self._send(call, iter(upload))
        again = upload.close() and outcome._replayable
        error, received, elapsed = upload.error or outcome._error, outcome._responses, outcome._elapsed
        if error is not None:
            return failure(error, upload.sent, received, elapsed, again, outcome._ended)
        return Outcome(OK, outcome._response, "", None, upload.sent, received, elapsed, again, outcome._ended)

    def _pause(self, call: Call) -> Outcome | None:
        """Wait until the call is to be sent; its outcome if it is not, for the channel was closed or the time is up."""
        seconds, sent = pause_of(call, self._now())
        torn = self._slept(seconds, threading.Event())
        if torn is not None:
            return failure(torn)
        if self._route.pauses.closed:
            return cancelled()
        return None if sent else expired()

    def _slept(self, seconds: float, woken: threading.Event) -> BaseException | None:
        """Sleep until woken, but not longer than the channel is open; gives what broke that: Ctrl-C."""
        pauses = self._route.pauses
        pauses.add(woken.set)
        try:
            if not pauses.closed:
                self._route.clock.sleep(seconds, woken)
        except BaseException as error:
            return error
        finally:
            pauses.discard(woken.set)
        return None


def _ended(error: BaseException) -> Any:
    """What has the metadata of a call that failed: the error, if the call has got so far."""
    return error if hasattr(error, "initial_metadata") else None


def shown(call: Call, response: Any, native: Any) -> Any:
    """The response as taps and maps leave it."""
    if call._asks.on_initial_metadata:
        show_initial_metadata(call, native.initial_metadata())
    hook = compose(call._asks.responses)
    return response if hook is None else hook(response)


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


class UnaryUnary(_UnaryResponse, grpc.UnaryUnaryMultiCallable):  # type: ignore[misc, type-arg]
    """One request, one response."""


class StreamUnary(_UnaryResponse, grpc.StreamUnaryMultiCallable):  # type: ignore[misc, type-arg]
    """A stream of requests, one response."""


class UnaryStream(_ResponseStream, grpc.UnaryStreamMultiCallable):  # type: ignore[misc, type-arg]
    """One request, a stream of responses."""


class StreamStream(_ResponseStream, grpc.StreamStreamMultiCallable):  # type: ignore[misc, type-arg]
    """A stream each way."""


STUBS: dict[Kind, Callable[[Route], Any]] = {
    Kind.UNARY_UNARY: UnaryUnary,
    Kind.UNARY_STREAM: UnaryStream,
    Kind.STREAM_UNARY: StreamUnary,
    Kind.STREAM_STREAM: StreamStream,
}
