"""The sync shell's server: handlers that run every RPC through a stack of interceptors, in grpc's pool thread.

Also used for plain handlers on an asyncio server, which grpc runs in a thread pool with a context much like this one.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextvars import copy_context
from functools import partial
from typing import Any, TypeAlias

import grpc

from interpose import errors
from interpose._call import NOTHING, Call
from interpose._clock import Clock
from interpose._flow import Driver, Interceptor, Wait, check_sync
from interpose._grpcio.servers import GONE, NATIVE
from interpose._messages import Pass, compose
from interpose._outcome import Outcome
from interpose._shell.answer import Stop, arrived, recording
from interpose._shell.claims import claim
from interpose._shell.codec import Undecodable, decoder, telling
from interpose._shell.handlers import Compiled, Endpoint, with_function
from interpose._shell.native import completion_of, no_waiting, wait_of, wait_timed_out
from interpose._shell.straight import around
from interpose.context import current_call
from interpose.sync.context import ServicerContext

_log = logging.getLogger("interpose")

UNSERIALIZABLE = "Failed to serialize response!"  # grpcio's words

Behavior: TypeAlias = Callable[..., Any]
Waiter: TypeAlias = Callable[[Driver, Wait], Any]  # answers a Wait; gives the next step


def refuse_to_wait(driver: Driver, step: Wait) -> Any:
    """Nothing can be awaited in a pool thread of a sync server."""
    return driver.fail(no_waiting(step))


def _joined(driver: Driver, step: Wait, context: ServicerContext) -> Any:
    """Wait for a Future, but not longer than the client does."""
    future: Future[Any] = step.awaitable  # type: ignore[assignment]  # see `_next`
    woken, seconds = threading.Event(), wait_of(step, context.deadline(), context.clock.now())
    future.add_done_callback(lambda _: woken.set())
    gone = _slept(seconds, context, woken)
    if future.done() and not future.cancelled():
        gone = None
    if gone is not None and gone is not grpc.StatusCode.DEADLINE_EXCEEDED:
        return driver.fail(errors.of(gone)(context.details_of(gone), local=True))
    if gone is not None or not future.done():
        return driver.fail(wait_timed_out())
    tell, value = completion_of(future, driver)
    return tell(value)


def records(clock: Clock, stop: Stop | None) -> type[ServicerContext]:
    """The class of a server's contexts: see `recording`."""
    return recording(ServicerContext, clock, stop)


def behavior(endpoint: Endpoint, record: type[ServicerContext], waiter: Waiter = refuse_to_wait) -> Behavior:
    """The handler's function with the interceptors around it, of the same shape. record: see `records`."""
    make = _streaming if endpoint.method.kind.response_streaming else _unary
    if getattr(endpoint.handler, "experimental_non_blocking", False):
        make = _non_blocking
    return functools.update_wrapper(make(endpoint, record, waiter), endpoint.handler)


def _next(driver: Driver, step: Any, waiter: Waiter, context: ServicerContext) -> Any:
    """What to do next, after any waiting: a call to perform, which has begun, or the outcome of the RPC."""
    while True:
        while type(step) is Wait:
            if isinstance(step.awaitable, Future):
                step = _joined(driver, step, context)
            else:
                step = waiter(driver, step)
        if not isinstance(step, Call):
            return step
        gone = None
        if step._asks is not NOTHING and step._asks.delay:
            gone = _slept(step._asks.delay, context, threading.Event())
        context.begin(step)
        if gone is None:
            return step
        step = driver.tell(context.outcome(None, None, gone))


def _slept(seconds: float, context: ServicerContext, woken: threading.Event) -> grpc.StatusCode | None:
    """Sleep until woken, but not longer than the client waits; if it has gone, give why."""
    if context.add_callback(woken.set):
        context.clock.sleep(seconds, woken)
    return context.gone()


def _argument(call: Call, argument: Any, context: ServicerContext) -> Any:
    """What the handler is given: the request message, or the request stream, as interceptors leave it."""
    message = context.message_for(call)
    streams = call._method.kind.request_streaming
    return _incoming(argument, context, compose(call._asks.requests)) if streams else message


