"""The sync shell's server: handlers that run every RPC through a stack of interceptors, in grpc's pool thread.

Also used for plain handlers on an asyncio server, which grpc runs in a thread pool with a context much like this one.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable, Iterator
from contextvars import copy_context
from functools import partial
from typing import Any, TypeAlias, cast

import grpc

from interpose import context as ambient
from interpose._answer import described, sendable, speakable, unexpected
from interpose._call import NOTHING, Call
from interpose._clock import Clock
from interpose._flow import Drive, Interceptor, Layers, Wait, drive, layers
from interpose._handlers import Compiled, function_of, kind_of, with_function
from interpose._messages import compose, hooked, request_of
from interpose._method import Method, Side
from interpose._native import expired, no_waiting
from interpose._outcome import Outcome
from interpose.sync.context import ServicerContext

_log = logging.getLogger("interpose")

Behavior: TypeAlias = Callable[..., Any]
Waiter: TypeAlias = Callable[[Drive, Wait], Any]  # answers a Wait; gives the next step


def refuse_to_wait(turn: Drive, step: Wait) -> Any:
    """Nothing can be awaited in a pool thread of a sync server."""
    return turn.throw(no_waiting(step))


def behavior(
    method: Method, stack: Layers, handler: Behavior, clock: Clock, waiter: Waiter = refuse_to_wait
) -> Behavior:
    """The handler's function with the interceptors around it, of the same shape."""
    make = _streaming if method.kind.response_streaming else _unary
    if getattr(handler, "experimental_non_blocking", False):
        make = _non_blocking
    return functools.update_wrapper(make(method, stack, handler, clock, waiter), handler)


def _arrived(method: Method, argument: Any, context: ServicerContext) -> Call:
    request = None if method.kind.request_streaming else argument
    call = Call(method, Side.SERVER, request, None, None, context=context)
    ambient.set_current_call(call)
    return call


def _step(turn: Drive, answer: Any, waiter: Waiter, context: ServicerContext, clock: Clock) -> Call | Outcome:
    """What the flows ask for next, after any waiting: a call to perform, or the outcome of the RPC."""
    try:
        step: Any = turn.send(answer)
        while type(step) is Wait:
            step = waiter(turn, step)
    except StopIteration as end:
        outcome: Outcome = end.value
        return outcome
    if step._asks.delay:
        clock.sleep(step._asks.delay, threading.Event())
    ambient.set_current_call(step)
    context.begin(step)
    call: Call = step
    return call


def _argument(call: Call, argument: Any, context: ServicerContext) -> Any:
    """What the handler is given: the request message, or the request stream, as interceptors leave it."""
    if call.method.kind.request_streaming:
        return _incoming(argument, context, call)
    return call._request if call._asks is NOTHING else request_of(call)


def _incoming(messages: Iterator[Any], context: ServicerContext, call: Call) -> Iterator[Any]:
    hook = compose(call._asks.requests)
    for message in messages:
        context.received += 1
        yield message if hook is None else hooked(hook, message)


def _unary(method: Method, stack: Layers, handler: Behavior, clock: Clock, waiter: Waiter) -> Behavior:
    def behave(argument: Any, native: Any) -> Any:
        context = ServicerContext(native, clock)
        turn = drive(stack, _arrived(method, argument, context))
        outcome: Outcome | None = None
        while True:
            call = _step(turn, outcome, waiter, context, clock)
            if type(call) is Outcome:
                return _answer(context, call)
            outcome = _perform(call, argument, context)

    def _perform(call: Any, argument: Any, context: ServicerContext) -> Outcome:
        response, error = None, None
        if call._timeout is not None and call._timeout <= 0:
            return expired()
        try:
            response = handler(_argument(call, argument, context), context)
            if call._asks is not NOTHING:
                hook = compose(call._asks.responses)
                response = response if hook is None else hooked(hook, response)
        except BaseException as raised:
            error = raised
        return context.outcome(error, response, context.gone())

    return behave


def _streaming(method: Method, stack: Layers, handler: Behavior, clock: Clock, waiter: Waiter) -> Behavior:
    def behave(argument: Any, native: Any) -> Iterator[Any]:
        context = ServicerContext(native, clock)
        turn = drive(stack, _arrived(method, argument, context))
        outcome: Outcome | None = None
        dropped = False
        while True:
            call = _step(turn, outcome, waiter, context, clock)
            if type(call) is Outcome:
                if not dropped:
                    yield from _answer_stream(context, call)
                return
            error: BaseException | None = None
            messages: Any = None
            try:
                if call._timeout is not None and call._timeout <= 0:
                    outcome = expired()
                    continue
                hook = compose(call._asks.responses)
                messages = handler(_argument(call, argument, context), context)
                for message in messages:
                    if message is None or context.expired():
                        break
                    if hook is not None:
                        message = hooked(hook, message)
                    if not context.sent:
                        context.send_initial_metadata_if_due()
                    context.sent += 1
                    yield message
            except GeneratorExit:  # grpc dropped us: the client has gone
                dropped = True
            except BaseException as raised:
                error = raised
            error = _closed(messages) or error
            outcome = _stream_outcome(context, error, dropped)

    return behave


