"""Where RPCs are performed by the thousand: three servers, and a sync and an asyncio channel to each of them.

All asyncio objects live on one loop in a thread of its own.
"""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import grpc
import grpc.aio

from interpose import Kind, errors, intercept_channel, server_interceptor, when
from interpose.testing.echo import decode, encode
from tests.support.patience import PATIENCE
from tests.torture.book import ACTS, FLAT, TALL, Book, Owner, Plan, handled, stack
from tests.torture.callers import AioCaller, SyncCaller
from tests.torture.quiet import Planned

THREADS = 16  # sync callers at a time
TASKS = 64  # asyncio callers at a time

# A server of grpc's core refuses calls, and its clients are told CANCELLED, once a thousand wait to be taken up: those that
# their clients have cancelled meanwhile count too. A loop that is kept busy takes them up one by one.
PATIENT = (("grpc.server.max_pending_requests", 1_000_000), ("grpc.server.max_pending_requests_hard_limit", 1_000_000))
WORKERS = 64  # of each server: a response stream holds one, and an abandoned plain one keeps it until the round is over

MAKE: dict[Kind, Callable[..., Any]] = {
    Kind.UNARY_UNARY: grpc.unary_unary_rpc_method_handler,
    Kind.UNARY_STREAM: grpc.unary_stream_rpc_method_handler,
    Kind.STREAM_UNARY: grpc.stream_unary_rpc_method_handler,
    Kind.STREAM_STREAM: grpc.stream_stream_rpc_method_handler,
}


# --- handlers ---------------------------------------------------------------------------------------------------------


def fails(plan: Plan, begun: int) -> bool:
    """Does the handler fail? begun: how often it was called for this RPC."""
    return plan.act != "answer" and not (plan.act == "fail once" and begun > 1)


def early(plan: Plan) -> list[str]:
    """What a handler sends before it fails."""
    return plan.answers()[:1] if plan.kind.response_streaming and plan.act in {"abort", "raise", "raise status"} else []