def _incoming(messages: Iterator[Any], context: ServicerContext, hook: Pass | None) -> Iterator[Any]:
    for received, message in enumerate(messages, 1):
        if type(message) is Undecodable:
            message.fail("request")
        context.received = received  # to read it there costs ten times as much: see `__getattr__`
        yield message if hook is None else hook(message)
    # grpc ends the stream of a client that has gone as if it had been done, if the news of that comes a moment later.
    # Another read is answered after that news, and raises then.
    next(messages, None)


def _unary(endpoint: Endpoint, record: type[ServicerContext], waiter: Waiter) -> Behavior:
    method, stack, handler = endpoint.parts

    def go_on(driver: Driver, step: Any, argument: Any, context: ServicerContext) -> Any:
        return _on(driver, step, handler, argument, waiter, context)

    def behave_with_stream(argument: Any, native: Any) -> Any:
        context, call = arrived(record, native, method, argument)
        driver = Driver(stack)
        return _on(driver, driver.start(call), handler, argument, waiter, context)

    return (
        behave_with_stream if method.kind.request_streaming else around(endpoint, record, _ended, go_on, NATIVE, GONE)
    )


def _ended(context: ServicerContext, error: BaseException | None, response: Any) -> Outcome:
    """The outcome of a handler that did anything but answer."""
    return context.outcome(error, response, context.gone())


def _on(driver: Driver, step: Any, handler: Behavior, argument: Any, waiter: Waiter, context: ServicerContext) -> Any:
    """Go on with an RPC to its end, attempt by attempt."""
    while True:
        step = _next(driver, step, waiter, context)
        if isinstance(step, Outcome):
            return context.answer(step)
        step = driver.tell(_performed(step, handler, argument, context))


def _performed(call: Call, handler: Behavior, argument: Any, context: ServicerContext) -> Outcome:
    """Call the handler; how that ended."""
    response, error = None, None
    try:
        response = handler(_argument(call, argument, context), context)
        if call._asks is not NOTHING:
            hook = compose(call._asks.responses)
            response = response if hook is None else hook(response)
    except BaseException as raised:
        error = raised
    return _ended(context, error, response)


def _streaming(endpoint: Endpoint, record: type[ServicerContext], waiter: Waiter) -> Behavior:
    method, stack, handler = endpoint.parts

    def behave(argument: Any, native: Any) -> Iterator[Any]:
        context, call = arrived(record, native, method, argument)
        driver = Driver(stack)
        step = driver.start(call)
        dropped = False
        while True:
            step = _next(driver, step, waiter, context)
            if isinstance(step, Outcome):
                if dropped:
                    context.over()
                else:
                    yield from context.answer(step) or ()
                return
            sent, messages, error = 0, None, None
            try:
                dress = _dress(step, context)
                messages = handler(_argument(step, argument, context), context)
                for message in messages:
                    if message is None:  # ends a stream, as with grpc's sync servers
                        break
                    if dress is not None:
                        message = dress(message)
                    sent += 1
                    try:
                        yield message
                    except GeneratorExit:  # grpc dropped us: the client has gone
                        dropped = True
                        break
            except BaseException as raised:
                error = raised
            context.sent = sent
            step = driver.tell(_stream_outcome(context, _closed(messages) or error, dropped))

    return behave


def _dress(call: Call, context: ServicerContext) -> Pass | None:
    """What is done to each response of a stream; None where interceptors want nothing of it."""
    hook, check = compose(call._asks.responses), context.check_response
    if context.limit is None and not call._asks.initial_metadata and check is None:
        return hook

    def pass_on(message: Any) -> Any:
        context.check_time()
        context.send_initial_metadata_if_due()
        message = message if hook is None else hook(message)
        if check is not None:
            check(message)
        return message

    return pass_on


def _closed(messages: Any) -> BaseException | None:
    """Close a handler's generator; gives what it raised then."""
    try:
        if hasattr(messages, "close"):
            messages.close()
    except BaseException as error:
        return error
    return None


def _stream_outcome(context: ServicerContext, error: BaseException | None, dropped: bool) -> Outcome:
    if context.unserializable:  # which is why grpc dropped us
        error, dropped = errors.Internal(UNSERIALIZABLE, local=True), False
    gone = context.gone() or (grpc.StatusCode.CANCELLED if dropped else None)
    return context.outcome(error, None, gone)


