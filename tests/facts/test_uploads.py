"""Request streams: sent again or not, written by hand, broken by what makes them."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import Call, Flow, Interceptor, Kind, Outcome, errors
from interpose.testing import Echo, failed
from tests.facts.calling import (
    EVERY,
    FULL,
    UPLOADS,
    Gate,
    Service,
    Uploads,
    Watch,
    Way,
    again,
    aio_opened,
    answered,
    buffered,
    hooked,
    in_time,
    kept,
    opened,
    passing,
    ways,
)
from tests.facts.hosting import on_the_loop, reached, within
from tests.support.patience import PATIENCE

pytestmark = pytest.mark.usefixtures("hosts")

CANCELLED = grpc.StatusCode.CANCELLED
DEADLINE_EXCEEDED = grpc.StatusCode.DEADLINE_EXCEEDED
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
UNKNOWN = grpc.StatusCode.UNKNOWN

LARGE = "a" * 1_000_000  # a message that fills the room for those on their way
TO_ONE_ANSWER = [way for way in EVERY if way.kind is Kind.STREAM_UNARY]

uploading = pytest.mark.parametrize("kind", [Kind.STREAM_UNARY, Kind.STREAM_STREAM], ids=lambda kind: kind.value)
FLOWS = {"plain": passing, "hooked": hooked, "buffered": buffered(2**22)}
writable = pytest.mark.parametrize("flow", FLOWS.values(), ids=FLOWS.keys())


# --- sent again, or not -----------------------------------------------------------------------------------------------


@pytest.mark.fact("C-10")
@ways(UPLOADS)
def test_a_kept_request_stream_is_sent_again_in_full(way: Way) -> None:
    """The second attempt sends what the first had read, and the application's iterator is read once."""
    echo, reads = Echo([failed(UNAVAILABLE)]), list[str]()

    def messages() -> Iterator[str]:
        for message in ("a", "b"):
            reads.append(message)
            yield message

    with opened(way, echo, kept) as link:
        answer = link.call(argument=messages())

    assert answer == FULL[way.kind]
    assert reads == ["a", "b"]
    assert [attempt.requests for attempt in echo.attempts] == [["a", "b"], ["a", "b"]]


@pytest.mark.fact("C-10")
@ways(TO_ONE_ANSWER)
def test_a_stream_that_was_half_read_is_sent_again_in_full(way: Way) -> None:
    """An attempt that failed amid the stream: the next one sends every message."""
    uploads = Uploads(2)

    with opened(way, uploads, kept) as link:
        [answer] = in_time(lambda: link.call("a", "b", "c"))

    assert answer == "a,b,c"
    assert uploads.begun == 2


@pytest.mark.fact("C-10")
@pytest.mark.parametrize("room", [None, 2], ids=["unbuffered", "past the limit"])
@ways(UPLOADS)
def test_a_request_stream_that_is_not_kept_is_not_sent_again(way: Way, room: int | None) -> None:
    """A flow that sends a stream again which was not kept, or outgrew its buffer: the first failure stands."""
    echo, outcomes = Echo([failed(UNAVAILABLE)]), list[Outcome]()

    def stubborn(call: Call) -> Flow:
        outcomes.append((yield call))
        outcomes.append((yield call))

    flows = [stubborn] if room is None else [stubborn, buffered(room)]
    with opened(way, echo, *flows) as link, pytest.raises(errors.Unavailable, match="as scripted"):
        in_time(lambda: link.call("a", "b", "c"))

    assert [outcome.replayable for outcome in outcomes] == [False]
    assert len(echo.attempts) == 1


@pytest.mark.fact("C-10", "C-13")
@ways(UPLOADS)
def test_a_request_stream_that_nobody_read_is_sent_again(way: Way) -> None:
    """A call that failed before its stream was asked for a message can be sent again, unbuffered."""
    outcomes: list[Outcome] = []

    def hurried(call: Call) -> Flow:
        outcomes.append((yield call.with_timeout(0)))
        yield call.with_timeout(None)

    with opened(way, Echo(), hurried) as link:
        messages = link.call("a", "b")

    assert messages == FULL[way.kind]
    assert [(outcome.code, outcome.replayable) for outcome in outcomes] == [(DEADLINE_EXCEEDED, True)]