def _closed(messages: Any) -> BaseException | None:
    """Close a handler's generator; gives what it raised then."""
    try:
        if hasattr(messages, "close"):
            messages.close()
    except BaseException as error:
        return error
    return None


def _stream_outcome(context: ServicerContext, error: BaseException | None, dropped: bool) -> Outcome:
    gone = context.gone() or (grpc.StatusCode.CANCELLED if dropped else None)
    if gone is None and error is None and context.expired():
        gone = grpc.StatusCode.DEADLINE_EXCEEDED
    return context.outcome(error, None, gone)


def _non_blocking(method: Method, stack: Layers, handler: Behavior, clock: Clock, waiter: Waiter) -> Behavior:
    """For handlers that return at once and send through a callback, like the health service's Watch.

    grpc calls them with a function that sends one response, or with None ends the stream.
    """

    def behave(argument: Any, native: Any, send: Callable[[Any], object]) -> None:
        context = ServicerContext(native, clock)
        turn = drive(stack, _arrived(method, argument, context))
        call = _step(turn, None, waiter, context, clock)
        if type(call) is Outcome:
            for message in _answer_stream(context, call):
                send(message)
            send(None)
            return
        rpc = _Watched(context, turn, waiter, clock, send, compose(cast(Call, call)._asks.responses))
        native.add_callback(rpc.when_over)
        try:
            handler(_argument(cast(Call, call), argument, context), context, rpc.send)
        except BaseException as error:
            outcome = rpc.finish(error)
            if outcome is not None:
                _answer(context, outcome)

    return behave


class _Watched:
    """An RPC whose handler has returned and goes on sending."""

    def __init__(self, context: ServicerContext, turn: Drive, waiter: Waiter, clock: Clock, send: Any, hook: Any) -> None:
        self._context = context
        self._turn = turn
        self._waiter = waiter
        self._clock = clock
        self._send = send
        self._hook = hook
        self._claims = [True]
        self._ambient = copy_context()

    def send(self, message: Any) -> None:
        """What the handler calls: one response, or None at the end."""
        context = self._context
        if message is not None:
            if self._hook is not None:
                message = hooked(self._hook, message)
            if not context.sent:
                context.send_initial_metadata_if_due()
            context.sent += 1
            self._send(message)
        elif (outcome := self.finish(None)) is not None:
            context.set_trailing(outcome)
            if not outcome.ok:
                context._native.set_code(outcome.code)
                context._native.set_details(sendable(outcome.details))
            self._send(None)

    def when_over(self) -> None:
        """The RPC is over; told on the server's one serving thread, which must not run anybody's code."""
        if self._claims:
            self._clock.call_later(0, partial(self.finish, None))

    def finish(self, error: BaseException | None) -> Outcome | None:
        """Let the flows end; None if they have."""
        try:
            self._claims.pop()
        except IndexError:
            return None
        outcome = self._context.outcome(error, None, self._context.gone())
        outcome._replayable = False  # its handler cannot be called again
        final = self._ambient.run(_step, self._turn, outcome, self._waiter, self._context, self._clock)
        return cast(Outcome, final)


def _answer(context: ServicerContext, outcome: Outcome) -> Any:
    """Send the outcome of the RPC: gives the response, or raises what makes grpc send the status."""
    if outcome.ok:
        context.send_initial_metadata_if_due()
        context.set_trailing(outcome)
        if outcome.details:
            context._native.set_details(outcome.details)
        return outcome.response
    context.set_trailing(outcome)
    error = unexpected(outcome)
    if error is not None and speakable(error):
        if outcome.code is not grpc.StatusCode.UNKNOWN:
            context._native.set_code(outcome.code)
        if outcome.details:
            context._native.set_details(sendable(outcome.details))
        raise error
    return _fail(context, outcome, error)


def _answer_stream(context: ServicerContext, outcome: Outcome) -> Iterator[Any]:
    """The same for a response stream; one that a flow made is sent from the outcome."""
    messages = _answer(context, outcome)
    return iter(messages if messages is not None else ())


def _fail(context: ServicerContext, outcome: Outcome, error: BaseException | None) -> None:
    if error is not None:
        _log.error("%s raised what grpc cannot answer", context._call.method, exc_info=error)
        outcome = Outcome(outcome.code, None, outcome.details or described(error))
    context.fail(outcome)


class Handlers:
    """The handlers of sync servers, with the interceptors around them."""

    def __init__(self, interceptors: tuple[Interceptor, ...], clock: Clock) -> None:
        self._interceptors = interceptors
        self._clock = clock
        self._compiled = Compiled(self._compile)

    def intercepted(self, handler: Any, name: str) -> Any:
        """The handler to serve this RPC with; None, for a method that nobody knows, stays None."""
        return None if handler is None else self._compiled.get(handler, name)

    def _compile(self, handler: Any, name: str) -> Any:
        method = Method(name, kind_of(handler))
        stack = layers(self._interceptors, method)
        if not stack:
            return handler
        return with_function(handler, behavior(method, stack, function_of(handler), self._clock))
