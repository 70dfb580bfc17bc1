"""A write is never done twice by default: calls that nobody declared safe, and ends that prove nothing.

Handlers count what they execute. The peers are bare, so that no word of ours helps: a server that is stopped, one that
passes on what its dependency said, and the frames of proxies that answer for a server they had called.
"""

from __future__ import annotations

import itertools
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import ExitStack, contextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import Call, Flow, Interceptor, Kind, chain, errors, intercept_channel
from interpose.interceptors import Hedge, Retry, not_executed
from interpose.mechanisms.budget import Unlimited
from interpose.testing.echo import SERVICE, Echo, Stub, decode, encode
from tests.conformance.a6.callers import WAYS, Way
from tests.conformance.a6.wire import (
    GRPC,
    NO_ERROR,
    RST_STREAM,
    Reply,
    answering,
    cut_off,
    cut_off_behind,
    frame,
    gone_away_behind,
    only,
    status_behind,
)
from tests.support.patience import PATIENCE

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
ID = "x-id"
NO_RETRIES = ("grpc.enable_retries", 0)

# As eager as can be: every code, no pause, no budget.
CODES = set(grpc.StatusCode) - {grpc.StatusCode.OK}
EAGER: dict[str, Callable[[], Interceptor]] = {
    "Retry": lambda: Retry(4, codes=CODES, backoff=lambda _: 0.0, budget=Unlimited()),
    "Hedge": lambda: Hedge(4, codes=CODES, delay=0.0, budget=Unlimited()),
    "both": lambda: chain(EAGER["Retry"](), EAGER["Hedge"]()),
}

each_way = pytest.mark.parametrize("way", WAYS, ids=str)
each_stack = pytest.mark.parametrize("stack", EAGER)


# --- proxies, and connections that end ----------------------------------------------------------------------------------


def http(status: int) -> Reply:
    """A proxy's answer that is no gRPC."""
    return only((b":status", b"%d" % status), (b"content-type", b"text/html"))


def says(text: str, *headers: tuple[bytes, bytes]) -> Reply:
    """UNAVAILABLE in words."""
    return only(*GRPC, (b"grpc-status", b"14"), (b"grpc-message", text.encode()), *headers)


REPLIES: dict[str, Reply] = {
    **{f"http {status}": http(status) for status in (429, 502, 503, 504)},
    "envoy, timeout": says("upstream request timeout", (b"server", b"envoy")),
    "envoy, reset": says(
        "upstream connect error or disconnect/reset before headers. reset reason: connection termination"
    ),
    "its dependency is down": says(
        "failed to connect to all addresses; last error: UNKNOWN: ipv4:10.0.0.7:443: Failed"
    ),
    "its dependencies are down": says("connections to all backends failing; last error: UNKNOWN: ipv4:10.0.0.7:443"),
    "stopped": says("Cancelling all calls"),
    "no word": status_behind(14),
    "cut off": cut_off,
    "cut off behind headers": cut_off_behind((b"x-node", b"7")),
    "cut off behind a goaway": gone_away_behind,
    "reset": lambda stream: (frame(RST_STREAM, 0, stream, (2).to_bytes(4)), False),
    "reset without an error": lambda stream: (frame(RST_STREAM, 0, stream, NO_ERROR.to_bytes(4)), False),
}

# Every reply meets every way of calling, and every stack; not all of them at once.
MET = list(zip(itertools.product(REPLIES, WAYS), itertools.cycle(EAGER), strict=False))


@pytest.mark.parametrize(("reply", "way", "stack"), [(*met, stack) for met, stack in MET], ids=lambda part: str(part))
def test_what_a_proxy_answers_proves_nothing(reply: str, way: Way, stack: str) -> None:
    """It had called the server already: one execution for one call."""
    with answering(REPLIES[reply]) as server, way.client(server.target, EAGER[stack]()) as client:
        answered = client.call()

    assert not answered.ok
    assert server.streams == 1


# --- servers ------------------------------------------------------------------------------------------------------------


class Handlers:
    """Bare handlers of every kind, which count what they execute by the id of the call."""

    def __init__(self, end: Callable[[Any], object]) -> None:
        self.executed: Counter[str] = Counter()
        self.begun = threading.Semaphore(0)
        self._end = end

    def serve(self, requests: Iterator[str], context: Any) -> Iterator[str]:
        """Execute the call, and then end it in some way."""
        list(requests)
        self.executed[dict(context.invocation_metadata())[ID]] += 1
        self.begun.release()
        self._end(context)
        yield "done"


