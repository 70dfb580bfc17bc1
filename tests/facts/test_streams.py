"""Response streams: when they are told, how they are read, and what stands in front of a status."""

import asyncio
import collections
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import grpc.experimental
import pytest

from interpose import Call, Flow, Interceptor, Kind, Outcome, errors
from interpose.testing import Echo, failed, ok
from tests.facts.calling import (
    FULL,
    STREAMS,
    SYNC_STREAMS,
    Background,
    Gate,
    Service,
    Watch,
    Way,
    aio_opened,
    answered,
    buffered,
    hooked,
    in_time,
    opened,
    passing,
    ways,
)
from tests.facts.hosting import on_the_loop, reached, within
from tests.support.patience import PATIENCE

pytestmark = pytest.mark.usefixtures("hosts")

OK = grpc.StatusCode.OK
CANCELLED = grpc.StatusCode.CANCELLED
NOT_FOUND = grpc.StatusCode.NOT_FOUND
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
EOF = grpc.aio.EOF

SINGLE_THREADED = [(grpc.experimental.ChannelOptions.SingleThreadedUnaryStream, 1)]
UNARY_STREAM = [way for way in SYNC_STREAMS if not way.uploads]

streaming = pytest.mark.parametrize("kind", [Kind.UNARY_STREAM, Kind.STREAM_STREAM], ids=lambda kind: kind.value)
uploading = pytest.mark.parametrize("kind", [Kind.STREAM_UNARY, Kind.STREAM_STREAM], ids=lambda kind: kind.value)
writable = pytest.mark.parametrize("flow", [passing, hooked, buffered(2**20)], ids=["plain", "hooked", "buffered"])


# --- unread and read --------------------------------------------------------------------------------------------------


@pytest.mark.fact("C-3", "R-4")
@ways(SYNC_STREAMS)
def test_a_healthy_stream_is_of_the_same_classes_as_grpcs(way: Way) -> None:
    """A stream is a grpc.Call, a grpc.Future and, though healthy, a grpc.RpcError: libraries ask callbacks for that."""
    with opened(way, Echo(), passing) as link:
        stream = link.start()
        messages = stream.messages()

    assert messages
    assert isinstance(stream.native, grpc.Call)
    assert isinstance(stream.native, grpc.Future)
    assert isinstance(stream.native, grpc.RpcError)


@pytest.mark.fact("C-4", "R-3", "R-5")
@ways(STREAMS)
def test_a_flow_does_not_block_a_stream_that_nobody_reads(way: Way) -> None:
    """A stub gives its stream at once, and the flow is told nothing until the stream has been read."""
    watch = Watch()

    with opened(way, Echo(), watch) as link:
        stream = in_time(lambda: link.start("a", "b"))
        before = stream.done(), len(watch.outcomes)
        messages = stream.messages()
        outcome = watch.outcome()

    assert before == (False, 0)
    assert outcome.ok
    assert outcome.responses == len(messages)
    assert stream.code() is OK


@pytest.mark.fact("C-4", "R-5")
@ways(STREAMS)
def test_what_asks_for_the_end_of_a_stream_is_answered_once_it_is_read(way: Way) -> None:
    """A thread or task that asks for the code first gets it once the stream was read, and holds up nobody."""
    with opened(way, Echo([ok(trailing=(("x-end", "1"),))]), passing) as link:
        stream = link.start()
        names = ["code", "details", "trailing_metadata", *(() if way.aio else ("exception",))]
        askers = [Background(lambda name=name: stream.ask(name)) for name in names]
        stream.messages()
        code, details, trailing, *exception = (asker.result() for asker in askers)

    assert (code, details) == (OK, "")
    assert ("x-end", "1") in list(trailing)
    assert not any(exception)


