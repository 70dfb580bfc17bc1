"""What is known to go wrong on asyncio servers with async handlers, one test per fact; generators and the read/write API."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import inspect
import json
import logging
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent import futures
from functools import partial
from inspect import unwrap
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer as AsyncHealthServicer

from interpose import Call, Flow, Metadata, Outcome, context, errors, server_interceptor, wait, when
from interpose import _handlers as handlers_of
from interpose.testing.echo import decode, encode
from tests.facts.serving import MAKE, PATIENCE, SERVICE, STREAMED, Watch, serving

Code = grpc.StatusCode
Body = Callable[[Any], Awaitable[Any]]

serve = partial(serving, "async")

# Kinds of RPC; "-rw" are handlers that use `await context.read()` and `await context.write()`.
SHAPES = [
    "unary_unary",
    "stream_unary",
    "stream_unary-rw",
    "unary_stream",
    "unary_stream-rw",
    "stream_stream",
    "stream_stream-rw",
]
STREAMS = [shape for shape in SHAPES if "_stream" in shape]
UPLOADS = [shape for shape in SHAPES if shape.startswith("stream")]

UNUSUAL: list[type[BaseException]] = [
    SystemExit,
    KeyboardInterrupt,
    GeneratorExit,
    futures.CancelledError,
    StopIteration,
    StopAsyncIteration,
    BaseException,
]


async def echo(request: str, _: Any) -> str:
    return request


def kind_of(shape: str) -> str:
    return shape.partition("-")[0]


def handling(shape: str, body: Body) -> dict[str, Any]:
    """A handler that reads its requests, and answers once with what `body` makes of the context."""
    kind, _, api = shape.partition("-")

    async def drain(argument: Any, context: Any) -> None:
        if kind.startswith("stream") and api == "rw":
            while await context.read() is not grpc.aio.EOF:
                pass
        elif kind.startswith("stream"):
            async for _ in argument:
                pass

    async def unary(argument: Any, context: Any) -> Any:
        await drain(argument, context)
        return await body(context)

    async def writing(argument: Any, context: Any) -> None:
        await drain(argument, context)
        await context.write(await body(context))

    async def stream(argument: Any, context: Any) -> AsyncIterator[Any]:
        await drain(argument, context)
        yield await body(context)

    if kind not in STREAMED:
        return {kind: unary}
    return {kind: writing if api == "rw" else stream}


def flooding(shape: str, message: str, closed: threading.Event, started: threading.Event) -> dict[str, Any]:
    """A handler that sends this message without end; it says when it has sent one, and when it was closed."""
    kind, _, api = shape.partition("-")

    async def stream(argument: Any, context: Any) -> AsyncIterator[str]:
        try:
            while True:
                yield message
                started.set()
        finally:
            closed.set()

    async def writing(argument: Any, context: Any) -> None:
        try:
            while True:
                await context.write(message)
                started.set()
        finally:
            closed.set()

    return {kind: writing if api == "rw" else stream}


def answering(response: Any) -> Body:
    async def body(_: Any) -> Any:
        return response

    return body


def raising(error: BaseException | type[BaseException]) -> Body:
    async def body(_: Any) -> Any:
        raise error

    return body


def blocked(event: threading.Event) -> Iterator[str]:
    """A request stream that is open and silent until the event."""
    event.wait(PATIENCE)
    yield from ()


class Held:
    """A handler's body that says when it was entered, and stays until it is let go."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.raised: list[BaseException] = []

    async def __call__(self, context: Any) -> str:
        self._loop, self._go = asyncio.get_running_loop(), asyncio.Event()
        self.entered.set()
        try:
            await asyncio.wait_for(self._go.wait(), PATIENCE)
        except BaseException as error:
            self.raised.append(error)
            raise
        return "late"

    def release(self) -> None:
        self._loop.call_soon_threadsafe(self._go.set)


# --- where flows run --------------------------------------------------------------------------------------------------


def test_s01_row12_a_flow_that_waits_delays_no_other_rpc() -> None:
    """While one RPC's flow waits, another RPC is answered."""
    held = Held()

    def slow(call: Call) -> Flow:
        if call.request == "slow":
            yield from wait(held(None))
        yield call

    with serve({"unary_unary": echo}, slow) as rpc:
        pending = rpc.start("slow")
        assert held.entered.wait(PATIENCE)
        reply = rpc.call("quick")
        overtaken = not pending.done()
        held.release()
        slowly = pending.result()

    assert reply.messages == ["quick"] and overtaken and slowly == "slow"


@pytest.mark.parametrize("shape", SHAPES)
def test_s02_an_interceptor_that_raises_is_named_and_its_text_kept(shape: str) -> None:
    """A fault of an interceptor is INTERNAL with its name; the text of the exception does not reach the client."""

    def broken(call: Call) -> Flow:
        raise ValueError("secret")
        yield call

    with serve(handling(shape, answering("a")), broken) as rpc:
        reply = rpc.call(kind=kind_of(shape))

    assert reply.code is Code.INTERNAL and "broken" in reply.details and "secret" not in reply.details


@pytest.mark.parametrize("fault", [ValueError("secret"), SystemExit(3), GeneratorExit()], ids=repr)
def test_s02_row13_a_condition_that_raises_fails_its_rpcs_only(fault: BaseException) -> None:
    """A condition of `when` that raises ends the RPC with INTERNAL, and the server goes on serving."""

    def pick(method: Any) -> bool:
        if method.name == "stream_unary":
            raise fault
        return True

    with serve({"unary_unary": echo, **handling("stream_unary", answering("a"))}, when(pick, Watch())) as rpc:
        failed = rpc.call(kind="stream_unary")
        reply = rpc.call("next")

    assert failed.code is Code.INTERNAL and "when(" in failed.details and "secret" not in failed.details
    assert reply.messages == ["next"]


@pytest.mark.parametrize("silent", [True, False])
@pytest.mark.parametrize("shape", UPLOADS)
def test_s03_row11_a_refusal_does_not_wait_for_the_client(shape: str, silent: bool) -> None:
    """A flow's refusal reaches a client that sends nothing, whether its stream stays open or is closed."""
    kinds: list[str] = []
    release = threading.Event()

    def outer(call: Call) -> Flow:
        kinds.append(call.kind.value)
        yield call

    def refuse(call: Call) -> Flow:
        raise errors.Unauthenticated("who are you?")
        yield call

    with serve(handling(shape, answering("a")), outer, refuse) as rpc:
        reply = rpc.call(kind=kind_of(shape), stream=blocked(release) if silent else iter(()))
        release.set()

    assert reply.code is Code.UNAUTHENTICATED and reply.details == "who are you?"
    assert kinds == [kind_of(shape)]


# --- how handlers fail ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["abort", "set and abort", "status"])
@pytest.mark.parametrize("shape", SHAPES)
def test_s19_s25_row17_abort_is_an_outcome(shape: str, how: str) -> None:
    """`abort` gives the flow and the client its code, details and trailing metadata, given with it or set before."""
    watch = Watch()

    class Status(grpc.Status):
        code, details, trailing_metadata = Code.NOT_FOUND, "no such thing", (("x-why", "gone"),)

    async def body(context: Any) -> None:
        if how == "abort":
            await context.abort(Code.NOT_FOUND, "no such thing", (("x-why", "gone"),))
        if how == "status":
            await context.abort_with_status(Status())
        context.set_details("no such thing")
        context.set_trailing_metadata((("x-why", "gone"),))
        await context.abort(Code.NOT_FOUND)

    with serve(handling(shape, body), watch) as rpc:
        reply = rpc.call(kind=kind_of(shape))

    [outcome] = watch.outcomes
    assert outcome.code is reply.code is Code.NOT_FOUND and isinstance(outcome.error, errors.NotFound)
    assert outcome.details == reply.details == "no such thing"
    assert outcome.trailing_metadata["x-why"] == reply.trailing["x-why"] == "gone"


