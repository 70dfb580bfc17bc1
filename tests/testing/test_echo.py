"""Echo: a service that does what its script says, on both stacks, over TCP and unix sockets."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from interpose import Call, Flow, Kind, errors
from interpose.testing import Attempt, Echo, Stub, died, failed, ok, raised

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE

KINDS = pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.value)
ECHOES = {"unary_unary": ["a"], "unary_stream": ["a"] * 3, "stream_unary": ["a,b"], "stream_stream": ["a", "b"]}

Serve = Callable[..., Any]


@contextmanager
def sync_server(echo: Echo, **options: Any) -> Iterator[str]:
    with echo.serve(**options) as target:
        yield target


@contextmanager
def aio_server(echo: Echo, *, plain: bool = False, **options: Any) -> Iterator[str]:
    """An asyncio server on a loop of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    serving = echo.serve_aio(plain=plain, **options)
    try:
        yield asyncio.run_coroutine_threadsafe(serving.__aenter__(), loop).result(10)
    finally:
        asyncio.run_coroutine_threadsafe(serving.__aexit__(None, None, None), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


@contextmanager
def plain_server(echo: Echo, **options: Any) -> Iterator[str]:
    with aio_server(echo, plain=True, **options) as target:
        yield target


LISTENING = pytest.mark.parametrize("serve", [sync_server, aio_server], ids=["sync", "aio"])  # to what a client does
SERVERS = pytest.mark.parametrize("serve", [sync_server, aio_server, plain_server], ids=["sync", "aio", "plain"])


def sent(kind: Kind) -> Any:
    return iter(["a", "b"]) if kind.request_streaming else "a"


def received(kind: Kind, answer: Any) -> list[str]:
    return list(answer) if kind.response_streaming else [answer]


def call(target: str, kind: Kind = Kind.UNARY_UNARY, **options: Any) -> list[str]:
    """One RPC through a bare sync channel."""
    # A connection of its own: channels to one target share theirs, also one that is about to break.
    separate = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(target, separate) as channel:
        return received(kind, getattr(Stub(channel), kind.value)(sent(kind), **options))


def failure(target: str, kind: Kind = Kind.UNARY_UNARY, **options: Any) -> Any:
    """How it failed."""
    with pytest.raises(grpc.RpcError) as caught:
        call(target, kind, **options)
    return caught.value


@SERVERS
@KINDS
def test_it_echoes(serve: Serve, kind: Kind) -> None:
    """Without a script, and when the script has run out; what came is recorded."""
    echo = Echo([ok("scripted")])

    with serve(echo) as target:
        first, second = call(target, kind), call(target, kind, metadata=(("x-a", "b"), ("x-a", "c")), timeout=20)
        echo.wait_ended(2)

    attempt = echo.attempts[1]
    assert (first, second) == (["scripted"], ECHOES[kind.value])
    assert (attempt.kind, attempt.requests) == (kind, ["a", "b"] if kind.request_streaming else ["a"])
    assert attempt.values("x-a") == ["b", "c"]
    assert attempt.time_remaining is not None and 0 < attempt.time_remaining < 21  # grpc rounds it
    assert echo.attempts[0].time_remaining is None
    assert (attempt.responses, attempt.ended, attempt.cancelled) == (len(second), True, False)


@SERVERS
@KINDS
def test_it_fails_as_scripted(serve: Serve, kind: Kind) -> None:
    """Code, details, trailers and pushback arrive; the next attempt gets the next act."""
    echo = Echo([failed(UNAVAILABLE, "busy", pushback=0.3, trailing=[("x-node", "7")]), ok()])

    with serve(echo) as target:
        error = failure(target, kind)
        again = call(target, kind)

    trailing = dict(error.trailing_metadata())
    assert (error.code(), error.details()) == (UNAVAILABLE, "busy")
    assert (trailing["x-node"], trailing["grpc-retry-pushback-ms"]) == ("7", "300")
    assert again == ECHOES[kind.value]


@SERVERS
def test_a_stream_breaks_after_so_many_messages(serve: Serve) -> None:
    """They arrive before the failure."""
    with serve(Echo([failed(UNAVAILABLE, after=2)])) as target, grpc.insecure_channel(target) as channel:
        answer = Stub(channel).unary_stream("a")
        messages = [next(answer), next(answer)]
        with pytest.raises(grpc.RpcError):
            next(answer)

    assert messages == ["a", "a"]
    assert answer.code() is UNAVAILABLE


@LISTENING
@KINDS
@pytest.mark.parametrize("act", [ok(hang=True), ok(delay=10)], ids=["hang", "delay"])
def test_it_may_not_answer(serve: Serve, kind: Kind, act: Any) -> None:
    """Nothing comes until the client gives up, and the service notes that it had gone."""
    echo = Echo([act])

    with serve(echo) as target, grpc.insecure_channel(target) as channel:
        stub = getattr(Stub(channel), kind.value)
        waiting = stub(sent(kind)) if kind.response_streaming else stub.future(sent(kind))
        echo.wait_begun()
        waiting.cancel()
        echo.wait_ended()

    assert waiting.code() is grpc.StatusCode.CANCELLED
    assert echo.attempts[0].cancelled
    assert echo.attempts[0].responses == 0 or not kind.response_streaming


@SERVERS
def test_closing_ends_what_hangs(serve: Serve) -> None:
    """So that the server of a test that forgot it can stop."""
    echo = Echo([ok(hang=True)])

    with serve(echo) as target, futures.ThreadPoolExecutor(1) as pool:
        reply = pool.submit(call, target)
        echo.wait_begun()
        echo.close()
        assert reply.result(10) == ["a"]


@SERVERS
def test_a_status_that_its_handler_raises(serve: Serve) -> None:
    """Arrives as that status, with and without Interpose on the server; another exception as UNKNOWN."""
    script = [raised(errors.NotFound("no such thing")), raised(KeyError("id"))]

    def passes(call: Call) -> Flow:
        yield call

    with serve(Echo(script)) as target:
        bare = [failure(target), failure(target)]
    with grpc_served(serve, script, passes) as target:
        intercepted = [failure(target), failure(target)]

    for told in (bare, intercepted):
        assert [error.code() for error in told] == [grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNKNOWN]
        assert told[0].details() == "no such thing"


@contextmanager
def grpc_served(serve: Serve, script: Any, interceptor: Any) -> Iterator[str]:
    """The service with an interceptor."""
    echo = Echo(script)
    bound = {"sync_server": echo.serve, "aio_server": echo.serve_aio, "plain_server": echo.serve_aio}[serve.__name__]
    setattr(echo, bound.__name__, lambda **options: bound(interceptor, **options))
    with serve(echo) as target:
        yield target


@SERVERS
@pytest.mark.parametrize("kind", [Kind.UNARY_UNARY, Kind.UNARY_STREAM], ids=lambda kind: kind.value)
def test_its_connection_breaks(serve: Serve, kind: Kind) -> None:
    """The client is told UNAVAILABLE, in grpc's words; the next attempt connects anew and is answered."""
    echo = Echo([died(), ok()])

    with serve(echo) as target:
        error, again = failure(target, kind), call(target, kind, wait_for_ready=True, timeout=20)

    assert (error.code(), error.details() == "as scripted") == (UNAVAILABLE, False)
    assert again == ECHOES[kind.value]
    assert [attempt.cancelled for attempt in echo.attempts] == [serve is not plain_server, False]


@SERVERS
def test_its_connection_breaks_after_a_message(serve: Serve) -> None:
    """Which arrives, if the client asks for it in time: grpc drops what nobody has asked for when a connection goes."""
    messages: list[str] = []
    with serve(Echo([died(after=1), ...])) as target, grpc.insecure_channel(target) as channel:
        for _ in range(20):
            answer = Stub(channel).unary_stream("a", wait_for_ready=True, timeout=20)
            with pytest.raises(grpc.RpcError):
                for message in answer:
                    messages.append(message)  # noqa: PERF402  what came before the end counts
            assert answer.code() is UNAVAILABLE
            if messages:
                break

    assert messages == ["a"]


def test_a_death_needs_a_proxy() -> None:
    """On a server of one's own there is none, and the message says so."""
    echo = Echo([died()])

    with pytest.raises(RuntimeError, match=r"only where serve\(\) has put a proxy before it"):
        echo.broken()


@SERVERS
def test_a_unix_socket(serve: Serve) -> None:
    """Instead of a port; a connection can break there too."""
    with serve(Echo(), unix=True) as target:
        told = call(target)
    with serve(Echo([died()]), unix=True) as broken:
        error = failure(broken)

    assert target.startswith("unix:")
    assert told == ["a"]
    assert error.code() is UNAVAILABLE


@SERVERS
def test_metadata_in_front(serve: Serve) -> None:
    """It comes before the response."""
    with serve(Echo([ok(initial=(("x-node", "7"),))])) as target, grpc.insecure_channel(target) as channel:
        _, ended = Stub(channel).unary_unary.with_call("a")

    assert dict(ended.initial_metadata())["x-node"] == "7"


def test_a_server_of_one_s_own() -> None:
    """`handlers` are for any server, beside other services."""
    echo = Echo()
    server = grpc.server(futures.ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((echo.handlers(asyncio=False),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()

    told = call(f"127.0.0.1:{port}")
    server.stop(None).wait()

    assert told == ["a"]


async def test_the_client_on_asyncio() -> None:
    """The same stub, on a channel of grpc.aio."""

    async def messages() -> AsyncIterator[str]:
        yield "a"
        yield "b"

    async with Echo().serve_aio() as target, grpc.aio.insecure_channel(target) as channel:
        stub = Stub(channel)
        told = [
            [await stub.unary_unary("a")],
            [message async for message in stub.unary_stream("a")],
            [await stub.stream_unary(messages())],
            [message async for message in stub.stream_stream(messages())],
        ]

    assert told == list(ECHOES.values())


def test_waiting_in_vain_is_told() -> None:
    """With what there was."""
    echo = Echo()
    echo.attempts.append(Attempt(Kind.UNARY_UNARY, (), None))

    with pytest.raises(TimeoutError, match=r"not 2 attempts began: .*UNARY_UNARY"):
        echo.wait_begun(2, timeout=0.01)
    with pytest.raises(TimeoutError, match=r"not 1 attempts ended: .*UNARY_UNARY"):
        echo.wait_ended(timeout=0.01)
