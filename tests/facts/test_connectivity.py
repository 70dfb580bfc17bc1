"""Connections: none, not yet, lost, and channels and servers that close."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import Call, Flow, Interceptor, Kind, Outcome, errors, intercept_channel
from interpose.testing import Echo
from interpose.testing.echo import path
from tests.facts.calling import (
    EVERY,
    STARTED,
    Background,
    Gate,
    Link,
    Watch,
    Way,
    again,
    aio_opened,
    answered,
    connected,
    in_time,
    late,
    opened,
    passing,
    ways,
)
from tests.facts.hosting import on_the_loop, reached, served, within
from tests.support.patience import PATIENCE

pytestmark = pytest.mark.usefixtures("hosts")

OK = grpc.StatusCode.OK
CANCELLED = grpc.StatusCode.CANCELLED
DEADLINE_EXCEEDED = grpc.StatusCode.DEADLINE_EXCEEDED
INTERNAL = grpc.StatusCode.INTERNAL
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE

FAST_RECONNECT = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 100)]
ASYNCIO = [way for way in STARTED if way.aio]
STACKS = [Way("blocking", Kind.UNARY_UNARY), Way("aio", Kind.UNARY_UNARY)]

all_kinds = pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.value)


def noting(outcomes: list[Outcome]) -> Interceptor:
    def note(call: Call) -> Flow:
        outcomes.append((yield call))

    return note


# --- no server --------------------------------------------------------------------------------------------------------


@contextmanager
def refusing() -> Iterator[str]:
    """An address where nobody listens."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{reserved.getsockname()[1]}"


@contextmanager
def address() -> Iterator[str]:
    """An address of our own, which no other program can take between two servers of a test."""
    with tempfile.TemporaryDirectory() as folder:
        yield f"unix:{Path(folder) / 'socket'}"


@pytest.mark.fact("R-43")
@ways(EVERY)
def test_a_refused_connection_is_one_failure(way: Way) -> None:
    """Nobody listens: UNAVAILABLE for caller and flow, once."""
    watch = Watch()

    with refusing() as target, connected(way, target, watch) as link, pytest.raises(errors.Unavailable):
        link.call()

    assert watch.outcome().code is UNAVAILABLE
    assert watch.outcome().responses == 0


@pytest.mark.fact("C-19", "R-43")
@ways(EVERY)
def test_wait_for_ready_waits_to_the_deadline(way: Way) -> None:
    """Nobody listens and the call waits for a connection: the deadline ends it, once."""
    watch = Watch()

    with refusing() as target, connected(way, target, watch) as link, pytest.raises(errors.DeadlineExceeded):
        link.call(wait_for_ready=True, timeout=0.1)

    assert watch.outcome().code is DEADLINE_EXCEEDED


@pytest.mark.fact("R-43")
@ways(STARTED)
def test_wait_for_ready_waits_for_the_server(way: Way) -> None:
    """A call that waits for a connection is answered once the server is there; nothing was sent before."""
    watch, echo = Watch(), Echo()

    with address() as target, connected(way, target, watch, options=FAST_RECONNECT) as link:
        call = link.start(wait_for_ready=True, timeout=PATIENCE)
        early = call.done()
        with served("sync", [echo.handlers(asyncio=False)], address=target):
            messages = call.messages()

    assert not early
    assert messages
    assert watch.outcome().ok
    assert len(echo.attempts) == 1


@pytest.mark.fact("E-6")
@ways(ASYNCIO)
def test_wait_for_connection_comes_back_once_connected(way: Way) -> None:
    """`wait_for_connection` comes back as a bare call's does."""
    gate = Gate()
    gate.go.set()

    with opened(way, gate, passing) as link:
        call = link.start()
        call.ask("wait_for_connection")
        messages = call.messages()

    assert messages[-1] in {"answer", "last"}


@pytest.mark.fact("E-6", "R-43")
@pytest.mark.parametrize("flow", [passing, again], ids=["once", "retried"])
@ways(ASYNCIO)
def test_wait_for_connection_raises_the_failure_to_connect(way: Way, flow: Interceptor) -> None:
    """Where nobody listens, `wait_for_connection` raises UNAVAILABLE, after the last attempt."""
    watch = Watch()

    with refusing() as target, connected(way, target, watch, flow) as link:
        call = link.start()
        with pytest.raises(errors.Unavailable) as caught:
            call.ask("wait_for_connection")

    assert isinstance(caught.value, grpc.aio.AioRpcError)
    assert watch.outcome().code is UNAVAILABLE


