"""The callers of a run: each performs an RPC as it is planned, and tells the book the one outcome that it got."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeAlias

import grpc
import grpc.aio

from interpose import Kind
from interpose.testing.echo import decode, encode
from tests.support.patience import PATIENCE
from tests.torture.book import CANCELLED, FLAT, NUMBER, OK, TALL, Book, Owner, Plan

Outcome: TypeAlias = tuple[grpc.StatusCode, list[str]]


def stubs(channel: Any) -> dict[tuple[str, Kind], Any]:
    """The multi-callables of both services."""
    return {
        (service, kind): getattr(channel, kind.value)(f"/{service}/{kind.value}", encode, decode)
        for service in (FLAT, TALL)
        for kind in Kind
    }


def timeout(plan: Plan) -> float | None:
    """The deadline of an RPC; for every second one that nobody limits, a long one."""
    if plan.ending == "deadline":
        return plan.moment
    return None if plan.number % 2 else 2 * PATIENCE


class SyncCaller:
    """Calls over a sync channel; each call holds a thread."""

    def __init__(self, book: Book, channel: Any, readers: ThreadPoolExecutor) -> None:
        self._book = book
        self._stubs = stubs(channel)
        self._readers = readers

    def perform(self, plan: Plan) -> None:
        """Perform it, and tell the book."""
        self._book.call(plan.number)
        try:
            outcome = self._perform(plan)
        except BaseException as error:
            self._book.fault(plan.number, f"the caller got {error!r}")
        else:
            self._book.outcome(plan.number, outcome)

    def _perform(self, plan: Plan) -> Outcome | None:
        stub = self._stubs[plan.service, plan.kind]
        streaming = plan.kind.response_streaming
        if not streaming and not plan.api and plan.ending in {"wait", "deadline"}:
            return self._blocking(plan, stub)
        owner = Owner(self._book, plan.number, "caller's callback")
        call = (stub if streaming else stub.future)(self._requests(plan, owner), **self._options(plan))
        call.add_done_callback(owner.called)
        if plan.ending == "drop":
            with suppress(grpc.RpcError):
                for _ in range(plan.reads if streaming else 0):
                    next(call, None)
            return None
        take = _read if streaming else _result
        if plan.ending != "cancel":
            return take(call)
        taken = self._readers.submit(take, call)
        owner.over.wait(plan.moment)
        call.cancel()
        return taken.result(PATIENCE)

    def _blocking(self, plan: Plan, stub: Any) -> Outcome:
        options = self._options(plan) | {"timeout": timeout(plan) or PATIENCE}  # nobody else would end it
        try:
            response, _ = stub.with_call(self._requests(plan, None), **options)
        except grpc.RpcError as error:
            return error.code(), []
        return OK, [response]

    def _options(self, plan: Plan) -> dict[str, Any]:
        return {"timeout": timeout(plan), "metadata": ((NUMBER, str(plan.number)),)}

    def _requests(self, plan: Plan, owner: Owner | None) -> Any:
        if not plan.kind.request_streaming:
            return plan.sent()[0]
        return _paced(plan, owner)


def _paced(plan: Plan, owner: Owner | None) -> Iterator[str]:
    for message in plan.sent():
        if owner is not None and plan.gap:
            owner.over.wait(plan.gap)
        yield message


def _result(call: Any) -> Outcome:
    try:
        return OK, [call.result(PATIENCE)]
    except grpc.FutureCancelledError:
        return CANCELLED, []
    except grpc.RpcError as error:
        return error.code(), []


def _read(call: Any) -> Outcome:
    messages: list[str] = []
    try:
        messages.extend(iter(call))
    except grpc.RpcError as error:
        return error.code(), messages
    return call.code(), messages


class AioCaller:
    """Calls over an asyncio channel."""

    def __init__(self, book: Book, channel: Any) -> None:
        self.channel = channel
        self._book = book
        self._stubs = stubs(channel)

    async def perform(self, plan: Plan) -> None:
        """Perform it, and tell the book."""
        self._book.call(plan.number)
        try:
            async with asyncio.timeout(PATIENCE) as limit:
                outcome = await self._perform(plan)
        except BaseException as error:
            self._book.fault(plan.number, f"the caller got {error!r}")
        else:
            if limit.expired():  # and the call took the cancel for its own
                self._book.fault(plan.number, "the caller was hung")
            self._book.outcome(plan.number, outcome)

    async def _perform(self, plan: Plan) -> Outcome | None:
        call = self._start(plan)
        call.add_done_callback(Owner(self._book, plan.number, "caller's callback").called)
        if plan.ending == "drop":
            await self._drop(plan, call)
            return None
        messages: list[str] = []
        leaving = None
        if plan.ending == "cancel":
            leaving = asyncio.get_running_loop().call_later(plan.moment, call.cancel)
        try:
            await self._take(plan, call, messages)
            return await call.code(), messages
        except asyncio.CancelledError:
            return CANCELLED, messages
        except grpc.RpcError as error:
            return error.code(), messages
        finally:
            if leaving is not None:
                leaving.cancel()

    def _start(self, plan: Plan) -> Any:
        stub = self._stubs[plan.service, plan.kind]
        options: dict[str, Any] = {"timeout": timeout(plan), "metadata": ((NUMBER, str(plan.number)),)}
        if not plan.kind.request_streaming:
            return stub(plan.sent()[0], **options)
        return stub(**options) if self._writes(plan) else stub(_paced_aio(plan), **options)

    def _writes(self, plan: Plan) -> bool:
        return plan.api and plan.kind.request_streaming and plan.ending != "drop"

    async def _take(self, plan: Plan, call: Any, messages: list[str]) -> None:
        if self._writes(plan):
            # Once the RPC has ended, writes are refused; how it ended is told to whoever reads.
            # `done_writing` may then find a call that grpc cannot close any more: `InternalError` of grpc's core.
            with suppress(grpc.RpcError, asyncio.InvalidStateError, grpc.aio.InternalError):
                async for message in _paced_aio(plan):
                    await call.write(message)
                await call.done_writing()
        if not plan.kind.response_streaming:
            messages.append(await call)
        elif plan.api:
            while (message := await call.read()) is not grpc.aio.EOF:
                messages.append(message)
        else:
            async for message in call:
                messages.append(message)  # noqa: PERF401  what came before a failure counts

    async def _drop(self, plan: Plan, call: Any) -> None:
        with suppress(grpc.RpcError):
            for _ in range(plan.reads if plan.kind.response_streaming else 0):
                await call.read()


async def _paced_aio(plan: Plan) -> AsyncIterator[str]:
    for message in plan.sent():
        if plan.gap:
            await asyncio.sleep(plan.gap)
        yield message
