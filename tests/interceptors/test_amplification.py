"""What an outage costs the backend: attempts that reach it, with a budget and, for comparison, in a bare loop.

Real servers on the loopback, which count what they execute. Pauses pass on a `FakeClock`, so nothing here depends on how
fast the machine is: "back to normal within two seconds" is a hundred calls of a load of fifty per second.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from typing import Any, TypeAlias

import grpc
import grpc.aio
import pytest

from interpose import intercept_channel
from interpose.interceptors import Retry
from interpose.testing import FakeClock

pytestmark = pytest.mark.slow  # fleets of clients

ATTEMPTS = 5
CALLS = 600
CHAINED = 200  # calls through the chain
AT_ONCE = 8  # calls under way at the same time
SERVICES = 3  # in the chain, each of which tries again

RECOVERY = 2.0  # seconds
INTERVAL = 0.02  # seconds between two calls of a load of fifty per second

METHOD = "/shop.v1.Shop/Buy"

Ask: TypeAlias = Callable[[], bool]  # make one call; was it answered?
AskLater: TypeAlias = Callable[[], Awaitable[bool]]


class Backend:
    """The service at the end: refuses while it is dead, and counts what it executes either way."""

    def __init__(self) -> None:
        self.executed = 0
        self.dead = True
        self.to_refuse = 0  # calls, although it is well
        self._lock = threading.Lock()

    def __call__(self) -> bool:
        """Execute a call; False: it fails."""
        with self._lock:
            self.executed += 1
            refused = self.to_refuse > 0
            self.to_refuse -= refused
            return not (self.dead or refused)

    def recover(self) -> None:
        """Be well, and count anew."""
        self.dead, self.executed = False, 0


# --- sync -----------------------------------------------------------------------------------------------------------


@contextmanager
def served(ask: Ask) -> Generator[str]:
    """A service that answers what it asks, and fails when that fails; gives its address."""

    def handle(request: bytes, context: grpc.ServicerContext) -> bytes:
        if not ask():
            context.abort(grpc.StatusCode.UNAVAILABLE, "down")
        return b""

    with ThreadPoolExecutor(AT_ONCE) as pool:
        server = grpc.server(pool)
        server.add_generic_rpc_handlers((handlers(handle),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(None).wait()


@contextmanager
def client(target: str, clock: FakeClock | None) -> Generator[Ask]:
    """A client that tries again: with `Retry` if there is a clock, else in a bare loop."""
    with grpc.insecure_channel(target, Retry.channel_options()) as bare:
        channel = bare if clock is None else intercept_channel(bare, retry(clock), clock=clock)
        stub: Any = channel.unary_unary(METHOD)

        def once() -> bool:
            try:
                stub(b"")
            except grpc.RpcError:
                return False
            return True

        yield once if clock else lambda: any(once() for _ in range(ATTEMPTS))


@contextmanager
def chained(backend: Backend, clock: FakeClock | None) -> Generator[Ask]:
    """Three services that each try again, before the backend."""
    with ExitStack() as services:
        ask: Ask = backend
        for _ in range(SERVICES):
            ask = services.enter_context(client(services.enter_context(served(ask)), clock))
        yield ask


def together(ask: Ask, calls: int) -> int:
    """Make the calls, several at once; how many were answered."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return sum(pool.map(lambda _: ask(), range(calls)))


