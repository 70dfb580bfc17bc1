"""What is known to go wrong on servers with plain handlers, one test per fact; on a sync server and on an asyncio one."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import json
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import AbstractContextManager, suppress
from functools import partial
from inspect import unwrap
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from interpose import Call, Flow, Outcome, context, errors, server_interceptor, wait, when
from interpose import _handlers as handlers_of
from interpose.testing.echo import decode, encode
from tests.facts.serving import KINDS, MAKE, PATIENCE, SERVICE, STREAMED, Client, Watch, serving

Serve = Callable[..., AbstractContextManager[Client]]
Code = grpc.StatusCode

UNUSUAL: list[type[BaseException]] = [
    SystemExit,
    KeyboardInterrupt,
    GeneratorExit,
    asyncio.CancelledError,
    futures.CancelledError,
    StopIteration,
    BaseException,
]


@pytest.fixture(params=["sync", "plain"])
def serve(request: pytest.FixtureRequest) -> Serve:
    """Opens a server with plain handlers: `grpc.server`, or `grpc.aio.server`."""
    return partial(serving, request.param)


@pytest.fixture
def serve_sync() -> Serve:
    """Opens a `grpc.server`."""
    return partial(serving, "sync")


def echo(request: str, _: Any) -> str:
    return request


def handling(kind: str, body: Callable[[Any], Any]) -> dict[str, Any]:
    """A handler that reads its requests, and answers once with what `body` makes of the context."""

    def unary(argument: Any, context: Any) -> Any:
        if kind.startswith("stream"):
            list(argument)
        return body(context)

    def stream(argument: Any, context: Any) -> Iterator[Any]:
        yield unary(argument, context)

    return {kind: stream if kind in STREAMED else unary}


def raising(error: BaseException) -> Callable[[Any], Any]:
    def body(_: Any) -> Any:
        raise error

    return body


def blocked(event: threading.Event) -> Iterator[str]:
    """A request stream that is open and silent until the event."""
    event.wait(PATIENCE)
    yield from ()


# --- where flows run --------------------------------------------------------------------------------------------------


def test_s01_row12_a_flow_that_blocks_delays_no_other_rpc(serve: Serve) -> None:
    """While one RPC's flow blocks, another RPC is answered."""
    entered, release = threading.Event(), threading.Event()

    def slow(call: Call) -> Flow:
        if call.request == "slow":
            entered.set()
            release.wait(PATIENCE)
        yield call

    with serve({"unary_unary": echo}, slow) as rpc:
        pending = rpc.start("slow")
        assert entered.wait(PATIENCE)
        reply = rpc.call("quick")
        overtaken = not pending.done()
        release.set()
        slowly = pending.result()

    assert reply.messages == ["quick"] and overtaken and slowly == "slow"


@pytest.mark.parametrize("kind", KINDS)
def test_s01_flows_run_in_the_pool(serve: Serve, kind: str) -> None:
    """A flow begins and ends in a pool thread, never in the thread that serves."""
    begun: list[str] = []
    watch = Watch()

    def where(call: Call) -> Flow:
        begun.append(threading.current_thread().name)
        yield call

    with serve(handling(kind, lambda _: "a"), where, watch) as rpc:
        reply = rpc.call(kind=kind)

    assert reply.ok
    assert all(name.startswith("ThreadPoolExecutor") for name in (*begun, *watch.threads))


@pytest.mark.parametrize("kind", KINDS)
def test_s02_an_interceptor_that_raises_is_named_and_its_text_kept(serve: Serve, kind: str) -> None:
    """A fault of an interceptor is INTERNAL with its name; the text of the exception does not reach the client."""

    def broken(call: Call) -> Flow:
        raise ValueError("secret")
        yield call

    with serve(handling(kind, lambda _: "a"), broken) as rpc:
        reply = rpc.call(kind=kind)

    assert reply.code is Code.INTERNAL and "broken" in reply.details and "secret" not in reply.details


@pytest.mark.parametrize("fault", [ValueError("secret"), SystemExit(3), GeneratorExit()], ids=repr)
def test_s02_row13_a_condition_that_raises_fails_its_rpcs_only(serve: Serve, fault: BaseException) -> None:
    """A condition of `when` that raises ends the RPC with INTERNAL, and the server goes on serving."""

    def pick(method: Any) -> bool:
        if method.name == "stream_unary":
            raise fault
        return True

    with serve({"unary_unary": echo, **handling("stream_unary", lambda _: "a")}, when(pick, Watch())) as rpc:
        failed = rpc.call(kind="stream_unary")
        reply = rpc.call("next")

    assert failed.code is Code.INTERNAL and "when(" in failed.details and "secret" not in failed.details
    assert reply.messages == ["next"]


@pytest.mark.parametrize("kind", KINDS)
def test_s03_row11_a_refusal_does_not_wait_for_the_client(serve: Serve, kind: str) -> None:
    """A flow's refusal reaches a client that has sent nothing yet and holds its request stream open."""
    kinds: list[str] = []
    release = threading.Event()

    def outer(call: Call) -> Flow:
        kinds.append(call.kind.value)
        yield call

    def refuse(call: Call) -> Flow:
        raise errors.Unauthenticated("who are you?")
        yield call

    with serve(handling(kind, lambda _: "a"), outer, refuse) as rpc:
        reply = rpc.call(kind=kind, stream=blocked(release))
        release.set()

    assert reply.code is Code.UNAUTHENTICATED and reply.details == "who are you?"
    assert kinds == [kind]


@pytest.mark.parametrize("kind", ["stream_unary", "stream_stream"])
def test_s03_row11_a_refusal_needs_no_message(serve: Serve, kind: str) -> None:
    """A flow's refusal reaches a client that half-closes without a message."""

    def refuse(call: Call) -> Flow:
        raise errors.Unauthenticated("who are you?")
        yield call

    with serve(handling(kind, lambda _: "a"), refuse) as rpc:
        reply = rpc.call(kind=kind, stream=iter(()))

    assert reply.code is Code.UNAUTHENTICATED


@pytest.mark.parametrize("kind", ["stream_unary", "stream_stream"])
def test_row11_row57_refused_streams_hold_no_worker(serve: Serve, kind: str) -> None:
    """With one worker, four silent streams that are refused do not keep a fifth RPC from being served."""
    release = threading.Event()

    def refuse(call: Call) -> Flow:
        if call.kind.request_streaming:
            raise errors.Unauthenticated
        yield call

    with serve({"unary_unary": echo, **handling(kind, lambda _: "a")}, refuse, workers=1) as rpc:
        replies = [rpc.call(kind=kind, stream=blocked(release)) for _ in range(4)]
        reply = rpc.call("next")
        release.set()

    assert [each.code for each in replies] == [Code.UNAUTHENTICATED] * 4 and reply.messages == ["next"]


# --- how handlers fail ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_s04_row17_abort_is_an_outcome(serve: Serve, kind: str) -> None:
    """`abort` gives the flow and the client its code, details and trailing metadata."""
    watch = Watch()

    def body(context: Any) -> None:
        context.set_trailing_metadata((("x-why", "gone"),))
        context.abort(Code.NOT_FOUND, "no such thing")

    with serve(handling(kind, body), watch) as rpc:
        reply = rpc.call(kind=kind)

    [outcome] = watch.outcomes
    assert outcome.code is reply.code is Code.NOT_FOUND
    assert outcome.details == reply.details == "no such thing"
    assert isinstance(outcome.error, errors.NotFound)
    assert outcome.trailing_metadata["x-why"] == reply.trailing["x-why"] == "gone"


@pytest.mark.parametrize("kind", KINDS)
def test_s04_abort_with_status_is_an_outcome(serve: Serve, kind: str) -> None:
    """`abort_with_status` does the same with a `grpc.Status`."""
    watch = Watch()

    class Status(grpc.Status):
        code, details, trailing_metadata = Code.DATA_LOSS, "torn", (("x-why", "disk"),)

    with serve(handling(kind, lambda context: context.abort_with_status(Status())), watch) as rpc:
        reply = rpc.call(kind=kind)

    [outcome] = watch.outcomes
    assert outcome.code is reply.code is Code.DATA_LOSS and outcome.details == reply.details == "torn"
    assert outcome.trailing_metadata["x-why"] == reply.trailing["x-why"] == "disk"


