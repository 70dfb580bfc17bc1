"""FaultProxy: each fault as real clients see it, sync and asyncio."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose.testing import Echo, FaultProxy, Stub, ok

OPTIONS = [("grpc.enable_retries", 0)]
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
DEADLINE_EXCEEDED = grpc.StatusCode.DEADLINE_EXCEEDED


@contextmanager
def faulty(*script: Any, unix: bool = False) -> Iterator[FaultProxy]:
    """The echo service behind a proxy."""
    with Echo(script).serve(unix=unix) as target, FaultProxy(target) as proxy:
        yield proxy


def channel(proxy: FaultProxy) -> grpc.Channel:
    return grpc.insecure_channel(proxy.target, OPTIONS)


def code(stub: Stub, **options: Any) -> grpc.StatusCode:
    """How a call ends."""
    try:
        stub.unary_unary("a", **options)
    except grpc.RpcError as error:
        return error.code()  # type: ignore[attr-defined, no-any-return]
    return grpc.StatusCode.OK


async def aio_code(stub: Stub, **options: Any) -> grpc.StatusCode:
    try:
        await stub.unary_unary("a", **options)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
def test_it_passes_everything_on(unix: bool) -> None:
    """As long as nobody asks for a fault, over one connection."""
    with faulty(unix=unix) as proxy, channel(proxy) as client:
        stub = Stub(client)
        told = [stub.unary_unary("x" * 200_000), *stub.unary_stream("b"), stub.stream_unary(iter("cd"))]

    assert told == ["x" * 200_000, "b", "b", "b", "c,d"]
    assert proxy.accepted == 1


def test_a_delay() -> None:
    """A call takes at least so long each way; it is not throttled."""
    with faulty() as proxy, channel(proxy) as client:
        stub = Stub(client)
        code(stub)  # the connection is made
        proxy.delay(0.02)
        started = time.monotonic()
        told = code(stub)
        taken = time.monotonic() - started

    assert told is grpc.StatusCode.OK
    assert taken >= 0.04


def test_a_delay_ends_when_it_heals() -> None:
    """Calls are as quick as ever behind what was on its way then."""
    with faulty() as proxy, channel(proxy) as client:
        stub = Stub(client)
        code(stub)
        proxy.delay(1.5)
        proxy.heal()
        code(stub)

        assert code(stub, timeout=2.5) is grpc.StatusCode.OK


def test_a_throttle() -> None:
    """Bytes trickle: what would take too long ends with the deadline, and passes when the limit is lifted."""
    with faulty() as proxy, channel(proxy) as client:
        stub = Stub(client)
        code(stub)
        proxy.throttle(500)
        slow = code(stub, timeout=0.05)
        proxy.heal()
        quick = code(stub, wait_for_ready=True, timeout=20)

    assert (slow, quick) == (DEADLINE_EXCEEDED, grpc.StatusCode.OK)


def test_a_throttle_lets_bytes_through() -> None:
    """More slowly, not never."""
    with faulty() as proxy, channel(proxy) as client:
        proxy.throttle(1e6)
        told = code(Stub(client))
        proxy.throttle(None)

    assert told is grpc.StatusCode.OK


def test_a_black_hole() -> None:
    """Nothing comes back and nothing is said; what was kept passes when it heals."""
    with faulty() as proxy, channel(proxy) as client:
        stub = Stub(client)
        code(stub)
        proxy.black_hole()
        lost = code(stub, timeout=0.05)
        waiting = stub.unary_unary.future("kept", timeout=20)
        proxy.heal()

        assert waiting.result() == "kept"
    assert lost is DEADLINE_EXCEEDED


# Calls that leave before the client has noticed are lost with the old connection; how many is up to the machine.
MOST_LOST = 1000


@pytest.mark.parametrize("fault", ["reset", "drop", "half_close"])
def test_a_connection_that_ends(fault: str) -> None:
    """The call in flight fails with UNAVAILABLE; the next one connects anew."""
    echo = Echo([ok(hang=True), ok()])
    with echo.serve() as target, FaultProxy(target) as proxy, channel(proxy) as client:
        stub = Stub(client)
        flying = stub.unary_unary.future("a", timeout=20)
        echo.wait_begun()
        getattr(proxy, fault)()
        told = flying.code()
        for _ in range(MOST_LOST):
            anew = code(stub, wait_for_ready=True, timeout=20)
            if anew is not UNAVAILABLE:
                break
        connections = proxy.accepted

    assert (told, anew) == (UNAVAILABLE, grpc.StatusCode.OK)
    assert connections == 2


@pytest.mark.parametrize("fault", ["reset", "drop", "half_close"])
async def test_a_connection_that_ends_under_asyncio(fault: str) -> None:
    """The same for a client of grpc.aio."""
    echo = Echo([ok(hang=True), ok()])
    with echo.serve() as target, FaultProxy(target) as proxy:
        async with grpc.aio.insecure_channel(proxy.target, OPTIONS) as client:
            stub = Stub(client)
            flying = asyncio.ensure_future(aio_code(stub, timeout=20))
            await asyncio.to_thread(echo.wait_begun)
            getattr(proxy, fault)()
            told = await flying
            for _ in range(MOST_LOST):
                anew = await aio_code(stub, wait_for_ready=True, timeout=20)
                if anew is not UNAVAILABLE:
                    break

    assert (told, anew) == (UNAVAILABLE, grpc.StatusCode.OK)


async def test_slow_and_silent_under_asyncio() -> None:
    """Black hole and throttle end with the deadline of a client of grpc.aio too."""
    with faulty() as proxy:
        async with grpc.aio.insecure_channel(proxy.target, OPTIONS) as client:
            stub = Stub(client)
            told = [await aio_code(stub)]
            proxy.black_hole()
            told.append(await aio_code(stub, timeout=0.05))
            proxy.heal()
            proxy.throttle(500)
            told.append(await aio_code(stub, timeout=0.05))

    assert told == [grpc.StatusCode.OK, DEADLINE_EXCEEDED, DEADLINE_EXCEEDED]


def test_a_server_that_is_down() -> None:
    """So is what stands before it: clients are told UNAVAILABLE."""
    with Echo().serve() as target:
        pass
    with FaultProxy(target) as proxy, channel(proxy) as client:
        told = code(Stub(client), timeout=20)

    assert told is UNAVAILABLE