@pytest.mark.parametrize("then", ["answer", "raise", "status"])
@pytest.mark.parametrize("shape", SHAPES)
def test_s04_s19_abort_swallowed_or_replaced_is_an_abort(shape: str, then: str) -> None:
    """A handler that swallows what `abort` raises, and answers or raises something else, has aborted."""
    watch = Watch()

    async def body(context: Any) -> str:
        try:
            await context.abort(Code.NOT_FOUND, "first")
        except Exception:  # that is the fault in question
            if then == "raise":
                raise KeyError("afterwards") from None
            if then == "status":
                raise errors.DataLoss("afterwards") from None
        return "answer"

    with serve(handling(shape, body), watch) as rpc:
        reply = rpc.call(kind=kind_of(shape))

    assert reply.code is Code.NOT_FOUND and reply.details == "first"
    assert [outcome.code for outcome in watch.outcomes] == [Code.NOT_FOUND]


@pytest.mark.parametrize("shape", SHAPES)
def test_s19_the_first_abort_counts(shape: str) -> None:
    """A second abort raises UsageError in the handler, and flow and client see the first, as with bare grpc.aio."""
    watch = Watch()
    raised: list[BaseException] = []

    async def body(context: Any) -> None:
        try:
            await context.abort(Code.NOT_FOUND, "first")
        finally:
            try:
                await context.abort(Code.DATA_LOSS, "second")
            except grpc.aio.UsageError as error:
                raised.append(error)

    with serve(handling(shape, body), watch) as rpc:
        reply = rpc.call(kind=kind_of(shape))

    [outcome] = watch.outcomes
    assert outcome.code is reply.code is Code.NOT_FOUND and outcome.details == reply.details == "first"
    assert len(raised) == 1


@pytest.mark.parametrize("shape", SHAPES)
def test_s04_row21_abort_with_ok_is_unknown(shape: str) -> None:
    """`abort(OK)` is UNKNOWN without details, for the flow and the client, which does not wait for its deadline."""
    watch = Watch()

    async def body(context: Any) -> None:
        await context.abort(Code.OK, "fine")

    with serve(handling(shape, body), watch) as rpc:
        reply = rpc.call(kind=kind_of(shape))

    [outcome] = watch.outcomes
    assert outcome.code is reply.code is Code.UNKNOWN and outcome.details == reply.details == ""


@pytest.mark.parametrize("how", ["abort", "abort_with_status"])
@pytest.mark.parametrize("shape", SHAPES)
def test_s25_row22_an_abort_that_nobody_awaits_fails_the_rpc(shape: str, how: str) -> None:
    """`context.abort(…)` without `await` fails the RPC all the same: the answer does not go out."""
    watch = Watch()

    class Status(grpc.Status):
        code, details, trailing_metadata = Code.UNAUTHENTICATED, "who are you?", ()

    async def body(context: Any) -> str:
        if how == "abort":
            context.abort(Code.UNAUTHENTICATED, "who are you?")
        else:
            context.abort_with_status(Status())
        return "secret"

    with serve(handling(shape, body), watch) as rpc:
        reply = rpc.call(kind=kind_of(shape))

    assert reply.code is Code.UNAUTHENTICATED and reply.details == "who are you?"
    assert [outcome.code for outcome in watch.outcomes] == [Code.UNAUTHENTICATED]
    assert kind_of(shape) in STREAMED or reply.messages == []


@pytest.mark.parametrize("shape", SHAPES)
def test_s05_row18_set_code_and_return_is_a_failure(shape: str) -> None:
    """A handler that sets a code and returns has failed; its trailing metadata is kept."""
    watch = Watch()

    async def body(context: Any) -> str:
        context.set_code(Code.NOT_FOUND)
        context.set_details("looked everywhere")
        context.set_trailing_metadata((("x-why", "gone"),))
        return "ignored"

    with serve(handling(shape, body), watch) as rpc:
        reply = rpc.call(kind=kind_of(shape))

    [outcome] = watch.outcomes
    assert outcome.code is reply.code is Code.NOT_FOUND and isinstance(outcome.error, errors.NotFound)
    assert outcome.details == reply.details == "looked everywhere"
    assert outcome.trailing_metadata["x-why"] == reply.trailing["x-why"] == "gone"
    assert outcome.response is None


def test_s06_row17_row18_a_context_before_anything_was_set() -> None:
    """In an async handler `code()` is None, `details()` is text and `trailing_metadata()` empty until they are set."""
    seen: list[Any] = []
    watch = Watch()

    async def body(context: Any) -> str:
        seen.extend((context.code(), context.details(), context.trailing_metadata()))
        context.set_code(Code.ABORTED)
        context.set_details("text")
        seen.extend((context.code(), context.details()))
        raise LookupError("nothing")

    with serve(handling("unary_unary", body), watch) as rpc:
        rpc.call()

    assert seen == [None, "", (), Code.ABORTED, "text"]
    assert watch.outcomes[0].code is Code.ABORTED and isinstance(watch.outcomes[0].error, LookupError)


@pytest.mark.parametrize("how", ["set_code", "abort"])
def test_s06_row24_a_number_is_a_code(how: str) -> None:
    """A code given as a number is that code, for the flow and the client."""
    watch = Watch()

    async def body(context: Any) -> str:
        if how == "abort":
            await context.abort(5, "by number")
        context.set_code(5)
        return "a"

    with serve(handling("unary_unary", body), watch) as rpc:
        reply = rpc.call()

    assert watch.outcomes[0].code is reply.code is Code.NOT_FOUND


@pytest.mark.parametrize("shape", ["unary_unary", "stream_stream", "unary_stream-rw"])
@pytest.mark.parametrize("how", ["abort", "status", "set_code", "raise after set_code", "rich"])
@pytest.mark.parametrize("letter", ["x", "\u00fc", "%"])
def test_s07_row29_long_details_keep_their_code(letter: str, how: str, shape: str) -> None:
    """A status with 20,000 characters of details reaches the client with its own code, the text cut."""
    long = letter * 20_000

    async def body(context: Any) -> str:
        if how == "abort":
            await context.abort(Code.NOT_FOUND, long)
        if how == "status":
            raise errors.NotFound(long)
        if how == "rich":
            raise errors.NotFound("short", trailing_metadata=(("grpc-status-details-bin", b"y" * 20_000),))
        context.set_code(Code.NOT_FOUND)
        if how == "raise after set_code":
            raise ValueError(long)
        context.set_details(long)
        return "a"

    with serve(handling(shape, body), Watch()) as rpc:
        reply = rpc.call(kind=kind_of(shape))

    assert reply.code is Code.NOT_FOUND and len(reply.details) < 8000


@pytest.mark.parametrize("shape", STREAMS)
def test_s08_a_stream_that_breaks_is_an_outcome(shape: str) -> None:
    """What a handler raises after its second message reaches the flow, with the count of messages."""
    watch = Watch()

    async def stream(argument: Any, context: Any) -> AsyncIterator[str]:
        yield "a"
        yield "b"
        raise errors.DataLoss("torn")

    async def writing(argument: Any, context: Any) -> None:
        await context.write("a")
        await context.write("b")
        raise errors.DataLoss("torn")

    with serve({kind_of(shape): writing if shape.endswith("rw") else stream}, watch) as rpc:
        reply = rpc.call(kind=kind_of(shape))

    [outcome] = watch.outcomes
    assert outcome.code is reply.code is Code.DATA_LOSS and outcome.responses == 2