@pytest.mark.parametrize("kind", KINDS)
def test_s04_abort_swallowed_is_an_abort(serve: Serve, kind: str) -> None:
    """A handler that swallows what `abort` raises, and answers, has failed."""
    watch = Watch()

    def body(context: Any) -> str:
        with suppress(Exception):
            context.abort(Code.NOT_FOUND, "first")
        return "answer"

    with serve(handling(kind, body), watch) as rpc:
        reply = rpc.call(kind=kind)

    assert reply.code is Code.NOT_FOUND and reply.details == "first"
    assert [outcome.code for outcome in watch.outcomes] == [Code.NOT_FOUND]


def test_s04_row17_the_second_abort_counts(serve: Serve) -> None:
    """When a plain handler aborts twice, flow and client see the second, as on a bare sync server."""
    watch = Watch()

    def body(context: Any) -> None:
        try:
            context.abort(Code.NOT_FOUND, "first")
        finally:
            context.abort(Code.DATA_LOSS, "second")

    with serve(handling("unary_unary", body), watch) as rpc:
        reply = rpc.call()

    [outcome] = watch.outcomes
    assert outcome.code is reply.code is Code.DATA_LOSS and outcome.details == reply.details == "second"


@pytest.mark.parametrize("kind", KINDS)
def test_s04_an_exception_after_an_abort_is_logged(serve: Serve, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """What a handler raises after its abort does not change the status, and is in the log."""
    watch = Watch()

    def body(context: Any) -> None:
        try:
            context.abort(Code.NOT_FOUND, "first")
        except Exception:
            raise KeyError("afterwards") from None

    with serve(handling(kind, body), watch) as rpc:
        reply = rpc.call(kind=kind)

    assert reply.code is Code.NOT_FOUND and reply.details == "first"
    assert [outcome.code for outcome in watch.outcomes] == [Code.NOT_FOUND]
    assert any(
        record.name == "interpose" and record.exc_info and isinstance(record.exc_info[1], KeyError)
        for record in caplog.records
    )


@pytest.mark.parametrize("kind", KINDS)
def test_s04_row21_abort_with_ok_is_unknown(serve: Serve, kind: str) -> None:
    """`abort(OK)` is UNKNOWN without details, for the flow and the client."""
    watch = Watch()

    with serve(handling(kind, lambda context: context.abort(Code.OK, "fine")), watch) as rpc:
        reply = rpc.call(kind=kind)

    [outcome] = watch.outcomes
    assert outcome.code is reply.code is Code.UNKNOWN and outcome.details == reply.details == ""


@pytest.mark.parametrize("kind", KINDS)
def test_s05_row18_set_code_and_return_is_a_failure(serve: Serve, kind: str) -> None:
    """A handler that sets a code and returns has failed; its trailing metadata is kept."""
    watch = Watch()

    def body(context: Any) -> str:
        context.set_code(Code.NOT_FOUND)
        context.set_details("looked everywhere")
        context.set_trailing_metadata((("x-why", "gone"),))
        return "ignored"

    with serve(handling(kind, body), watch) as rpc:
        reply = rpc.call(kind=kind)

    [outcome] = watch.outcomes
    assert outcome.code is reply.code is Code.NOT_FOUND and isinstance(outcome.error, errors.NotFound)
    assert outcome.details == reply.details == "looked everywhere"
    assert outcome.trailing_metadata["x-why"] == reply.trailing["x-why"] == "gone"
    assert outcome.response is None


def test_s06_row26_the_status_is_judged_by_how_the_handler_ended(serve: Serve) -> None:
    """Without a code of its own, a handler that returns is OK and one that raises is UNKNOWN."""
    watch = Watch()

    def body(context: Any) -> str:
        assert context.code() is None and context.details() is None
        raise LookupError("nothing")

    with serve({"unary_unary": echo, **handling("stream_unary", body)}, watch) as rpc:
        rpc.call()
        rpc.call(kind="stream_unary")

    first, second = watch.outcomes
    assert first.ok and first.error is None and first.details == ""
    assert second.code is Code.UNKNOWN and isinstance(second.error, LookupError)


def test_s06_row17_details_in_a_plain_handler_are_bytes(serve: Serve) -> None:
    """`context.details()` gives bytes, as on a bare sync server; the outcome's details are text."""
    seen: list[Any] = []
    watch = Watch()

    def body(context: Any) -> str:
        context.set_details("gr\u00fc\u00dfe")
        context.set_code(Code.ABORTED)
        seen.extend((context.code(), context.details()))
        return "a"

    with serve(handling("unary_unary", body), watch) as rpc:
        reply = rpc.call()

    assert seen == [Code.ABORTED, "gr\u00fc\u00dfe".encode()]
    assert watch.outcomes[0].details == reply.details == "gr\u00fc\u00dfe"


@pytest.mark.parametrize("how", ["set_code", "abort"])
def test_s06_row24_a_number_is_a_code(serve: Serve, how: str) -> None:
    """A code given as a number is that code, for the flow and the client."""
    watch = Watch()

    def body(context: Any) -> str:
        context.set_code(5) if how == "set_code" else context.abort(5, "by number")
        return "a"

    with serve(handling("unary_unary", body), watch) as rpc:
        reply = rpc.call()

    assert watch.outcomes[0].code is reply.code is Code.NOT_FOUND


def say(how: str, long: str) -> Callable[[Any], Any]:
    """A handler's body that fails with too long a text, one way or another."""

    def body(context: Any) -> None:
        if how == "abort":
            context.abort(Code.NOT_FOUND, long)
        if how == "status":
            raise errors.NotFound(long)
        if how == "rich":
            raise errors.NotFound("short", trailing_metadata=(("grpc-status-details-bin", b"y" * 20_000),))
        if how == "raise after set_code":
            context.set_code(Code.NOT_FOUND)
            raise ValueError(long)
        context.set_code(Code.NOT_FOUND)
        context.set_details(long)

    return body


@pytest.mark.parametrize("kind", ["unary_unary", "stream_stream"])
@pytest.mark.parametrize("how", ["abort", "status", "set_code", "raise after set_code", "rich"])
@pytest.mark.parametrize("letter", ["x", "\u00fc", "%"])
def test_s07_row29_long_details_keep_their_code(serve: Serve, letter: str, how: str, kind: str) -> None:
    """A status with 20,000 characters of details reaches the client with its own code, the text cut."""
    with serve(handling(kind, say(how, letter * 20_000)), Watch()) as rpc:
        reply = rpc.call(kind=kind)

    assert reply.code is Code.NOT_FOUND and len(reply.details) < 8000


def test_s07_details_and_rich_details_together_keep_their_code(serve: Serve) -> None:
    """Details and packed details that fit alone, and not together, leave the status what it is."""

    def body(_: Any) -> None:
        raise errors.NotFound("x" * 4000, trailing_metadata=(("grpc-status-details-bin", b"y" * 5900),))

    with serve(handling("unary_unary", body), Watch()) as rpc:
        codes = {rpc.call().code for _ in range(20)}

    assert codes == {Code.NOT_FOUND}


def test_s07_a_flow_may_hide_what_a_handler_raised(serve: Serve) -> None:
    """A flow that replaces a failure keeps the exception's text from the client."""

    def mask(call: Call) -> Flow:
        outcome = yield call
        if not outcome.ok:
            return Outcome.failure(errors.Internal("error 17"))
        return outcome

    with serve(handling("unary_unary", raising(ValueError("secret"))), mask) as rpc:
        reply = rpc.call()

    assert reply.code is Code.INTERNAL and reply.details == "error 17"


@pytest.mark.parametrize("kind", STREAMED)
def test_s08_a_stream_that_breaks_is_an_outcome(serve: Serve, kind: str) -> None:
    """What a generator raises after its second message reaches the flow, with the count of messages."""
    watch = Watch()

    def stream(argument: Any, context: Any) -> Iterator[str]:
        yield from ("a", "b")
        raise errors.DataLoss("torn")

    with serve({kind: stream}, watch) as rpc:
        reply = rpc.call(kind=kind)

    [outcome] = watch.outcomes
    assert reply.messages in ([], ["a", "b"])
    assert outcome.code is reply.code is Code.DATA_LOSS and outcome.responses == 2


@pytest.mark.parametrize("kind", KINDS)
def test_row20_an_unexpected_exception_is_answered_as_by_grpc(serve: Serve, kind: str) -> None:
    """With interceptors around it, a handler's exception gives the client what it gives without."""
    handlers = handling(kind, raising(ValueError("text")))
    watch = Watch()

    with serve(handlers, interceptors=()) as bare:
        expected = bare.call(kind=kind)
    with serve(handlers, watch) as rpc:
        reply = rpc.call(kind=kind)

    assert (reply.code, reply.details) == (expected.code, expected.details)
    assert reply.code is Code.UNKNOWN and isinstance(watch.outcomes[0].error, ValueError)


@pytest.mark.parametrize("kind", KINDS)
def test_row19_set_code_and_raise_keeps_the_code(serve: Serve, kind: str) -> None:
    """A code set before an exception is the RPC's code, for the flow and the client."""
    watch = Watch()

    def body(context: Any) -> None:
        context.set_code(Code.NOT_FOUND)
        context.set_details("kept")
        raise KeyError("text")

    with serve(handling(kind, body), watch) as rpc:
        reply = rpc.call(kind=kind)

    [outcome] = watch.outcomes
    assert outcome.code is reply.code is Code.NOT_FOUND
    assert outcome.details == "kept" and isinstance(outcome.error, KeyError)


def test_row19_set_code_and_raise_keeps_the_details_on_sync(serve_sync: Serve) -> None:
    """On a sync server the details set before an exception reach the client too, as grpc does it."""

    def body(context: Any) -> None:
        context.set_code(Code.NOT_FOUND)
        context.set_details("kept")
        raise KeyError("text")

    with serve_sync(handling("unary_unary", body), Watch()) as rpc:
        reply = rpc.call()

    assert reply.details == "kept"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("error", UNUSUAL)
def test_row25_base_exceptions_of_a_handler_end_the_rpc(serve: Serve, error: type[BaseException], kind: str) -> None:
    """A handler that raises what is no Exception fails with UNKNOWN, and the server serves the next call."""
    watch = Watch()
    fail = True

    def body(_: Any) -> str:
        if fail:
            raise error
        return "next"

    with serve(handling(kind, body), watch) as rpc:
        failed = rpc.call(kind=kind)
        fail = False
        reply = rpc.call(kind=kind)

    assert failed.code is Code.UNKNOWN and reply.messages == ["next"]
    assert [outcome.ok for outcome in watch.outcomes] == [False, True]
    # a generator that raises StopIteration raises RuntimeError (PEP 479)
    assert isinstance(watch.outcomes[0].error, (error, RuntimeError))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("when_raised", ["before", "after"])
@pytest.mark.parametrize("error", UNUSUAL)
def test_row25_base_exceptions_of_a_flow_end_the_rpc(
    serve: Serve, error: type[BaseException], when_raised: str, kind: str
) -> None:
    """A flow that raises what is no Exception fails with INTERNAL, and the server serves the next call."""
    fail = True

    def odd(call: Call) -> Flow:
        if fail and when_raised == "before":
            raise error
        yield call
        if fail:
            raise error

    with serve(handling(kind, lambda _: "next"), odd) as rpc:
        failed = rpc.call(kind=kind)
        fail = False
        reply = rpc.call(kind=kind)

    assert failed.code is Code.INTERNAL and "odd" in failed.details and reply.messages == ["next"]


@pytest.mark.parametrize("kind", ["unary_unary", "unary_stream"])
@pytest.mark.parametrize("how", ["abort", "set_details", "status", "flow", "raise"])
@pytest.mark.parametrize(
    "details",
    ["line\r\nline", "gr\u00fc\u00dfe \u2713", "\ud800 lone"],
    ids=["line breaks", "unicode", "lone surrogate"],
)
def test_row27_odd_details_reach_the_client(serve: Serve, details: str, how: str, kind: str) -> None:
    """Line breaks and Unicode arrive intact; a lone surrogate is replaced, and the code stays."""

    def body(context: Any) -> str:
        if how == "abort":
            context.abort(Code.NOT_FOUND, details)
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

    with serve(handling(kind, body), flow) as rpc:
        reply = rpc.call(kind=kind)

    assert reply.code is Code.NOT_FOUND
    if how != "raise":  # there grpc's own words stand around it
        assert reply.details == details.replace("\ud800", "?")


def test_row27_a_lone_surrogate_beside_ok_ends_the_rpc(serve: Serve) -> None:
    """Details that cannot be sent do not keep a good answer from the client."""

    def body(context: Any) -> str:
        context.set_details("\ud800")
        return "answer"

    with serve(handling("unary_unary", body), Watch()) as rpc:
        reply = rpc.call()

    assert reply.ok and reply.messages == ["answer"]


WRONG = [(("x-number", 1),), (("x-bin", "text"),), (("x-text", b"\xff"),), (("X Y", "a"),), (("x-none", None),)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pairs", WRONG, ids=str)
def test_row28_wrong_trailing_metadata_ends_the_rpc(serve: Serve, pairs: Any, kind: str) -> None:
    """Trailing metadata that the wire would refuse is an exception in the handler, and a status for the client."""
    watch = Watch()

    def body(context: Any) -> str:
        context.set_trailing_metadata(pairs)
        return "a"

    with serve(handling(kind, body), watch) as rpc:
        reply = rpc.call(kind=kind)

    assert reply.code is Code.UNKNOWN and isinstance(watch.outcomes[0].error, ValueError)


@pytest.mark.parametrize("how", ["initial", "abort_with_status"])
@pytest.mark.parametrize("pairs", WRONG, ids=str)
def test_row28_wrong_metadata_elsewhere_ends_the_rpc(serve: Serve, pairs: Any, how: str) -> None:
    """So is wrong metadata sent in front of the response, or with `abort_with_status`."""
    watch = Watch()

    class Status(grpc.Status):
        code, details, trailing_metadata = Code.DATA_LOSS, "torn", pairs

    def body(context: Any) -> str:
        context.send_initial_metadata(pairs) if how == "initial" else context.abort_with_status(Status())
        return "a"

    with serve(handling("unary_unary", body), watch) as rpc:
        reply = rpc.call()

    assert reply.code is Code.UNKNOWN and isinstance(watch.outcomes[0].error, ValueError)


@pytest.mark.parametrize("where", ["call", "outcome", "error"])
def test_row28_wrong_metadata_of_a_flow_is_its_fault(serve: Serve, where: str) -> None:
    """A flow that adds metadata the wire would refuse ends the RPC with INTERNAL and its name."""

    def clumsy(call: Call) -> Flow:
        pair: Any = ("x-number", 1)
        outcome = yield call.with_initial_metadata(pair) if where == "call" else call
        if where == "error":
            raise errors.NotFound("x", trailing_metadata=(pair,))
        return outcome.with_trailing_metadata(pair)

    with serve({"unary_unary": echo}, clumsy) as rpc:
        reply = rpc.call()

    assert reply.code is Code.INTERNAL and "clumsy" in reply.details


@pytest.mark.parametrize("kind", KINDS)
def test_row23_a_response_of_the_wrong_type_ends_the_rpc(
    serve: Serve, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A response that the serializer refuses gives the client a failure, and the flow its one outcome."""
    # A log record that is kept keeps the traceback, its frames, and the generator that grpc has dropped.
    monkeypatch.setattr(logging.getLogger("grpc._common"), "disabled", True)
    watch = Watch()

    [function] = handling(kind, lambda _: 7).values()

    with serve({kind: MAKE[kind](function, decode, str.encode)}, watch) as rpc:
        reply = rpc.call(kind=kind)
        watch.next()

    assert not reply.ok and len(watch.outcomes) == 1


def test_row23_a_map_that_raises_is_named(serve: Serve) -> None:
    """A map of responses that raises gives INTERNAL and names the function, not its text."""

    def upper(message: Any) -> Any:
        raise AttributeError("secret")

    def shout(call: Call) -> Flow:
        yield call.map(responses=upper)

    with serve({"unary_unary": echo}, shout) as rpc:
        reply = rpc.call()

    assert reply.code is Code.INTERNAL and "upper" in reply.details and "secret" not in reply.details


# --- how clients leave ------------------------------------------------------------------------------------------------


class Held:
    """A handler's body that says when it was entered, and stays until it is let go."""

    def __init__(self) -> None:
        self.entered, self.release, self.over = threading.Event(), threading.Event(), threading.Event()
        self.active: list[bool] = []
        self.left: list[float | None] = []

    def __call__(self, context: Any) -> str:
        context.add_callback(self.over.set)
        self.entered.set()
        assert self.release.wait(PATIENCE)
        self.active.append(context.is_active())
        self.left.append(context.time_remaining())
        return "late"


@pytest.mark.parametrize("kind", KINDS)
def test_s09_row33_a_cancelled_rpc_has_the_outcome_cancelled(serve: Serve, kind: str) -> None:
    """The client cancels while a handler works: one outcome, CANCELLED, once the handler has returned."""
    watch, held = Watch(), Held()

    with serve(handling(kind, held), watch) as rpc:
        pending = rpc.start("a", kind=kind)
        assert held.entered.wait(PATIENCE)
        pending.cancel()
        assert held.over.wait(PATIENCE)
        held.release.set()
        outcome = watch.next()

    assert outcome.code is Code.CANCELLED and len(watch.outcomes) == watch.begun == 1
    assert held.active == [False]


@pytest.mark.parametrize("kind", KINDS)
def test_s09_row26_row33_a_deadline_has_the_outcome_deadline_exceeded(serve: Serve, kind: str) -> None:
    """The deadline passes while a handler works: one outcome, DEADLINE_EXCEEDED."""
    watch, held = Watch(), Held()

    with serve(handling(kind, held), watch) as rpc:
        reply = rpc.call(kind=kind, timeout=0.4)
        assert held.over.wait(PATIENCE)
        held.release.set()
        outcome = watch.next()

    assert reply.code is Code.DEADLINE_EXCEEDED
    assert outcome.code is Code.DEADLINE_EXCEEDED and len(watch.outcomes) == watch.begun == 1


@pytest.mark.parametrize("kind", STREAMED)
def test_s09_row34_a_stream_whose_client_cancels_is_closed(serve: Serve, kind: str) -> None:
    """The client cancels between two messages: the handler's generator is closed, and the flow told CANCELLED."""
    watch = Watch()
    closed = threading.Event()

    def endless(argument: Any, context: Any) -> Iterator[str]:
        try:
            while True:
                yield "a"
        finally:
            closed.set()

    with serve({kind: endless}, watch) as rpc:
        pending = rpc.start("a", kind=kind)
        next(pending)
        pending.cancel()
        outcome = watch.next()
        assert closed.wait(PATIENCE)

    assert outcome.code is Code.CANCELLED and len(watch.outcomes) == watch.begun == 1
    assert outcome.responses >= 1 and not outcome.replayable


@pytest.mark.parametrize("kind", STREAMED)
def test_row34_a_client_gone_while_the_server_is_blocked_in_flow_control(serve: Serve, kind: str) -> None:
    """A client that reads nothing and leaves ends the stream that could not be written: one outcome, CANCELLED."""
    watch = Watch()
    started, closed = threading.Event(), threading.Event()
    chunk = "x" * 1_000_000

    def flood(argument: Any, context: Any) -> Iterator[str]:
        try:
            for _ in range(100_000):
                yield chunk
                started.set()
        finally:
            closed.set()

    with serve({kind: flood}, watch) as rpc:
        pending = rpc.start("a", kind=kind)
        assert started.wait(PATIENCE)
        pending.cancel()
        outcome = watch.next()
        assert closed.wait(PATIENCE)

    assert outcome.code is Code.CANCELLED and len(watch.outcomes) == watch.begun == 1


@pytest.mark.parametrize("kind", STREAMED)
def test_row34_a_deadline_in_a_stream(serve: Serve, kind: str) -> None:
    """The deadline passes while a stream is written: one outcome, DEADLINE_EXCEEDED."""
    watch = Watch()

    def endless(argument: Any, context: Any) -> Iterator[str]:
        while True:
            yield "a"

    with serve({kind: endless}, watch) as rpc:
        reply = rpc.call(kind=kind, timeout=0.4)
        outcome = watch.next()

    assert reply.code is Code.DEADLINE_EXCEEDED
    assert outcome.code is Code.DEADLINE_EXCEEDED and len(watch.outcomes) == watch.begun == 1


def test_row34_the_channel_is_closed_mid_stream(serve: Serve) -> None:
    """A client whose channel is closed amid a stream leaves one outcome behind, CANCELLED."""
    watch = Watch()

    def endless(argument: Any, context: Any) -> Iterator[str]:
        while True:
            yield "a"

    with serve({"unary_stream": endless}, watch) as rpc:
        pending = rpc.start("a", kind="unary_stream")
        next(pending)
        rpc.channel.close()
        outcome = watch.next()

    assert outcome.code is Code.CANCELLED and len(watch.outcomes) == watch.begun == 1


@pytest.mark.parametrize("kind", ["stream_unary", "stream_stream"])
def test_row35_a_torn_upload_is_one_outcome(serve: Serve, kind: str) -> None:
    """A client that cancels amid its upload leaves exactly one outcome behind, and the server serves on."""
    watch = Watch()
    first, release = threading.Event(), threading.Event()

    def upload() -> Iterator[str]:
        yield "a"
        release.wait(PATIENCE)

    def see(call: Call) -> Flow:
        yield call.tap(requests=lambda _: first.set())

    with serve({"unary_unary": echo, **handling(kind, lambda _: "a")}, watch, see) as rpc:
        stub = rpc.stub(kind)
        pending = (stub if kind in STREAMED else stub.future)(upload())
        assert first.wait(PATIENCE)
        pending.cancel()
        watch.next()
        release.set()
        reply = rpc.call("next")

    assert len(watch.outcomes) == watch.begun == 2 and reply.messages == ["next"]


def test_row39_an_abandoned_generator_is_closed_before_its_outcome(serve: Serve) -> None:
    """The handler's `finally` has run when the flow hears that the client left, without the garbage collector."""
    order: list[str] = []
    watch = Watch()

    def note(call: Call) -> Flow:
        yield call
        order.append("outcome")

    def endless(argument: Any, context: Any) -> Iterator[str]:
        try:
            while True:
                yield "a"
        finally:
            order.append("closed")

    gc.disable()
    try:
        with serve({"unary_stream": endless}, watch, note) as rpc:
            pending = rpc.start("a", kind="unary_stream")
            next(pending)
            pending.cancel()
            watch.next()
            seen = tuple(order)
    finally:
        gc.enable()

    assert seen == ("closed", "outcome")


def test_row40_what_was_cancelled_while_queued_leaves_nothing_taken(serve: Serve) -> None:
    """RPCs cancelled before a worker took them: each flow that began has ended, and the server serves on."""
    watch, held = Watch(), Held()

    with serve({"unary_unary": echo, **handling("stream_unary", held)}, watch, workers=1) as rpc:
        first = rpc.start("a", kind="stream_unary")
        assert held.entered.wait(PATIENCE)
        queued = [rpc.start("a") for _ in range(3)]
        for pending in queued:
            pending.cancel()
        held.release.set()
        assert first.result(PATIENCE) == "late"
        reply = rpc.call("next")

    assert reply.messages == ["next"]
    assert watch.begun == len(watch.outcomes)


def test_s12_row15_row58_what_the_limit_rejects_reaches_no_flow(serve: Serve) -> None:
    """RPCs over maximum_concurrent_rpcs are refused by grpc, and no flow begins for them."""
    watch, held = Watch(), Held()

    with serve(handling("unary_unary", held), watch, limit=1) as rpc:
        first = rpc.start("a")
        assert held.entered.wait(PATIENCE)
        refused = [rpc.call("a").code for _ in range(3)]
        held.release.set()
        assert first.result(PATIENCE) == "late"

    assert refused == [Code.RESOURCE_EXHAUSTED] * 3
    assert watch.begun == len(watch.outcomes) == 1


@pytest.mark.parametrize("name", ["Nothing", "a\u00e9", "x" * 3000, "with space"])
def test_s12_row16_unknown_methods_are_unimplemented(serve: Serve, name: str) -> None:
    """A method that nobody serves is UNIMPLEMENTED, and reaches no flow; the server serves on."""
    watch = Watch()

    with serve({"unary_unary": echo}, watch) as rpc:
        unknown = rpc.call(name=name)
        reply = rpc.call("next")

    assert unknown.code is Code.UNIMPLEMENTED
    assert reply.messages == ["next"] and watch.begun == 1


class AnyName(grpc.GenericRpcHandler):
    """Serves every name that a peer makes up."""

    def __init__(self) -> None:
        self.handler = grpc.unary_unary_rpc_method_handler(echo, decode, encode)

    def service(self, details: Any) -> Any:
        return self.handler


def test_s12_row16_names_that_peers_make_up_fill_no_memory(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A generic handler that serves any name is remembered for a bounded number of names, and served for all."""
    monkeypatch.setattr(handlers_of, "MAX_METHODS", 8)
    watch = Watch()
    ours = server_interceptor(watch)

    with serve({}, interceptors=[ours], services=[AnyName()]) as rpc:
        replies = [rpc.call("a", name=f"name{number}").ok for number in range(30)]

    caches: list[Any] = [getattr(each, "_compiled", each) for each in (ours._sync, ours._aio)]
    assert all(replies) and len(watch.outcomes) == 30
    assert [len(cache._known) for cache in caches if cache._known] == [8]


# --- servers that stop ------------------------------------------------------------------------------------------------


def test_row45_stop_lets_an_rpc_finish_within_grace(serve: Serve) -> None:
    """An RPC in flight when the server stops with grace is answered, and has one outcome, OK."""
    watch, held = Watch(), Held()

    with serve(handling("unary_unary", held), watch) as rpc:
        pending = rpc.start("a")
        assert held.entered.wait(PATIENCE)
        stopper = threading.Thread(target=rpc.stop, args=(PATIENCE,))
        stopper.start()
        held.release.set()
        response = pending.result(PATIENCE)
        stopper.join(PATIENCE)

    assert response == "late"
    assert [outcome.code for outcome in watch.outcomes] == [Code.OK]


@pytest.mark.parametrize("kind", KINDS)
def test_row45_stop_without_grace_is_one_outcome(serve: Serve, kind: str) -> None:
    """An RPC in flight when the server stops at once fails for its client, and has one outcome that is not OK."""
    watch, held = Watch(), Held()

    with serve(handling(kind, held), watch) as rpc:
        pending = rpc.start("a", kind=kind)
        assert held.entered.wait(PATIENCE)
        rpc.stop(0)
        code = pending.code()
        held.release.set()
        outcome = watch.next()

    assert code in {Code.UNAVAILABLE, Code.CANCELLED}
    assert not outcome.ok and len(watch.outcomes) == watch.begun == 1


@pytest.mark.parametrize("kind", STREAMED)
def test_row45_stop_amid_a_stream_is_one_outcome(serve: Serve, kind: str) -> None:
    """A stream that is written when the server stops at once has one outcome that is not OK."""
    watch = Watch()

    def endless(argument: Any, context: Any) -> Iterator[str]:
        while True:
            yield "a"

    with serve({kind: endless}, watch) as rpc:
        pending = rpc.start("a", kind=kind)
        next(pending)
        rpc.stop(0)
        outcome = watch.next()

    assert not outcome.ok and len(watch.outcomes) == watch.begun == 1


# --- what handlers are given ------------------------------------------------------------------------------------------


def test_s10_row30_without_a_deadline_there_is_none(serve: Serve) -> None:
    """Without a deadline `call.timeout`, `call.deadline` and `context.deadline()` are None."""
    seen: list[Any] = []

    def look(call: Call) -> Flow:
        seen.extend((call.timeout, call.deadline))
        yield call

    def body(_: Any) -> str:
        seen.append(context.deadline())
        return "a"

    with serve(handling("unary_unary", body), look) as rpc:
        rpc.call(timeout=None)

    assert seen == [None, None, None]


def test_s10_with_a_deadline_it_is_the_clients(serve: Serve) -> None:
    """With a deadline flow and handler see what is left of it, and a flow's timeout shortens it for the handler."""
    seen: list[float] = []

    def look(call: Call) -> Flow:
        assert call.timeout is not None
        seen.append(call.timeout)
        yield call.with_timeout(3) if call.request == "shorter" else call

    def echoed(request: str, context: Any) -> str:
        seen.append(context.time_remaining())
        return request

    with serve({"unary_unary": echoed}, look) as rpc:
        rpc.call("a", timeout=8)
        rpc.call("shorter", timeout=8)

    first, handler, second, shortened = seen
    assert 3 < handler <= first < 9 and 3 < second < 9 and 0 < shortened <= 3


def test_s10_a_timeout_without_a_deadline_reaches_the_handler(serve: Serve) -> None:
    """A flow's timeout is what a handler has left when the client set no deadline."""
    seen: list[float] = []

    def limit(call: Call) -> Flow:
        yield call.with_timeout(3)

    def body(context: Any) -> str:
        seen.append(context.time_remaining())
        return "a"

    with serve(handling("unary_unary", body), limit) as rpc:
        rpc.call(timeout=None)

    assert 0 < seen[0] <= 3


def test_s11_callbacks_of_a_handler_are_called_once(serve: Serve) -> None:
    """What a handler gives to `add_callback` is called once the RPC is over, and the answer is True."""
    called = threading.Semaphore(0)
    registered: list[bool] = []

    def body(context: Any) -> str:
        registered.append(context.add_callback(called.release))
        return "a"

    with serve(handling("unary_unary", body), Watch()) as rpc:
        rpc.call()
        assert called.acquire(timeout=PATIENCE)

    assert registered == [True] and not called.acquire(blocking=False)


def test_row37_a_callback_that_raises_does_not_end_the_others_on_sync(serve_sync: Serve) -> None:
    """A callback that raises is logged, and the others are called."""
    called = threading.Event()

    def fail() -> None:
        raise ValueError("callback")

    def body(context: Any) -> str:
        context.add_callback(fail)
        context.add_callback(called.set)
        return "a"

    with serve_sync(handling("unary_unary", body), Watch()) as rpc:
        reply = rpc.call()
        assert called.wait(PATIENCE)

    assert reply.ok


@pytest.mark.parametrize("kind", KINDS)
def test_s13_responses_that_can_be_iterated_are_not_streamed(serve: Serve, kind: str) -> None:
    """Lists as messages stay single messages: the kind of an RPC is what its handler says."""
    watch = Watch()
    loads: Any = lambda data: json.loads(data)  # noqa: E731
    dumps: Any = lambda message: json.dumps(message).encode()  # noqa: E731
    [function] = handling(kind, lambda _: ["a", "b"]).values()

    with serve({kind: MAKE[kind](function, loads, dumps)}, watch) as rpc:
        native = getattr(rpc.channel, kind)(f"/{SERVICE}/{kind}", dumps, loads)
        reply = native(iter([["x"]]) if kind.startswith("stream") else ["x"], timeout=PATIENCE)
        messages = list(reply) if kind in STREAMED else [reply]

    assert messages == [["a", "b"]]
    [outcome] = watch.outcomes
    assert outcome.responses == 1 and outcome.requests == 1
    assert outcome.response == (None if kind in STREAMED else ["a", "b"])


def test_s14_attributes_of_a_handler_and_its_serializers_are_kept() -> None:
    """The handler that grpc is given has the function's attributes and the serializers of the one it replaces."""

    def watch_all(request: Any, context: Any) -> Iterator[Any]:
        yield request

    pool = object()
    watch_all.experimental_thread_pool = pool  # type: ignore[attr-defined]
    handler = grpc.unary_stream_rpc_method_handler(watch_all, decode, encode)
    details: Any = type("Details", (), {"method": "/a.B/C", "invocation_metadata": ()})

    made = server_interceptor(Watch()).intercept_service(lambda _: handler, details)

    assert made is not handler and made.unary_stream is not watch_all
    assert made.unary_stream.experimental_thread_pool is pool
    assert unwrap(made.request_deserializer) is decode and unwrap(made.response_serializer) is encode
    assert (made.request_streaming, made.response_streaming) == (False, True)
    assert made.unary_unary is made.stream_unary is made.stream_stream is None


def test_s14_a_handlers_own_thread_pool_is_used(serve_sync: Serve) -> None:
    """A handler with `experimental_thread_pool` runs, its flow too, in a thread of that pool."""
    watch = Watch()
    pool = futures.ThreadPoolExecutor(1, thread_name_prefix="own")
    seen: list[str] = []

    def where(request: str, context: Any) -> str:
        seen.append(threading.current_thread().name)
        return request

    where.experimental_thread_pool = pool  # type: ignore[attr-defined]

    with serve_sync({"unary_unary": where}, watch) as rpc:
        rpc.call()
    pool.shutdown()

    assert [*seen, *watch.threads] == ["own_0", "own_0"]


def test_s15_the_incoming_deadline_is_known_in_handlers(serve: Serve) -> None:
    """In a handler `context.current_call()` is the call as flows left it, with the client's deadline."""
    calls: list[Call | None] = []
    deadlines: list[float | None] = []

    def mark(call: Call) -> Flow:
        deadlines.append(call.deadline)
        yield call.with_metadata(("x-mark", "flow"))

    def body(_: Any) -> str:
        calls.append(context.current_call())
        deadlines.append(context.deadline())
        return "a"

    with serve(handling("unary_unary", body), mark) as rpc:
        rpc.call(timeout=8)

    assert calls[0] is not None and calls[0].metadata["x-mark"] == "flow"
    assert deadlines[0] is not None and deadlines[0] == deadlines[1]


def test_s18_a_plain_handler_has_the_whole_context(serve: Serve) -> None:
    """A plain handler's context is a `grpc.ServicerContext` and answers everything that one can be asked."""
    seen: dict[str, Any] = {}

    def body(context: Any) -> str:
        seen.update(
            kind=isinstance(context, grpc.ServicerContext),
            active=context.is_active(),
            peer=context.peer(),
            identities=context.peer_identities(),
            key=context.peer_identity_key(),
            auth=context.auth_context(),
            code=context.code(),
            trailing=context.trailing_metadata(),
            metadata=dict(context.invocation_metadata()),
        )
        context.set_compression(grpc.Compression.Gzip)
        context.disable_next_message_compression()
        return "a"

    with serve(handling("unary_unary", body), Watch()) as rpc:
        reply = rpc.call(metadata=(("x-key", "value"),))

    assert reply.ok, reply.details
    assert seen["kind"] and seen["active"] and seen["peer"].startswith("ipv4:127.0.0.1:")
    assert seen["metadata"]["x-key"] == "value" and seen["code"] is None and not seen["trailing"]
    assert not seen["identities"] and seen["key"] is None and isinstance(seen["auth"], dict)


def test_s18_the_context_has_every_method_of_its_base() -> None:
    """No public method of `grpc.ServicerContext` is left to the abstract base class."""
    from interpose.sync.context import ServicerContext

    names = [name for name, _ in inspect.getmembers(grpc.ServicerContext, callable) if not name.startswith("_")]

    assert [name for name in names if getattr(ServicerContext, name) is getattr(grpc.ServicerContext, name)] == []


def test_s18_the_peer_is_known_to_flows(serve: Serve) -> None:
    """`call.peer` is the client's address."""
    peers: list[Any] = []

    def look(call: Call) -> Flow:
        peers.append(call.peer)
        yield call

    with serve({"unary_unary": echo}, look) as rpc:
        rpc.call()

    assert peers[0].startswith("ipv4:127.0.0.1:")


@pytest.mark.parametrize("kind", KINDS)
def test_s09_the_peer_is_known_when_the_client_has_left(serve: Serve, kind: str) -> None:
    """A flow may ask for the peer after an RPC whose client has left."""
    peers: list[Any] = []
    watch, held = Watch(), Held()

    def note(call: Call) -> Flow:
        yield call
        peers.append(call.peer)

    with serve(handling(kind, held), watch, note) as rpc:
        pending = rpc.start("a", kind=kind)
        assert held.entered.wait(PATIENCE)
        rpc.channel.close()
        assert held.over.wait(PATIENCE)
        held.release.set()
        watch.next()

    assert not pending.is_active() and peers[0].startswith("ipv4:127.0.0.1:")


def test_a_handler_may_cancel_its_rpc_on_sync(serve_sync: Serve) -> None:
    """`context.cancel()` ends the RPC: the client and the flow see CANCELLED."""
    watch = Watch()

    def body(context: Any) -> str:
        over = threading.Event()
        context.add_callback(over.set)
        context.cancel()
        assert over.wait(PATIENCE)
        return "a"

    with serve_sync(handling("unary_unary", body), watch) as rpc:
        reply = rpc.call()
        outcome = watch.next()

    assert reply.code is outcome.code is Code.CANCELLED


# --- metadata ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("handler_sends", [True, False])
def test_initial_metadata_of_flows_and_handler_is_merged(serve: Serve, handler_sends: bool, kind: str) -> None:
    """What flows put in front of a response is sent once, with the handler's own behind it or without."""

    def outer(call: Call) -> Flow:
        yield call.with_initial_metadata(("x-outer", "1"))

    def inner(call: Call) -> Flow:
        yield call.with_initial_metadata(("x-inner", "2"))

    def body(context: Any) -> str:
        if handler_sends:
            context.send_initial_metadata((("x-handler", "3"),))
        return "a"

    with serve(handling(kind, body), outer, inner) as rpc:
        reply = rpc.call(kind=kind)

    own = ["3"] if handler_sends else []
    assert reply.ok
    assert [reply.initial.get_all(f"x-{who}") for who in ("outer", "inner", "handler")] == [["1"], ["2"], own]


@pytest.mark.parametrize("kind", KINDS)
def test_initial_metadata_of_flows_is_sent_with_a_failure(serve: Serve, kind: str) -> None:
    """What flows put in front of a response reaches the client though the handler fails before its first message."""

    def identify(call: Call) -> Flow:
        yield call.with_initial_metadata(("x-request-id", "7"))

    with serve(handling(kind, raising(errors.NotFound("x"))), identify) as rpc:
        reply = rpc.call(kind=kind)

    assert reply.code is Code.NOT_FOUND and reply.initial.get_all("x-request-id") == ["7"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fails", ["no", "abort", "set_code", "raise", "status"])
def test_s05_trailing_metadata_of_flows_and_handler_is_merged(serve: Serve, fails: str, kind: str) -> None:
    """Trailing metadata of the handler and of two flows all arrives, however the handler ends."""

    def adding(name: str) -> Callable[[Call], Flow]:
        def add(call: Call) -> Flow:
            outcome = yield call
            return outcome.with_trailing_metadata((name, "flow"))

        return add

    def body(context: Any) -> str:
        context.set_trailing_metadata((("x-handler", "1"), ("x-handler", "2")))
        if fails == "abort":
            context.abort(Code.NOT_FOUND, "x")
        if fails == "set_code":
            context.set_code(Code.NOT_FOUND)
        if fails == "raise":
            raise ValueError("x")
        if fails == "status":
            raise errors.NotFound("x", trailing_metadata=(("x-status", "s"),))
        return "a"

    with serve(handling(kind, body), adding("x-outer"), adding("x-inner")) as rpc:
        reply = rpc.call(kind=kind)

    assert reply.ok is (fails == "no")
    got = {name: reply.trailing.get_all(name) for name in ("x-handler", "x-outer", "x-inner", "x-status")}
    assert got == {
        "x-handler": ["1", "2"],
        "x-outer": ["flow"],
        "x-inner": ["flow"],
        "x-status": ["s"] if fails == "status" else [],
    }


def test_trailing_metadata_of_a_failure_that_a_flow_makes(serve: Serve) -> None:
    """A status that a flow raises takes its own trailing metadata along."""

    def refuse(call: Call) -> Flow:
        raise errors.ResourceExhausted("slow down", trailing_metadata=(("grpc-retry-pushback-ms", "100"),))
        yield call

    with serve({"unary_unary": echo}, refuse) as rpc:
        reply = rpc.call()

    assert reply.code is Code.RESOURCE_EXHAUSTED and reply.trailing["grpc-retry-pushback-ms"] == "100"


# --- context variables ------------------------------------------------------------------------------------------------

tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="nobody")


@pytest.mark.parametrize("kind", KINDS)
def test_s24_row14_context_variables_of_flows_reach_the_handler_and_no_other_rpc(serve: Serve, kind: str) -> None:
    """What a flow sets is seen by the whole handler and by the flow afterwards, and by no later RPC on that thread."""
    before: list[str] = []
    after: list[str] = []

    def set_tenant(call: Call) -> Flow:
        before.append(tenant.get())
        tenant.set(f"tenant-{len(before)}")
        yield call
        after.append(tenant.get())

    def unary(argument: Any, context: Any) -> str:
        if kind.startswith("stream"):
            list(argument)
        return tenant.get()

    def stream(argument: Any, context: Any) -> Iterator[str]:
        for _ in range(3):
            yield unary(argument, context)

    with serve({kind: stream if kind in STREAMED else unary}, set_tenant, workers=1) as rpc:
        replies = [rpc.call(kind=kind).messages for _ in range(3)]

    times = 3 if kind in STREAMED else 1
    names = ["tenant-1", "tenant-2", "tenant-3"]
    assert replies == [[name] * times for name in names]
    assert before == ["nobody"] * 3 and after == names


def test_s24_row14_what_a_handler_sets_reaches_no_other_rpc(serve: Serve) -> None:
    """What a plain handler sets is gone when its thread serves the next RPC."""

    def body(_: Any) -> str:
        seen = tenant.get()
        tenant.set("left behind")
        return seen

    with serve(handling("unary_unary", body), Watch(), workers=1) as rpc:
        replies = [rpc.call().messages for _ in range(3)]

    assert replies == [["nobody"]] * 3


def test_s23_a_context_variable_can_be_reset_across_a_yield(serve: Serve) -> None:
    """A flow and a generator that reset a variable's token after their yield may do so, also when the client left."""
    faults: list[BaseException] = []
    watch = Watch()
    closed = threading.Event()

    def scoped(call: Call) -> Flow:
        token = tenant.set("flow")
        yield call
        try:
            tenant.reset(token)
        except ValueError as error:
            faults.append(error)

    def endless(argument: Any, context: Any) -> Iterator[str]:
        token = tenant.set("handler")
        try:
            while True:
                yield "a"
        finally:
            try:
                tenant.reset(token)
            except ValueError as error:
                faults.append(error)
            closed.set()

    with serve({"unary_stream": endless}, watch, scoped) as rpc:
        pending = rpc.start("a", kind="unary_stream")
        next(pending)
        pending.cancel()
        watch.next()
        assert closed.wait(PATIENCE)

    assert not faults


# --- handlers that return at once -------------------------------------------------------------------------------------


def health_service() -> tuple[Any, Callable[[Any], None]]:
    servicer = health.HealthServicer()
    return servicer, lambda server: health_pb2_grpc.add_HealthServicer_to_server(servicer, server)


def health_call(rpc: Client, service: str) -> Any:
    return health_pb2_grpc.HealthStub(rpc.channel).Watch(health_pb2.HealthCheckRequest(service=service))


def test_s14_health_watch_holds_no_worker(serve_sync: Serve) -> None:
    """The health service's Watch sends through our interceptor and leaves the only worker free."""
    watch = Watch()
    servicer, add = health_service()
    serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING

    with serve_sync({"unary_unary": echo}, watch, services=[add], workers=1) as rpc:
        updates = [health_call(rpc, "") for _ in range(3)]
        first = [next(update).status for update in updates]
        reply = rpc.call("beside")
        servicer.set("", not_serving)
        second = [next(update).status for update in updates]
        beside = watch.next()
        for update in updates:
            update.cancel()
        outcomes = [watch.next() for _ in updates]

    assert first == [serving] * 3 and second == [not_serving] * 3
    assert reply.messages == ["beside"] and beside.ok
    assert [(outcome.code, outcome.responses) for outcome in outcomes] == [(Code.CANCELLED, 2)] * 3
    assert len(watch.outcomes) == watch.begun == 4


def test_s11_row12_the_end_of_a_watch_does_not_run_on_the_serving_thread(serve_sync: Serve) -> None:
    """When the client of a Watch leaves, its flow resumes on another thread than the one that serves."""
    watch = Watch()
    _, add = health_service()

    with serve_sync({}, watch, services=[add]) as rpc:
        updates = health_call(rpc, "")
        next(updates)
        updates.cancel()
        watch.next()

    assert "_serve" not in watch.threads[0]


def test_health_watch_ends_with_the_server(serve_sync: Serve) -> None:
    """A Watch that is open when the server stops has one outcome, and it is not OK."""
    watch = Watch()
    _, add = health_service()

    with serve_sync({}, watch, services=[add]) as rpc:
        updates = health_call(rpc, "")
        next(updates)
        rpc.stop(0)
        outcome = watch.next()

    assert not outcome.ok and len(watch.outcomes) == watch.begun == 1


def test_health_watch_may_be_refused_and_changed(serve_sync: Serve) -> None:
    """A flow may refuse a Watch, and see and change its messages and metadata."""
    seen: list[Any] = []
    _, add = health_service()

    def guard(call: Call) -> Flow:
        if call.request.service == "secret":
            raise errors.PermissionDenied("not you")
        yield call.tap(responses=seen.append).with_initial_metadata(("x-guard", "1"))

    with serve_sync({}, guard, services=[add]) as rpc:
        refused = health_call(rpc, "secret")
        with pytest.raises(grpc.RpcError):
            next(refused)
        updates = health_call(rpc, "")
        first = next(updates)
        initial = dict(updates.initial_metadata())
        updates.cancel()

    assert refused.code() is Code.PERMISSION_DENIED
    assert seen == [first] and initial["x-guard"] == "1"


def test_health_check_through_an_interceptor(serve: Serve) -> None:
    """Check, which sets a code and returns, is an outcome NOT_FOUND for an unknown service."""
    watch = Watch()
    _, add = health_service()

    with serve({}, watch, services=[add]) as rpc:
        stub = health_pb2_grpc.HealthStub(rpc.channel)
        good = stub.Check(health_pb2.HealthCheckRequest(service=""), timeout=PATIENCE)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Check(health_pb2.HealthCheckRequest(service="other"), timeout=PATIENCE)

    assert good.status == health_pb2.HealthCheckResponse.SERVING
    assert caught.value.code() is Code.NOT_FOUND
    assert [outcome.code for outcome in watch.outcomes] == [Code.OK, Code.NOT_FOUND]


def non_blocking(behave: Callable[[Any, Any, Callable[[Any], None]], None]) -> Any:
    behave.experimental_non_blocking = True  # type: ignore[attr-defined]
    return behave


@pytest.mark.parametrize("how", ["end", "raise", "status", "abort", "exit", "set_code"])
def test_s14_ends_of_a_handler_that_returns_at_once(serve_sync: Serve, how: str) -> None:
    """A non-blocking handler's end, its exception and its abort each give one outcome and a status."""
    watch = Watch()
    expected = {
        "end": Code.OK,
        "raise": Code.UNKNOWN,
        "status": Code.NOT_FOUND,
        "abort": Code.NOT_FOUND,
        "exit": Code.UNKNOWN,
        "set_code": Code.NOT_FOUND,
    }[how]

    @non_blocking
    def behave(request: Any, context: Any, send: Callable[[Any], None]) -> None:
        send("a")
        if how == "raise":
            raise ValueError("x")
        if how == "status":
            raise errors.NotFound("x")
        if how == "abort":
            context.abort(Code.NOT_FOUND, "x")
        if how == "exit":
            raise SystemExit
        if how == "set_code":
            context.set_code(Code.NOT_FOUND)
        send(None)

    with serve_sync({"unary_stream": behave}, watch) as rpc:
        reply = rpc.call(kind="unary_stream")
        outcome = watch.next()

    assert reply.code is outcome.code is expected and len(watch.outcomes) == 1
    assert outcome.responses == 1


# --- beside native interceptors ---------------------------------------------------------------------------------------


class Native(grpc.ServerInterceptor):
    """A native interceptor as many are written: it wraps each kind, and iterates what streams."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log = name, log

    def intercept_service(self, continuation: Any, details: Any) -> Any:
        handler = continuation(details)
        if handler is None:
            return None
        kind = next(kind for kind in KINDS if getattr(handler, kind))
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

        made = getattr(grpc, f"{kind}_rpc_method_handler")
        return made(stream if kind in STREAMED else unary, handler.request_deserializer, handler.response_serializer)


def logging_flow(name: str, log: list[str]) -> Callable[[Call], Flow]:
    def flow(call: Call) -> Flow:
        log.append(f"{name} in")
        outcome = yield call
        log.append(f"{name} {outcome.code.name}")

    return flow


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", ["NO", "ON", "OO", "ONO", "NON"])
def test_s20_ours_and_native_interceptors_in_any_order(serve_sync: Serve, order: str, kind: str) -> None:
    """Several of our objects beside native ones all run, in the order given, once each."""
    log: list[str] = []
    given = [
        server_interceptor(logging_flow(f"ours{place}", log)) if letter == "O" else Native(f"native{place}", log)
        for place, letter in enumerate(order)
    ]

    with serve_sync(handling(kind, lambda _: "a"), interceptors=given) as rpc:
        reply = rpc.call(kind=kind)

    ends = [f"ours{place} OK" if letter == "O" else f"native{place} out" for place, letter in enumerate(order)]
    starts = [f"ours{place} in" if letter == "O" else f"native{place} in" for place, letter in enumerate(order)]
    assert reply.messages == ["a"]
    assert log == [*starts, *reversed(ends)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", ["NO", "ON", "OO"])
@pytest.mark.parametrize("how", ["abort", "raise", "status"])
def test_s20_failures_pass_native_interceptors(serve_sync: Serve, how: str, order: str, kind: str) -> None:
    """A failure reaches the client with its status through ours and native ones, and ours see it."""
    log: list[str] = []
    watch = Watch()
    given = [
        server_interceptor(watch) if letter == "O" else Native(f"native{place}", log)
        for place, letter in enumerate(order)
    ]

    def body(context: Any) -> None:
        if how == "abort":
            context.abort(Code.NOT_FOUND, "x")
        raise errors.NotFound("x") if how == "status" else ValueError("x")

    with serve_sync(handling(kind, body), interceptors=given) as rpc:
        reply = rpc.call(kind=kind)

    expected = Code.UNKNOWN if how == "raise" else Code.NOT_FOUND
    assert reply.code is expected
    assert {outcome.code for outcome in watch.outcomes} == {expected}
    assert len(watch.outcomes) == order.count("O")


@pytest.mark.parametrize("order", ["NO", "ON", "OO"])
def test_s12_unknown_methods_pass_native_interceptors(serve: Serve, order: str) -> None:
    """A method that nobody serves stays UNIMPLEMENTED with several interceptors."""
    if serve.args == ("plain",):  # type: ignore[attr-defined]
        order = order.replace("N", "O")  # a sync native interceptor is none for an asyncio server
    given = [server_interceptor(Watch()) if letter == "O" else Native("native", []) for letter in order]

    with serve({}, interceptors=given) as rpc:
        reply = rpc.call(name="Nothing")

    assert reply.code is Code.UNIMPLEMENTED


# --- flows that wait --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_flow_that_waits_is_named_on_a_sync_server(serve_sync: Serve, kind: str) -> None:
    """Nothing can be awaited on a sync server: INTERNAL, with the interceptor's name, and the server serves on."""

    async def store() -> str:
        return "token"

    def lookup(call: Call) -> Flow:
        if not call.metadata.get("x-plain"):
            yield from wait(store())
        yield call

    with serve_sync(handling(kind, lambda _: "a"), lookup) as rpc:
        failed = rpc.call(kind=kind)
        reply = rpc.call(kind=kind, metadata=(("x-plain", "1"),))

    assert failed.code is Code.INTERNAL and "lookup" in failed.details and reply.ok


@pytest.mark.parametrize("kind", KINDS)
def test_an_async_interceptor_is_named_on_a_sync_server(serve_sync: Serve, kind: str) -> None:
    """An `async def` generator cannot run on a sync server: INTERNAL, with its name."""

    async def lookup(call: Call) -> Any:
        yield call

    with serve_sync(handling(kind, lambda _: "a"), lookup) as rpc:
        reply = rpc.call(kind=kind)

    assert reply.code is Code.INTERNAL and "lookup" in reply.details


@pytest.mark.parametrize("kind", KINDS)
def test_flows_wait_around_plain_handlers_of_an_asyncio_server(kind: str) -> None:
    """Plain and async flows may wait before and after the plain handler of an asyncio server."""
    waited: list[str] = []

    async def store(what: str) -> str:
        await asyncio.sleep(0)
        waited.append(what)
        return what

    def plain(call: Call) -> Flow:
        value = yield from wait(store("plain before"))
        yield call.with_metadata(("x-value", value))
        yield from wait(store("plain after"))

    async def lifted(call: Call) -> Any:
        await store("async before")
        outcome = yield call
        await store(f"async {outcome.code.name}")

    def body(context: Any) -> str:
        return str(dict(context.invocation_metadata())["x-value"])

    with serving("plain", handling(kind, body), plain, lifted) as rpc:
        reply = rpc.call(kind=kind)

    assert reply.messages == ["plain before"]
    assert waited == ["plain before", "async before", "async OK", "plain after"]


def test_a_store_that_raises_is_the_flows_to_catch(serve: Serve) -> None:
    """What an awaitable raises comes back at the `yield from wait(…)`."""

    async def store() -> str:
        raise LookupError("no store")

    def lookup(call: Call) -> Flow:
        try:
            yield from wait(store())
        except (LookupError, TypeError) as error:
            raise errors.Unavailable(type(error).__name__) from error
        yield call

    with serve({"unary_unary": echo}, lookup) as rpc:
        reply = rpc.call()

    assert reply.code is Code.UNAVAILABLE and reply.details in {"LookupError", "TypeError"}


# Facts without a test here, and why:
#   S-16, S-17, S-19, S-21, S-22, S-25, S-26, row 22, row 36  async handlers: tests/facts/test_aio_server.py.
#   S-15      passing deadlines and cancels on to outgoing calls is for the battery that does it; what it builds on,
#             `context.deadline()` in a handler, is tested.
#   row 23    a response of the wrong type without any serializer hangs a bare sync server too: nobody can see it in time.
#   row 35    a torn upload: whatever arrives first wins, end of stream or cancel; a later issue. Sync servers, too, let a
#             handler commit one in ten to one in three of them. Tested is only that it is one outcome.
#   row 34    grpc.aio never frees the pool thread of a plain generator whose client has left, with interceptors or without;
#             tests/facts/serving.py does. The handler's generator is closed, and the flows are told.
