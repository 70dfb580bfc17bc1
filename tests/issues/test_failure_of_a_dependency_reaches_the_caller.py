"""`ExceptionToStatus`: what a dependency says is for the handler, not for the handler's caller."""

import asyncio
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2
from grpc import StatusCode

from interpose import Call, Flow, Kind, Method, Outcome, Side, errors, intercept_channel
from interpose.interceptors import ExceptionToStatus
from tests.facts.serving import SERVICE, Client, serving

SORTS = ["sync", "plain", "async"]
ERROR_ID = re.compile(r"internal error, id ([0-9a-f]{16})")
SECRET = errors.PermissionDenied("no row 7 for svc-a", error_details_pb2.ErrorInfo(reason="ROW"))


def refuse(request: str, context: Any) -> str:
    raise SECRET


@contextmanager
def chained(sort: str, typed: bool, *stack: Any, catch: bool = False) -> Iterator[Client]:
    """A server whose handler calls another one that refuses."""
    with serving("sync", {"unary_unary": refuse}, ExceptionToStatus()) as inner:
        channel: Any = intercept_channel(inner.channel) if typed else inner.channel
        stub = channel.unary_unary(f"/{SERVICE}/unary_unary", str.encode, bytes.decode)

        def relay(request: str, context: Any) -> str:
            context.set_trailing_metadata((("x-cost", "7"),))
            try:
                return str(stub("a", timeout=10))
            except grpc.RpcError as error:
                if catch:
                    raise errors.NotFound("no such order") from error
                raise

        async def relay_later(request: str, context: Any) -> str:
            return await asyncio.to_thread(relay, request, context)

        with serving(sort, {"unary_unary": relay_later if sort == "async" else relay}, *stack) as outer:
            yield outer


@pytest.mark.parametrize("typed", [True, False], ids=["intercepted", "bare"])
@pytest.mark.parametrize("sort", SORTS)
def test_it_is_an_exception_like_any_other(sort: str, typed: bool, caplog: pytest.LogCaptureFixture) -> None:
    """The caller is sent an id, and nothing of another server's text and details; the log has the rest."""
    with chained(sort, typed, ExceptionToStatus()) as client:
        reply = client.call()

    said = ERROR_ID.fullmatch(reply.details)
    [record] = [record for record in caplog.records if record.name == "interpose.errors"]
    assert reply.code is StatusCode.INTERNAL and said
    assert [key for key, _ in reply.trailing] == ["x-cost"]
    assert record.__dict__["error_id"] == said[1] and "no row 7" in str(record.exc_info[1])  # type: ignore[index]


@pytest.mark.parametrize("typed", [True, False], ids=["intercepted", "bare"])
@pytest.mark.parametrize(
    ("rule", "answer"),
    [
        (StatusCode.NOT_FOUND, (StatusCode.NOT_FOUND, "a call to another service ended with PERMISSION_DENIED")),
        (
            lambda error: errors.Unavailable(f"stock: {error.code().name}"),
            (StatusCode.UNAVAILABLE, "stock: PERMISSION_D"),
        ),
    ],
    ids=["code", "function"],
)
def test_codes_are_mapped_on_purpose(typed: bool, rule: Any, answer: Any, caplog: pytest.LogCaptureFixture) -> None:
    """`downstream=` has a rule for a code; the text of the other server passes only if a function passes it."""
    with chained("sync", typed, ExceptionToStatus(downstream={StatusCode.PERMISSION_DENIED: rule})) as client:
        reply = client.call()

    assert reply.code is answer[0] and reply.details.startswith(answer[1])
    assert not [record for record in caplog.records if record.name == "interpose.errors"]


def test_other_codes_stay_unexpected() -> None:
    """A rule for one code says nothing of another."""
    with chained(
        "sync", True, ExceptionToStatus(downstream={StatusCode.UNAVAILABLE: StatusCode.UNAVAILABLE})
    ) as client:
        assert client.call().code is StatusCode.INTERNAL


