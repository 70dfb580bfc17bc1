"""The context that an async handler sees: grpc's own, but what the handler decides is recorded, and sent later."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from typing import Any, NoReturn

import grpc
import grpc.aio

from interpose._call import NOTHING, Call
from interpose._messages import Pass, compose
from interpose._outcome import Outcome
from interpose._scope import Scope
from interpose._shell.answer import Abort, Answer, contained
from interpose._shell.native import EOF


class _Raising:
    """What `abort` gives: raises when awaited. The status is recorded even if it is not awaited."""

    __slots__ = ("_abort",)

    def __init__(self, abort: Abort) -> None:
        self._abort = abort

    def __await__(self) -> Generator[Any, Any, NoReturn]:
        raise self._abort
        yield


async def _while_there(sending: Awaitable[Any]) -> Any:
    """What is sent may find the client gone, which grpc has not said yet: then there is nothing to answer.

    grpc would log its own failed write as a fault of the servicer. It takes CancelledError for what this is.
    """
    try:
        return await sending
    except grpc.aio.InternalError:
        raise asyncio.CancelledError from None


class ServicerContext(Answer, grpc.aio.ServicerContext[Any, Any]):  # type: ignore[misc]  # None without a deadline
    """A `grpc.aio.ServicerContext` over grpc's own."""

    of_the_task = (asyncio.CancelledError, TimeoutError)
    on_request: Pass | None = None
    on_response: Pass | None = None

    def begin(self, call: Call) -> None:
        """The handler is about to be called with this call; messages of `read` and `write` pass its hooks too."""
        super().begin(call)
        if call._asks is not NOTHING:
            self.on_request = compose(call._asks.requests)
            self.on_response = compose(call._asks.responses)

    async def read(self) -> Any:
        """The next request message, or EOF."""
        message = await self._native.read()
        if message is EOF:
            await self.confirm_end()
            return message
        self.received += 1
        return message if self.on_request is None else self.on_request(message)

    async def write(self, message: Any) -> None:
        """Send one response message."""
        await self._native.write(await self.outgoing(message))
        self.sent += 1

    async def outgoing(self, message: Any) -> Any:
        """One response message as interceptors leave it, with what has to go in front of it."""
        self.check_time()
        if self.initial_metadata_due:
            await self.send_initial_metadata_if_due()
        return message if self.on_response is None else self.on_response(message)

    async def send_initial_metadata(self, initial_metadata: Any) -> None:
        """Send metadata in front of the response, behind what interceptors put there."""
        await self._native.send_initial_metadata(self.initial_metadata(initial_metadata))

    def abort(self, code: Any, details: Any = "", trailing_metadata: Any = ()) -> Any:
        """End the RPC with a status. Await it; if that is forgotten, the RPC fails all the same."""
        if self._abort is not None:
            raise grpc.aio.UsageError("Abort already called!")
        return _Raising(self.record_abort(code, details or self._details, trailing_metadata))

    def abort_with_status(self, status: Any) -> Any:
        """End the RPC with a `grpc.Status`."""
        return self.abort(status.code, status.details, status.trailing_metadata or ())

    def trailing_metadata(self) -> Any:
        return self._trailing or ()

    def details(self) -> Any:
        return self._details or ""

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        told = contained(callback)
        self._native.add_done_callback(lambda _: told(self))

    def cancelled(self) -> bool:
        return bool(self._native.cancelled())

    def done(self) -> bool:
        return bool(self._native.done())

    # - for the shell -

    def scope(self) -> Scope:
        """What ends with this RPC; a new one."""
        scope = Scope()
        self._native.add_done_callback(lambda _: scope.close())
        return scope

    async def confirm_end(self) -> None:
        """The request stream has ended; raises CancelledError if that is because the client cancelled or its time is up.

        grpc.aio ends the stream in that case as if the client had been done, and cancels the handler a moment later.
        Another read is answered by the core after that news, so a handler that waits for it is cancelled first.
        """
        await self._native.read()

    async def send_initial_metadata_if_due(self) -> None:
        """Send what interceptors asked for, if the handler has not sent its own with it."""
        if self.initial_metadata_due:
            await self._native.send_initial_metadata(self.initial_metadata())

    async def answer(self, outcome: Outcome) -> Any:
        """Send the outcome of the RPC: gives the response, or raises what makes grpc send the status."""
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            self.over()
            raise asyncio.CancelledError  # no client listens any more
        closing = self.closing(outcome)
        if closing.initial:
            await _while_there(self._native.send_initial_metadata(closing.initial))
        if closing.trailing:
            self._native.set_trailing_metadata(tuple(closing.trailing))
        if closing.ok:
            if closing.details:
                self._native.set_details(closing.details)
            return closing.response
        if closing.error is not None:
            if closing.code is not None:
                self._native.set_code(closing.code)
            raise closing.error
        return await _while_there(self._native.abort(closing.code, closing.details))
