"""How a handler ends, and what its client and the flows around it are told: aborts, codes, details, exceptions."""

import asyncio
import logging
from concurrent import futures
from typing import Any

import grpc
import pytest

from interpose import Call, Flow, Outcome, errors
from interpose.testing.echo import decode
from tests.facts.handling import (
    ALL,
    ASYNC,
    FEW,
    UNARY,
    Body,
    Shape,
    answering,
    done,
    each_sort,
    echoing,
    handling,
    raising,
    sending,
    serve,
    shapes,
)
from tests.facts.serving import MAKE, Watch

pytestmark = pytest.mark.usefixtures("hosts")

Code = grpc.StatusCode

UNUSUAL: list[type[BaseException]] = [
    SystemExit,
    KeyboardInterrupt,
    GeneratorExit,
    asyncio.CancelledError,
    futures.CancelledError,
    StopIteration,
    StopAsyncIteration,
    BaseException,
]
OF_ALL_SORTS = [
    Shape("sync", "stream_stream"),
    Shape("plain", "unary_unary"),
    *UNARY[2:],
    Shape("async", "unary_stream", writes=True),
]


class Gone(grpc.Status):
    """What `abort_with_status` is given."""

    code, details, trailing_metadata = Code.NOT_FOUND, "no such thing", (("x-why", "gone"),)


# --- abort ------------------------------------------------------------------------------------------------------------


@pytest.mark.fact("S-4", "S-19", "S-25", "R-17")
@pytest.mark.parametrize("how", ["abort", "abort_with_status"])
@shapes(ALL)
def test_abort_is_an_outcome(shape: Shape, how: str) -> None:
    """Flow and client are given the code, details and trailing metadata of an abort."""
    watch = Watch()

    async def body(context: Any) -> None:
        if how == "abort_with_status":
            await done(context.abort_with_status(Gone()))
        context.set_trailing_metadata((("x-why", "gone"),))
        await done(context.abort(Code.NOT_FOUND, "no such thing"))

    with serve(shape, handling(shape, body), watch) as rpc:
        reply = rpc.call()

    [outcome] = watch.outcomes
    assert outcome.code is reply.code is Code.NOT_FOUND and isinstance(outcome.error, errors.NotFound)
    assert outcome.details == reply.details == "no such thing"
    assert outcome.trailing_metadata["x-why"] == reply.trailing["x-why"] == "gone"


@pytest.mark.fact("S-25")
@pytest.mark.parametrize("how", ["with metadata", "details set before"])
@shapes(ASYNC)
def test_abort_of_an_async_handler_takes_more_and_less(shape: Shape, how: str) -> None:
    """In an async handler `abort` takes trailing metadata, and may be without details that were set before."""
    watch = Watch()

    async def body(context: Any) -> None:
        if how == "with metadata":
            await context.abort(Code.NOT_FOUND, "no such thing", (("x-why", "gone"),))
        context.set_details("no such thing")
        context.set_trailing_metadata((("x-why", "gone"),))
        await context.abort(Code.NOT_FOUND)

    with serve(shape, handling(shape, body), watch) as rpc:
        reply = rpc.call()

    [outcome] = watch.outcomes
    assert outcome.details == reply.details == "no such thing"
    assert outcome.trailing_metadata["x-why"] == reply.trailing["x-why"] == "gone"


