"""What a stub gives: a call that does not block, can be asked everything, and tells its callbacks."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import Call, Flow, Interceptor, Kind, errors, intercept_channel
from interpose.testing import Echo, failed, ok
from tests.facts.calling import (
    EVERY,
    FUTURES,
    STARTED,
    Gate,
    Watch,
    Way,
    aio_opened,
    answered,
    hooked,
    in_time,
    kept,
    late,
    opened,
    passing,
    ways,
)
from tests.facts.hosting import on_the_loop, reached, within
from tests.protos.compiled import Generated
from tests.support.patience import PATIENCE

pytestmark = pytest.mark.usefixtures("hosts")

OK = grpc.StatusCode.OK
CANCELLED = grpc.StatusCode.CANCELLED
NOT_FOUND = grpc.StatusCode.NOT_FOUND
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE

ASYNCIO = [way for way in STARTED if way.aio]
SYNC = [way for way in STARTED if not way.aio]

all_kinds = pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.value)
unary = pytest.mark.parametrize("kind", [Kind.UNARY_UNARY, Kind.STREAM_UNARY], ids=lambda kind: kind.value)


# --- nothing blocks ---------------------------------------------------------------------------------------------------


@pytest.mark.fact("C-6", "R-1", "R-2")
@ways(FUTURES)
def test_a_future_does_not_wait_for_the_server(way: Way) -> None:
    """A stub's future, or asyncio call, is there while the handler is still at work; the flow resumes when it is done."""
    watch, gate = Watch(), Gate()

    with opened(way, gate, watch) as link:
        future = in_time(link.start)
        gate.wait_begun()  # although nobody has asked for the result yet
        before = future.done(), len(watch.outcomes)
        gate.go.set()
        result = future.messages()

    assert before == (False, 0)
    assert result == ["answer"]
    assert watch.outcome().ok


@pytest.mark.fact("C-6")
@ways(STARTED)
def test_nothing_that_does_not_block_waits_for_a_delay(way: Way) -> None:
    """Futures and streams are there at once although a flow has delayed the call for a minute."""
    with opened(way, Echo(), late) as link:
        call = in_time(link.start)
        done = call.done()
        call.cancel()

    assert not done


@pytest.mark.fact("C-6", "A-15")
@ways(STARTED)
def test_nothing_that_does_not_block_waits_for_another_attempt(way: Way) -> None:
    """Futures and streams are there at once although a flow sends again later; the last attempt gives the result."""

    def retry(call: Call) -> Flow:
        outcome = yield call.buffered()
        while not outcome.ok and outcome.replayable:
            outcome = yield call.buffered().after(0.01)

    echo = Echo([failed(UNAVAILABLE), failed(UNAVAILABLE)])
    with opened(way, echo, retry) as link:
        call = in_time(lambda: link.start("a", "b"))
        messages = in_time(call.messages)

    assert messages
    assert call.code() is OK
    assert len(echo.attempts) == 3


@pytest.mark.fact("C-6", "A-16")
@ways(STARTED)
def test_callbacks_are_called_once_after_the_last_attempt(way: Way) -> None:
    """A done callback of a call that is sent twice is called once, with the call, when all is over."""
    called, over = list[Any](), threading.Event()

    def note(call: Any) -> None:
        called.append(call)
        over.set()

    with opened(way, Echo([failed(UNAVAILABLE)]), kept) as link:
        call = link.start()
        call.add_done_callback(note)
        assert call.messages()
        assert over.wait(PATIENCE)
        code = call.code()

    assert called == [call.native]
    assert code is OK


@pytest.mark.fact("E-2")
@ways(ASYNCIO)
def test_a_flow_runs_to_its_first_yield_before_the_stub_returns(way: Way) -> None:
    """What a flow does before it yields is done when the stub method returns."""
    seen: list[str] = []

    def note(call: Call) -> Flow:
        seen.append(str(call.method))
        yield call

    with opened(way, Echo(), note) as link:
        stub, at_once = link.stub(), list[str]()

        def send(argument: Any) -> Any:
            call = stub(argument)
            at_once.extend(seen)
            return call

        link.call(stub=send)

    assert at_once == [f"/interpose.testing.Echo/{way.kind.value}"]


# --- everything can be asked ------------------------------------------------------------------------------------------


@pytest.mark.fact("C-9")
@ways(SYNC)
def test_an_intercepted_call_can_do_what_grpcs_own_can(way: Way) -> None:
    """Under interceptors a future or stream keeps every method and property of grpc's own."""
    with opened(way, Echo(), passing) as link:
        ours, theirs = link.start(), link.over(link.native).start()
        missing = {name for name in dir(theirs.native) if not name.startswith("_")} - set(dir(ours.native))
        for call in (ours, theirs):
            call.messages()

    exceptions_own = set(dir(Exception))  # grpc's calls are exceptions, ours are not
    iterators_own = set() if way.streams else {"next"}  # grpc's futures pretend to be iterators
    assert missing - exceptions_own - iterators_own == set()