@pytest.mark.fact("R-3")
@ways(STREAMS)
def test_the_failure_of_a_stream_is_raised_by_iterating(way: Way) -> None:
    """A stream that fails after two messages gives both, then raises; calling the stub raised nothing."""
    with opened(way, Echo([failed(NOT_FOUND, after=2)]), passing) as link:
        stream = link.start("a", "b", "c")
        messages = [stream.next(), stream.next()]
        with pytest.raises(errors.NotFound):
            stream.next()

    assert messages == (["a", "b"] if way.uploads else ["a", "a"])


class Prompt(Service):
    """A service whose streams end at once, and say so."""

    def __init__(self) -> None:
        self.ended = threading.Event()

    def unary_unary(self, request: str, context: Any) -> str:
        return request

    def unary_stream(self, argument: Any, context: Any) -> Iterator[str]:
        yield from ("1", "2", "3")
        self.ended.set()

    stream_stream = unary_stream


@pytest.mark.fact("R-5", "A-6")
@streaming
@on_the_loop
async def test_a_stream_that_is_read_late_is_read_whole(kind: Kind) -> None:
    """Messages that wait while nobody reads are all there when somebody does, though the server has long ended."""
    service = Prompt()

    async with aio_opened(service, passing) as link:
        call = link.start(kind)
        await reached(service.ended)
        await link.call(Kind.UNARY_UNARY)  # on the same connection, so the stream's end has come before its answer
        messages = await within(answered(call))

    assert messages == ["1", "2", "3"]


# --- single-threaded streams ------------------------------------------------------------------------------------------


@pytest.mark.fact("C-5")
@ways(UNARY_STREAM)
def test_a_single_threaded_stream_is_read_like_any_other(way: Way) -> None:
    """With grpc's option for single-threaded streams messages pass, and the flow is told the end once."""
    watch = Watch()

    with opened(way, Echo(), watch, options=SINGLE_THREADED) as link:
        stream = link.start()
        messages = in_time(stream.messages)

    assert messages == ["a"] * 3
    assert stream.code() is OK
    assert watch.outcome().ok
    assert watch.outcome().responses == 3


@pytest.mark.fact("C-5")
@ways(UNARY_STREAM)
def test_a_single_threaded_stream_fails_like_any_other(way: Way) -> None:
    """With grpc's option for single-threaded streams a failure in the middle is typed, and told once."""
    watch = Watch()

    with opened(way, Echo([failed(NOT_FOUND, after=1)]), watch, options=SINGLE_THREADED) as link:
        stream = link.start()
        first = stream.next()
        with pytest.raises(errors.NotFound):
            in_time(stream.next)

    assert first == "a"
    assert watch.outcome().responses == 1


@pytest.mark.fact("C-5")
@pytest.mark.parametrize("by", ["cancel", "drop"])
@ways(UNARY_STREAM)
def test_a_single_threaded_stream_can_be_cancelled_and_dropped(way: Way, by: str) -> None:
    """With grpc's option for single-threaded streams either ends the stream, here and on the server."""
    watch, gate = Watch(), Gate()

    with opened(way, gate, watch, options=SINGLE_THREADED) as link:
        stream = link.start()
        assert stream.next() == "first"
        if by == "cancel":
            assert in_time(stream.cancel)
            with pytest.raises(grpc.RpcError):
                in_time(stream.next)
            assert stream.code() is CANCELLED
        else:
            stream.drop()
        outcome = watch.outcome()
        gate.wait_ended()

    assert outcome.code is CANCELLED


@pytest.mark.fact("C-5")
@ways(UNARY_STREAM)
def test_asking_a_single_threaded_stream_for_its_end_too_early_is_an_error(way: Way) -> None:
    """As on grpc's own, code() of a single-threaded stream that nobody has read is a UsageError."""
    with opened(way, Gate(), passing, options=SINGLE_THREADED) as link:
        stream = link.start(timeout=2 * PATIENCE)
        with pytest.raises(grpc.experimental.UsageError):
            in_time(stream.code)
        stream.cancel()


# --- reading and iterating on asyncio ---------------------------------------------------------------------------------