@pytest.mark.fact("S-4", "S-19")
@pytest.mark.parametrize("then", ["answer", "raise", "status"])
@shapes(ALL)
def test_an_abort_that_is_swallowed_or_replaced_stands(
    shape: Shape, then: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A handler that swallows what `abort` raises, and answers or raises something else, has aborted."""
    watch = Watch()

    async def body(context: Any) -> str:
        try:
            await done(context.abort(Code.NOT_FOUND, "first"))
        except Exception:  # that is the fault in question
            if then == "raise":
                raise KeyError("afterwards") from None
            if then == "status":
                raise errors.DataLoss("afterwards") from None
        return "answer"

    with serve(shape, handling(shape, body), watch) as rpc:
        reply = rpc.call()

    logged = [record.exc_info[1] for record in caplog.records if record.name == "interpose" and record.exc_info]
    assert reply.code is Code.NOT_FOUND and reply.details == "first"
    assert [outcome.code for outcome in watch.outcomes] == [Code.NOT_FOUND]
    assert shape.waits or then != "raise" or any(isinstance(error, KeyError) for error in logged)


@pytest.mark.fact("S-4", "S-19", "R-17")
@shapes(ALL)
def test_of_two_aborts_the_one_counts_that_grpc_takes(shape: Shape) -> None:
    """A plain handler's second abort counts; an async one's is a UsageError, and the first counts."""
    watch, raised = Watch(), list[BaseException]()

    async def body(context: Any) -> None:
        try:
            await done(context.abort(Code.NOT_FOUND, "first"))
        finally:
            try:
                await done(context.abort(Code.DATA_LOSS, "second"))
            except grpc.aio.UsageError as error:
                raised.append(error)

    with serve(shape, handling(shape, body), watch) as rpc:
        reply = rpc.call()

    [outcome] = watch.outcomes
    code, details = (Code.NOT_FOUND, "first") if shape.waits else (Code.DATA_LOSS, "second")
    assert outcome.code is reply.code is code and outcome.details == reply.details == details
    assert len(raised) == shape.waits


@pytest.mark.fact("S-4", "R-21")
@shapes(ALL)
def test_abort_with_ok_is_unknown(shape: Shape) -> None:
    """`abort(OK)` is UNKNOWN without details, for the flow and the client."""
    watch = Watch()

    async def body(context: Any) -> None:
        await done(context.abort(Code.OK, "fine"))

    with serve(shape, handling(shape, body), watch) as rpc:
        reply = rpc.call()

    [outcome] = watch.outcomes
    assert outcome.code is reply.code is Code.UNKNOWN and outcome.details == reply.details == ""


@pytest.mark.fact("S-25", "R-22")
@pytest.mark.parametrize("how", ["abort", "abort_with_status"])
@shapes(ASYNC)
def test_an_abort_that_nobody_awaits_fails_the_rpc(shape: Shape, how: str) -> None:
    """`context.abort(…)` without `await` fails the RPC all the same: the answer does not go out."""
    watch = Watch()

    async def body(context: Any) -> str:
        _ = context.abort(Code.NOT_FOUND, "no such thing") if how == "abort" else context.abort_with_status(Gone())
        return "secret"

    with serve(shape, handling(shape, body), watch) as rpc:
        reply = rpc.call()

    assert reply.code is Code.NOT_FOUND and reply.details == "no such thing"
    assert [outcome.code for outcome in watch.outcomes] == [Code.NOT_FOUND]
    assert shape.streams or reply.messages == []


# --- codes and details ------------------------------------------------------------------------------------------------


@pytest.mark.fact("S-5", "R-18")
@shapes(ALL)
def test_set_code_and_return_is_a_failure(shape: Shape) -> None:
    """A handler that sets a code and returns has failed; its trailing metadata is kept."""
    watch = Watch()

    def body(context: Any) -> str:
        context.set_code(Code.NOT_FOUND)
        context.set_details("looked everywhere")
        context.set_trailing_metadata((("x-why", "gone"),))
        return "ignored"

    with serve(shape, handling(shape, body), watch) as rpc:
        reply = rpc.call()

    [outcome] = watch.outcomes
    assert outcome.code is reply.code is Code.NOT_FOUND and isinstance(outcome.error, errors.NotFound)
    assert outcome.details == reply.details == "looked everywhere"
    assert outcome.trailing_metadata["x-why"] == reply.trailing["x-why"] == "gone"
    assert outcome.response is None


@pytest.mark.fact("S-6", "R-18", "R-26")
@each_sort
def test_the_status_is_judged_by_how_the_handler_ended(sort: str) -> None:
    """Without a code of its own, a handler that returns is OK and one that raises is UNKNOWN."""
    watch, seen = Watch(), list[Any]()

    def body(context: Any) -> str:
        seen.extend((context.code(), context.details(), context.trailing_metadata()))
        raise LookupError("nothing")

    with serve(sort, echoing(sort) | handling(Shape(sort, "stream_unary"), body), watch) as rpc:
        rpc.call()
        rpc.call(kind="stream_unary")

    first, second = watch.outcomes
    assert first.ok and first.error is None and first.details == ""
    assert second.code is Code.UNKNOWN and isinstance(second.error, LookupError)
    assert seen[:2] == [None, "" if sort == "async" else None] and not seen[2]


@pytest.mark.fact("S-6", "R-17", "R-18")
@shapes(UNARY)
def test_details_are_bytes_in_plain_handlers_only(shape: Shape) -> None:
    """`context.details()` is bytes in plain handlers, as on a bare sync server; the outcome's details are text."""
    watch, seen = Watch(), list[Any]()

    def body(context: Any) -> str:
        context.set_details("gr\u00fc\u00dfe")
        context.set_code(Code.ABORTED)
        seen.extend((context.code(), context.details()))
        return "a"

    with serve(shape, handling(shape, body), watch) as rpc:
        reply = rpc.call()

    assert seen == [Code.ABORTED, "gr\u00fc\u00dfe" if shape.waits else "gr\u00fc\u00dfe".encode()]
    assert watch.outcomes[0].details == reply.details == "gr\u00fc\u00dfe"


@pytest.mark.fact("S-6", "R-24")
@pytest.mark.parametrize("how", ["set_code", "abort"])
@shapes(UNARY)
def test_a_number_is_a_code(shape: Shape, how: str) -> None:
    """A code given as a number is that code, for the flow and the client."""
    watch = Watch()

    async def body(context: Any) -> str:
        context.set_code(5) if how == "set_code" else await done(context.abort(5, "by number"))
        return "a"

    with serve(shape, handling(shape, body), watch) as rpc:
        reply = rpc.call()

    assert watch.outcomes[0].code is reply.code is Code.NOT_FOUND


def saying(how: str, text: str) -> Body:
    """A handler's body that fails with NOT_FOUND and this text, one way or another."""

    async def body(context: Any) -> str:
        if how == "abort":
            await done(context.abort(Code.NOT_FOUND, text))
        if how == "status":
            raise errors.NotFound(text)
        if how == "rich":
            raise errors.NotFound("short", trailing_metadata=(("grpc-status-details-bin", text.encode()),))
        if how in ("raise", "set_details"):
            context.set_code(Code.NOT_FOUND)
        if how == "raise":
            raise ValueError(text)
        if how == "set_details":
            context.set_details(text)
        return "a"

    return body


@pytest.mark.fact("S-7", "R-29")
@pytest.mark.parametrize("how", ["abort", "status", "set_details", "raise", "rich"])
@pytest.mark.parametrize("letter", ["x", "\u00fc", "%"])
@shapes(OF_ALL_SORTS)
def test_long_details_keep_their_code(shape: Shape, letter: str, how: str) -> None:
    """A status with 20,000 characters of details reaches the client with its own code, the text cut."""
    with serve(shape, handling(shape, saying(how, letter * 20_000)), Watch()) as rpc:
        reply = rpc.call()

    assert reply.code is Code.NOT_FOUND and len(reply.details) < 8000


@pytest.mark.fact("S-7", "R-29")
@shapes(UNARY)
def test_details_and_rich_details_together_keep_their_code(shape: Shape) -> None:
    """Details and packed details that fit alone, and not together, leave the status what it is."""
    error = errors.NotFound("x" * 4000, trailing_metadata=(("grpc-status-details-bin", b"y" * 5900),))

    with serve(shape, handling(shape, raising(error)), Watch()) as rpc:
        codes = {rpc.call().code for _ in range(20)}

    assert codes == {Code.NOT_FOUND}


@pytest.mark.fact("R-27")
@pytest.mark.parametrize("how", ["abort", "set_details", "status", "flow", "raise"])
@pytest.mark.parametrize(
    "details",
    ["line\r\nline", "gr\u00fc\u00dfe \u2713", "\ud800 lone"],
    ids=["line breaks", "unicode", "lone surrogate"],
)
@shapes(OF_ALL_SORTS)
def test_odd_details_reach_the_client(shape: Shape, details: str, how: str) -> None:
    """Line breaks and Unicode arrive intact; a lone surrogate is replaced, and the code stays."""

    def flow(call: Call) -> Flow:
        yield call
        if how == "flow":
            raise errors.NotFound(details)

    with serve(shape, handling(shape, saying(how, details)), flow) as rpc:
        reply = rpc.call()

    assert reply.code is Code.NOT_FOUND
    if how != "raise":  # there grpc's own words stand around it
        assert reply.details == details.replace("\ud800", "?")


@pytest.mark.fact("R-27")
@shapes(UNARY)
def test_odd_details_beside_ok_keep_the_answer(shape: Shape) -> None:
    """Details that cannot be sent do not keep a good answer from the client."""

    def body(context: Any) -> str:
        context.set_details("\ud800")
        return "answer"

    with serve(shape, handling(shape, body), Watch()) as rpc:
        reply = rpc.call()

    assert reply.ok and reply.messages == ["answer"]


# --- exceptions -------------------------------------------------------------------------------------------------------


@pytest.mark.fact("S-8")
@shapes(shape for shape in ALL if shape.streams)
def test_a_stream_that_breaks_is_an_outcome(shape: Shape) -> None:
    """What a handler raises after its second message reaches the flow, with the count of messages."""
    watch = Watch()

    def messages(_: Any) -> Any:
        yield from ("a", "b")
        raise errors.DataLoss("torn")

    with serve(shape, sending(shape, messages), watch) as rpc:
        reply = rpc.call()

    [outcome] = watch.outcomes
    assert reply.messages in ([], ["a", "b"])
    assert outcome.code is reply.code is Code.DATA_LOSS and outcome.responses == 2


@pytest.mark.fact("R-20", "S-7")
@shapes(ALL)
def test_an_unexpected_exception_is_answered_as_by_grpc(shape: Shape) -> None:
    """With interceptors around it, a handler's exception gives the client what it gives without."""
    handlers, watch = handling(shape, raising(ValueError("text"))), Watch()

    with serve(shape, handlers) as bare:
        expected = bare.call()
    with serve(shape, handlers, watch) as rpc:
        reply = rpc.call()

    assert (reply.code, reply.details) == (expected.code, expected.details)
    assert reply.code is Code.UNKNOWN and isinstance(watch.outcomes[0].error, ValueError)


@pytest.mark.fact("S-7")
@shapes(UNARY)
def test_a_flow_may_hide_what_a_handler_raised(shape: Shape) -> None:
    """A flow that replaces a failure keeps the exception's text from the client."""

    def mask(call: Call) -> Flow:
        outcome = yield call
        return outcome if outcome.ok else Outcome.failure(errors.Internal("error 17"))

    with serve(shape, handling(shape, raising(ValueError("secret"))), mask) as rpc:
        reply = rpc.call()

    assert reply.code is Code.INTERNAL and reply.details == "error 17"


@pytest.mark.fact("R-19")
@shapes(ALL)
def test_set_code_and_raise_keeps_the_code(shape: Shape) -> None:
    """A code set before an exception is the RPC's code; on a sync server the client gets the details too."""
    watch = Watch()

    def body(context: Any) -> None:
        context.set_code(Code.NOT_FOUND)
        context.set_details("kept")
        raise KeyError("text")

    with serve(shape, handling(shape, body), watch) as rpc:
        reply = rpc.call()

    [outcome] = watch.outcomes
    assert outcome.code is reply.code is Code.NOT_FOUND
    assert outcome.details == "kept" and isinstance(outcome.error, KeyError)
    assert shape.sort != "sync" or reply.details == "kept"


@pytest.mark.fact("R-25")
@pytest.mark.parametrize("error", UNUSUAL)
@shapes(FEW)
def test_base_exceptions_of_a_handler_end_the_rpc(shape: Shape, error: type[BaseException]) -> None:
    """A handler that raises what is no Exception fails with UNKNOWN, and the server serves the next call."""
    watch, fail = Watch(), True

    def body(_: Any) -> str:
        if fail:
            raise error
        return "next"

    with serve(shape, handling(shape, body), watch) as rpc:
        failed = rpc.call()
        fail = False
        reply = rpc.call()

    cancelled = shape.waits and error is asyncio.CancelledError  # what an async handler raises that was cancelled
    assert failed.code is (Code.CANCELLED if cancelled else Code.UNKNOWN) and reply.messages == ["next"]
    assert [outcome.ok for outcome in watch.outcomes] == [False, True]
    # a coroutine or generator that raises StopIteration raises RuntimeError (PEP 479)
    assert cancelled or isinstance(watch.outcomes[0].error, (error, RuntimeError))


@pytest.mark.fact("R-25", "R-13")
@pytest.mark.parametrize("error", UNUSUAL)
@shapes(FEW)
def test_base_exceptions_of_a_flow_end_the_rpc(shape: Shape, error: type[BaseException]) -> None:
    """A flow that raises what is no Exception fails with INTERNAL, and the server serves the next call."""
    fails = ""

    def odd(call: Call) -> Flow:
        if fails == "before":
            raise error
        yield call
        if fails == "after":
            raise error

    with serve(shape, handling(shape, answering("next")), odd) as rpc:
        for fails in ("before", "after"):  # noqa: B007  the flow reads it
            failed = rpc.call()
            assert failed.code is Code.INTERNAL and "odd" in failed.details
        fails = ""
        reply = rpc.call()

    assert reply.messages == ["next"]


@pytest.mark.fact("S-22", "R-25")
@pytest.mark.parametrize("how", ["raise", "inner task"])
@shapes(ASYNC)
def test_a_cancelled_error_of_the_handlers_own_ends_the_rpc(shape: Shape, how: str) -> None:
    """A handler that raises CancelledError, though nobody cancelled the RPC, gives its client CANCELLED at once."""
    watch = Watch()

    async def body(_: Any) -> str:
        if how == "raise":
            raise asyncio.CancelledError
        inner = asyncio.ensure_future(asyncio.Event().wait())
        asyncio.get_running_loop().call_soon(inner.cancel)
        await inner
        return "a"

    with serve(shape, handling(shape, body), watch) as rpc:
        reply = rpc.call()

    assert reply.code is Code.CANCELLED
    assert [outcome.code for outcome in watch.outcomes] == [Code.CANCELLED]


@pytest.mark.fact("R-23")
@shapes(ALL)
def test_a_response_of_the_wrong_type_ends_the_rpc(shape: Shape, monkeypatch: pytest.MonkeyPatch) -> None:
    """A response that the serializer refuses gives the client a failure, and the flow its one outcome."""
    # A log record that is kept keeps the traceback, its frames, and the generator that grpc has dropped.
    for name in ("grpc._common", "grpc._cython.cygrpc"):
        monkeypatch.setattr(logging.getLogger(name), "disabled", True)
    watch = Watch()
    [function] = handling(shape, answering(7)).values()

    with serve(shape, {shape.kind: MAKE[shape.kind](function, decode, str.encode)}, watch) as rpc:
        reply = rpc.call()
        watch.only()

    assert not reply.ok


@pytest.mark.fact("R-23")
@shapes(ALL)
def test_a_map_that_raises_is_named(shape: Shape) -> None:
    """A map of responses that raises gives INTERNAL and names the function, not its text."""

    def upper(message: Any) -> Any:
        raise AttributeError("secret")

    def shout(call: Call) -> Flow:
        yield call.map(responses=upper)

    with serve(shape, handling(shape, answering("a")), shout) as rpc:
        reply = rpc.call()

    assert reply.code is Code.INTERNAL and "upper" in reply.details and "secret" not in reply.details