class Plain:
    """The plain handlers."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._closed = threading.Event()

    def unary_unary(self, request: str, context: Any) -> str:
        return next(self._answer(iter([request]), context))

    def stream_unary(self, requests: Iterator[str], context: Any) -> str:
        return next(self._answer(requests, context))

    def unary_stream(self, request: str, context: Any) -> Iterator[str]:
        yield from self._answer(iter([request]), context)

    def stream_stream(self, requests: Iterator[str], context: Any) -> Iterator[str]:
        yield from self._answer(requests, context)

    def _answer(self, requests: Iterator[str], context: Any) -> Iterator[str]:
        with handled(self._book, context) as (plan, begun):
            owner = Owner(self._book, plan.number, "handler's callback")
            if not context.add_callback(owner.called):
                owner.called()
            if plan.act == "refuse unread":
                context.abort(ACTS[plan.act], "as planned")
            received = list(requests)
            if received != plan.sent():
                self._book.fault(plan.number, f"the handler was given {received} for a whole")
            if plan.delay:
                self._closed.wait(plan.delay)
            answers = plan.answers()
            if fails(plan, begun):
                yield from early(plan)
                self._fail(plan, context)
            yield from answers

    def _fail(self, plan: Plan, context: Any) -> None:
        code = ACTS[plan.act]
        if plan.act == "raise":
            raise Planned
        if plan.act == "raise status":
            raise errors.of(code)("as planned")
        if plan.act != "set code":
            context.abort(code, "as planned")
        context.set_code(code)


class Async:
    """The async handlers."""

    def __init__(self, book: Book) -> None:
        self._book = book

    async def unary_unary(self, request: str, context: Any) -> str:
        return await anext(self._answer(_each([request]), context))

    async def stream_unary(self, requests: AsyncIterator[str], context: Any) -> str:
        return await anext(self._answer(requests, context))

    async def unary_stream(self, request: str, context: Any) -> AsyncIterator[str]:
        async for response in self._answer(_each([request]), context):
            yield response

    async def stream_stream(self, requests: AsyncIterator[str], context: Any) -> AsyncIterator[str]:
        async for response in self._answer(requests, context):
            yield response

    async def _answer(self, requests: AsyncIterator[str], context: Any) -> AsyncIterator[str]:
        with handled(self._book, context) as (plan, begun):
            context.add_done_callback(Owner(self._book, plan.number, "handler's callback").called)
            if plan.act == "refuse unread":
                await context.abort(ACTS[plan.act], "as planned")
            received = [request async for request in requests]
            if received != plan.sent():
                self._book.fault(plan.number, f"the handler was given {received} for a whole")
            if plan.delay:
                await asyncio.sleep(plan.delay)
            answers = plan.answers()
            if fails(plan, begun):
                for answer in early(plan):
                    yield answer
                await self._fail(plan, context)
            for answer in answers:
                yield answer

    async def _fail(self, plan: Plan, context: Any) -> None:
        code = ACTS[plan.act]
        if plan.act == "raise":
            raise Planned
        if plan.act == "raise status":
            raise errors.of(code)("as planned")
        if plan.act != "set code":
            await context.abort(code, "as planned")
        context.set_code(code)


async def _each(messages: Sequence[str]) -> AsyncIterator[str]:
    for message in messages:
        yield message


def services(servicer: Any) -> tuple[grpc.GenericRpcHandler, ...]:
    """The flat and the tall service."""
    methods = {kind.value: make(getattr(servicer, kind.value), decode, encode) for kind, make in MAKE.items()}
    return tuple(grpc.method_handlers_generic_handler(name, methods) for name in (FLAT, TALL))


# --- servers and channels ---------------------------------------------------------------------------------------------


class Field:
    """The servers and channels of a run; `perform` plays plans on them."""

    def __init__(self, plans: Sequence[Plan]) -> None:
        self.book = Book(plans)
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="field-loop", daemon=True)
        self._callers = ThreadPoolExecutor(THREADS, "field-callers")
        self._readers = ThreadPoolExecutor(THREADS, "field-readers")
        self._workers = [ThreadPoolExecutor(WORKERS, "field-workers") for _ in range(2)]
        self._sync: dict[str, SyncCaller] = {}
        self._aio: dict[str, AioCaller] = {}
        self._channels: list[Any] = []

    def __enter__(self) -> Field:
        self._thread.start()
        self.loop.call_soon_threadsafe(self.loop.set_default_executor, ThreadPoolExecutor(8, "field-loop"))
        self._server = grpc.server(self._workers[0], [], [self._guard()])
        self._server.add_generic_rpc_handlers(services(Plain(self.book)))
        ports = {"sync": self._server.add_insecure_port("127.0.0.1:0")}
        self._server.start()
        self._servers = []
        for sort, servicer in (("async", Async(self.book)), ("plain", Plain(self.book))):
            ports[sort] = self._run(self._serve(servicer))
        for sort, port in ports.items():
            self._sync[sort] = SyncCaller(self.book, self._dial(grpc, port), self._readers)
            self._aio[sort] = AioCaller(self.book, self._run(self._dial_aio(port)))
        return self

    def __exit__(self, *_: object) -> None:
        for channel in self._channels:
            channel.close()
        for caller in self._aio.values():
            self._run(caller.channel.close())
        self._server.stop(PATIENCE).wait(PATIENCE)
        self._run(self._stop())
        for pool in (self._callers, self._readers, *self._workers):
            pool.shutdown()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(PATIENCE)
        self.loop.close()
        gc.collect()  # what complains when it is collected shall do so now

    # - making them -

    def _guard(self) -> Any:
        outermost, below = stack(self.book, "server")
        return server_interceptor(outermost, when(f"/{TALL}/*", *below))

    async def _serve(self, servicer: Any) -> int:
        server = grpc.aio.server(self._workers[1], interceptors=[self._guard()], options=PATIENT)
        server.add_generic_rpc_handlers(services(servicer))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        self._servers.append(server)
        return port

    def _dial(self, api: Any, port: int) -> Any:
        outermost, below = stack(self.book, "client")
        # Its own connection: a channel that closes must not be what another one talks over.
        options = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
        native = api.insecure_channel(f"127.0.0.1:{port}", options)
        channel = intercept_channel(native, outermost, when(f"/{TALL}/*", *below))
        if api is grpc:
            self._channels.append(channel)
        return channel

    async def _dial_aio(self, port: int) -> Any:
        return self._dial(grpc.aio, port)

    async def _stop(self) -> None:
        for server in self._servers:
            await server.stop(PATIENCE)
        await self._release()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=PATIENCE)
        await self.loop.shutdown_asyncgens()
        await self.loop.shutdown_default_executor()

    # - performing -

    def perform(self, plans: Sequence[Plan]) -> list[str]:
        """Perform these RPCs, many at a time, and wait until all is settled; gives the differences."""
        threads = [
            self._callers.submit(self._sync[plan.server].perform, plan) for plan in plans if plan.client == "sync"
        ]
        tasks = self._spawn(self._all([plan for plan in plans if plan.client == "aio"]))
        for done in [*threads, tasks]:
            done.result(10 * PATIENCE)
        gc.collect()  # a call that was dropped may be part of a cycle
        differences = self.book.settle(PATIENCE)
        self._run(self._release())
        return differences

    async def _all(self, plans: Sequence[Plan]) -> None:
        room = asyncio.Semaphore(TASKS)

        async def perform(plan: Plan) -> None:
            async with room:
                await self._aio[plan.server].perform(plan)

        await asyncio.gather(*map(perform, plans))

    def tasks(self) -> int:
        """How many tasks the loop has."""
        return len(asyncio.all_tasks(self.loop))

    async def _release(self) -> None:
        """Let go of the threads of plain generators whose client left: grpc.aio keeps them in Queue.put(), with or without us.

        All RPCs have ended.
        """
        while stuck := [
            task for task in asyncio.all_tasks() if getattr(task.get_coro(), "__qualname__", "") == "Queue.put"
        ]:
            for task in stuck:
                task.cancel()
            await asyncio.wait(stuck)

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self._spawn(work).result(2 * PATIENCE)