@pytest.mark.fact("A-6")
@streaming
@on_the_loop
async def test_iterating_and_reading_do_not_mix(kind: Kind) -> None:
    """A call that is iterated cannot be read, nor the other way round: a UsageError, as in grpc."""
    async with aio_opened(Gate(), passing) as link:
        iterated, read = link.start(kind), link.start(kind)
        assert await within(anext(aiter(iterated))) == "first"
        assert await within(read.read()) == "first"
        with pytest.raises(grpc.aio.UsageError):
            await within(iterated.read())
        with pytest.raises(grpc.aio.UsageError):
            aiter(read)
        iterated.cancel()
        read.cancel()


@pytest.mark.fact("A-6")
@streaming
@on_the_loop
async def test_reading_gives_the_messages_and_then_eof(kind: Kind) -> None:
    """`read` gives each message, then EOF as often as it is asked; a failure is raised as often."""
    async with aio_opened(Echo([ok(), failed(NOT_FOUND, after=1)]), passing) as link:
        call = link.start(kind, "a", "b")
        messages = [await within(call.read()) for _ in FULL[kind]]
        ends = [await within(call.read()) for _ in range(2)]
        broken = link.start(kind, "a", "b")
        first = await within(broken.read())
        for _ in range(2):
            with pytest.raises(errors.NotFound):
                await within(broken.read())

    assert messages == FULL[kind]
    assert ends == [EOF, EOF]
    assert first == "a"


class Chat(Service):
    """A service that answers each message."""

    def stream_stream(self, requests: Iterator[str], context: Any) -> Iterator[str]:
        for request in requests:
            yield request.upper()


@pytest.mark.fact("A-6")
@on_the_loop
async def test_a_flow_that_awaits_the_outcome_does_not_block_the_writer() -> None:
    """Messages go to and fro on a bidi call while its flow waits for the end."""
    watch, heard = Watch(), []

    async with aio_opened(Chat(), watch) as link:
        call = link.stub(Kind.STREAM_STREAM)()
        for message in ("a", "b"):
            await within(call.write(message))
            heard.append(await within(call.read()))
        early = list(watch.outcomes)
        await within(call.done_writing())
        last = await within(call.read())
        outcome = await watch.told()

    assert heard == ["A", "B"]
    assert last is EOF
    assert early == []
    assert outcome.responses == 2


# --- servers that end before the client has ---------------------------------------------------------------------------

TIMES = 30  # grpc.aio loses the status in one to three of a hundred (its 1.85.1)


class Early(Service):
    """A service that ends a bidi call well, with three messages and trailing metadata, and reads none."""

    def stream_stream(self, requests: Iterator[str], context: Any) -> Iterator[str]:
        context.set_trailing_metadata((("x-early", "yes"),))
        yield from ("1", "2", "3")


class Refusing(Service):
    """A service that refuses request streams before it has read of them."""

    def stream_unary(self, requests: Iterator[str], context: Any) -> str:
        context.set_trailing_metadata((("x-why", "no token"),))
        context.abort(UNAUTHENTICATED, "who are you")
        return ""

    def stream_stream(self, requests: Iterator[str], context: Any) -> Iterator[str]:
        yield self.stream_unary(requests, context)


async def several(count: int = 20, size: int = 10) -> AsyncIterator[str]:
    for _ in range(count):
        yield "x" * size


async def flood(call: Any) -> None:
    """Write until it fails."""
    while True:
        await call.write("x")


@pytest.mark.fact("R-42")
@ways(way for way in SYNC_STREAMS if way.uploads)
def test_a_server_may_end_a_stream_before_the_client_has(way: Way) -> None:
    """A bidi call that the server ends while the client still has requests to send is OK, with one outcome."""
    outcomes, hold = list[Outcome](), threading.Event()

    def note(call: Call) -> Flow:
        outcomes.append((yield call))

    def messages() -> Iterator[str]:
        yield "a"
        hold.wait(PATIENCE)

    with opened(way, Early(), note) as link:
        answers = [in_time(lambda: link.call(argument=messages())) for _ in range(TIMES)]
        hold.set()

    assert answers == [["1", "2", "3"]] * TIMES
    assert [outcome.ok for outcome in outcomes] == [True] * TIMES


