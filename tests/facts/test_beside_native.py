"""Native interceptors above, below and between ours: order, failures, and what they do wrong."""

import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import Call, Flow, Interceptor, errors, intercept_channel, server_interceptor
from interpose.testing import Echo, failed
from tests.facts.calling import (
    EVERY,
    SYNC_STREAMS,
    Way,
    channels,
    opened,
    ways,
)
from tests.facts.calling import Watch as Told
from tests.facts.handling import FEW, Flood, Shape, answering, done, each_sort, handling, serve, shapes
from tests.facts.serving import MAKE, Watch
from tests.support.patience import PATIENCE

pytestmark = pytest.mark.usefixtures("hosts")

Code = grpc.StatusCode

ORDERS = ["NO", "ON", "OO"]  # N for a native interceptor, O for one of ours
BOTH_STACKS = [shape for shape in FEW if shape.sort != "plain"]


# --- servers ----------------------------------------------------------------------------------------------------------


class SyncNative(grpc.ServerInterceptor):
    """A native interceptor as many are written: it wraps each kind, and iterates what streams."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log = name, log

    def intercept_service(self, continuation: Any, details: Any) -> Any:
        handler = continuation(details)
        if handler is None:
            return None
        kind = next(kind for kind in MAKE if getattr(handler, kind))
        behave = getattr(handler, kind)

        def unary(argument: Any, context: Any) -> Any:
            self.log.append(f"{self.name} in")
            try:
                return behave(argument, context)
            finally:
                self.log.append(f"{self.name} out")

        def stream(argument: Any, context: Any) -> Iterator[Any]:
            self.log.append(f"{self.name} in")
            try:
                yield from behave(argument, context)
            finally:
                self.log.append(f"{self.name} out")

        made = stream if handler.response_streaming else unary
        return MAKE[kind](made, handler.request_deserializer, handler.response_serializer)


class AsyncNative(grpc.aio.ServerInterceptor):
    """The same for an asyncio server: it wraps each kind in its own shape, and iterates generators."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log = name, log

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        handler = await continuation(details)
        if handler is None:
            return None
        kind = next(kind for kind in MAKE if getattr(handler, kind))
        behave = getattr(handler, kind)

        async def coroutine(argument: Any, context: Any) -> Any:
            self.log.append(f"{self.name} in")
            try:
                return await behave(argument, context)
            finally:
                self.log.append(f"{self.name} out")

        async def stream(argument: Any, context: Any) -> AsyncIterator[Any]:
            self.log.append(f"{self.name} in")
            try:
                async for message in behave(argument, context):
                    yield message
            finally:
                self.log.append(f"{self.name} out")

        made = stream if inspect.isasyncgenfunction(behave) else coroutine
        return MAKE[kind](made, handler.request_deserializer, handler.response_serializer)


def stacked(sort: str, order: str, ours: Callable[[int], Interceptor], log: list[str]) -> list[Any]:
    """Interceptors in this order: O for one of ours, N for a native one."""
    native = SyncNative if sort == "sync" else AsyncNative
    return [
        server_interceptor(ours(place)) if letter == "O" else native(f"native{place}", log)
        for place, letter in enumerate(order)
    ]


@pytest.mark.fact("S-20")
@pytest.mark.parametrize("order", ["NO", "ON", "OO", "ONO", "NON"])
@shapes(BOTH_STACKS)
def test_ours_and_native_interceptors_in_any_order(shape: Shape, order: str) -> None:
    """Several of our objects beside native ones all run, in the order given, once each."""
    log: list[str] = []

    def ours(place: int) -> Interceptor:
        def flow(call: Call) -> Flow:
            log.append(f"ours{place} in")
            outcome = yield call
            log.append(f"ours{place} {outcome.code.name}")

        return flow

    with serve(shape, handling(shape, answering("a")), interceptors=stacked(shape.sort, order, ours, log)) as rpc:
        reply = rpc.call()

    ends = [f"ours{place} OK" if letter == "O" else f"native{place} out" for place, letter in enumerate(order)]
    starts = [f"ours{place} in" if letter == "O" else f"native{place} in" for place, letter in enumerate(order)]
    assert reply.messages == ["a"]
    assert log == [*starts, *reversed(ends)]


@pytest.mark.fact("S-20")
@pytest.mark.parametrize(
    ("shape", "how", "order"),
    [
        (shape, how, ORDERS[(row + column) % len(ORDERS)])
        for row, shape in enumerate(BOTH_STACKS)
        for column, how in enumerate(("abort", "raise", "status", "set_code"))
    ],
    ids=str,
)
def test_failures_pass_native_interceptors(shape: Shape, how: str, order: str) -> None:
    """A failure reaches the client with its status through ours and native ones, and ours see it."""
    watch = Watch()

    async def body(context: Any) -> str:
        if how == "abort":
            await done(context.abort(Code.NOT_FOUND, "x"))
        if how == "status":
            raise errors.NotFound("x")
        if how == "raise":
            raise ValueError("x")
        context.set_code(Code.NOT_FOUND)
        return "a"

    given = stacked(shape.sort, order, lambda _: watch, [])
    with serve(shape, handling(shape, body), interceptors=given) as rpc:
        reply = rpc.call()

    expected = Code.UNKNOWN if how == "raise" else Code.NOT_FOUND
    assert reply.code is expected
    assert {outcome.code for outcome in watch.outcomes} == {expected}
    assert len(watch.outcomes) == order.count("O")


