"""One event loop and one server of each sort for all tests of a file: what is served on them changes from test to test.

Sorts: "sync" (a `grpc.server`), "plain" (a `grpc.aio.server` with plain handlers), "async" (the same with async ones).
The loop runs in a thread of its own, so that every test may wait like a plain program.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from concurrent import futures
from contextlib import contextmanager
from typing import Any, TypeVar

import grpc
import grpc.aio

from tests.support.patience import PATIENCE

T = TypeVar("T")

WORKERS = 10  # threads of a server's pool
NO_CORE_RETRIES = ("grpc.enable_retries", 0)
FENCE = "/facts.Fence/Pass"  # nothing serves it


class Loop:
    """The event loop of the file."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        self._loop = loop = asyncio.new_event_loop()
        loop.set_default_executor(_filled(2))
        thread = threading.Thread(target=loop.run_forever, name="facts", daemon=True)
        thread.start()
        try:
            yield
            gc.collect()
            self.run(emptied())
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(PATIENCE)
            loop.close()
            self._loop = None

    def run(self, work: Coroutine[Any, Any, T], patience: float = 3 * PATIENCE) -> T:
        """Wait for a coroutine; what is awaited twice as long as it may take is a hang."""
        assert self._loop is not None, 'the file needs `pytestmark = pytest.mark.usefixtures("hosts")`'
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(patience)

    def do(self, work: Callable[[], T]) -> T:
        """Call a function on the loop."""

        async def done() -> T:
            return work()

        return self.run(done())


LOOP = Loop()


def on_the_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an `async def` test on the loop of the file."""

    @functools.wraps(test)
    def run(**arguments: Any) -> None:
        LOOP.run(test(**arguments))

    return run


async def within(work: Awaitable[T]) -> T:
    """Wait for something; TimeoutError if it hangs."""

    async def awaited() -> T:
        return await work

    return await asyncio.wait_for(awaited(), PATIENCE)


async def reached(event: threading.Event | threading.Semaphore) -> None:
    """Wait on a loop for an event of another thread, or take one from a semaphore."""
    async with asyncio.timeout(PATIENCE):
        while not (event.is_set() if isinstance(event, threading.Event) else event.acquire(blocking=False)):  # noqa: ASYNC110  another thread's
            await asyncio.sleep(0.001)


async def no_task_left(before: set[asyncio.Task[Any]]) -> None:
    """Every task that was not there before ends, without being asked to."""
    left = {task for task in asyncio.all_tasks() - before if "AioServer" not in str(task)} - {asyncio.current_task()}
    if left:
        _, left = await asyncio.wait(left, timeout=PATIENCE)
    assert not left


async def emptied() -> None:
    """Let everything end that has something to do on the loop yet: generators that are closed close others."""
    loop = asyncio.get_running_loop()
    for _ in range(3):
        await loop.shutdown_asyncgens()
        await asyncio.sleep(0)
        await no_task_left(set())
    await loop.shutdown_default_executor()


class Host(grpc.GenericRpcHandler):
    """A server that serves what the test at hand wants served, with its interceptors around it."""

    def __init__(self, sort: str) -> None:
        self.sort = sort
        self.target = ""
        self.interceptors: Sequence[Any] = ()
        self.services: Sequence[grpc.GenericRpcHandler] = ()
        self._keeper: Any = None

    def service(self, details: Any) -> Any:
        if details.method == FENCE:
            return None
        return next(filter(None, (service.service(details) for service in self.services)), None)

    @contextmanager
    def running(self) -> Iterator[None]:
        switch = (_SyncSwitch if self.sort == "sync" else _AioSwitch)(self)
        with served(self.sort, [self], [switch]) as (_, self.target, _):
            self._keeper = grpc.insecure_channel(self.target, [NO_CORE_RETRIES])  # its connection is that of all tests
            grpc.channel_ready_future(self._keeper).result(PATIENCE)
            yield
            self._keeper.close()

    @contextmanager
    def serving(self, services: Sequence[Any], interceptors: Sequence[Any] = ()) -> Iterator[str]:
        self.services, self.interceptors = services, interceptors
        before = LOOP.do(asyncio.all_tasks)
        try:
            yield self.target
            LOOP.run(no_task_left(before))
        finally:
            self.stop_serving()

    def stop_serving(self) -> None:
        """The end of a test. A server may take up an RPC after its client has left; the next test must not meet it.

        A connection keeps its order, so when this call is refused, all calls before it have found their handlers.
        """
        refusal = self._keeper.unary_unary(FENCE).future(b"", timeout=PATIENCE, wait_for_ready=True).exception()
        assert refusal.code() is grpc.StatusCode.UNIMPLEMENTED
        self.services = self.interceptors = ()

    def around(self, continuation: Any, details: Any) -> Any:
        """The continuation with the interceptors of the test around it, as grpc would chain them."""
        for interceptor in reversed(() if details.method == FENCE else self.interceptors):
            continuation = functools.partial(interceptor.intercept_service, continuation)
        return continuation


class _SyncSwitch(grpc.ServerInterceptor):
    def __init__(self, host: Host) -> None:
        self._host = host

    def intercept_service(self, continuation: Any, details: Any) -> Any:
        return self._host.around(continuation, details)(details)


class _AioSwitch(grpc.aio.ServerInterceptor):
    def __init__(self, host: Host) -> None:
        self._host = host

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        return await self._host.around(continuation, details)(details)


HOSTS = {sort: Host(sort) for sort in ("sync", "plain", "async")}


@contextmanager
def served(
    sort: str,
    services: Sequence[Any],
    interceptors: Sequence[Any] = (),
    *,
    workers: int = WORKERS,
    limit: int | None = None,
    address: str = "127.0.0.1:0",
) -> Iterator[tuple[Any, str, Callable[[float | None], None]]]:
    """A server of this sort: itself, its target, and what stops it. limit: grpc's maximum_concurrent_rpcs."""
    pool = _filled(workers)
    options = [("grpc.so_reuseport", 0)]
    given = {"interceptors": list(interceptors), "maximum_concurrent_rpcs": limit, "options": options}
    server: Any = None

    def begin() -> int:
        nonlocal server
        server = grpc.server(pool, **given) if sort == "sync" else grpc.aio.server(pool, **given)
        for service in services:
            if isinstance(service, grpc.GenericRpcHandler):
                server.add_generic_rpc_handlers((service,))
            else:
                service(server)
        return int(server.add_insecure_port(address))

    def stop(grace: float | None) -> None:
        if sort == "sync":
            assert server.stop(grace).wait(PATIENCE), "stop() did not return"
        else:
            LOOP.run(server.stop(grace))

    port = begin() if sort == "sync" else LOOP.do(begin)
    _ = server.start() if sort == "sync" else LOOP.run(server.start())
    try:
        yield server, address.replace(":0", f":{port}"), stop
    finally:
        stop(None)
        pool.shutdown()


def _filled(workers: int) -> futures.ThreadPoolExecutor:
    """A pool whose threads all run: one that begins in a later test would count as left behind by it."""
    pool = futures.ThreadPoolExecutor(workers)
    together = threading.Barrier(workers + 1)
    for _ in range(workers):
        pool.submit(together.wait, PATIENCE)
    together.wait(PATIENCE)
    return pool