@pytest.mark.parametrize("sort", SORTS)
def test_what_the_handler_made_of_it_stands(sort: str) -> None:
    """A status that it raises for its caller is its own, also with the dependency's for a cause."""
    with chained(sort, True, ExceptionToStatus(), catch=True) as client:
        reply = client.call()

    assert (reply.code, reply.details) == (StatusCode.NOT_FOUND, "no such order")


@pytest.mark.parametrize("sort", ["sync", "async"])
def test_exceptions_of_interceptors_are_mapped(sort: str) -> None:
    """Those nearer to the handler; what has no rule names the interceptor, as ever."""

    def fails(call: Call) -> Flow:
        raise LookupError("no such tenant")
        yield call

    for mapping, answer in (
        ({LookupError: StatusCode.NOT_FOUND}, (StatusCode.NOT_FOUND, "no such tenant")),
        ({OSError: StatusCode.NOT_FOUND}, (StatusCode.INTERNAL, "interceptor test_exceptions_of_interceptors_are_map")),
    ):
        with serving(sort, {"unary_unary": refuse}, ExceptionToStatus(mapping), fails) as client:
            reply = client.call()
        assert reply.code is answer[0] and reply.details.startswith(answer[1])


@pytest.mark.parametrize("sort", SORTS)
def test_a_generated_method_without_code_is_no_bug(sort: str, caplog: pytest.LogCaptureFixture) -> None:
    """protoc's own: `set_code`, `set_details`, NotImplementedError. The caller is sent that; the log has nothing."""

    def unimplemented(request: str, context: Any) -> str:
        context.set_code(StatusCode.UNIMPLEMENTED)
        context.set_details("Method not implemented!")
        raise NotImplementedError("Method not implemented!")

    async def later(request: str, context: Any) -> str:
        return unimplemented(request, context)

    with serving(sort, {"unary_unary": later if sort == "async" else unimplemented}, ExceptionToStatus()) as client:
        reply = client.call()

    assert (reply.code, reply.details) == (StatusCode.UNIMPLEMENTED, "Method not implemented!")
    assert not [record for record in caplog.records if record.name == "interpose.errors"]


def test_the_log_claims_only_what_the_caller_was_sent(caplog: pytest.LogCaptureFixture) -> None:
    """With details of the handler's own, the caller has no id."""

    def chosen(request: str, context: Any) -> str:
        context.set_code(StatusCode.NOT_FOUND)
        context.set_details("no such row")
        raise ValueError("secret")

    with serving("sync", {"unary_unary": chosen}, ExceptionToStatus()) as client:
        client.call()

    [record] = [record for record in caplog.records if record.name == "interpose.errors"]
    assert "raised ValueError; had chosen NOT_FOUND, which the caller was sent; error id" in record.getMessage()


def test_a_call_that_ends_with_the_rpc_it_was_made_for_is_no_bug(caplog: pytest.LogCaptureFixture) -> None:
    """Once the deadline has passed, the handler's own calls run out of time as well: nothing to log."""
    caplog.set_level(logging.DEBUG, "interpose.errors")
    native = errors.native_class(errors.DeadlineExceeded, grpc.aio.AioRpcError)
    error = native.__new__(native)
    errors.StatusError.__init__(error, "their text")

    for left, log in ((0.0, 0), (5.0, 1)):
        context: Any = SimpleNamespace(time_remaining=lambda left=left: left)
        call = Call(Method("/a.B/C", Kind.UNARY_UNARY), Side.SERVER, None, None, None, context=context)
        flow = ExceptionToStatus()(call)
        next(flow)
        with pytest.raises(StopIteration):
            flow.send(Outcome(StatusCode.DEADLINE_EXCEEDED, None, "their text", error))
        assert len(caplog.records) == log


@pytest.mark.parametrize("downstream", [[], {5: StatusCode.OK}, {StatusCode.OK: StatusCode.NOT_FOUND}])
def test_bad_rules_are_refused(downstream: Any) -> None:
    """ValueError, which names the option."""
    with pytest.raises(ValueError, match=r"ExceptionToStatus: .*downstream"):
        ExceptionToStatus(downstream=downstream)