@pytest.mark.fact("C-10")
@pytest.mark.parametrize("large", [False, True], ids=["kept", "past the limit"])
@ways(way for way in TO_ONE_ANSWER if not way.aio)
def test_a_message_that_came_between_two_attempts_is_not_lost(way: Way, large: bool) -> None:
    """The next message comes while the first attempt fails: it goes to the second, also if it outgrows the buffer."""
    uploads, second = Uploads(1), "b" * (200 if large else 1)

    def messages() -> Iterator[str]:
        yield "a"
        uploads.seconds.wait(PATIENCE)
        yield second
        yield "c"

    with opened(way, uploads, again, buffered(100)) as link:
        in_time(lambda: link.call(argument=messages()))

    assert uploads.complete == [["a", second, "c"]]


@pytest.mark.fact("C-10")
@ways(way for way in TO_ONE_ANSWER if not way.aio)
def test_an_unbuffered_stream_is_not_read_by_two_attempts(way: Way) -> None:
    """An attempt fails before the application gave its first message: no later attempt sends a stream with a hole."""
    uploads, failed_once = Uploads(0), threading.Event()

    def retry(call: Call) -> Flow:
        outcome = yield call
        failed_once.set()
        if outcome.replayable:
            yield call

    def messages() -> Iterator[str]:
        failed_once.wait(PATIENCE)
        yield "a"
        yield "b"

    with opened(way, uploads, retry) as link:
        try:
            in_time(lambda: link.call(argument=messages()))
        except errors.Unavailable as error:
            refused = error.details() == "as scripted"
        else:
            refused = False

    assert uploads.complete == ([] if refused else [["a", "b"]])


@pytest.mark.fact("C-10", "A-15")
@ways(TO_ONE_ANSWER)
def test_copies_of_a_stream_that_outgrows_its_buffer_are_not_cut_off(way: Way) -> None:
    """Hedged copies of a stream that outgrows its buffer: the answer is one to the whole of it, each time."""
    messages = ["a" * 10, "b" * 10, "c" * 10]

    def hedge(call: Call) -> Flow:
        yield call.buffered(15).hedged(copies=2, delay=0)

    with opened(way, Uploads(), hedge) as link:
        answers = [in_time(lambda: link.call(*messages)) for _ in range(10)]

    assert answers == [[",".join(messages)]] * 10


# --- broken -----------------------------------------------------------------------------------------------------------


@pytest.mark.fact("A-11", "C-11")
@pytest.mark.parametrize("flow", [passing, hooked, buffered(100)], ids=["plain", "hooked", "buffered"])
@pytest.mark.parametrize(
    ("way", "asynchronous"),
    [*((way, False) for way in UPLOADS), *((way, True) for way in UPLOADS if way.aio)],
    ids=lambda given: "async iterator" if given is True else "" if given is False else str(given),
)
def test_an_exception_of_the_request_stream_is_the_cause(way: Way, asynchronous: bool, flow: Interceptor) -> None:
    """What breaks the application's request stream is the `__cause__` of what the caller gets and flows are told."""
    watch, fault = Watch(), KeyError("no such row")

    def plain() -> Iterator[str]:
        yield "a"
        raise fault

    async def waiting() -> AsyncIterator[str]:
        for message in plain():
            yield message

    with opened(way, Echo(), watch, flow) as link, pytest.raises(errors.Unknown) as caught:
        link.call(argument=waiting() if asynchronous else plain())

    outcome = watch.outcome()
    assert caught.value.__cause__ is fault
    assert caught.value.local
    assert outcome.code is UNKNOWN
    assert outcome.error is not None
    assert outcome.error.__cause__ is fault
    assert outcome.local


# --- of every sort, and written ---------------------------------------------------------------------------------------


async def waiting_messages() -> AsyncIterator[str]:
    for message in ("a", "b"):
        yield message


def plain_messages() -> Iterator[str]:
    yield from ("a", "b")


SORTS: dict[str, Callable[[], Any]] = {
    "list": lambda: ["a", "b"],
    "iter": lambda: iter(("a", "b")),
    "plain": plain_messages,
    "async": waiting_messages,
}


