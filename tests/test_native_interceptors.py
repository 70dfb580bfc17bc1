"""`native_interceptors`: a stack where only native client interceptors are taken, on both stacks, for all kinds of RPC."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf import timestamp_pb2
from grpc import StatusCode

from interpose import AsyncFlow, Call, Flow, Kind, Outcome, errors, native_interceptors, wait, when
from interpose.interceptors import Cache, CircuitBreaker, Hedge, Retry
from interpose.testing import Echo, FakeClock, Stub, died, failed, ok

KINDS = pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.value)
UNARY = pytest.mark.parametrize("kind", [Kind.UNARY_UNARY, Kind.STREAM_UNARY], ids=lambda kind: kind.value)
DOWN = failed(StatusCode.UNAVAILABLE)
ECHOES = {"unary_unary": ["a"], "unary_stream": ["a"] * 3, "stream_unary": ["a,b"], "stream_stream": ["a", "b"]}


def retry(attempts: int = 4) -> Retry:
    return Retry(attempts, safe=True, backoff=lambda number: 0.001, buffer=1000)


class Seen:
    """An interceptor that adds a pair, and keeps the outcomes."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []

    def __call__(self, call: Call) -> Flow:
        self.outcomes.append((yield call.with_metadata(("x-seen", "yes"))))


def sent(kind: Kind) -> Any:
    return iter(["a", "b"]) if kind.request_streaming else "a"


@contextmanager
def stubs(echo: Echo, *stack: Any, outside: Any = (), inside: Any = (), **options: Any) -> Iterator[Stub]:
    """A sync stub whose channel has the stack as native interceptors, between native ones of others."""
    with echo.serve() as target, grpc.insecure_channel(target) as channel:
        yield Stub(grpc.intercept_channel(channel, *outside, *native_interceptors(*stack, **options), *inside))


def on_asyncio(echo: Echo, stack: tuple[Any, ...], use: Callable[[Stub], Awaitable[Any]], inside: Any = ()) -> Any:
    """The same on asyncio; gives what `use` gives."""

    async def run() -> Any:
        native = [*native_interceptors(*stack, asyncio=True), *inside]
        async with echo.serve_aio() as target, grpc.aio.insecure_channel(target, interceptors=native) as channel:
            return await use(Stub(channel))

    return asyncio.run(asyncio.wait_for(run(), 20))