@pytest.mark.fact("A-3", "A-8")
@all_kinds
@on_the_loop
async def test_a_call_is_grpcs_own_kind_of_call(kind: Kind) -> None:
    """What an asyncio stub returns is of grpc.aio's class for the kind, with all its questions answered."""
    native = {
        Kind.UNARY_UNARY: grpc.aio.UnaryUnaryCall,
        Kind.UNARY_STREAM: grpc.aio.UnaryStreamCall,
        Kind.STREAM_UNARY: grpc.aio.StreamUnaryCall,
        Kind.STREAM_STREAM: grpc.aio.StreamStreamCall,
    }
    told: list[Any] = []

    async with aio_opened(Echo(), passing) as link:
        call = link.start(kind, timeout=PATIENCE)
        call.add_done_callback(told.append)
        before = (call.done(), call.cancelled())
        left = call.time_remaining()
        await within(answered(call))
        code, details = await within(call.code()), await within(call.details())
        initial, trailing = await within(call.initial_metadata()), await within(call.trailing_metadata())

    assert isinstance(call, native[kind])
    assert isinstance(call, (grpc.aio.Call, grpc.aio.RpcContext))
    assert before == (False, False)
    assert 0 < left <= PATIENCE
    assert (code, details) == (OK, "")
    assert (list(initial), list(trailing)) == ([], [])
    assert told == [call]
    assert call.done()
    assert not call.cancel()
    assert not call.cancelled()


@pytest.mark.fact("A-3", "R-9")
@ways(EVERY)
def test_an_outer_flow_sees_the_true_end(way: Way) -> None:
    """Two flows deep, code, text and trailing metadata are the server's, on an outcome and on the caller's error."""
    watch, why = Watch(), (("x-why", "gone"),)

    echo = Echo([failed(NOT_FOUND, "no such thing", trailing=why)])
    with opened(way, echo, watch, passing) as link, pytest.raises(errors.NotFound) as caught:
        link.call()

    outcome = watch.outcome()
    assert outcome.code is caught.value.code() is NOT_FOUND
    assert outcome.details == caught.value.details() == "no such thing"
    assert outcome.trailing_metadata["x-why"] == caught.value.trailing_metadata()["x-why"] == "gone"


@pytest.mark.fact("A-3")
@ways(STARTED)
def test_trailing_metadata_of_a_success_is_seen(way: Way) -> None:
    """A success has trailing metadata too, for the flow and for the caller."""
    watch = Watch()

    with opened(way, Echo([ok(trailing=(("x-cost", "7"),))]), watch) as link:
        call = link.start()
        call.messages()
        trailing = call.ask("trailing_metadata")

    assert dict(trailing)["x-cost"] == watch.outcome().trailing_metadata["x-cost"] == "7"


@pytest.mark.fact("C-20")
@ways(EVERY)
def test_stub_methods_can_be_registered(way: Way) -> None:
    """Generated stubs register their methods with the channel, by an argument that only they give."""
    watch = Watch()

    with opened(way, Echo(), watch) as link:
        messages = link.call(stub=link.stub(_registered_method=True))

    assert messages
    assert watch.outcome().ok