# --- asyncio --------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def served_aio(ask: AskLater) -> AsyncGenerator[str]:
    """The same service on an asyncio server."""

    async def handle(request: bytes, context: Any) -> bytes:
        if not await ask():
            await context.abort(grpc.StatusCode.UNAVAILABLE, "down")
        return b""

    server = grpc.aio.server()
    server.add_generic_rpc_handlers((handlers(handle),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


@asynccontextmanager
async def client_aio(target: str, clock: FakeClock | None) -> AsyncGenerator[AskLater]:
    """The same client on an asyncio channel."""
    async with grpc.aio.insecure_channel(target, Retry.channel_options()) as bare:
        channel = bare if clock is None else intercept_channel(bare, retry(clock), clock=clock)
        stub: Any = channel.unary_unary(METHOD)

        async def once() -> bool:
            try:
                await stub(b"")
            except grpc.RpcError:
                return False
            return True

        async def loop() -> bool:
            for _ in range(ATTEMPTS):
                if await once():
                    return True
            return False

        yield once if clock else loop


@asynccontextmanager
async def chained_aio(backend: Backend, clock: FakeClock | None) -> AsyncGenerator[AskLater]:
    """The same chain of asyncio services."""
    async with AsyncExitStack() as services:
        ask = later(backend)
        for _ in range(SERVICES):
            target = await services.enter_async_context(served_aio(ask))
            ask = await services.enter_async_context(client_aio(target, clock))
        yield ask


def later(backend: Backend) -> AskLater:
    """The backend as an asyncio service asks it."""

    async def ask() -> bool:
        return backend()

    return ask


async def together_aio(ask: AskLater, calls: int) -> int:
    """Make the calls, several at once; how many were answered."""
    left = itertools.repeat(None, calls)

    async def caller() -> int:
        return sum([await ask() for _ in left])

    return sum(await asyncio.gather(*(caller() for _ in range(AT_ONCE))))


# --- both -----------------------------------------------------------------------------------------------------------


def handlers(handle: Callable[..., Any]) -> grpc.GenericRpcHandler:
    """What a server needs to serve the method."""
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(handle)
    return grpc.method_handlers_generic_handler("shop.v1.Shop", {"Buy": handler})


def retry(clock: FakeClock) -> Retry:
    """What is measured: five attempts, and the budget that it has by itself."""
    return Retry(ATTEMPTS, safe=True)


def times(backend: Backend, calls: int) -> str:
    """The figure, for who reads that it was too high."""
    return f"{backend.executed} executions of {calls} calls: {backend.executed / calls:.3f} x"


# --- one service ----------------------------------------------------------------------------------------------------


def test_a_dead_backend_is_not_met_with_five_times_the_load() -> None:
    """600 calls of five attempts cost at most 1.2 times the calls, and 70 attempts."""
    backend = Backend()
    with served(backend) as target, client(target, FakeClock(auto=True)) as ask:
        answered = together(ask, CALLS)

    assert answered == 0
    assert CALLS <= backend.executed <= 1.2 * CALLS + 70, times(backend, CALLS)


def test_a_bare_loop_meets_it_with_five_times_the_load() -> None:
    """For comparison: every call is sent five times."""
    backend = Backend()
    with served(backend) as target, client(target, None) as ask:
        together(ask, 150)

    assert backend.executed == 5.0 * 150, times(backend, 150)


async def test_a_dead_backend_is_not_met_with_five_times_the_load_of_tasks() -> None:
    """The same bound on asyncio."""
    backend = Backend()
    async with served_aio(later(backend)) as target, client_aio(target, FakeClock(auto=True)) as ask:
        answered = await together_aio(ask, CALLS)

    assert answered == 0
    assert CALLS <= backend.executed <= 1.2 * CALLS + 70, times(backend, CALLS)


async def test_a_bare_loop_of_tasks_meets_it_with_five_times_the_load() -> None:
    """The same comparison on asyncio."""
    backend = Backend()
    async with served_aio(later(backend)) as target, client_aio(target, None) as ask:
        await together_aio(ask, 150)

    assert backend.executed == 5.0 * 150, times(backend, 150)


# --- a chain of three -----------------------------------------------------------------------------------------------


def test_retries_of_retries_do_not_multiply() -> None:
    """Three services that each try five times cost a dead backend at most 1.8 times the calls.

    When it is well again there is no storm: each call is executed once. Two seconds later their budgets are full: for a
    call that is refused five times the last service uses all of its attempts, and the one before it sends the sixth.
    """
    backend, clock = Backend(), FakeClock(auto=True)
    with chained(backend, clock) as ask:
        answered = together(ask, CHAINED)
        assert answered == 0
        assert CHAINED <= backend.executed <= 1.8 * CHAINED, times(backend, CHAINED)

        backend.recover()
        recovered = clock.now()
        for _ in range(round(RECOVERY / INTERVAL)):
            assert ask(), f"{clock.now() - recovered:.2f} s after the recovery"
            clock.advance(INTERVAL)
        assert backend.executed == round(RECOVERY / INTERVAL)

        backend.to_refuse = ATTEMPTS
        assert ask(), f"refused {ATTEMPTS} times, and not tried again"
        assert backend.executed == round(RECOVERY / INTERVAL) + ATTEMPTS + 1


def test_retries_of_bare_loops_multiply() -> None:
    """For comparison: five times five times five attempts for every call."""
    backend = Backend()
    with chained(backend, None) as ask:
        together(ask, 6)

    assert backend.executed == 125 * 6, times(backend, 6)


async def test_retries_of_retries_do_not_multiply_on_asyncio() -> None:
    """The same bound, the same recovery."""
    backend, clock = Backend(), FakeClock(auto=True)
    async with chained_aio(backend, clock) as ask:
        answered = await together_aio(ask, CHAINED)
        assert answered == 0
        assert CHAINED <= backend.executed <= 1.8 * CHAINED, times(backend, CHAINED)

        backend.recover()
        recovered = clock.now()
        for _ in range(round(RECOVERY / INTERVAL)):
            assert await ask(), f"{clock.now() - recovered:.2f} s after the recovery"
            clock.advance(INTERVAL)
        assert backend.executed == round(RECOVERY / INTERVAL)

        backend.to_refuse = ATTEMPTS
        assert await ask(), f"refused {ATTEMPTS} times, and not tried again"
        assert backend.executed == round(RECOVERY / INTERVAL) + ATTEMPTS + 1


async def test_retries_of_bare_loops_multiply_on_asyncio() -> None:
    """The same comparison."""
    backend = Backend()
    async with chained_aio(backend, None) as ask:
        await together_aio(ask, 6)

    assert backend.executed == 125 * 6, times(backend, 6)