@pytest.mark.parametrize("shape", SHAPES)
def test_row20_an_unexpected_exception_is_answered_as_by_grpc(shape: str) -> None:
    """With interceptors around it, a handler's exception gives the client what it gives without."""
    handlers = handling(shape, raising(ValueError("text")))
    watch = Watch()

    with serve(handlers, interceptors=()) as bare:
        expected = bare.call(kind=kind_of(shape))
    with serve(handlers, watch) as rpc:
        reply = rpc.call(kind=kind_of(shape))

    assert (reply.code, reply.details) == (expected.code, expected.details)
    assert reply.code is Code.UNKNOWN and isinstance(watch.outcomes[0].error, ValueError)


@pytest.mark.parametrize("shape", SHAPES)
def test_row19_set_code_and_raise_keeps_the_code(shape: str) -> None:
    """A code set before an exception is the RPC's code, for the flow and the client."""
    watch = Watch()

    async def body(context: Any) -> None:
        context.set_code(Code.NOT_FOUND)
        context.set_details("kept")
        raise KeyError("text")

    with serve(handling(shape, body), watch) as rpc:
        reply = rpc.call(kind=kind_of(shape))

    [outcome] = watch.outcomes
    assert outcome.code is reply.code is Code.NOT_FOUND
    assert outcome.details == "kept" and isinstance(outcome.error, KeyError)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("error", UNUSUAL)
def test_row25_base_exceptions_of_a_handler_end_the_rpc(error: type[BaseException], shape: str) -> None:
    """A handler that raises what is no Exception fails with UNKNOWN, and the server serves the next call."""
    watch = Watch()
    fail = True

    async def body(_: Any) -> str:
        if fail:
            raise error
        return "next"

    with serve(handling(shape, body), watch) as rpc:
        failed = rpc.call(kind=kind_of(shape))
        fail = False
        reply = rpc.call(kind=kind_of(shape))

    assert failed.code is Code.UNKNOWN and reply.messages == ["next"]
    assert [outcome.ok for outcome in watch.outcomes] == [False, True]
    # a coroutine or generator that raises StopIteration raises RuntimeError (PEP 479)
    assert isinstance(watch.outcomes[0].error, (error, RuntimeError))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("when_raised", ["before", "after"])
@pytest.mark.parametrize("error", [*UNUSUAL, asyncio.CancelledError])
def test_row25_base_exceptions_of_a_flow_end_the_rpc(error: type[BaseException], when_raised: str, shape: str) -> None:
    """A flow that raises what is no Exception fails with INTERNAL, and the server serves the next call."""
    fail = True

    def odd(call: Call) -> Flow:
        if fail and when_raised == "before":
            raise error
        yield call
        if fail:
            raise error

    with serve(handling(shape, answering("next")), odd) as rpc:
        failed = rpc.call(kind=kind_of(shape))
        fail = False
        reply = rpc.call(kind=kind_of(shape))

    assert failed.code is Code.INTERNAL and "odd" in failed.details and reply.messages == ["next"]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("how", ["raise", "inner task"])
def test_s22_row25_a_cancelled_error_of_the_handlers_own_ends_the_rpc(how: str, shape: str) -> None:
    """A handler that raises CancelledError, though nobody cancelled the RPC, gives its client CANCELLED at once."""
    watch = Watch()

    async def body(_: Any) -> str:
        if how == "raise":
            raise asyncio.CancelledError
        inner = asyncio.ensure_future(asyncio.Event().wait())
        asyncio.get_running_loop().call_soon(inner.cancel)
        await inner
        return "a"

    with serve(handling(shape, body), watch) as rpc:
        reply = rpc.call(kind=kind_of(shape))

    assert reply.code is Code.CANCELLED
    assert [outcome.code for outcome in watch.outcomes] == [Code.CANCELLED]


@pytest.mark.parametrize("shape", ["unary_unary", "unary_stream", "unary_stream-rw"])
@pytest.mark.parametrize("how", ["abort", "set_details", "status", "flow", "raise"])
@pytest.mark.parametrize(
    "details",
    ["line\r\nline", "gr\u00fc\u00dfe \u2713", "\ud800 lone"],
    ids=["line breaks", "unicode", "lone surrogate"],
)
def test_row27_odd_details_reach_the_client(details: str, how: str, shape: str) -> None:
    """Line breaks and Unicode arrive intact; a lone surrogate is replaced, and the code stays."""

    async def body(context: Any) -> str:
        if how == "abort":
            await context.abort(Code.NOT_FOUND, details)
        if how == "status":
            raise errors.NotFound(details)
        if how == "raise":
            context.set_code(Code.NOT_FOUND)
            raise ValueError(details)
        if how == "set_details":
            context.set_code(Code.NOT_FOUND)
            context.set_details(details)
        return "a"

    def flow(call: Call) -> Flow:
        yield call
        if how == "flow":
            raise errors.NotFound(details)

    with serve(handling(shape, body), flow) as rpc:
        reply = rpc.call(kind=kind_of(shape))

    assert reply.code is Code.NOT_FOUND
    if how != "raise":  # there grpc's own words stand around it
        assert reply.details == details.replace("\ud800", "?")


def test_row27_a_lone_surrogate_beside_ok_ends_the_rpc() -> None:
    """Details that cannot be sent do not keep a good answer from the client."""

    async def body(context: Any) -> str:
        context.set_details("\ud800")
        return "answer"

    with serve(handling("unary_unary", body), Watch()) as rpc:
        reply = rpc.call()

    assert reply.ok and reply.messages == ["answer"]


