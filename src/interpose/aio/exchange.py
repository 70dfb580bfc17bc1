"""One RPC on asyncio, from the call of the stub to its end, awaited or not. What a loop does differently.

It has no task of its own: grpc's call brings the event of its end, and the drive is turned there and then; a task is made
only for what a flow awaits. Everything happens on the loop's thread; only a finalizer, a Future or a scope may come from
elsewhere.
"""

from __future__ import annotations

import asyncio
from asyncio import InvalidStateError
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from contextvars import Context, copy_context
from typing import Any

from interpose._clock import Alarm
from interpose._flow import Driver, Wait
from interpose._grpcio.aio_calls import AioRpcError
from interpose._outcome import Outcome
from interpose._shell import exchange as shell
from interpose._shell.exchange import REFUSAL_GAP
from interpose._shell.native import Route, exception_of
from interpose._shell.owner import UnderWay
from interpose.aio import attempt as attempts
from interpose.aio.attempt import Attempt
from interpose.aio.joining import Awaited, call_later
from interpose.aio.requests import FINISHED, Requests


class Exchange(shell.Exchange, attempts.Owner):
    """One RPC, from the call of the stub to its end."""

    __slots__ = ("_changed", "_looking", "loop", "written")

    attempts = Attempt
    attempt: Attempt | None

    def __init__(
        self,
        route: Route,
        driver: Driver,
        context: Context,
        deadline: float | None,
        requests: Requests | None,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(route, driver, context, deadline, requests)
        self.loop = loop
        self.written = 0
        self._changed: list[asyncio.Future[None]] = []
        self._looking: asyncio.Task[None] | None = None

    # - what a loop does differently -

    def another(self, driver: Driver, context: Context) -> Exchange:
        return Exchange(self.route, driver, context, self.deadline, self.requests, self.loop)

    def await_(self, step: Wait) -> None:
        Awaited(self, step, self.loop).begin()

    def later(self, seconds: float, callback: Callable[[], object]) -> Alarm:
        return call_later(self.route.clock, self.loop, seconds, callback)

    def from_any_thread(self, callback: Callable[[], object]) -> Callable[[], object]:
        context = copy_context()  # the application's, in which the native call is to begin, and not that thread's

        def post() -> None:
            with suppress(RuntimeError):  # the loop is closed: no task waits any more
                self.loop.call_soon_threadsafe(callback, context=context)

        return post

    def guard(self) -> AbstractContextManager[object]:
        return nullcontext()

    def look(self, attempt: Attempt, deliver: Callable[[Any], object]) -> None:
        self._looking = self.loop.create_task(attempt.read(deliver), context=self.context.copy())

    def wake(self) -> None:
        if self._changed:
            for future in self._changed:
                if not future.done():
                    future.set_result(None)
            self._changed.clear()

    def announce(self, outcome: Outcome) -> None:
        if self.requests is not None and self.lane_of is None:  # in a race it is everybody's
            self.requests.stop(InvalidStateError(FINISHED) if outcome.ok else self.exception())
        self.wake()

    def when_closed(self, waiting: UnderWay) -> None:
        self.cancel()  # as grpc.aio cancels the calls that are in flight

    # - what applications ask -

    def error_of_cancel(self) -> BaseException:
        return asyncio.CancelledError()

    def cancel_soon(self) -> None:
        with suppress(RuntimeError):  # the loop is closed: nothing is under way any more
            self.loop.call_soon_threadsafe(self.cancel)

    def abandon(self) -> None:
        """The application dropped the call: a finalizer, on any thread."""
        if self.outcome is None:
            self.cancel_soon()

    def changes(self) -> asyncio.Future[None]:
        future = self.loop.create_future()
        self._changed.append(future)
        return future

    async def end(self) -> Outcome:
        """Wait for the end."""
        while self.outcome is None:
            await self.changes()
        return self.outcome

    async def settled(self, attempt: Attempt) -> None:
        """Wait a moment, if it may be about to fail: a refusal comes with no metadata, and just behind that the status."""
        if self.route.layers and self.attempt is attempt:
            await self.moment()

    async def moment(self) -> None:
        """Wait for changes, but not for long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(REFUSAL_GAP):
                await self.changes()

    async def next_attempt(self, last: Attempt | None = None) -> Attempt | None:
        """Wait for another attempt than `last`; None once all is over."""
        while self.outcome is None:
            if self.attempt is not None and self.attempt is not last:
                return self.attempt
            await self.changes()
        return None

    def exception(self) -> BaseException:
        """What the application gets for the failure."""
        assert self.outcome is not None
        if self.cancelled and not self.scope_is_over:
            return asyncio.CancelledError()
        return exception_of(self.outcome, AioRpcError)