@pytest.mark.fact("A-9")
@uploading
@writable
@pytest.mark.parametrize("sort", SORTS)
@on_the_loop
async def test_request_streams_of_every_sort(kind: Kind, flow: Interceptor, sort: str) -> None:
    """Lists, iterators, generators and asynchronous generators of requests all arrive."""
    async with aio_opened(Echo(), flow) as link:
        messages = await within(answered(link.stub(kind)(SORTS[sort]())))

    assert messages == FULL[kind]


async def written(call: Any, *messages: str) -> list[str]:
    """Perform a call by the writer's API; gives the messages it answers."""
    for message in messages:
        await call.write(message)
    await call.done_writing()
    return await answered(call)


async def flood(call: Any) -> None:
    """Write until it fails."""
    while True:
        await call.write(LARGE)


@pytest.mark.fact("A-6")
@uploading
@writable
@on_the_loop
async def test_the_writers_api_works_through_flows(kind: Kind, flow: Interceptor) -> None:
    """`write` and `done_writing` reach the server, whatever the flow does with the messages."""
    watch = Watch()

    async with aio_opened(Echo(), watch, flow) as link:
        messages = await within(written(link.stub(kind)(), "a", "b"))
        outcome = await watch.told()

    assert messages == FULL[kind]
    assert outcome.requests == 2


@pytest.mark.fact("A-6")
@uploading
@on_the_loop
async def test_what_is_written_can_be_changed_on_its_way(kind: Kind) -> None:
    """A map changes the messages of a writer as it changes those of an iterator."""

    def shout(call: Call) -> Flow:
        yield call.map(requests=str.upper)

    async with aio_opened(Echo(), shout) as link:
        messages = await within(written(link.stub(kind)(), "a", "b"))

    assert messages == [message.upper() for message in FULL[kind]]


@pytest.mark.fact("A-6")
@uploading
@pytest.mark.parametrize("keep", [False, True], ids=["plain", "buffered"])
@on_the_loop
async def test_a_hook_that_refuses_what_is_written_ends_the_rpc(kind: Kind, keep: bool) -> None:
    """A status raised by a map of requests ends the RPC of a writer, for the writer too."""
    watch = Watch()

    def refuse(message: str) -> str:
        raise errors.InvalidArgument("not this")

    def refusing(call: Call) -> Flow:
        call = call.map(requests=refuse)
        yield call.buffered() if keep else call

    async with aio_opened(Gate(), watch, refusing) as link:
        call = link.stub(kind)()
        with pytest.raises(errors.InvalidArgument) as caught:
            await within(call.write("a"))
        with pytest.raises(errors.InvalidArgument):
            await within(answered(call))
        outcome = await watch.told()

    assert isinstance(caught.value, grpc.aio.AioRpcError)
    assert outcome.code is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.fact("A-6", "C-10")
@uploading
@on_the_loop
async def test_what_was_written_is_sent_again(kind: Kind) -> None:
    """A call that is written to is sent again in full where its messages are kept."""
    watch, echo = Watch(), Echo([failed(UNAVAILABLE)])

    async with aio_opened(echo, watch, kept) as link:
        messages = await within(written(link.stub(kind)(), "a", "b"))
        outcome = await watch.told()

    assert messages == FULL[kind]
    assert [attempt.requests for attempt in echo.attempts] == [["a", "b"], ["a", "b"]]
    assert outcome.attempts == 2


class RefusesOnce(Service):
    """A service that refuses the first request stream before it has read of it, and echoes the others."""

    def __init__(self) -> None:
        self.begun = 0

    def stream_unary(self, requests: Iterator[str], context: Any) -> str:
        return ",".join(self.stream_stream(requests, context))

    def stream_stream(self, requests: Iterator[str], context: Any) -> Iterator[str]:
        self.begun += 1
        if self.begun == 1:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you")
        yield from requests


@pytest.mark.fact("A-6")
@uploading
@writable
@on_the_loop
async def test_what_is_first_written_to_a_refused_call_reaches_the_next(kind: Kind, flow: Interceptor) -> None:
    """A message that the first attempt never took is written to the second, and none is lost or doubled."""
    service, refused = RefusesOnce(), asyncio.Event()

    def retry(call: Call) -> Flow:
        outcome = yield call
        if not outcome.ok:
            refused.set()
            yield call

    async with aio_opened(service, retry, flow) as link:
        call = link.stub(kind)()
        await within(refused.wait())
        messages = await within(written(call, "a", "b"))

    assert messages == FULL[kind]
    assert service.begun == 2