@pytest.mark.fact("E-6")
@all_kinds
@on_the_loop
async def test_wait_for_connection_waits_for_a_delayed_attempt(kind: Kind) -> None:
    """A call that waits to be sent is connected once it was sent; cancelling it ends the wait."""
    async with aio_opened(Echo(), late) as link:
        call = link.start(kind)
        waiter = asyncio.create_task(call.wait_for_connection())
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await within(waiter)


# --- channels ---------------------------------------------------------------------------------------------------------


@pytest.mark.fact("R-3", "R-44")
@ways(EVERY)
def test_a_closed_channel_raises_what_grpc_raises(way: Way) -> None:
    """A call on a closed channel raises grpc's own error; for flows it is a local failure, told once."""
    watch = Watch()

    with opened(way, Echo(), watch) as link:
        link.close()
        with pytest.raises(grpc.aio.UsageError if way.aio else ValueError):
            link.call()

    assert watch.outcome().code is INTERNAL
    assert watch.outcome().local


@pytest.mark.fact("A-10", "R-44")
@all_kinds
@pytest.mark.parametrize("grace", [PATIENCE, 0.05], ids=["in time", "too late"])
@on_the_loop
async def test_closing_a_channel_with_grace(kind: Kind, grace: float) -> None:
    """close(grace) lets what runs end well within it; what still runs at its end is cancelled, and told once."""
    watch, gate = Watch(), Gate()

    async with aio_opened(gate, watch) as link:
        task = asyncio.create_task(answered(link.start(kind)))
        await reached(gate.begun)
        closing = asyncio.create_task(link.channel.close(grace))
        if grace == PATIENCE:
            gate.go.set()
            assert (await within(task))[-1] in {"answer", "last"}
        else:
            with pytest.raises(asyncio.CancelledError):
                await within(task)
        await within(closing)
        outcome = await watch.told()

    assert outcome.code is (OK if grace == PATIENCE else CANCELLED)


@pytest.mark.fact("A-10", "R-44")
@all_kinds
@on_the_loop
async def test_the_grace_of_a_channel_ends_what_waits_to_be_sent(kind: Kind) -> None:
    """A call delayed by a minute ends with the grace of the channel that closes."""
    watch = Watch()

    async with aio_opened(Echo(), watch, late) as link:
        task = asyncio.create_task(answered(link.start(kind)))
        await asyncio.sleep(0)
        await within(link.channel.close(0.05))
        with pytest.raises(asyncio.CancelledError):
            await within(task)
        outcome = await watch.told()

    assert outcome.code is CANCELLED


@pytest.mark.fact("A-10")
@on_the_loop
async def test_a_channel_that_exists_is_intercepted() -> None:
    """An asyncio channel that somebody else made gets interceptors, and keeps what a channel can do."""
    watch = Watch()

    async with aio_opened(Echo()) as link:
        native = grpc.aio.insecure_channel(link.target)
        async with intercept_channel(native, watch) as channel:
            before = channel.get_state(try_to_connect=True)
            await within(channel.wait_for_state_change(before))
            await within(channel.channel_ready())
            state = channel.get_state()
            await within(channel.unary_unary(path(Kind.UNARY_UNARY), str.encode, bytes.decode)("a"))
        closed = native.get_state()

    assert isinstance(channel, grpc.aio.Channel)
    assert before is grpc.ChannelConnectivity.IDLE
    assert state is grpc.ChannelConnectivity.READY
    assert closed is grpc.ChannelConnectivity.SHUTDOWN
    assert watch.outcome().ok


# --- servers ----------------------------------------------------------------------------------------------------------


@pytest.mark.fact("R-45")
@ways(EVERY)
def test_a_server_that_stops_with_grace_finishes_what_it_has_begun(way: Way) -> None:
    """stop(grace): the RPC under way is answered, and one that comes later fails, each told once."""
    gate, outcomes = Gate(), list[Outcome]()

    with (
        served("sync", [gate.handlers(asyncio=False)]) as (server, target, _),
        connected(way, target, noting(outcomes)) as link,
    ):
        caller = Background(link.call)
        gate.wait_begun()
        stopped = server.stop(PATIENCE)
        with pytest.raises((errors.Unavailable, errors.Cancelled)):
            in_time(link.call)
        gate.go.set()
        messages = caller.result()
        stopped.wait(PATIENCE)

    assert messages[-1] in ("answer", "last")
    assert sorted(outcome.ok for outcome in outcomes) == [False, True]


