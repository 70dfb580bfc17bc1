"""Handlers on an asyncio server come in many shapes; here each becomes one that an interceptor can call.

An async generator function and a coroutine function are what they seem. One that calls `context.read` and
`context.write` hands its messages past its interceptors, unless they ask. A plain one belongs into a thread.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterator
from contextvars import copy_context
from functools import partial
from typing import Any, TypeAlias

from interpose._method import Kind
from interpose._shell.native import EOF

Behaviour: TypeAlias = Callable[..., Any]

_END = object()


def shaped(function: Behaviour, kind: Kind) -> Behaviour:
    """The handler's function as interceptors call it."""
    if kind.response_streaming and inspect.iscoroutinefunction(function):
        return partial(Written, function)
    if _is_async(function) or _is_async(inspect.unwrap(function)) or _is_async(getattr(function, "__call__", None)):  # noqa: B004  it is not asked whether it can be called, but what happens then
        return function
    return partial(_pulled if kind.response_streaming else _called, function, kind)


def _is_async(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


# --- read and write ---------------------------------------------------------------------------------------------------


class _Context:
    """A context with something changed; all else is as it was."""

    def __init__(self, native: Any) -> None:
        self._native = native

    def __getattr__(self, name: str) -> Any:
        return getattr(self._native, name)


class Reading(_Context):
    """The context of a handler whose requests an interceptor has replaced: `read` gives those."""

    def __init__(self, native: Any, requests: Any) -> None:
        super().__init__(native)
        self._requests = requests
        self._reader: Any = None

    async def read(self) -> Any:
        """The next message, or EOF."""
        if self._reader is None:
            self._reader = aiter(self._requests)
        message = await anext(self._reader, _END)
        return EOF if message is _END else message


class _Writing(_Context):
    """The context of a handler whose messages an interceptor iterates: `write` returns when one was passed on."""

    def __init__(self, native: Any) -> None:
        super().__init__(native)
        self.messages: asyncio.Queue[tuple[Any, asyncio.Future[None] | None]] = asyncio.Queue()

    async def write(self, message: Any) -> None:
        taken = asyncio.get_running_loop().create_future()
        self.messages.put_nowait((message, taken))
        await taken


class Written(Coroutine[Any, Any, Any]):
    """The answer of a handler that calls `context.write`: await it, and it writes to its client.

    Or iterate it, and it writes to you. `hasattr(…, "__aiter__")` is false all the same: interceptors ask that to
    learn whether to await, and awaiting is what such a handler is for.
    """

    def __init__(self, function: Behaviour, requests: Any, context: Any) -> None:
        self._function = function
        self._requests = requests
        self._context = context
        self._running: Any = None

    def __getattribute__(self, name: str) -> Any:
        if name == "__aiter__":
            raise AttributeError(name)
        return super().__getattribute__(name)

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._messages()

    def __await__(self) -> Generator[Any, Any, Any]:
        running: Generator[Any, Any, Any] = self._coroutine().__await__()
        return running

    def send(self, value: Any) -> Any:
        return self._coroutine().send(value)

    def throw(self, *raised: Any) -> Any:
        return self._coroutine().throw(*raised)

    def close(self) -> None:
        if self._running is not None:
            self._running.close()

    def _coroutine(self) -> Any:
        if self._running is None:
            self._running = self._function(self._requests, self._context)
        return self._running

    async def _messages(self) -> AsyncIterator[Any]:
        context = _Writing(self._context)
        handler = asyncio.ensure_future(self._function(self._requests, context))
        handler.add_done_callback(lambda _: context.messages.put_nowait((_END, None)))
        try:
            while (item := await context.messages.get())[0] is not _END:
                message, taken = item
                yield message
                if taken is not None and not taken.done():
                    taken.set_result(None)
            await handler
        finally:
            if not handler.done():  # the rest is not wanted
                handler.cancel()
                await asyncio.gather(handler, return_exceptions=True)


# --- plain handlers ---------------------------------------------------------------------------------------------------


async def _called(function: Behaviour, kind: Kind, argument: Any, context: Any) -> Any:
    """Call a plain handler in a thread; its response."""
    thread = _Thread(context)
    return await _awaited(await thread.run(function, thread.argument(kind, argument), thread.context))


async def _pulled(function: Behaviour, kind: Kind, argument: Any, context: Any) -> AsyncIterator[Any]:
    """Call a plain handler in a thread, and pull its responses there."""
    thread = _Thread(context)
    messages = await _awaited(await thread.run(function, thread.argument(kind, argument), thread.context))
    if hasattr(messages, "__aiter__"):
        async for message in messages:
            yield message
        return
    try:
        while messages is not None and (message := await thread.run(next, messages, _END)) is not _END:
            yield message
    finally:
        close = getattr(messages, "close", None)
        if close is not None:
            await thread.run(close)


async def _awaited(answer: Any) -> Any:
    # A function that gives a coroutine is none itself: `lambda request, context: handle(request, context)`.
    return await answer if inspect.isawaitable(answer) else answer


class _Thread:
    """Where one RPC's plain handler runs: threads of the loop's default pool, with what interceptors left in the context."""

    def __init__(self, native: Any) -> None:
        self._loop = asyncio.get_running_loop()
        self._ambient = copy_context()
        # One thing at a time: a generator is closed once its last message is there, though no thread waits for it.
        self._turn = threading.Lock()
        self.context = PlainContext(native, self._loop)

    def run(self, function: Behaviour, *arguments: Any) -> Awaitable[Any]:
        def work() -> Any:
            with self._turn:
                return self._ambient.run(function, *arguments)

        return self._loop.run_in_executor(None, work)

    def argument(self, kind: Kind, argument: Any) -> Any:
        return _Requests(argument, self._loop) if kind.request_streaming else argument


class _Requests:
    """A request stream for a plain handler, which iterates it in its thread."""

    def __init__(self, messages: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._messages = messages
        self._loop = loop
        self._reader: Any = None

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        message = asyncio.run_coroutine_threadsafe(self._next(), self._loop).result()
        if message is _END:
            raise StopIteration
        return message

    def __aiter__(self) -> Any:
        return aiter(self._messages)

    async def _next(self) -> Any:
        if self._reader is None:
            self._reader = aiter(self._messages)
        return await anext(self._reader, _END)


class PlainContext(_Context):
    """The context of a plain handler: what is awaited on asyncio blocks its thread."""

    def __init__(self, native: Any, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(native)
        self._loop = loop
        self._thread = threading.get_ident()

    def abort(self, code: Any, details: str = "", trailing_metadata: Any = ()) -> Any:
        return self._done(self._native.abort, code, details, trailing_metadata)

    def abort_with_status(self, status: Any) -> Any:
        return self._done(self._native.abort_with_status, status)

    def send_initial_metadata(self, initial_metadata: Any) -> Any:
        return self._done(self._native.send_initial_metadata, initial_metadata)

    def is_active(self) -> bool:
        return not self._native.done()

    def add_callback(self, callback: Callable[[], object]) -> bool:
        self._loop.call_soon_threadsafe(self._native.add_done_callback, lambda _: callback())
        return self.is_active()

    def _done(self, function: Behaviour, *arguments: Any) -> Any:
        async def work() -> Any:
            return await function(*arguments)

        if threading.get_ident() == self._thread:  # an async function was hidden in a plain one: it awaits this itself
            return work()
        return asyncio.run_coroutine_threadsafe(work(), self._loop).result()