class Native(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Somebody else's."""

    def __init__(self) -> None:
        self.calls = 0

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        self.calls += 1
        return continuation(details, request)

    intercept_unary_stream = intercept_stream_unary = intercept_stream_stream = intercept_unary_unary  # type: ignore[assignment]


# --- sync -------------------------------------------------------------------------------------------------------------


@KINDS
def test_on_a_sync_channel(kind: Kind) -> None:
    """Calls are changed, sent again, and their ends seen; those inside see each attempt, those outside one RPC."""
    seen, outer, inner = Seen(), Native(), Native()
    echo = Echo([DOWN])

    with stubs(echo, seen, retry(), outside=[outer], inside=[inner]) as stub:
        answer = getattr(stub, kind.value)(sent(kind))
        messages = list(answer) if kind.response_streaming else [answer]

    assert messages == ECHOES[kind.value]
    assert [(outcome.code, outcome.attempts) for outcome in seen.outcomes] == [(StatusCode.OK, 2)]
    assert (outer.calls, inner.calls) == (1, 2)
    assert [attempt.values("x-seen") for attempt in echo.attempts] == [["yes"]] * 2


@UNARY
def test_futures_are_sent_again_without_a_thread_that_waits(kind: Kind) -> None:
    """`future` returns before the first attempt has ended, and the second is sent when its time has come."""
    clock, echo = FakeClock(), Echo([DOWN])
    patient = Retry(safe=True, backoff=lambda number: 5, buffer=1000)

    with stubs(echo, patient, clock=clock) as stub:
        future = getattr(stub, kind.value).future(sent(kind))
        clock.wait_for(1)
        assert not future.done() and len(echo.attempts) == 1
        clock.advance(5)
        assert future.result(timeout=20) == ECHOES[kind.value][0]

    assert len(echo.attempts) == 2


@KINDS
def test_failures_are_typed_and_native(kind: Kind) -> None:
    """However the stub is called."""
    echo = Echo([failed(StatusCode.NOT_FOUND, "no such"), ...])

    with stubs(echo, Seen()) as stub:
        method = getattr(stub, kind.value)
        ways: list[Callable[[], Any]] = [lambda: list(method(sent(kind)))]
        if not kind.response_streaming:
            ways = [lambda: method(sent(kind)), lambda: method.with_call(sent(kind))]
            ways += [lambda: method.future(sent(kind)).result()]
        for way in ways:
            with pytest.raises(errors.NotFound) as failure:
                way()
            assert isinstance(failure.value, grpc.Call) and failure.value.details() == "no such"


def test_with_call_gives_its_call() -> None:
    """With code and metadata."""
    with stubs(Echo([ok("b", trailing=(("x-end", "1"),))]), Seen()) as stub:
        response, call = stub.unary_unary.with_call("a", timeout=20)

    assert (response, call.code(), dict(call.trailing_metadata())["x-end"]) == ("b", StatusCode.OK, "1")


def test_what_the_hook_cannot_do_is_refused() -> None:
    """A blocking call is not started twice at once; a future and a stream are."""
    hedge = Hedge(2, delay=0.0, safe=True)

    with stubs(Echo(), hedge) as stub:
        with pytest.raises(errors.Internal, match=r"cannot start a blocking call without waiting for it.*stub\.future"):
            stub.unary_unary("a")
        assert stub.unary_unary.future("a").result(timeout=20) == "a"
        assert list(stub.unary_stream("a")) == ["a"] * 3


def test_a_future_may_be_cancelled() -> None:
    """The attempt is cancelled, and the flows are told."""
    seen, echo = Seen(), Echo([ok(hang=True)])

    with stubs(echo, seen) as stub:
        future = stub.unary_unary.future("a")
        echo.wait_begun()
        assert future.cancel() and future.cancelled()

    assert [outcome.code for outcome in seen.outcomes] == [StatusCode.CANCELLED]


def test_a_deadline_holds_for_all_attempts() -> None:
    """The caller's timeout is one for the RPC."""
    with stubs(Echo([ok(hang=True), ...]), retry()) as stub, pytest.raises(errors.DeadlineExceeded):
        stub.unary_unary("a", timeout=0.05)


def test_a_flow_may_answer_without_sending() -> None:
    """And the native interceptors inside are not asked."""

    def answers(call: Call) -> Flow:
        return Outcome.success("made up")
        yield call

    inner = Native()
    with stubs(Echo(), answers, inside=[inner]) as stub:
        assert stub.unary_unary("a") == stub.unary_unary.future("a").result(timeout=20) == "made up"
    assert inner.calls == 0


def test_messages_of_protobuf_can_be_told_apart() -> None:
    """So `Cache` works; for other messages, which cannot be serialized here, it lets the call pass."""
    echo = Echo()
    with stubs(echo, Cache(30, safe=True)) as stub:
        for second in (1, 1, 2):
            assert stub.unary_unary(timestamp_pb2.Timestamp(seconds=second)).seconds == second
        assert [stub.unary_unary("text"), stub.unary_unary("text")] == ["text", "text"]

    assert len(echo.attempts) == 2 + 2


def test_one_breaker_for_all_of_a_list() -> None:
    """The target is unknown to the hook, so each list counts as one."""
    breaker = CircuitBreaker()
    for _ in range(2):
        with stubs(Echo(), breaker) as stub:
            assert stub.unary_unary("a") == stub.unary_unary.future("a").result(timeout=20) == "a"

    assert len(breaker.snapshot()) == 2


def test_many_threads() -> None:
    """One list may serve any number of channels and threads."""
    seen = Seen()
    with stubs(Echo(), when("/interpose.testing.Echo/*", seen)) as stub:
        threads = [threading.Thread(target=stub.unary_unary, args=("a",)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)

    assert [outcome.code for outcome in seen.outcomes] == [StatusCode.OK] * 8


# --- asyncio ----------------------------------------------------------------------------------------------------------


class AioNative(grpc.aio.UnaryUnaryClientInterceptor, grpc.aio.UnaryStreamClientInterceptor):
    """Somebody else's, which awaits before it goes on; registered for unary calls only, as grpc.aio does."""

    def __init__(self) -> None:
        self.calls = 0

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        self.calls += 1
        assert isinstance(details.metadata, grpc.aio.Metadata)
        await asyncio.sleep(0)
        return await continuation(details, request)

    intercept_unary_stream = intercept_unary_unary  # type: ignore[assignment]


async def everything(call: Any, kind: Kind) -> list[Any]:
    return [message async for message in call] if kind.response_streaming else [await call]


@KINDS
def test_on_an_asyncio_channel(kind: Kind) -> None:
    """The same, with native interceptors inside that await."""
    seen, inner, echo = Seen(), AioNative(), Echo([DOWN])

    async def use(stub: Stub) -> Any:
        call = getattr(stub, kind.value)(sent(kind), timeout=20)
        return await everything(call, kind), await call.code(), await call.trailing_metadata()

    messages, code, _ = on_asyncio(echo, (seen, retry()), use, inside=[inner])

    assert (messages, code) == (ECHOES[kind.value], StatusCode.OK)
    assert [(outcome.code, outcome.attempts) for outcome in seen.outcomes] == [(StatusCode.OK, 2)]
    assert inner.calls == (2 if kind is Kind.UNARY_UNARY else 0)
    assert [attempt.values("x-seen") for attempt in echo.attempts] == [["yes"]] * 2


@KINDS
def test_failures_on_asyncio(kind: Kind) -> None:
    """Typed and native, with their trailers."""

    async def use(stub: Stub) -> Any:
        with pytest.raises(errors.NotFound) as failure:
            await everything(getattr(stub, kind.value)(sent(kind)), kind)
        return failure.value

    error = on_asyncio(Echo([failed(StatusCode.NOT_FOUND, "no such", trailing=(("x-end", "1"),))]), (Seen(),), use)

    assert isinstance(error, grpc.aio.AioRpcError)
    assert (error.details(), error.trailing_metadata().get("x-end")) == ("no such", "1")


def test_hedging_on_asyncio() -> None:
    """A copy is started while the first one waits."""
    echo = Echo([ok("slow", hang=True), ok("quick")])

    async def use(stub: Stub) -> Any:
        return await stub.unary_unary("a", timeout=20)

    assert on_asyncio(echo, (Hedge(2, delay=0.001, safe=True),), use) == "quick"


def test_a_connection_that_breaks_on_asyncio() -> None:
    """Is a failure like another, and the call is sent again."""

    async def use(stub: Stub) -> Any:
        return await stub.unary_unary("a", timeout=20)

    assert on_asyncio(Echo([died()]), (retry(),), use) == "a"


def test_reading_and_writing_by_hand() -> None:
    """The other style of grpc.aio."""
    seen = Seen()

    async def use(stub: Stub) -> Any:
        call = stub.stream_stream(timeout=20)
        await call.write("a")
        await call.write("b")
        await call.done_writing()
        return [await call.read(), await call.read(), await call.read()]

    messages = on_asyncio(Echo(), (seen,), use)

    assert messages == ["a", "b", vars(grpc.aio)["EOF"]]
    assert [outcome.requests for outcome in seen.outcomes] == [2]


def test_an_async_generator() -> None:
    """Where there is a loop it may await."""

    async def token(call: Call) -> AsyncFlow:
        await asyncio.sleep(0)
        yield call.with_metadata(("x-seen", "later"))

    async def use(stub: Stub) -> Any:
        return await stub.unary_unary("a", timeout=20)

    echo = Echo()
    assert on_asyncio(echo, (token,), use) == "a"
    assert echo.attempts[0].values("x-seen") == ["later"]


def test_a_call_that_is_cancelled_on_asyncio() -> None:
    """The attempt is cancelled, and the flows are told."""
    seen, echo = Seen(), Echo([ok(hang=True)])

    async def use(stub: Stub) -> Any:
        call = stub.unary_unary("a")
        await asyncio.to_thread(echo.wait_begun)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.to_thread(echo.wait_ended)

    on_asyncio(echo, (seen,), use)

    assert [outcome.code for outcome in seen.outcomes] == [StatusCode.CANCELLED]


def test_compression_that_the_hook_would_lose() -> None:
    """INTERNAL, which says so."""

    def compressed(call: Call) -> Flow:
        yield call._copy("_compression", grpc.Compression.Gzip)

    async def use(stub: Stub) -> Any:
        with pytest.raises(errors.Internal, match="passes no compression on"):
            await stub.unary_unary("a")

    on_asyncio(Echo(), (compressed,), use)


# --- what is given ----------------------------------------------------------------------------------------------------


def test_what_comes_back() -> None:
    """One object for sync, which is all four; four for asyncio, each for one kind. They print with the stack."""
    (native,) = native_interceptors(Seen(), Retry())
    four = native_interceptors(Seen(), asyncio=True)

    assert isinstance(native, grpc.UnaryUnaryClientInterceptor) and isinstance(
        native, grpc.StreamStreamClientInterceptor
    )
    assert [type(one).__mro__[2] for one in four] == [
        grpc.aio.UnaryUnaryClientInterceptor,
        grpc.aio.UnaryStreamClientInterceptor,
        grpc.aio.StreamUnaryClientInterceptor,
        grpc.aio.StreamStreamClientInterceptor,
    ]
    assert repr(native) == "native_interceptors(Seen, Retry)" and repr(four[0]) == "native_interceptors(Seen)"


def test_what_is_refused() -> None:
    """What is no interceptor, and what cannot run on sync."""

    async def waits(call: Call) -> AsyncFlow:
        yield call

    def passes(call: Call) -> Flow:
        yield from wait(None)
        yield call

    with pytest.raises(TypeError, match="is an `async def` generator"):
        native_interceptors(waits)
    with pytest.raises(TypeError, match="is a list of interceptors"):
        native_interceptors([passes])  # type: ignore[arg-type]
    assert native_interceptors(passes)