SERVER = """
import os, threading
from concurrent import futures
import grpc

def forever(argument, context):
    os.write(1, b"begun\\n")
    threading.Event().wait()

def stream(argument, context):
    yield b"first"
    forever(argument, context)

methods = {
    "unary_unary": grpc.unary_unary_rpc_method_handler(forever),
    "stream_unary": grpc.stream_unary_rpc_method_handler(forever),
    "unary_stream": grpc.unary_stream_rpc_method_handler(stream),
    "stream_stream": grpc.stream_stream_rpc_method_handler(stream),
}
server = grpc.server(futures.ThreadPoolExecutor(8))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("interpose.testing.Echo", methods),))
print(server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
server.wait_for_termination()
"""


@contextmanager
def server_process() -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """A server in a process of its own, which may be killed."""
    process = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield f"127.0.0.1:{int(process.stdout.readline())}", process
    finally:
        process.kill()
        process.wait(PATIENCE)
        process.stdout.close()


def of_each_kind(link: Link) -> list[Link]:
    """The same channel, for a call of each kind."""
    stack = link.way.stack
    return [Link(Way(stack, kind), link.target, link.native, link.channel) for kind in Kind]


@pytest.mark.fact("R-46")
@ways([*STACKS, Way("future", Kind.UNARY_UNARY)])
def test_a_killed_server_is_one_failure(way: Way) -> None:
    """A server that is killed in the middle of RPCs of all kinds ends each of them as UNAVAILABLE, once."""
    outcomes: list[Outcome] = []

    with server_process() as (target, process), connected(way, target, noting(outcomes)) as link:
        streams = [each.start() for each in of_each_kind(link) if each.way.streams]
        assert [stream.next() for stream in streams] == ["first"] * 2
        callers = [Background(each.call) for each in of_each_kind(link) if not each.way.streams]
        callers += [Background(stream.messages) for stream in streams]
        assert process.stdout is not None
        for _ in callers:
            assert process.stdout.readline() == "begun\n"
        os.kill(process.pid, signal.SIGKILL)
        for caller in callers:
            with pytest.raises(errors.Unavailable):
                caller.result()

    assert [outcome.code for outcome in outcomes] == [UNAVAILABLE] * 4
    assert sorted(outcome.responses for outcome in outcomes) == [0, 0, 1, 1]


@pytest.mark.fact("R-47")
@ways(STACKS)
def test_a_server_that_stands_still_is_ended_by_the_deadline(way: Way) -> None:
    """A server that is stopped with its connections open is silent: the deadline ends the calls, each once."""
    outcomes: list[Outcome] = []

    with (
        server_process() as (target, process),
        connected(way, target, noting(outcomes)) as link,
        grpc.insecure_channel(target) as first,
    ):
        grpc.channel_ready_future(first).result(PATIENCE)
        os.kill(process.pid, signal.SIGSTOP)
        callers = [Background(lambda each=each: each.call(timeout=0.2)) for each in of_each_kind(link)]
        for caller in callers:
            with pytest.raises(errors.DeadlineExceeded):
                caller.result()

    assert [outcome.code for outcome in outcomes] == [DEADLINE_EXCEEDED] * 4


@pytest.mark.fact("R-48")
@ways(STACKS)
def test_a_channel_outlives_its_server(way: Way) -> None:
    """A stub works again when its server is back at the same address, without being made anew."""
    outcomes: list[Outcome] = []
    patient: dict[str, Any] = {"wait_for_ready": True, "timeout": PATIENCE}

    with address() as target, connected(way, target, noting(outcomes), options=FAST_RECONNECT) as link:
        with served("sync", [Echo().handlers(asyncio=False)], address=target):
            link.call(**patient)
        with pytest.raises(errors.Unavailable):
            link.call()
        with served("sync", [Echo().handlers(asyncio=False)], address=target):
            link.call(**patient)

    assert [outcome.code for outcome in outcomes] == [OK, UNAVAILABLE, OK]