WRONG = [(("x-number", 1),), (("x-bin", "text"),), (("x-text", b"\xff"),), (("X Y", "a"),), (("x-none", None),)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("how", ["set", "abort", "initial"])
@pytest.mark.parametrize("pairs", WRONG, ids=str)
def test_row28_wrong_metadata_ends_the_rpc(pairs: Any, how: str, shape: str) -> None:
    """Metadata that the wire would refuse is an exception in the handler, and a status for the client."""
    watch = Watch()

    async def body(context: Any) -> str:
        if how == "abort":
            await context.abort(Code.NOT_FOUND, "x", pairs)
        if how == "initial":
            await context.send_initial_metadata(pairs)
        context.set_trailing_metadata(pairs)
        return "a"

    with serve(handling(shape, body), watch) as rpc:
        reply = rpc.call(kind=kind_of(shape))

    assert reply.code is Code.UNKNOWN and isinstance(watch.outcomes[0].error, ValueError)


@pytest.mark.parametrize("shape", SHAPES)
def test_row23_a_response_of_the_wrong_type_ends_the_rpc(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A response that the serializer refuses gives the client a failure, and the flow its one outcome."""
    # A log record that is kept keeps the traceback, its frames, and the generator that grpc has dropped.
    monkeypatch.setattr(logging.getLogger("grpc._cython.cygrpc"), "disabled", True)
    watch = Watch()
    [function] = handling(shape, answering(7)).values()

    with serve({kind_of(shape): MAKE[kind_of(shape)](function, decode, str.encode)}, watch) as rpc:
        reply = rpc.call(kind=kind_of(shape))
        watch.next()

    assert not reply.ok and len(watch.outcomes) == watch.begun == 1


@pytest.mark.parametrize("shape", SHAPES)
def test_row23_a_map_that_raises_is_named(shape: str) -> None:
    """A map of responses that raises gives INTERNAL and names the function, not its text."""

    def upper(message: Any) -> Any:
        raise AttributeError("secret")

    def shout(call: Call) -> Flow:
        yield call.map(responses=upper)

    with serve(handling(shape, answering("a")), shout) as rpc:
        reply = rpc.call(kind=kind_of(shape))

    assert reply.code is Code.INTERNAL and "upper" in reply.details and "secret" not in reply.details


# --- how clients leave ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_s21_row26_row33_a_cancelled_rpc_has_the_outcome_cancelled(shape: str) -> None:
    """The client cancels while a handler works: it sees CancelledError, and its one outcome is CANCELLED."""
    watch, held = Watch(), Held()

    with serve(handling(shape, held), watch) as rpc:
        pending = rpc.start("a", kind=kind_of(shape))
        assert held.entered.wait(PATIENCE)
        pending.cancel()
        outcome = watch.next()

    assert outcome.code is Code.CANCELLED and len(watch.outcomes) == watch.begun == 1
    assert [type(error) for error in held.raised] == [asyncio.CancelledError]


@pytest.mark.parametrize("shape", SHAPES)
def test_s21_row26_row33_a_deadline_has_the_outcome_deadline_exceeded(shape: str) -> None:
    """The deadline passes while a handler works: one outcome, DEADLINE_EXCEEDED."""
    watch, held = Watch(), Held()

    with serve(handling(shape, held), watch) as rpc:
        reply = rpc.call(kind=kind_of(shape), timeout=0.4)
        outcome = watch.next()

    assert reply.code is Code.DEADLINE_EXCEEDED
    assert outcome.code is Code.DEADLINE_EXCEEDED and len(watch.outcomes) == watch.begun == 1


@pytest.mark.parametrize("shape", ["unary_unary", "stream_unary", "stream_unary-rw"])
def test_s21_row33_a_handler_that_swallows_its_cancellation_is_cancelled(shape: str) -> None:
    """A handler that catches CancelledError and answers all the same has the outcome CANCELLED: nobody hears it."""
    watch, held = Watch(), Held()

    async def body(context: Any) -> str:
        try:
            return await held(context)
        except asyncio.CancelledError:
            return "answer"

    with serve(handling(shape, body), watch) as rpc:
        pending = rpc.start("a", kind=kind_of(shape))
        assert held.entered.wait(PATIENCE)
        pending.cancel()
        outcome = watch.next()

    assert outcome.code is Code.CANCELLED and len(watch.outcomes) == watch.begun == 1


@pytest.mark.parametrize("size", [1, 1_000_000])
@pytest.mark.parametrize("how", ["cancel", "deadline", "channel", "stop"])
@pytest.mark.parametrize("shape", STREAMS)
def test_s23_row34_row45_a_client_gone_mid_stream_is_one_outcome(shape: str, how: str, size: int) -> None:
    """However a client leaves, also while writing is blocked by flow control: one outcome, and the handler closed."""
    watch = Watch()
    closed, started = threading.Event(), threading.Event()

    with serve(flooding(shape, "x" * size, closed, started), watch) as rpc:
        pending = rpc.start("a", kind=kind_of(shape), timeout=0.4 if how == "deadline" else PATIENCE)
        assert started.wait(PATIENCE)
        if how == "cancel":
            pending.cancel()
        if how == "channel":
            rpc.channel.close()
        if how == "stop":
            rpc.stop(0)
        outcome = watch.next()
        assert closed.wait(PATIENCE)

    assert len(watch.outcomes) == watch.begun == 1
    assert outcome.code is (Code.DEADLINE_EXCEEDED if how == "deadline" else Code.CANCELLED)
    assert outcome.responses >= 1 and not outcome.replayable


@pytest.mark.parametrize("shape", SHAPES)
def test_s21_the_peer_is_known_when_the_client_has_cancelled(shape: str) -> None:
    """A flow may ask for the peer after a handler that was cancelled; grpc itself has forgotten it then."""
    peers: list[Any] = []
    watch, held = Watch(), Held()

    def note(call: Call) -> Flow:
        yield call
        peers.append(call.peer)

    with serve(handling(shape, held), watch, note) as rpc:
        pending = rpc.start("a", kind=kind_of(shape))
        assert held.entered.wait(PATIENCE)
        rpc.channel.close()
        watch.next()

    assert not pending.is_active() and peers[0].startswith("ipv4:127.0.0.1:")


@pytest.mark.parametrize("how", ["cancel", "stop"])
@pytest.mark.parametrize("shape", STREAMS)
def test_s23_the_peer_is_known_when_the_client_has_gone(shape: str, how: str) -> None:
    """A flow may ask for the peer after a stream whose client left; grpc's own context crashes the process then."""
    peers: list[Any] = []
    watch = Watch()

    def note(call: Call) -> Flow:
        yield call
        peers.append(call.peer)

    for _ in range(5):
        closed, started = threading.Event(), threading.Event()
        with serve(flooding(shape, "x" * 100_000, closed, started), watch, note) as rpc:
            pending = rpc.start("a", kind=kind_of(shape))
            assert started.wait(PATIENCE)
            rpc.stop(0) if how == "stop" else pending.cancel()
            watch.next()

    assert len(peers) == 5 and all(peer.startswith("ipv4:127.0.0.1:") for peer in peers)


@pytest.mark.parametrize("shape", UPLOADS)
def test_row35_a_torn_upload_is_one_outcome(shape: str) -> None:
    """A client that cancels amid its upload leaves exactly one outcome behind, and the server serves on."""
    watch = Watch()
    first, release = threading.Event(), threading.Event()

    def upload() -> Iterator[str]:
        yield "a"
        release.wait(PATIENCE)

    def see(call: Call) -> Flow:
        yield call.tap(requests=lambda _: first.set())

    with serve({"unary_unary": echo, **handling(shape, answering("a"))}, watch, see) as rpc:
        stub = rpc.stub(kind_of(shape))
        pending = (stub if kind_of(shape) in STREAMED else stub.future)(upload())
        assert first.wait(PATIENCE)
        pending.cancel()
        watch.next()
        release.set()
        reply = rpc.call("next")

    assert len(watch.outcomes) == watch.begun == 2 and reply.messages == ["next"]


def test_row39_an_abandoned_generator_is_closed_without_the_garbage_collector() -> None:
    """The handler's `finally` runs when the client has left, without the garbage collector."""
    watch = Watch()
    closed, started = threading.Event(), threading.Event()

    gc.disable()
    try:
        with serve(flooding("unary_stream", "a", closed, started), watch) as rpc:
            pending = rpc.start("a", kind="unary_stream")
            next(pending)
            pending.cancel()
            watch.next()
            seen = closed.wait(PATIENCE)
    finally:
        gc.enable()

    assert seen


def test_s12_row15_row58_what_the_limit_rejects_reaches_no_flow() -> None:
    """RPCs over maximum_concurrent_rpcs are refused by grpc, and no flow begins for them."""
    watch, held = Watch(), Held()

    with serve(handling("unary_unary", held), watch, limit=1) as rpc:
        first = rpc.start("a")
        assert held.entered.wait(PATIENCE)
        refused = [rpc.call("a").code for _ in range(3)]
        held.release()
        assert first.result(PATIENCE) == "late"

    assert refused == [Code.RESOURCE_EXHAUSTED] * 3
    assert watch.begun == len(watch.outcomes) == 1


@pytest.mark.parametrize("name", ["Nothing", "a\u00e9", "x" * 3000, "with space"])
def test_s12_row16_unknown_methods_are_unimplemented(name: str) -> None:
    """A method that nobody serves is UNIMPLEMENTED, and reaches no flow; the server serves on."""
    watch = Watch()

    with serve({"unary_unary": echo}, watch) as rpc:
        unknown = rpc.call(name=name)
        reply = rpc.call("next")

    assert unknown.code is Code.UNIMPLEMENTED
    assert reply.messages == ["next"] and watch.begun == 1


class AnyName(grpc.GenericRpcHandler):
    """Serves every name that a peer makes up, each with a handler of its own."""

    def service(self, details: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(echo, decode, encode)


def test_s12_row16_names_that_peers_make_up_fill_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A generic handler that serves any name is remembered for a bounded number of names, and served for all."""
    monkeypatch.setattr(handlers_of, "MAX_METHODS", 8)
    watch = Watch()
    ours = server_interceptor(watch)

    with serve({}, interceptors=[ours], services=[AnyName()]) as rpc:
        replies = [rpc.call("a", name=f"name{number % 20}").ok for number in range(30)]

    assert all(replies) and len(watch.outcomes) == 30
    assert len(ours._aio._compiled._known) == 8


# --- servers that stop ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_row45_stop_lets_an_rpc_finish_within_grace(shape: str) -> None:
    """An RPC in flight when the server stops with grace is answered, and has one outcome, OK."""
    watch, held = Watch(), Held()

    with serve(handling(shape, held), watch) as rpc:
        pending = rpc.start("a", kind=kind_of(shape))
        assert held.entered.wait(PATIENCE)
        stopper = threading.Thread(target=rpc.stop, args=(PATIENCE,))
        stopper.start()
        held.release()
        response = next(pending) if kind_of(shape) in STREAMED else pending.result(PATIENCE)
        code = pending.code() if kind_of(shape) not in STREAMED else (list(pending), pending.code())[1]
        stopper.join(PATIENCE)

    assert response == "late" and code is Code.OK
    assert [outcome.code for outcome in watch.outcomes] == [Code.OK]


@pytest.mark.parametrize("shape", SHAPES)
def test_row45_stop_without_grace_is_one_outcome(shape: str) -> None:
    """An RPC in flight when the server stops at once fails for its client, and has one outcome, CANCELLED."""
    watch, held = Watch(), Held()

    with serve(handling(shape, held), watch) as rpc:
        pending = rpc.start("a", kind=kind_of(shape))
        assert held.entered.wait(PATIENCE)
        rpc.stop(0)
        code = pending.code()
        outcome = watch.next()

    assert code in {Code.UNAVAILABLE, Code.CANCELLED}
    assert outcome.code is Code.CANCELLED and len(watch.outcomes) == watch.begun == 1


# --- what handlers are given ------------------------------------------------------------------------------------------


def test_s10_row30_without_a_deadline_there_is_none() -> None:
    """Without a deadline `call.timeout`, `call.deadline`, `context.deadline()` and `time_remaining()` are None."""
    seen: list[Any] = []

    def look(call: Call) -> Flow:
        seen.extend((call.timeout, call.deadline))
        yield call

    async def body(native: Any) -> str:
        seen.extend((context.deadline(), native.time_remaining()))
        return "a"

    with serve(handling("unary_unary", body), look) as rpc:
        rpc.call(timeout=None)

    assert seen == [None, None, None, None]


def test_s10_s15_with_a_deadline_it_is_the_clients() -> None:
    """With a deadline flow and handler see what is left of it, and a flow's timeout shortens it for the handler."""
    seen: list[float] = []
    deadlines: list[float | None] = []

    def look(call: Call) -> Flow:
        assert call.timeout is not None
        seen.append(call.timeout)
        deadlines.append(call.deadline)
        yield call.with_timeout(3) if call.request == "shorter" else call

    async def echoed(request: str, native: Any) -> str:
        seen.append(native.time_remaining())
        deadlines.append(context.deadline())
        return request

    with serve({"unary_unary": echoed}, look) as rpc:
        rpc.call("a", timeout=8)
        rpc.call("shorter", timeout=8)

    first, handler, second, shortened = seen
    assert 3 < handler <= first < 9 and 3 < second < 9 and 0 < shortened <= 3
    assert None not in deadlines and deadlines[0] == deadlines[1] and deadlines[2] == deadlines[3]


@pytest.mark.parametrize("deadline", [None, PATIENCE])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_timeout_of_a_flow_cancels_the_handler(shape: str, deadline: float | None) -> None:
    """An async handler that takes longer than a flow allows is cancelled, and the client sees DEADLINE_EXCEEDED."""
    watch, held = Watch(), Held()

    def limit(call: Call) -> Flow:
        yield call.with_timeout(0.05)

    with serve(handling(shape, held), watch, limit) as rpc:
        reply = rpc.call(kind=kind_of(shape), timeout=deadline)

    assert reply.code is Code.DEADLINE_EXCEEDED
    assert [outcome.code for outcome in watch.outcomes] == [Code.DEADLINE_EXCEEDED]
    assert [type(error) for error in held.raised] == ([asyncio.CancelledError] if held.entered.is_set() else [])


def test_row36_done_callbacks_of_a_handler_are_called_once() -> None:
    """What a handler gives to `add_done_callback` is called once, with the context that the handler had."""
    called: list[Any] = []
    over = threading.Semaphore(0)
    contexts: list[Any] = []

    def note(context: Any) -> None:
        called.append(context)
        over.release()

    async def body(context: Any) -> str:
        contexts.append(context)
        context.add_done_callback(note)
        return "a"

    with serve(handling("unary_unary", body), Watch()) as rpc:
        rpc.call()
        assert over.acquire(timeout=PATIENCE)

    assert called == contexts


@pytest.mark.parametrize("shape", STREAMS)
def test_row36_a_handlers_callback_that_raises_leaves_the_flow_its_outcome(shape: str) -> None:
    """A done callback that raises silences the later ones of its handler; the flow still has its outcome."""
    watch = Watch()
    started = threading.Event()

    def fail(_: Any) -> None:
        raise ValueError("callback")

    async def stream(argument: Any, context: Any) -> AsyncIterator[str]:
        context.add_done_callback(fail)
        while True:
            yield "x" * 1_000_000
            started.set()

    async def writing(argument: Any, context: Any) -> None:
        context.add_done_callback(fail)
        while True:
            await context.write("x" * 1_000_000)
            started.set()

    with serve({kind_of(shape): writing if shape.endswith("rw") else stream}, watch) as rpc:
        pending = rpc.start("a", kind=kind_of(shape))
        assert started.wait(PATIENCE)
        pending.cancel()
        outcome = watch.next()

    assert outcome.code is Code.CANCELLED and len(watch.outcomes) == 1


@pytest.mark.parametrize("shape", SHAPES)
def test_s13_responses_that_can_be_iterated_are_not_streamed(shape: str) -> None:
    """Lists as messages stay single messages: the kind of an RPC is what its handler says."""
    watch = Watch()
    loads: Any = lambda data: json.loads(data)  # noqa: E731
    dumps: Any = lambda message: json.dumps(message).encode()  # noqa: E731
    kind = kind_of(shape)
    [function] = handling(shape, answering(["a", "b"])).values()

    with serve({kind: MAKE[kind](function, loads, dumps)}, watch) as rpc:
        native = getattr(rpc.channel, kind)(f"/{SERVICE}/{kind}", dumps, loads)
        reply = native(iter([["x"]]) if kind.startswith("stream") else ["x"], timeout=PATIENCE)
        messages = list(reply) if kind in STREAMED else [reply]

    assert messages == [["a", "b"]]
    [outcome] = watch.outcomes
    assert outcome.responses == 1 and outcome.requests == 1
    assert outcome.response == (None if kind in STREAMED else ["a", "b"])


async def intercepted(handler: Any) -> Any:
    details: Any = type("Details", (), {"method": "/a.B/C", "invocation_metadata": ()})

    async def found(_: Any) -> Any:
        return handler

    return await server_interceptor(Watch()).intercept_service(found, details)


@pytest.mark.parametrize("shape", SHAPES)
async def test_s14_s16_a_handler_keeps_its_shape(shape: str) -> None:
    """A coroutine function stays one, a generator too; attributes and serializers are those of the handler."""
    [(kind, function)] = handling(shape, answering("a")).items()
    function.mark = object()

    made = await intercepted(MAKE[kind](function, decode, encode))

    wrapped = getattr(made, kind)
    assert wrapped is not function and wrapped.mark is function.mark
    assert inspect.iscoroutinefunction(wrapped) == inspect.iscoroutinefunction(function)
    assert inspect.isasyncgenfunction(wrapped) == inspect.isasyncgenfunction(function)
    assert unwrap(made.request_deserializer) is decode and unwrap(made.response_serializer) is encode


class Service:
    """Handlers as they are written in real life: methods, decorated, partial."""

    async def method(self, request: str, context: Any) -> str:
        return f"method {request}"

    @staticmethod
    async def static(request: str, context: Any) -> str:
        return f"static {request}"

    @classmethod
    async def of_class(cls, request: str, context: Any) -> str:
        return f"class {request}"

    async def stream(self, request: str, context: Any) -> AsyncIterator[str]:
        yield f"stream {request}"

    async def configured(self, word: str, request: str, context: Any) -> str:
        return f"{word} {request}"


def decorated(function: Any) -> Any:
    @functools.wraps(function)
    async def around(request: Any, context: Any) -> Any:
        return await function(request, context)

    return around


@pytest.mark.parametrize(
    ("function", "answer"),
    [
        (Service().method, "method a"),
        (Service.static, "static a"),
        (Service.of_class, "class a"),
        (decorated(Service().method), "method a"),
        (partial(Service().configured, "partial"), "partial a"),
    ],
    ids=["method", "static", "class", "decorated", "partial"],
)
def test_s16_handlers_however_they_are_written(function: Any, answer: str) -> None:
    """Methods, decorated functions and partials serve through an interceptor."""
    watch = Watch()

    with serve({"unary_unary": function}, watch) as rpc:
        reply = rpc.call("a")

    assert reply.messages == [answer] and watch.outcomes[0].response == answer


def returns_a_generator(request: str, context: Any) -> AsyncIterator[str]:
    return Service().stream(request, context)


class CallableObject:
    """An object with an async `__call__`, which grpc does not take for a coroutine function."""

    async def __call__(self, request: str, context: Any) -> str:
        return "called"


def returns_a_coroutine(request: str, context: Any) -> Any:
    return echo(request, context)


@pytest.mark.parametrize(
    ("kind", "function"),
    [("unary_stream", returns_a_generator), ("unary_unary", CallableObject()), ("unary_unary", returns_a_coroutine)],
    ids=["generator", "callable", "coroutine"],
)
def test_s16_handlers_that_grpc_cannot_serve_end_with_a_status(kind: str, function: Any) -> None:
    """What bare grpc.aio fails to serve fails through an interceptor too: a failure, no empty stream, no hang."""
    watch = Watch()
    strict = MAKE[kind](function, decode, str.encode)

    with serve({kind: strict}, watch) as rpc:
        reply = rpc.call(kind=kind)
        outcome = watch.next()
    if inspect.iscoroutine(outcome.response):
        outcome.response.close()

    assert not reply.ok and reply.code is not Code.DEADLINE_EXCEEDED and len(watch.outcomes) == 1


@pytest.mark.parametrize("shape", SHAPES)
def test_s17_hooks_see_and_change_every_message(shape: str) -> None:
    """Taps and maps see what handlers read and write, by generator or by `read` and `write`, and counts are right."""
    seen: list[str] = []
    got: list[str] = []
    watch = Watch()
    kind, _, api = shape.partition("-")

    def hook(call: Call) -> Flow:
        yield call.map(requests=str.upper, responses=lambda text: f"<{text}>").tap(requests=seen.append)

    async def requests(argument: Any, context: Any) -> str:
        if not kind.startswith("stream"):
            got.append(argument)
        elif api == "rw":
            while (message := await context.read()) is not grpc.aio.EOF:
                got.append(message)
        else:
            got.extend([message async for message in argument])
        return "".join(got)

    async def stream(argument: Any, context: Any) -> AsyncIterator[str]:
        text = await requests(argument, context)
        yield text
        yield text

    async def writing(argument: Any, context: Any) -> None:
        text = await requests(argument, context)
        await context.write(text)
        await context.write(text)

    handler = requests if kind not in STREAMED else writing if api == "rw" else stream

    with serve({kind: handler}, watch, hook) as rpc:
        reply = rpc.call("a", "b", kind=kind) if kind.startswith("stream") else rpc.call("a", kind=kind)

    sent = ["A", "B"] if kind.startswith("stream") else ["A"]
    times = 2 if kind in STREAMED else 1
    assert got == seen == sent
    assert reply.messages == [f"<{''.join(sent)}>"] * times
    [outcome] = watch.outcomes
    assert (outcome.requests, outcome.responses) == (len(sent), times)


def test_s17_a_conversation_by_read_and_write() -> None:
    """A bidi handler may read and write in turns through an interceptor, and end before the client has."""
    watch = Watch()
    answers: list[str] = []

    async def talk(argument: Any, context: Any) -> None:
        while (message := await context.read()) != "bye":
            await context.write(f"{message}!")

    turn, over = threading.Semaphore(0), threading.Event()

    def speak() -> Iterator[str]:
        for word in ("a", "b"):
            yield word
            turn.acquire(timeout=PATIENCE)
        yield "bye"
        over.wait(PATIENCE)

    with serve({"stream_stream": talk}, watch) as rpc:
        for answer in rpc.stub("stream_stream")(speak(), timeout=PATIENCE):
            answers.append(answer)
            turn.release()
        over.set()

    assert answers == ["a!", "b!"]
    assert (watch.outcomes[0].requests, watch.outcomes[0].responses) == (3, 2)


def test_s18_an_async_handler_has_the_whole_context() -> None:
    """An async handler's context is a `grpc.aio.ServicerContext` and answers everything that one can be asked."""
    seen: dict[str, Any] = {}

    async def body(context: Any) -> str:
        seen.update(
            kind=isinstance(context, grpc.aio.ServicerContext),
            peer=context.peer(),
            identities=context.peer_identities(),
            key=context.peer_identity_key(),
            auth=context.auth_context(),
            done=context.done(),
            cancelled=context.cancelled(),
            metadata=dict(context.invocation_metadata()),
        )
        context.set_compression(grpc.Compression.Gzip)
        context.disable_next_message_compression()
        return "a"

    with serve(handling("unary_unary", body), Watch()) as rpc:
        reply = rpc.call(metadata=(("x-key", "value"),))

    assert reply.ok, reply.details
    assert seen["kind"] and seen["peer"].startswith("ipv4:127.0.0.1:") and seen["metadata"]["x-key"] == "value"
    assert not seen["done"] and not seen["cancelled"]
    assert not seen["identities"] and seen["key"] is None and isinstance(seen["auth"], dict)


def test_s18_the_context_has_every_method_of_its_base() -> None:
    """No public method of `grpc.aio.ServicerContext` is left to the abstract base class."""
    from interpose.aio.context import ServicerContext

    base = grpc.aio.ServicerContext
    names = [name for name, _ in inspect.getmembers(base, callable) if not name.startswith("_")]

    assert [name for name in names if getattr(ServicerContext, name) is getattr(base, name)] == []


def test_s18_changed_metadata_reaches_the_handler() -> None:
    """What a flow changes in the call's metadata is what the handler's context shows; the peer is known to flows."""
    peers: list[Any] = []
    seen: list[Any] = []

    def mark(call: Call) -> Flow:
        peers.append(call.peer)
        yield call.without_metadata("x-key").with_metadata(("x-mark", "1"), ("x-mark", "2"))

    async def body(context: Any) -> str:
        metadata = Metadata.trusted(context.invocation_metadata())
        seen.extend((metadata.get_all("x-key"), metadata.get_all("x-mark")))
        return "a"

    with serve(handling("unary_unary", body), mark) as rpc:
        rpc.call(metadata=(("x-key", "value"),))

    assert seen == [[], ["1", "2"]] and peers[0].startswith("ipv4:127.0.0.1:")


# --- metadata ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("handler_sends", [True, False])
def test_initial_metadata_of_flows_and_handler_is_merged(handler_sends: bool, shape: str) -> None:
    """What flows put in front of a response is sent once, with the handler's own behind it or without."""

    def outer(call: Call) -> Flow:
        yield call.with_initial_metadata(("x-outer", "1"))

    def inner(call: Call) -> Flow:
        yield call.with_initial_metadata(("x-inner", "2"))

    async def body(context: Any) -> str:
        if handler_sends:
            await context.send_initial_metadata((("x-handler", "3"),))
        return "a"

    with serve(handling(shape, body), outer, inner) as rpc:
        reply = rpc.call(kind=kind_of(shape))

    own = ["3"] if handler_sends else []
    assert reply.ok
    assert [reply.initial.get_all(f"x-{who}") for who in ("outer", "inner", "handler")] == [["1"], ["2"], own]


@pytest.mark.parametrize("shape", SHAPES)
def test_initial_metadata_of_flows_is_sent_with_a_failure(shape: str) -> None:
    """What flows put in front of a response reaches the client though the handler fails before its first message."""

    def identify(call: Call) -> Flow:
        yield call.with_initial_metadata(("x-request-id", "7"))

    with serve(handling(shape, raising(errors.NotFound("x"))), identify) as rpc:
        reply = rpc.call(kind=kind_of(shape))

    assert reply.code is Code.NOT_FOUND and reply.initial.get_all("x-request-id") == ["7"]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("fails", ["no", "abort", "set_code", "raise", "status"])
def test_s05_trailing_metadata_of_flows_and_handler_is_merged(fails: str, shape: str) -> None:
    """Trailing metadata of the handler and of two flows all arrives, however the handler ends."""

    def adding(name: str) -> Callable[[Call], Flow]:
        def add(call: Call) -> Flow:
            outcome = yield call
            return outcome.with_trailing_metadata((name, "flow"))

        return add

    async def body(context: Any) -> str:
        context.set_trailing_metadata((("x-handler", "1"), ("x-handler", "2")))
        if fails == "abort":
            await context.abort(Code.NOT_FOUND, "x")
        if fails == "set_code":
            context.set_code(Code.NOT_FOUND)
        if fails == "raise":
            raise ValueError("x")
        if fails == "status":
            raise errors.NotFound("x", trailing_metadata=(("x-status", "s"),))
        return "a"

    with serve(handling(shape, body), adding("x-outer"), adding("x-inner")) as rpc:
        reply = rpc.call(kind=kind_of(shape))

    assert reply.ok is (fails == "no")
    got = {name: reply.trailing.get_all(name) for name in ("x-handler", "x-outer", "x-inner", "x-status")}
    assert got == {
        "x-handler": ["1", "2"],
        "x-outer": ["flow"],
        "x-inner": ["flow"],
        "x-status": ["s"] if fails == "status" else [],
    }


def test_s25_trailing_metadata_given_to_abort_is_merged_with_a_flows() -> None:
    """Trailing metadata given to `abort` arrives beside what a flow adds."""

    def add(call: Call) -> Flow:
        outcome = yield call
        return outcome.with_trailing_metadata(("x-flow", "1"))

    async def body(context: Any) -> None:
        await context.abort(Code.NOT_FOUND, "x", (("x-abort", "2"),))

    with serve(handling("unary_unary", body), add) as rpc:
        reply = rpc.call()

    assert reply.trailing["x-flow"] == "1" and reply.trailing["x-abort"] == "2"


# --- context variables ------------------------------------------------------------------------------------------------

tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="nobody")


@pytest.mark.parametrize("shape", SHAPES)
def test_s24_row14_context_variables_of_flows_reach_the_handler_and_no_other_rpc(shape: str) -> None:
    """What a flow sets is seen by the whole handler and by the flow afterwards, and by no other RPC on the loop."""
    before: list[str] = []
    after: list[str] = []

    def set_tenant(call: Call) -> Flow:
        before.append(tenant.get())
        tenant.set(f"tenant-{len(before)}")
        yield call
        after.append(tenant.get())

    async def body(_: Any) -> str:
        await asyncio.sleep(0)
        return tenant.get()

    with serve(handling(shape, body), set_tenant) as rpc:
        replies = [rpc.call(kind=kind_of(shape)).messages for _ in range(3)]

    names = ["tenant-1", "tenant-2", "tenant-3"]
    assert replies == [[name] for name in names]
    assert before == ["nobody"] * 3 and after == names


@pytest.mark.parametrize("size", [1, 1_000_000])
def test_s23_a_context_variable_can_be_reset_across_a_yield(size: int) -> None:
    """A flow and a generator may reset a variable's token after their yield when the client left (Python 3.12)."""
    faults: list[BaseException] = []
    watch = Watch()
    closed, started = threading.Event(), threading.Event()

    def scoped(call: Call) -> Flow:
        token = tenant.set("flow")
        yield call
        try:
            tenant.reset(token)
        except ValueError as error:
            faults.append(error)

    async def endless(argument: Any, context: Any) -> AsyncIterator[str]:
        token = tenant.set("handler")
        try:
            while True:
                yield "a" * size
                started.set()
        finally:
            try:
                tenant.reset(token)
            except ValueError as error:
                faults.append(error)
            closed.set()

    with serve({"unary_stream": endless}, watch, scoped) as rpc:
        pending = rpc.start("a", kind="unary_stream")
        assert started.wait(PATIENCE)
        pending.cancel()
        watch.next()
        assert closed.wait(PATIENCE)

    if sys.version_info >= (3, 12):  # before, a task's context cannot be had, only a copy
        assert not faults
    assert [outcome.code for outcome in watch.outcomes] == [Code.CANCELLED]


# --- the health service -----------------------------------------------------------------------------------------------


def test_health_watch_of_the_async_servicer() -> None:
    """The async health service, which uses `context.write`, serves through our interceptor."""
    watch = Watch()
    seen: list[Any] = []

    def see(call: Call) -> Flow:
        yield call.tap(responses=seen.append)

    def add(server: Any) -> None:
        health_pb2_grpc.add_HealthServicer_to_server(AsyncHealthServicer(), server)

    with serve({}, watch, see, services=[add]) as rpc:
        updates = health_pb2_grpc.HealthStub(rpc.channel).Watch(health_pb2.HealthCheckRequest(service=""))
        first = next(updates)
        updates.cancel()
        outcome = watch.next()

    assert first.status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN or seen == [first]
    assert outcome.code is Code.CANCELLED and outcome.responses == 1 and len(watch.outcomes) == 1


def test_health_watch_of_the_plain_servicer_is_no_worse_than_bare() -> None:
    """The plain health service's Watch, which asyncio servers cannot serve, ends or streams as without interceptors."""

    def add(server: Any) -> None:
        servicer = health.HealthServicer(experimental_non_blocking=False)
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)

    watch = Watch()
    with serve({}, watch, services=[add]) as rpc:
        stub = health_pb2_grpc.HealthStub(rpc.channel)
        updates = stub.Watch(health_pb2.HealthCheckRequest(service=""), timeout=0.4)
        first = next(updates)
        with pytest.raises(grpc.RpcError):
            list(updates)

    assert first.status == health_pb2.HealthCheckResponse.SERVING


# --- beside native interceptors ---------------------------------------------------------------------------------------


class Native(grpc.aio.ServerInterceptor):
    """A native interceptor as many are written: it wraps each kind in its own shape, and iterates generators."""

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


def logging_flow(name: str, log: list[str]) -> Callable[[Call], Flow]:
    def flow(call: Call) -> Flow:
        log.append(f"{name} in")
        outcome = yield call
        log.append(f"{name} {outcome.code.name}")

    return flow


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("order", ["NO", "ON", "OO", "ONO", "NON"])
def test_s20_ours_and_native_interceptors_in_any_order(order: str, shape: str) -> None:
    """Several of our objects beside native ones all run, in the order given, once each."""
    log: list[str] = []
    given = [
        server_interceptor(logging_flow(f"ours{place}", log)) if letter == "O" else Native(f"native{place}", log)
        for place, letter in enumerate(order)
    ]

    with serve(handling(shape, answering("a")), interceptors=given) as rpc:
        reply = rpc.call(kind=kind_of(shape))

    ends = [f"ours{place} OK" if letter == "O" else f"native{place} out" for place, letter in enumerate(order)]
    starts = [f"ours{place} in" if letter == "O" else f"native{place} in" for place, letter in enumerate(order)]
    assert reply.messages == ["a"]
    assert log == [*starts, *reversed(ends)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("order", ["NO", "ON", "OO"])
@pytest.mark.parametrize("how", ["abort", "raise", "status", "set_code"])
def test_s20_failures_pass_native_interceptors(how: str, order: str, shape: str) -> None:
    """A failure reaches the client with its status through ours and native ones, and ours see it."""
    watch = Watch()
    given = [
        server_interceptor(watch) if letter == "O" else Native(f"native{place}", [])
        for place, letter in enumerate(order)
    ]

    async def body(context: Any) -> str:
        if how == "abort":
            await context.abort(Code.NOT_FOUND, "x")
        if how == "status":
            raise errors.NotFound("x")
        if how == "raise":
            raise ValueError("x")
        context.set_code(Code.NOT_FOUND)
        return "a"

    with serve(handling(shape, body), interceptors=given) as rpc:
        reply = rpc.call(kind=kind_of(shape))

    expected = Code.UNKNOWN if how == "raise" else Code.NOT_FOUND
    assert reply.code is expected
    assert {outcome.code for outcome in watch.outcomes} == {expected}
    assert len(watch.outcomes) == order.count("O")


@pytest.mark.parametrize("order", ["NO", "ON", "OO"])
@pytest.mark.parametrize("shape", STREAMS)
def test_s20_row34_a_client_gone_passes_native_interceptors(shape: str, order: str) -> None:
    """A client that leaves mid-stream is one outcome for each of ours, beside native interceptors."""
    watches = [Watch() for letter in order if letter == "O"]
    waiting = iter(watches)
    given = [server_interceptor(next(waiting)) if letter == "O" else Native("native", []) for letter in order]
    closed, started = threading.Event(), threading.Event()

    with serve(flooding(shape, "a", closed, started), interceptors=given) as rpc:
        pending = rpc.start("a", kind=kind_of(shape))
        assert started.wait(PATIENCE)
        pending.cancel()
        codes = [watch.next().code for watch in watches]
        assert closed.wait(PATIENCE)

    assert set(codes) == {Code.CANCELLED} and all(len(watch.outcomes) == 1 for watch in watches)


@pytest.mark.parametrize("order", ["NO", "ON", "OO"])
def test_s12_unknown_methods_pass_native_interceptors(order: str) -> None:
    """A method that nobody serves stays UNIMPLEMENTED with several interceptors."""
    given = [server_interceptor(Watch()) if letter == "O" else Native("native", []) for letter in order]

    with serve({}, interceptors=given) as rpc:
        reply = rpc.call(name="Nothing")

    assert reply.code is Code.UNIMPLEMENTED


# --- flows that wait --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_flows_wait_before_and_after_the_handler(shape: str) -> None:
    """Plain flows and `async def` ones may wait before and after the handler, and change the call."""
    waited: list[str] = []

    async def store(what: str) -> str:
        await asyncio.sleep(0)
        waited.append(what)
        return what

    def plain(call: Call) -> Flow:
        value = yield from wait(store("plain before"))
        yield call.with_metadata(("x-value", value))
        yield from wait(store("plain after"))

    async def lifted(call: Call) -> AsyncIterator[Any]:
        await store("async before")
        outcome: Any = yield call
        await store(f"async {outcome.code.name}")

    async def body(context: Any) -> str:
        return str(dict(context.invocation_metadata())["x-value"])

    with serve(handling(shape, body), plain, lifted) as rpc:  # type: ignore[arg-type]
        reply = rpc.call(kind=kind_of(shape))

    assert reply.messages == ["plain before"]
    assert waited == ["plain before", "async before", "async OK", "plain after"]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_client_that_leaves_while_a_flow_waits(shape: str) -> None:
    """A client that cancels while a flow waits before the handler: the flow is told by CancelledError, and it ends."""
    held = Held()
    watch = Watch()

    def lookup(call: Call) -> Flow:
        yield from wait(held(None))
        yield call

    with serve(handling(shape, answering("a")), watch, lookup) as rpc:
        pending = rpc.start("a", kind=kind_of(shape))
        assert held.entered.wait(PATIENCE)
        pending.cancel()
        outcome = watch.next()

    assert not outcome.ok and len(watch.outcomes) == watch.begun == 1
    assert [type(error) for error in held.raised] == [asyncio.CancelledError]


@pytest.mark.parametrize("size", [1, 1_000_000])
@pytest.mark.parametrize("shape", STREAMS)
def test_a_flow_that_waits_after_the_client_has_left_is_let_finish(shape: str, size: int) -> None:
    """A flow may wait after a stream whose client has gone; only a cancel that arrives meanwhile ends its wait."""
    closed, started, written = threading.Event(), threading.Event(), threading.Event()
    cut_short: list[BaseException] = []

    async def store() -> None:
        await asyncio.sleep(0)
        written.set()

    def audit(call: Call) -> Flow:
        yield call
        try:
            yield from wait(store())
        except asyncio.CancelledError as error:  # write() had failed before the cancel was heard of
            cut_short.append(error)
            written.set()

    with serve(flooding(shape, "a" * size, closed, started), audit) as rpc:
        pending = rpc.start("a", kind=kind_of(shape))
        assert started.wait(PATIENCE)
        pending.cancel()
        assert closed.wait(PATIENCE)
        seen = written.wait(PATIENCE)

    assert seen and (shape.endswith("rw") or not cut_short)


def test_a_store_that_raises_is_the_flows_to_catch() -> None:
    """What an awaitable raises comes back at the `yield from wait(…)`."""

    async def store() -> str:
        raise LookupError("no store")

    def lookup(call: Call) -> Flow:
        try:
            yield from wait(store())
        except LookupError as error:
            raise errors.Unavailable("no store") from error
        yield call

    with serve({"unary_unary": echo}, lookup) as rpc:
        reply = rpc.call()

    assert reply.code is Code.UNAVAILABLE and reply.details == "no store"


@pytest.mark.parametrize("shape", SHAPES)
def test_a_flow_may_answer_in_place_of_the_handler(shape: str) -> None:
    """An outcome that a flow returns without a yield is what the client gets, streams too."""
    streamed = kind_of(shape) in STREAMED
    called: list[Any] = []

    def cached(call: Call) -> Flow:
        return Outcome.success(["a", "b"] if streamed else "a", trailing_metadata=(("x-cache", "hit"),))
        yield call

    async def body(_: Any) -> str:
        called.append(1)
        return "handler"

    with serve(handling(shape, body), cached) as rpc:
        reply = rpc.call(kind=kind_of(shape))

    assert reply.messages == (["a", "b"] if streamed else ["a"]) and not called
    assert reply.trailing["x-cache"] == "hit"


# Facts without a test here, and why:
#   S-11      add_callback of a sync server: tests/facts/test_sync_server.py.
#   S-15, S-26  passing deadlines and cancels on to outgoing calls is for the battery that does it; what it builds on,
#             `context.deadline()` in a handler, is tested.
#   row 35    a torn upload: whatever arrives first wins, end of stream or cancel; a later issue. On asyncio the handler's
#             loop ends as if the client had finished, always; on sync often. Tested is only that it is one outcome.
#   row 40    no queue of workers here: tests/facts/test_sync_server.py.
#   row 57    streams hold workers on sync servers only.