@pytest.mark.fact("S-20", "R-34")
@pytest.mark.parametrize("order", ORDERS)
@shapes(shape for shape in BOTH_STACKS if shape.streams)
def test_a_client_gone_passes_native_interceptors(shape: Shape, order: str) -> None:
    """A client that leaves mid-stream is one outcome for each of ours, beside native interceptors."""
    watches, flood = [Watch() for _ in order], Flood(shape)

    with serve(shape, flood.handlers, interceptors=stacked(shape.sort, order, lambda at: watches[at], [])) as rpc:
        pending = rpc.start("a")
        assert flood.started.wait(PATIENCE)
        pending.cancel()
        codes = [watch.only().code for watch, letter in zip(watches, order, strict=True) if letter == "O"]
        assert flood.closed.wait(PATIENCE)

    assert set(codes) == {Code.CANCELLED}


@pytest.mark.fact("S-12", "S-20")
@pytest.mark.parametrize("order", ORDERS)
@each_sort
def test_unknown_methods_pass_native_interceptors(sort: str, order: str) -> None:
    """A method that nobody serves stays UNIMPLEMENTED with several interceptors."""
    with serve(sort, {}, interceptors=stacked(sort, order, lambda _: Watch(), [])) as rpc:
        reply = rpc.call(name="Nothing")

    assert reply.code is Code.UNIMPLEMENTED


# --- sync clients -----------------------------------------------------------------------------------------------------


class Everywhere(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """A native interceptor that does the same for every kind."""

    def __init__(self, intercept: Callable[[Any, Any, Any], Any]) -> None:
        self._intercept = intercept

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return self._intercept(continuation, details, request)

    intercept_unary_stream = intercept_stream_unary = intercept_stream_stream = intercept_unary_unary


SYNC_EVERY = [way for way in EVERY if way.stack != "aio"]


@pytest.mark.fact("C-2", "R-6")
@ways(SYNC_EVERY)
def test_the_bug_of_a_native_interceptor_is_no_answer_of_the_server(way: Way) -> None:
    """What a native interceptor below raises is a local failure for flows, and reaches the caller as it is."""
    watch = Told()

    def buggy(continuation: Any, details: Any, request: Any) -> Any:
        raise KeyError("a bug")

    with opened(way, Echo(), watch, below=Everywhere(buggy)) as link, pytest.raises(KeyError, match="a bug"):
        link.call()

    outcome = watch.outcome()
    assert outcome.local
    assert isinstance(outcome.error, KeyError)
    assert outcome.trailing_metadata == ()


class Streams(grpc.UnaryStreamClientInterceptor, grpc.StreamStreamClientInterceptor):
    """A native interceptor that answers with a bare generator, as several packages do."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.fault = fault

    def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        for message in continuation(details, request):
            yield message
            if self.fault:
                raise self.fault

    intercept_stream_stream = intercept_unary_stream


@pytest.mark.fact("C-9", "R-7")
@ways(SYNC_STREAMS)
def test_a_native_interceptor_below_may_answer_with_a_bare_generator(way: Way) -> None:
    """A stream over a bare generator has all methods of a call: its end is seen by reading it."""
    watch = Told()

    with opened(way, Echo(), watch, below=Streams()) as link:
        stream = link.start("a", "b")
        messages = stream.messages()

    assert messages
    assert stream.code() is Code.OK
    assert watch.outcome().responses == len(messages)


@pytest.mark.fact("C-9", "R-7")
@ways(SYNC_STREAMS)
def test_a_failure_through_a_bare_generator_keeps_its_status(way: Way) -> None:
    """The status of a stream that fails below a bare generator is the one that the server sent."""
    watch = Told()

    with opened(way, Echo([failed(Code.NOT_FOUND)]), watch, below=Streams()) as link, pytest.raises(errors.NotFound):
        link.call()

    assert watch.outcome().code is Code.NOT_FOUND


@pytest.mark.fact("C-9", "R-7")
@ways(SYNC_STREAMS)
def test_a_bug_in_a_bare_generator_ends_the_stream(way: Way) -> None:
    """An exception of a bare generator reaches the reader as it is, and is a local failure for flows, told once."""
    watch = Told()

    with (
        opened(way, Echo(), watch, below=Streams(KeyError("a bug"))) as link,
        pytest.raises(KeyError, match="a bug"),
    ):
        link.call("a", "b")

    assert watch.outcome().local
    assert watch.outcome().responses == 1


@pytest.mark.fact("C-17")
@ways(SYNC_EVERY)
def test_native_interceptors_may_stand_above_and_below(way: Way) -> None:
    """Native interceptors, with call details of their own class that lack fields, run with ours in either order."""
    watch, echo = Told(), Echo()

    def incomplete(continuation: Any, details: Any, request: Any) -> Any:
        class Details(grpc.ClientCallDetails):  # type: ignore[misc]  # untyped
            method, timeout, credentials = details.method, details.timeout, details.credentials
            metadata = (*(details.metadata or ()), ("x-native", "1"))

        return continuation(Details(), request)

    native = Everywhere(incomplete)
    with opened(way, echo, watch, below=native, above=native) as link:
        messages = link.call()

    assert messages
    assert watch.outcome().ok
    assert echo.attempts[0].values("x-native") == ["1", "1"]


@pytest.mark.fact("C-18")
@channels
def test_channels_put_on_channels_are_one_stack(way: Way) -> None:
    """intercept_channel twice: the later interceptors are outermost; within a call of it the first one is."""
    order = list[str]()

    def named(name: str) -> Interceptor:
        def flow(call: Call) -> Flow:
            order.append(name)
            yield call

        return flow

    with opened(way, Echo(), named("c"), named("d")) as link:
        channel = intercept_channel(link.channel, named("a"), named("b"))
        link.over(channel).call()

    assert order == ["a", "b", "c", "d"]
