"""Rules that one of the two client shells had and the other lacked."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import Call, Flow, Interceptor, Kind, Method, Outcome, Side, intercept_channel
from interpose.aio.requests import Requests
from interpose.testing import Place, failed, ok
from interpose.testing.echo import Echo, Stub
from tests.hedging.serving import FAR, UNAVAILABLE, Way, served
from tests.support.patience import PATIENCE

STREAMS = [
    Place(asyncio, Side.CLIENT, kind) for asyncio in (False, True) for kind in (Kind.UNARY_STREAM, Kind.STREAM_STREAM)
]


# - a request stream that was begun cannot be begun again: asyncio lacked it -


async def test_an_upload_that_has_asked_for_a_message_cannot_be_repeated() -> None:
    """What its iterator gives, or has done until then, is lost with the attempt, though no message was sent."""
    asked, never = asyncio.Event(), asyncio.Event()

    async def messages() -> AsyncIterator[str]:
        asked.set()
        await never.wait()
        yield "a"

    upload = Requests(messages(), str.encode).upload(Call(Method("/a/b", Kind.STREAM_UNARY)))
    assert upload is not None
    reading = asyncio.ensure_future(anext(aiter(upload)))
    await asyncio.wait_for(asked.wait(), PATIENCE)

    assert not upload.close()
    reading.cancel()


async def test_an_upload_that_was_never_read_can() -> None:
    """grpc has not asked for anything; and what comes too late takes nothing."""
    requests = Requests(iter(["a"]), str.encode)
    call = Call(Method("/a/b", Kind.STREAM_UNARY))
    late, next_one = requests.upload(call), requests.upload(call)
    assert late is not None and next_one is not None

    assert late.close()
    assert [message async for message in late] == []
    assert [message.data async for message in next_one] == [b"a"]


# - a race that is decided while `ready` is asked starts no other copy: asyncio lacked it -


def test_a_race_that_is_decided_while_ready_is_asked() -> None:
    """The application cancels its call just then."""
    calls: list[Any] = []
    sent: list[Call] = []

    def ready() -> bool:
        calls[0].cancel()
        return True

    def hedge(call: Call) -> Flow:
        yield call.hedged(copies=2, delay=FAR, verdict=lambda outcome: 0.0, ready=ready)

    def note(call: Call) -> Flow:
        sent.append(call)
        yield call

    async def main(address: str) -> None:
        async with intercept_channel(grpc.aio.insecure_channel(address), hedge, note) as channel:
            calls.append(Way("aio", Kind.UNARY_UNARY).stub(channel)("a", timeout=PATIENCE))
            assert await calls[0].code() is grpc.StatusCode.CANCELLED

    with served(UNAVAILABLE, "second") as service:
        asyncio.run(main(service.address))

    assert len(sent) == 1


# - a cancelled call is CANCELLED, whatever a flow makes of it: sync lacked it -


def recovers(call: Call) -> Flow:
    outcome = yield call
    return outcome if outcome.ok else Outcome.success(["made up"] if call.kind.response_streaming else "made up")


@pytest.mark.parametrize("start", [lambda stub: stub.unary_unary.future("a"), lambda stub: stub.unary_stream("a")])
def test_a_cancelled_call_on_sync(start: Callable[[Stub], Any]) -> None:
    """A future and a stream."""
    with (
        Echo([ok(hang=True)]).serve() as target,
        intercept_channel(grpc.insecure_channel(target), recovers) as channel,
    ):
        call = start(Stub(channel))
        assert call.cancel()

        assert (call.code(), call.cancelled()) == (grpc.StatusCode.CANCELLED, True)
        with pytest.raises(grpc.FutureCancelledError):
            call.result()


# - what a flow answers a response stream with is read as it is asked for: asyncio read all of it at once -


def answers(make: Callable[[], Any]) -> Interceptor:
    """Answers in the server's place once that has failed: on a thread of grpc's, or in a callback of the loop."""

    def flow(call: Call) -> Flow:
        yield call.buffered()
        return Outcome.success(make())

    return flow


def endless(taken: list[int]) -> Iterator[str]:
    for number in itertools.count():
        taken.append(number)
        yield f"{number}"


async def first_two_on_asyncio(target: str, flow: Interceptor) -> list[str]:
    async with intercept_channel(grpc.aio.insecure_channel(target), flow) as channel:
        stream = Stub(channel).unary_stream("a", timeout=PATIENCE)
        return [await stream.read(), await stream.read()]


@pytest.mark.parametrize("on_asyncio", [False, True], ids=["sync", "asyncio"])
def test_an_answer_without_end(on_asyncio: bool) -> None:
    """The application takes as many as it wants."""
    taken: list[int] = []
    flow = answers(lambda: endless(taken))
    with Echo([failed(UNAVAILABLE)]).serve() as target:
        if on_asyncio:
            messages = asyncio.run(first_two_on_asyncio(target, flow))
        else:
            with intercept_channel(grpc.insecure_channel(target), flow) as channel:
                messages = list(itertools.islice(Stub(channel).unary_stream("a", timeout=PATIENCE), 2))

    assert messages == ["0", "1"]
    assert taken == [0, 1]


def broken() -> Iterator[str]:
    yield "one"
    raise ValueError("a bug")


@pytest.mark.parametrize("place", STREAMS, ids=str)
def test_an_answer_that_breaks(place: Place) -> None:
    """The reader is raised what it raises, behind what came before."""
    with place.open(answers(broken), script=[failed(UNAVAILABLE)]) as rpc:
        reply = rpc.call("a", timeout=PATIENCE)

    assert reply.messages == ["one"]
    assert isinstance(reply.error, ValueError)


@pytest.mark.parametrize("place", STREAMS, ids=str)
def test_an_answer_that_is_no_stream(place: Place) -> None:
    """INTERNAL that says what is missing, and nothing hangs: no thread of grpc's ends with it."""
    with place.open(answers(lambda: 5), script=[failed(UNAVAILABLE), ...]) as rpc:
        replies = [rpc.call("a", timeout=PATIENCE) for _ in range(2)]

    assert {reply.code for reply in replies} == {grpc.StatusCode.INTERNAL}
    assert replies[0].details.endswith("with an int: a response stream needs an iterable of messages")
