"""The asyncio shell's server: handlers that run every RPC through a stack of interceptors, in grpc's task for it."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from contextvars import Context, copy_context
from typing import Any, TypeAlias

import grpc

from interpose import errors
from interpose._call import NOTHING, Call
from interpose._clock import SYSTEM, Clock
from interpose._flow import Driver, Interceptor, Wait
from interpose._outcome import Outcome
from interpose._shell.answer import Stop, arrived, recording
from interpose._shell.handlers import Compiled, Endpoint, with_function
from interpose.aio.context import ServicerContext
from interpose.aio.joining import joined
from interpose.aio.plain import Plain, records
from interpose.aio.straight import straight

_log = logging.getLogger("interpose")

Behavior: TypeAlias = Callable[..., Any]


class Handlers:
    """The handlers of asyncio servers, with the interceptors around them."""

    def __init__(self, interceptors: tuple[Interceptor, ...], clock: Clock, stop: Stop | None = None) -> None:
        self._interceptors = interceptors
        self._clock = clock
        self._record = recording(ServicerContext, clock, stop)
        self._plain_record = records(clock, stop)
        self._compiled = Compiled(self.compile)

    async def intercepted(self, found: Awaitable[Any], details: Any) -> Any:
        """The handler to serve this RPC with; None, for a method that is not known, stays None."""
        handler = await found
        return None if handler is None else self.get(handler, details.method)

    def get(self, handler: Any, name: str, declared: bool = False) -> Any:
        """The handler to serve this RPC with; called in its task."""
        made = self._compiled.get(handler, name, declared)
        return self.bound(made) if isinstance(made, Plain) else made

    def bound(self, plain: Plain) -> Any:
        """A plain handler runs on a thread that knows nothing of this RPC's context: it is handed over, per RPC."""
        return plain.bound(copy_context(), asyncio.get_running_loop())

    def compile(self, handler: Any, name: str, declared: bool = False) -> Any:
        """The handler with the interceptors around it; a plain one as what has to be bound for each RPC."""
        endpoint = Endpoint(handler, name, self._interceptors, self._clock, asyncio=True, declared=declared)
        function, streams = endpoint.handler, endpoint.method.kind.response_streaming
        if not (inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)):
            return Plain(handler, endpoint, self._plain_record)
        make = _unary if not streams else _streaming if inspect.isasyncgenfunction(function) else _writing
        return with_function(handler, functools.update_wrapper(make(endpoint, self._record), function))


# --- flows ------------------------------------------------------------------------------------------------------------


async def _attend(driver: Driver, step: Any, context: ServicerContext) -> Any:
    """Let the flows wait, as an interceptor asked: for an awaitable, or before the handler is called."""
    while True:
        while type(step) is Wait:
            try:
                value = await joined(step, context.deadline(), context.clock)
            except asyncio.CancelledError as error:
                step = driver.fail(_gone(context) or error)
            except BaseException as error:
                step = driver.fail(error)
            else:
                step = driver.answer(value)
        if not isinstance(step, Call) or not step._asks.delay:
            return step
        try:
            task = asyncio.current_task()
            if task is not None and task.cancelling():  # by the client, in an earlier attempt
                raise asyncio.CancelledError  # noqa: TRY301  as if it came now
            await _sleep(step._asks.delay, context.clock)
        except asyncio.CancelledError as error:  # the client has gone: the flows get the outcome, not the handler
            context.begin(step)
            step = driver.tell(_outcome(context, error))
        else:
            return step


def _gone(context: ServicerContext) -> errors.StatusError | None:
    """What a flow gets that waits while the client goes; None if it has not gone."""
    task = asyncio.current_task()
    if task is None or not task.cancelling():
        return None
    return errors.of(context.why_gone())("the client has gone", local=True)


async def _sleep(seconds: float, clock: Clock) -> None:
    if clock is SYSTEM:
        await asyncio.sleep(seconds)
        return
    with suppress(TimeoutError):
        async with _timeout(seconds, clock):
            await asyncio.get_running_loop().create_future()