@pytest.mark.fact("C-20", "A-10")
@on_the_loop
async def test_generated_stubs_work(generated: Generated) -> None:
    """A generated stub works on an intercepted asyncio channel for every kind."""
    messages, stubs = generated("features_pb2"), generated("features_pb2_grpc")
    outcomes: list[Any] = []

    def note(call: Call) -> Flow:
        outcomes.append((yield call))

    class Features(stubs.FeaturesServicer):  # type: ignore[name-defined,misc]
        async def Ask(self, request: Any, context: Any) -> Any:
            return request

        async def List(self, request: Any, context: Any) -> AsyncIterator[Any]:
            yield request

        async def Collect(self, requests: AsyncIterator[Any], context: Any) -> Any:
            return await anext(requests)

        async def Chat(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
            async for request in requests:
                yield request

    server = grpc.aio.server()
    stubs.add_FeaturesServicer_to_server(Features(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with intercept_channel(grpc.aio.insecure_channel(f"127.0.0.1:{port}"), note) as channel:
        stub, text = stubs.FeaturesStub(channel), messages.Text(text="hello")
        asked = await within(stub.Ask(text))
        listed = await within(answered(stub.List(text)))
        collected = await within(stub.Collect(iter([text])))
        chatted = await within(answered(stub.Chat(iter([text]))))
    await server.stop(None)

    assert [asked, *listed, collected, *chatted] == [text] * 4
    assert [outcome.ok for outcome in outcomes] == [True] * 4


# --- callbacks --------------------------------------------------------------------------------------------------------


@pytest.mark.fact("A-16", "R-36")
@ways(STARTED)
def test_a_done_callback_that_comes_late_is_called_at_once(way: Way) -> None:
    """`add_done_callback` on a call that has ended calls back, with the call."""
    told: list[Any] = []

    with opened(way, Echo(), passing) as link:
        call = link.start()
        call.messages()
        call.add_done_callback(told.append)

    assert told == [call.native]


@pytest.mark.fact("R-36")
@ways(SYNC)
def test_a_callback_after_the_end_is_not_taken(way: Way) -> None:
    """`add_callback` after the end returns False, and what it was given is not called."""
    called: list[str] = []

    with opened(way, Echo(), passing) as link:
        call = link.start()
        call.messages()
        taken = call.native.add_callback(lambda: called.append("callback"))

    assert taken is False
    assert not called


@pytest.mark.fact("R-36", "R-37")
@ways(STARTED)
def test_a_callback_that_raises_stops_no_other(way: Way, caplog: pytest.LogCaptureFixture) -> None:
    """A callback that raises is logged; the others run, and so does the flow."""
    watch, called = Watch(), threading.Semaphore(0)

    def raising(*_: Any) -> None:
        raise ValueError("a bug")

    with opened(way, Gate(), watch) as link, caplog.at_level(logging.ERROR):
        call = link.start()
        call.add_done_callback(raising)
        call.add_done_callback(lambda _: called.release())
        if not way.aio:
            call.native.add_callback(raising)
            call.native.add_callback(called.release)
        call.cancel()
        told = [called.acquire(timeout=PATIENCE) for _ in range(1 if way.aio else 2)]

    assert all(told)
    assert watch.outcome().code is CANCELLED
    assert sum(isinstance((record.exc_info or [None] * 2)[1], ValueError) for record in caplog.records) == len(told)


# --- awaiting ---------------------------------------------------------------------------------------------------------


@pytest.mark.fact("E-3", "A-4")
@unary
@pytest.mark.parametrize("flow", [passing, kept], ids=["once", "retried"])
@on_the_loop
async def test_awaiting_twice_gives_the_same(kind: Kind, flow: Interceptor) -> None:
    """A call may be awaited again, and gives its response again."""
    async with aio_opened(Echo([failed(UNAVAILABLE)] if flow is kept else []), flow) as link:
        call = link.start(kind)
        first, second = await within(call), await within(call)

    assert first == second == "a"


@pytest.mark.fact("E-3", "A-4")
@unary
@on_the_loop
async def test_awaiting_a_failure_twice_raises_twice(kind: Kind) -> None:
    """A failed call raises each time it is awaited."""
    async with aio_opened(Echo([failed(NOT_FOUND)]), passing) as link:
        call = link.start(kind)
        for _ in range(2):
            with pytest.raises(errors.NotFound):
                await within(call)


@pytest.mark.fact("E-3")
@unary
@pytest.mark.parametrize("flow", [passing, kept, hooked], ids=["once", "retried", "hooked"])
@on_the_loop
async def test_two_tasks_may_await_one_call(kind: Kind, flow: Interceptor) -> None:
    """Two tasks that await one call, before it has ended, both get the response; a third gets it afterwards."""
    watch, script = Watch(), [failed(UNAVAILABLE, delay=0.02) if flow is kept else ok(delay=0.02)]

    async with aio_opened(Echo(script), watch, flow) as link:
        call = link.start(kind)
        early = await within(asyncio.gather(answered(call), answered(call)))
        later = await within(call)

    assert list(early) == [["a"], ["a"]]
    assert later == "a"
    assert watch.outcomes[0].ok


@pytest.mark.fact("E-3")
@unary
@on_the_loop
async def test_a_call_is_awaited_before_while_and_after(kind: Kind) -> None:
    """Awaiting starts anywhere in the life of a call: while it waits to be sent, is under way, or has ended."""
    gate = Gate()

    def delayed(call: Call) -> Flow:
        yield call.after(0.05)

    async with aio_opened(gate, delayed) as link:
        call = link.start(kind)
        before = asyncio.create_task(answered(call))
        await reached(gate.begun)
        during = asyncio.create_task(answered(call))
        await asyncio.sleep(0)
        gate.go.set()
        first, second = await within(before), await within(during)
        third = await within(call)

    assert first == second == [third] == ["answer"]