@pytest.mark.fact("A-6")
@uploading
@writable
@on_the_loop
async def test_the_end_of_an_empty_upload_reaches_the_next_attempt(kind: Kind, flow: Interceptor) -> None:
    """`done_writing` holds for every attempt, not only for the one that was under way."""
    service = Echo([failed(UNAVAILABLE)])

    async with aio_opened(service, again, flow) as link:
        messages = await within(written(link.stub(kind)()))

    assert messages == ([] if kind.response_streaming else [""])
    assert len(service.attempts) == 2


@pytest.mark.fact("A-6")
@uploading
@writable
@on_the_loop
async def test_writing_after_the_end_of_the_upload_is_an_error(kind: Kind, flow: Interceptor) -> None:
    """After `done_writing`, which may be called twice, `write` says what grpc's own says."""
    async with aio_opened(Gate(), flow) as link:
        call = link.stub(kind)()
        await within(call.write("a"))
        await within(call.done_writing())
        await within(call.done_writing())
        with pytest.raises(asyncio.InvalidStateError, match="half closed"):
            await within(call.write("b"))
        call.cancel()


@pytest.mark.fact("A-8")
@uploading
@writable
@on_the_loop
async def test_writing_to_a_cancelled_call_is_an_error(kind: Kind, flow: Interceptor) -> None:
    """After cancel(), `write` says what grpc's own bare call says, and `done_writing` does nothing."""
    async with aio_opened(Gate(), flow) as link:
        said = []
        for call in (link.stub(kind)(), link.stub(kind, bare=True)()):
            await within(call.write("a"))
            call.cancel()
            with pytest.raises(asyncio.InvalidStateError) as caught:
                await within(call.write("b"))
            said.append(str(caught.value))
            await within(call.done_writing())

    assert said[0] == said[1]


@pytest.mark.fact("A-6", "A-13")
@uploading
@pytest.mark.parametrize("flow", [passing, buffered(2**22)], ids=["plain", "buffered"])
@on_the_loop
async def test_a_writer_that_is_cancelled_cancels_the_rpc(kind: Kind, flow: Interceptor) -> None:
    """Cancelling the task that writes cancels the RPC, as it does on a bare channel."""
    gate, watch, writing = Gate(), Watch(), asyncio.Event()

    async def write(call: Any) -> None:
        writing.set()
        await flood(call)

    async with aio_opened(gate, watch, flow) as link:
        call = link.stub(kind)()
        await within(call.write("a"))
        await reached(gate.begun)
        task = asyncio.create_task(write(call))
        await within(writing.wait())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await within(task)
        code = await within(call.code())
        with pytest.raises(asyncio.CancelledError):
            await within(answered(call))
        await reached(gate.ended)

    assert code is watch.outcomes[0].code is CANCELLED
    assert call.cancelled()


@pytest.mark.fact("A-6")
@uploading
@writable
@on_the_loop
async def test_a_writer_that_waits_when_the_call_ends_is_told(kind: Kind, flow: Interceptor) -> None:
    """A `write` that waits for room ends with the RPC, with the RPC's failure."""
    async with aio_opened(Gate(), flow) as link:
        call = link.stub(kind)(timeout=0.2)
        with pytest.raises((errors.DeadlineExceeded, asyncio.InvalidStateError)):
            await within(flood(call))
        code = await within(call.code())

    assert code is DEADLINE_EXCEEDED


@pytest.mark.fact("A-6")
@uploading
@on_the_loop
async def test_iterators_and_writers_do_not_mix(kind: Kind) -> None:
    """Writing to a call that was given an iterator is a UsageError, as it is in grpc."""
    async with aio_opened(Gate(), passing) as link:
        call = link.start(kind)
        with pytest.raises(grpc.aio.UsageError):
            await within(call.write("b"))
        with pytest.raises(grpc.aio.UsageError):
            await within(call.done_writing())
        call.cancel()