def _note_unserializable() -> None:
    """The serializer of a response stream failed, where grpc only drops the handler's generator."""
    call = current_call()
    if call is not None and isinstance(call._context, ServicerContext):
        call._context.unserializable = True


def _non_blocking(endpoint: Endpoint, record: type[ServicerContext], waiter: Waiter) -> Behavior:
    """For handlers that return at once and send through a callback, like the health service's Watch.

    grpc calls them with a function that sends one response, or with None ends the stream.
    """
    method, stack, handler = endpoint.parts

    def behave(argument: Any, native: Any, send: Callable[[Any], object]) -> None:
        context, call = arrived(record, native, method, argument)
        driver = Driver(stack)
        step = _next(driver, driver.start(call), waiter, context)
        if isinstance(step, Outcome):
            for message in context.answer(step) or ():
                send(message)
            send(None)
            return
        rpc = _Watched(context, driver, waiter, send, compose(step._asks.responses))
        native.add_callback(rpc.when_over)
        try:
            handler(_argument(step, argument, context), context, rpc.send)
        except BaseException as error:
            outcome = rpc.finish(error)
            if outcome is None:
                _log.error("a handler raised after the end of its RPC", exc_info=error)
            else:
                context.answer(outcome)

    return behave


class _Watched:
    """An RPC whose handler has returned and goes on sending."""

    def __init__(self, context: ServicerContext, driver: Driver, waiter: Waiter, send: Any, hook: Pass | None) -> None:
        self._context = context
        self._driver = driver
        self._waiter = waiter
        self._send = send
        self._hook = hook
        self._claims = [True]
        self._ambient = copy_context()

    def send(self, message: Any) -> None:
        """What the handler calls: one response, or None at the end."""
        if message is None:
            self._end(None)
            return
        if self._hook is not None:
            try:
                message = self._hook(message)
            except (
                errors.StatusError
            ) as error:  # not the business of what calls us; grpc drops what is sent from here on
                self._end(error)
                return
        context = self._context
        if not context.sent:
            context.send_initial_metadata_if_due()
        context.sent += 1
        self._send(message)

    def _end(self, error: BaseException | None) -> None:
        """Send the status."""
        context = self._context
        # If the client has gone, the handler may say so from a callback on the serving thread: leave it to when_over.
        if context.is_active() and (outcome := self.finish(error)) is not None:
            context.note(context.closing(outcome)._replace(error=None))
            self._send(None)

    def when_over(self) -> None:
        """The RPC is over; reported on the server's one serving thread, which must not run anybody's code."""
        if self._claims:
            self._context.clock.call_later(0, partial(self.finish, None))

    def finish(self, error: BaseException | None) -> Outcome | None:
        """Let the flows end; None if they have."""
        if not claim(self._claims):
            return None
        outcome = self._context.outcome(error, None, self._context.gone())
        outcome._replayable = False  # its handler cannot be called again
        step = self._ambient.run(self._driver.tell, outcome)
        final: Outcome = self._ambient.run(_next, self._driver, step, self._waiter, self._context)
        self._context.over()
        return final


def handlers(interceptors: tuple[Interceptor, ...], clock: Clock, stop: Stop | None = None) -> Compiled:
    """The handlers of sync servers, with the interceptors around them."""
    record = records(clock, stop)
    unchecked = [interceptors]  # until the first RPC it is not known that the server is a sync one

    def wrap(handler: Any, name: str, declared: bool = False) -> Any:
        if unchecked:
            _say_what_cannot_run(unchecked.pop())
        endpoint = Endpoint(handler, name, interceptors, clock, asyncio=False, declared=declared)
        kind = endpoint.method.kind
        # In the middle of a stream, grpc makes of what cannot be deserialized the end of it.
        deserializer = decoder(handler.request_deserializer) if kind.request_streaming else None
        serializer = telling(handler.response_serializer, _note_unserializable) if kind.response_streaming else None
        return with_function(handler, behavior(endpoint, record), deserializer=deserializer, serializer=serializer)

    return Compiled(wrap)


def _say_what_cannot_run(interceptors: tuple[Interceptor, ...]) -> None:
    """In the log, once: RPCs with such an interceptor end with INTERNAL, and their clients may be somebody else's."""
    try:
        check_sync(interceptors, "server")
    except TypeError as error:
        _log.error("%s; until then its RPCs end with INTERNAL", error)