@asynccontextmanager
async def _timeout(seconds: float, clock: Clock) -> AsyncGenerator[None]:
    """TimeoutError in the task once `seconds` have passed by the clock."""
    if clock is SYSTEM:
        async with asyncio.timeout(seconds):
            yield
        return
    async with asyncio.timeout(None) as limit:
        loop = asyncio.get_running_loop()
        rung: list[Callable[[float], None]] = [limit.reschedule]
        alarm = clock.call_later(seconds, lambda: loop.call_soon_threadsafe(lambda: rung and rung[0](loop.time())))
        try:
            yield
        finally:
            rung.clear()  # an alarm may be on its way to the loop
            alarm.cancel()


def _argument(call: Call, argument: Any, context: ServicerContext) -> Any:
    """What the handler is given: the request message, or the request stream, as interceptors leave it."""
    message = context.message_for(call)
    return _incoming(argument, context) if call._method.kind.request_streaming else message


async def _incoming(messages: AsyncIterator[Any], context: ServicerContext) -> AsyncIterator[Any]:
    hook, received = context.on_request, 0
    async for message in messages:
        received += 1
        context.received = received  # to read it there costs ten times as much: see `__getattr__`
        yield message if hook is None else hook(message)
    await context.confirm_end()


def _limited(context: ServicerContext, work: Coroutine[Any, Any, Any]) -> Awaitable[Any]:
    """The handler's work, cancelled when an interceptor's timeout has passed."""
    return work if context.limit is None else _within(context.limit, context.clock, work)


async def _within(end: float, clock: Clock, work: Coroutine[Any, Any, Any]) -> Any:
    async with _timeout(end - clock.now(), clock):
        return await work


def _outcome(context: ServicerContext, error: BaseException | None, response: Any = None) -> Outcome:
    """How an attempt of the handler ended."""
    gone = None
    task = asyncio.current_task()
    # Even if the handler swallowed it and answered: no client listens.
    cancelled = task is not None and task.cancelling()
    if cancelled or isinstance(error, grpc.aio.InternalError):  # a write failed: grpc is about to say that it is over
        gone = context.why_gone()
    elif isinstance(error, asyncio.CancelledError):
        # Of a task of the handler's own: the client is there, and is owed a status.
        if context.code() is None:
            context.set_code(grpc.StatusCode.CANCELLED)
            context.set_details("the handler was cancelled")
    elif isinstance(error, TimeoutError) and context.expired():
        gone = grpc.StatusCode.DEADLINE_EXCEEDED
    return context.outcome(error, response, gone)


# --- the three shapes of handlers -------------------------------------------------------------------------------------


def _unary(endpoint: Endpoint, record: type[ServicerContext]) -> Behavior:
    method, stack, handler = endpoint.parts

    def go_on(driver: Driver, step: Any, argument: Any, context: ServicerContext) -> Awaitable[Any]:
        return _on(driver, step, handler, argument, context)

    async def behave_with_stream(argument: Any, native: Any) -> Any:
        context, call = arrived(record, native, method, argument)
        context.peer()  # noted: when the client has gone, grpc may have forgotten it
        driver = Driver(stack)
        return await _on(driver, driver.start(call), handler, argument, context)

    return behave_with_stream if method.kind.request_streaming else straight(endpoint, record, _outcome, go_on)


async def _on(driver: Driver, step: Any, handler: Behavior, argument: Any, context: ServicerContext) -> Any:
    """Go on with an RPC to its end, attempt by attempt."""
    while True:
        if type(step) is Wait or (isinstance(step, Call) and step._asks is not NOTHING):
            step = await _attend(driver, step, context)
        if isinstance(step, Outcome):
            return await context.answer(step)
        context.begin(step)
        step = driver.tell(await _performed(step, handler, argument, context))


async def _performed(call: Call, handler: Behavior, argument: Any, context: ServicerContext) -> Outcome:
    """Call a handler that answers, or that writes; how that ended."""
    response, error = None, None
    try:
        response = await _limited(context, handler(_argument(call, argument, context), context))
        if context.on_response is not None and not call.kind.response_streaming:
            response = context.on_response(response)
    except BaseException as raised:
        error = raised
    return _outcome(context, error, response)