@pytest.mark.fact("R-42")
@uploading
@writable
@pytest.mark.parametrize("size", [10, 100_000], ids=["small", "large"])
@on_the_loop
async def test_a_server_may_refuse_before_it_reads(kind: Kind, flow: Interceptor, size: int) -> None:
    """A call that is refused while it sends ends with the server's status, never with grpc.aio's "Internal error"."""
    codes: collections.Counter[tuple[grpc.StatusCode, str | None]] = collections.Counter()
    outcomes: list[Outcome] = []

    def note(call: Call) -> Flow:
        outcomes.append((yield call))

    async with aio_opened(Refusing(), note, flow) as link:
        for _ in range(TIMES):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await within(answered(link.stub(kind)(several(size=size))))
            codes[caught.value.code(), caught.value.details()] += 1

    assert codes == {(UNAUTHENTICATED, "who are you"): TIMES}
    assert {outcome.code for outcome in outcomes} == {UNAUTHENTICATED}
    assert {outcome.trailing_metadata["x-why"] for outcome in outcomes} == {"no token"}
    assert len(outcomes) == TIMES


@pytest.mark.fact("R-42")
@uploading
@writable
@on_the_loop
async def test_a_writer_is_told_why(kind: Kind, flow: Interceptor) -> None:
    """`write` to a call that the server refused raises the server's status, or that the RPC has finished."""
    codes: set[grpc.StatusCode] = set()

    async def press(call: Any) -> None:
        with contextlib.suppress(asyncio.InvalidStateError):
            for _ in range(20):
                await call.write("x")
        await answered(call)

    async with aio_opened(Refusing(), flow) as link:
        for _ in range(TIMES):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await within(press(link.stub(kind)()))
            codes.add(caught.value.code())

    assert codes == {UNAUTHENTICATED}


@pytest.mark.fact("R-42")
@writable
@on_the_loop
async def test_a_server_may_end_well_before_it_reads(flow: Interceptor) -> None:
    """A bidi call that the server ends with OK while requests are on their way gives all messages, and its trailers."""
    outcomes: list[Outcome] = []

    def note(call: Call) -> Flow:
        outcomes.append((yield call))

    async with aio_opened(Early(), note, flow) as link:
        stub = link.stub(Kind.STREAM_STREAM)
        answers = [await within(answered(stub(several()))) for _ in range(TIMES)]

    assert answers == [["1", "2", "3"]] * TIMES
    assert {(outcome.code, outcome.responses) for outcome in outcomes} == {(OK, 3)}
    assert {outcome.trailing_metadata["x-early"] for outcome in outcomes} == {"yes"}


@pytest.mark.fact("R-42")
@writable
@on_the_loop
async def test_messages_in_front_of_the_status_are_not_lost(flow: Interceptor) -> None:
    """Who writes until it fails, and reads only then, reads everything that the server sent."""
    async with aio_opened(Early(), flow) as link:
        call = link.stub(Kind.STREAM_STREAM)()
        with pytest.raises((grpc.aio.AioRpcError, asyncio.InvalidStateError)):
            await within(flood(call))
        messages = await within(answered(call))
        code, trailing = await within(call.code()), await within(call.trailing_metadata())

    assert messages == ["1", "2", "3"]
    assert code is OK
    assert trailing["x-early"] == "yes"


@pytest.mark.fact("R-42")
@on_the_loop
async def test_a_refused_call_that_nobody_reads_ends() -> None:
    """The flow is told of a refused bidi call although the application neither reads nor writes any more."""
    watch = Watch()

    async with aio_opened(Refusing(), watch) as link:
        call = link.stub(Kind.STREAM_STREAM)(several())
        code = await within(call.code())
        outcome = await watch.told()

    assert code is outcome.code is UNAUTHENTICATED