@contextmanager
def serving(handlers: Handlers, port: int = 0) -> Iterator[tuple[grpc.Server, str]]:
    """A bare server with them; stopped at the end, if it was not before."""
    handler = grpc.stream_stream_rpc_method_handler(handlers.serve, decode, encode)
    methods = dict.fromkeys(("unary_unary", "unary_stream", "stream_unary", "stream_stream"), handler)
    with futures.ThreadPoolExecutor(8) as pool:
        server = grpc.server(pool)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
        port = server.add_insecure_port(f"127.0.0.1:{port}")
        server.start()
        try:
            yield server, f"127.0.0.1:{port}"
        finally:
            server.stop(None).wait(PATIENCE)


@each_way
@each_stack
def test_a_server_that_is_stopped_has_executed_what_runs(way: Way, stack: str) -> None:
    """Its grace is over, and the handler is still at work: "Cancelling all calls"."""
    free = threading.Event()
    handlers = Handlers(lambda _: free.wait(PATIENCE))

    with serving(handlers) as (server, target), way.client(target, EAGER[stack]()) as client:
        rpc = client.start(metadata=((ID, "1"),))
        rpc.finish()
        assert handlers.begun.acquire(timeout=PATIENCE)
        stopped = server.stop(0)
        reply = rpc.end()
        free.set()
        stopped.wait(PATIENCE)

    assert reply.code is UNAVAILABLE
    assert handlers.executed == {"1": 1}


@each_way
@each_stack
def test_a_handler_passes_on_that_its_dependency_is_down(way: Way, stack: str) -> None:
    """Half of the work is done, and the status is the one that a client makes itself where nothing was sent."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        dependency = grpc.insecure_channel(f"127.0.0.1:{nobody.getsockname()[1]}")

        def ask(context: Any) -> None:
            try:
                dependency.unary_unary("/stock.v1.Stock/Take")(b"", timeout=PATIENCE)
            except grpc.RpcError as error:
                context.set_trailing_metadata((("interpose-not-executed", "/stock.v1.Stock/Take"),))
                context.abort(error.code(), error.details())  # type: ignore[attr-defined]  # the stubs forget them

        handlers = Handlers(ask)
        with serving(handlers) as (_, target), way.client(target, EAGER[stack]()) as client:
            replies = [client.call(metadata=((ID, number),)) for number in "12"]
        dependency.close()

    assert {reply.code for reply in replies} == {UNAVAILABLE}
    assert all(reply.details.startswith("failed to connect to all addresses") for reply in replies)
    assert handlers.executed == {"1": 1, "2": 1}


# --- and what is certain is sent again ----------------------------------------------------------------------------------


@pytest.mark.parametrize("way", [WAYS[0], *(way for way in WAYS[2:] if way.kind is Kind.STREAM_STREAM)], ids=str)
def test_a_server_that_comes_later(way: Way) -> None:
    """No connection was made at first: the call waits for its next attempt, and is executed once."""
    handlers = Handlers(lambda _: None)
    with socket.socket() as taken, ExitStack() as later:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]

        def pause(number: int) -> float:
            if number == 2:
                taken.close()
                later.enter_context(serving(handlers, port))
            return 0.05

        retry = Retry(100, backoff=pause, budget=Unlimited())
        soon = [(f"grpc.{name}_reconnect_backoff_ms", 100) for name in ("initial", "min", "max")]
        with way.client(f"127.0.0.1:{port}", retry, EAGER["Hedge"](), options=[NO_RETRIES, *soon]) as client:
            # In the very moment of the connection grpc at times fails a call for the lack of it, and says that it is there.
            assert any(client.call(metadata=((ID, "1"),)).ok for _ in range(3))

    assert handlers.executed == {"1": 1}


def guard(call: Call) -> Flow:
    """A limit on a server of ours, which is passed at the second time."""
    if "x-retry-attempt" not in call.metadata:
        raise errors.ResourceExhausted("busy", trailing_metadata=not_executed(call, pushback=0))
    yield call


@each_way
def test_a_guard_of_ours_refuses_before_the_handler(way: Way) -> None:
    """Its word travels: the call is sent again, and executed once."""
    echo = Echo()
    with echo.serve(guard) as target, way.client(target, EAGER["Retry"]()) as client:
        assert client.call().ok

    assert len(echo.attempts) == 1


async def test_a_guard_of_ours_on_an_asyncio_server() -> None:
    """The same."""
    echo = Echo()
    async with echo.serve_aio(guard) as target, grpc.aio.insecure_channel(target) as bare:
        channel: Any = intercept_channel(bare, EAGER["Retry"]())
        assert await Stub(channel).unary_unary("a") == "a"

    assert len(echo.attempts) == 1