def _writing(endpoint: Endpoint, record: type[ServicerContext]) -> Behavior:
    """For handlers that `await context.write(…)`."""
    method, stack, handler = endpoint.parts

    async def behave(argument: Any, native: Any) -> None:
        context, call = arrived(record, native, method, argument)
        context.peer()  # noted: when the client has gone, grpc may have forgotten it
        driver = Driver(stack)
        for message in await _on(driver, driver.start(call), handler, argument, context) or ():
            await native.write(message)

    return behave


def _streaming(endpoint: Endpoint, record: type[ServicerContext]) -> Behavior:
    """For handlers that are async generators."""
    method, stack, handler = endpoint.parts

    async def behave(argument: Any, native: Any) -> AsyncIterator[Any]:
        context, call = arrived(record, native, method, argument)
        context.peer()  # noted: when the client has gone, grpc may have forgotten it
        driver = Driver(stack)
        step: Any = driver.start(call)
        rpc = _Streamed(context, driver)
        native.add_done_callback(rpc.when_over)
        while True:
            if type(step) is Wait or (isinstance(step, Call) and step._asks is not NOTHING):
                step = await _attend(driver, step, context)
            if isinstance(step, Outcome):
                rpc.over = True
                for message in await context.answer(step) or ():
                    yield message
                return
            context.begin(step)
            sent, messages, error = 0, None, None
            try:
                hook, bound = context.on_response, bool(step._asks.initial_metadata) or context.limit is not None
                messages = _messages(step, handler, argument, context)
                async for message in messages:
                    if bound:
                        message = await context.outgoing(message)
                    elif hook is not None:
                        message = hook(message)
                    sent += 1
                    context.sent = sent  # when_over may come while we are suspended
                    try:
                        yield message
                    except GeneratorExit:
                        # grpc dropped us while it was writing: the callback has passed the end to the flows.
                        await rpc.close(messages)
                        return
            except BaseException as raised:
                error = await _closed(messages) or raised
            step = driver.tell(_outcome(context, error))

    return behave


def _messages(call: Call, handler: Behavior, argument: Any, context: ServicerContext) -> Any:
    """What the handler generates, for as long as an interceptor allows."""
    messages = handler(_argument(call, argument, context), context)
    return messages if context.limit is None else _punctual(messages, context.limit, context.clock)


async def _punctual(messages: Any, end: float, clock: Clock) -> AsyncIterator[Any]:
    """The same messages; TimeoutError in the handler when `end` has come. The time that grpc takes to write counts."""
    try:
        while True:
            # In the same task, so that the handler keeps its context variables.
            async with _timeout(end - clock.now(), clock):
                try:
                    message = await anext(messages)
                except StopAsyncIteration:
                    return
            yield message
    finally:
        await messages.aclose()


async def _closed(messages: Any) -> BaseException | None:
    """Close a handler's generator; gives what it raised then."""
    try:
        if messages is not None:
            await messages.aclose()
    except BaseException as error:
        return error
    return None


class _Streamed:
    """A response stream of an async generator, which grpc drops without a word if the client goes while it writes."""

    def __init__(self, context: ServicerContext, driver: Driver) -> None:
        self.over = False
        self._context = context
        self._driver = driver
        self._ambient = _own_context()

    def when_over(self, _: Any) -> None:
        """grpc's task for the RPC has ended; if the flows do not know, they get the outcome."""
        if not self.over:
            self.over = True
            outcome = self._context.outcome(None, None, self._context.why_gone())
            outcome._replayable = False
            step = self._ambient.run(self._driver.tell, outcome)
            self._context.over()
            if type(step) is Wait:
                work = _attend(self._driver, step, self._context)
                asyncio.get_running_loop().create_task(work, context=self._ambient)

    async def close(self, messages: Any) -> None:
        """Let the handler's generator clean up where its context variables are."""
        await asyncio.get_running_loop().create_task(messages.aclose(), context=self._ambient)


def _own_context() -> Context:
    """The context of this RPC's task; before Python 3.12 a copy, in which its variables are seen, and no token is known."""
    task = asyncio.current_task()
    return task.get_context() if hasattr(task, "get_context") else copy_context()  # type: ignore[union-attr]
