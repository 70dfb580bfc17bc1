"""ExceptionToStatus: what of a handler's exceptions reaches the caller, and what stays here."""

import asyncio
import contextlib
import logging
import re
import threading
from collections.abc import Callable
from concurrent import futures
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2

from interpose import Kind, Outcome, errors, testing
from interpose.errors import StatusError
from interpose.interceptors import ExceptionToStatus
from interpose.testing import Place, failed, raised
from tests.facts.serving import serving
from tests.interceptors.driving import Told, each, failing, incoming, is_server, play, raising, requests

NOT_FOUND = grpc.StatusCode.NOT_FOUND
INVALID = grpc.StatusCode.INVALID_ARGUMENT
INTERNAL = grpc.StatusCode.INTERNAL
UNKNOWN = grpc.StatusCode.UNKNOWN
CANCELLED = grpc.StatusCode.CANCELLED

SORTS = ["sync", "plain", "async"]
KINDS = [kind.value for kind in Kind]
ERROR_ID = re.compile(r"internal error, id ([0-9a-f]{16})")


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What was logged where handlers' bugs are told."""
    caplog.set_level(logging.DEBUG, "interpose.errors")
    return caplog


def handler(sort: str, kind: str, act: Callable[[Any], Any], sent: int = 0) -> Callable[..., Any]:
    """A handler that sends so many messages of a stream and then acts; what it awaits is what `act` gives."""

    def stream(_: Any, context: Any) -> Any:
        for _ in range(sent):
            yield "message"
        yield act(context)

    def plain(_: Any, context: Any) -> Any:
        return act(context)

    async def stream_later(_: Any, context: Any) -> Any:
        for _ in range(sent):
            yield "message"
        answer = act(context)
        yield await answer if asyncio.iscoroutine(answer) or hasattr(answer, "__await__") else answer

    async def later(_: Any, context: Any) -> Any:
        answer = act(context)
        return await answer if asyncio.iscoroutine(answer) or hasattr(answer, "__await__") else answer

    streams = kind.endswith("_stream")
    if sort == "async":
        return stream_later if streams else later
    return stream if streams else plain


def fail(error: BaseException) -> Callable[[Any], Any]:
    def act(context: Any) -> Any:
        raise error

    return act


# --- on every sort of server ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sort", SORTS)
def test_an_exception_of_the_mapping_has_its_status(sort: str, kind: str, log: pytest.LogCaptureFixture) -> None:
    """Code from the mapping, text from the exception, and no word in the log."""
    act = handler(sort, kind, fail(LookupError("no such order")))

    with serving(sort, {kind: act}, ExceptionToStatus({LookupError: NOT_FOUND})) as client:
        reply = client.call(kind=kind)

    assert (reply.code, reply.details) == (NOT_FOUND, "no such order")
    assert not log.records


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sort", SORTS)
def test_a_bug_reaches_the_log_and_not_the_peer(sort: str, kind: str, log: pytest.LogCaptureFixture) -> None:
    """One record with traceback and id; the peer is told that id, and nothing of the text."""
    act = handler(sort, kind, fail(RuntimeError("password is hunter2")))

    with serving(sort, {kind: act}, ExceptionToStatus({LookupError: NOT_FOUND})) as client:
        reply = client.call(kind=kind)

    told = ERROR_ID.fullmatch(reply.details)
    assert reply.code is INTERNAL
    assert told
    [record] = log.records
    assert (record.name, record.levelno, record.__dict__["error_id"]) == ("interpose.errors", logging.ERROR, told[1])
    assert record.exc_info
    assert "hunter2" in str(record.exc_info[1])
    assert f"/facts.Server/{kind} raised RuntimeError" in record.getMessage()


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("kind", ["unary_stream", "stream_stream"])
def test_a_stream_that_breaks_has_its_status_too(sort: str, kind: str) -> None:
    """What was sent before stays sent."""
    act = handler(sort, kind, fail(KeyError("gone")), sent=2)

    with serving(sort, {kind: act}, ExceptionToStatus({KeyError: NOT_FOUND})) as client:
        reply = client.call(kind=kind)

    assert reply.messages == ["message", "message"]
    assert reply.code is NOT_FOUND


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize(
    ("act", "status"),
    [
        (lambda context: context.abort(INVALID, "aborted"), (INVALID, "aborted")),
        (fail(errors.AlreadyExists("raised")), (grpc.StatusCode.ALREADY_EXISTS, "raised")),
        (lambda context: (context.set_code(NOT_FOUND), context.set_details("set"), "x")[2], (NOT_FOUND, "set")),
    ],
    ids=["abort", "StatusError", "set_code"],
)
def test_a_status_of_the_handler_stands(
    sort: str, act: Callable[[Any], Any], status: Any, log: pytest.LogCaptureFixture
) -> None:
    """Whichever way it is told, it passes as it is, and nothing is logged."""
    everything = {Exception: grpc.StatusCode.DATA_LOSS}

    with serving(sort, {"unary_unary": handler(sort, "unary_unary", act)}, ExceptionToStatus(everything)) as client:
        reply = client.call()

    assert (reply.code, reply.details) == status
    assert not log.records


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("code", [NOT_FOUND, CANCELLED], ids=lambda code: code.name)
@pytest.mark.parametrize("details", ["", "chosen"])
def test_set_code_and_raise_keeps_the_code_and_not_the_text(
    sort: str, code: grpc.StatusCode, details: str, log: pytest.LogCaptureFixture
) -> None:
    """Left to itself grpc would send the text of the exception."""

    def act(context: Any) -> Any:
        context.set_code(code)
        if details:
            context.set_details(details)
        raise ValueError("secret")

    with serving(sort, {"unary_unary": handler(sort, "unary_unary", act)}, ExceptionToStatus()) as client:
        reply = client.call()

    assert reply.code is code
    assert reply.details == details or ERROR_ID.fullmatch(reply.details)
    assert len(log.records) == 1


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("kind", ["unary_unary", "unary_stream"])
@pytest.mark.parametrize("chosen", [(), (NOT_FOUND, ""), (NOT_FOUND, "chosen")], ids=["-", "code", "code and details"])
@pytest.mark.parametrize(
    "error",
    [
        TimeoutError("secret"),
        TimeoutError(),
        grpc.RpcError("secret"),
        grpc.RpcError(),
        SystemExit("secret"),
        KeyboardInterrupt("secret"),
        asyncio.CancelledError("secret"),
        futures.CancelledError("secret"),
        StopIteration("secret"),
        GeneratorExit("secret"),
        ExceptionGroup("secret", [KeyError("secret")]),
        grpc.aio.AbortError("secret"),
        grpc.aio.UsageError("secret"),
        grpc.aio.InternalError("secret"),
    ],
    ids=repr,
)
def test_no_text_reaches_the_peer(error: BaseException, chosen: Any, kind: str, sort: str) -> None:
    """Whatever is raised and whatever was set before: the RPC ends, with the chosen details, ours or none of either."""

    def act(context: Any) -> Any:
        if chosen:
            context.set_code(chosen[0])
            context.set_details(chosen[1])
        raise type(error)(*error.args)

    with serving(sort, {kind: handler(sort, kind, act)}, ExceptionToStatus()) as client:
        reply = client.call(kind=kind)

    if reply.code is CANCELLED:  # so grpc's asyncio servers tell of a handler that was cancelled
        assert sort == "async"
        assert "secret" not in reply.details
    else:
        assert reply.code is (chosen[0] if chosen else INTERNAL)
        assert (chosen and reply.details == chosen[1] != "") or ERROR_ID.fullmatch(reply.details)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sort", SORTS)
def test_a_handler_cancelled_by_itself_does_not_hang_the_client(sort: str, kind: str) -> None:
    """As when a task that it awaits was cancelled: there is a status, long before the deadline."""
    act = handler(sort, kind, fail(asyncio.CancelledError()))

    with serving(sort, {kind: act}, ExceptionToStatus()) as client:
        reply = client.call(kind=kind)

    assert reply.code is (CANCELLED if sort == "async" else INTERNAL)


@pytest.mark.parametrize("kind", ["unary_unary", "unary_stream"])
@pytest.mark.parametrize("sort", SORTS)
def test_what_is_raised_after_an_abort_is_logged(sort: str, kind: str, log: pytest.LogCaptureFixture) -> None:
    """Once, with its traceback; the peer has the status of the abort."""

    def act(context: Any) -> Any:
        with contextlib.suppress(Exception):
            context.abort(NOT_FOUND, "aborted")
        raise ValueError("secret")

    with serving(sort, {kind: handler(sort, kind, act)}, ExceptionToStatus({ValueError: INVALID})) as client:
        reply = client.call(kind=kind)

    [record] = log.records
    assert (reply.code, reply.details) == (NOT_FOUND, "aborted")
    assert record.exc_info
    assert "secret" in str(record.exc_info[1])


@pytest.mark.parametrize("sort", SORTS)
def test_a_bug_is_logged_once_by_two_of_them(sort: str, log: pytest.LogCaptureFixture) -> None:
    """To the outer one it is a status already."""
    act = handler(sort, "unary_unary", fail(ValueError("secret")))

    with serving(sort, {"unary_unary": act}, ExceptionToStatus({Exception: NOT_FOUND}), ExceptionToStatus()) as client:
        reply = client.call()

    [record] = log.records
    assert reply.code is INTERNAL
    assert reply.details == f"internal error, id {record.__dict__['error_id']}"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sort", SORTS)
def test_a_rule_may_give_rich_details(sort: str, kind: str) -> None:
    """They reach the peer, in the place of those that the handler had set for a status of its own."""
    retry = error_details_pb2.RetryInfo(retry_delay={"seconds": 3})
    stale = errors.Aborted("stale", error_details_pb2.ErrorInfo(reason="STALE")).trailing_metadata()

    def act(context: Any) -> Any:
        context.set_trailing_metadata(stale)
        raise OSError("disk full")

    to_status = ExceptionToStatus({OSError: lambda error: errors.Unavailable("later", retry)})
    with serving(sort, {kind: handler(sort, kind, act)}, to_status) as client:
        reply = client.call(kind=kind)

    assert (reply.code, reply.details) == (grpc.StatusCode.UNAVAILABLE, "later")
    assert errors.parse_details(reply.trailing) == (retry,)


@pytest.mark.parametrize("sort", SORTS)
def test_trailing_metadata_of_the_handler_stays(sort: str) -> None:
    """What it had set before it raised is sent."""

    def act(context: Any) -> Any:
        context.set_trailing_metadata((("x-cost", "7"),))
        raise KeyError("gone")

    with serving(
        sort, {"unary_unary": handler(sort, "unary_unary", act)}, ExceptionToStatus({KeyError: NOT_FOUND})
    ) as client:
        reply = client.call()

    assert reply.code is NOT_FOUND
    assert reply.trailing.get_all("x-cost") == ["7"]


@pytest.mark.parametrize("sort", SORTS)
def test_a_long_text_is_cut(sort: str) -> None:
    """20 kB of details would make the client see RESOURCE_EXHAUSTED."""
    act = handler(sort, "unary_unary", fail(ValueError("größer " * 3000)))

    with serving(sort, {"unary_unary": act}, ExceptionToStatus({ValueError: INVALID})) as client:
        reply = client.call()

    assert reply.code is INVALID
    assert reply.details.startswith("größer")
    assert reply.details.endswith("…")
    assert len(reply.details.encode()) <= 1024


@pytest.mark.parametrize("kind", ["unary_unary", "unary_stream"])
@pytest.mark.parametrize("sort", ["sync", "async"])
def test_a_client_that_goes_is_no_bug(sort: str, kind: str, log: pytest.LogCaptureFixture) -> None:
    """The flows are told CANCELLED, and nothing is logged as an error."""
    here, go = threading.Event(), threading.Event()

    def act(context: Any) -> Any:
        if sort == "async":
            here.set()
            return asyncio.sleep(60)
        context.add_callback(go.set)
        here.set()
        assert go.wait(10)
        return "late"

    told = Told()
    with serving(sort, {kind: handler(sort, kind, act)}, told, ExceptionToStatus()) as client:
        call = client.start(kind=kind)
        assert here.wait(10)
        call.cancel()
        assert told.ended.acquire(timeout=10)

    assert [outcome.code for outcome in told.outcomes] == [CANCELLED]
    assert not log.records


# --- in all places --------------------------------------------------------------------------------------------------


def test_it_runs_everywhere_without_harm(place: Place) -> None:
    """Answers and statuses pass on both sides."""
    outcomes: list[Outcome] = []
    to_status = ExceptionToStatus({Exception: grpc.StatusCode.DATA_LOSS})

    with place.open(each(outcomes), to_status, script=[failed(NOT_FOUND, "no such thing")]) as rpc:
        failure = rpc.call(*requests(place))
        success = rpc.call(*requests(place))

    assert (failure.code, failure.details) == (NOT_FOUND, "no such thing")
    assert success.ok
    assert [outcome.code for outcome in outcomes] == [NOT_FOUND, grpc.StatusCode.OK]


def test_what_a_handler_raises_in_every_place(place: Place, log: pytest.LogCaptureFixture) -> None:
    """On a server it has the status of its rule, or an id; a client takes what the server made of it."""
    to_status = ExceptionToStatus({KeyError: NOT_FOUND})

    with place.open(to_status, script=[raised(KeyError("no such order")), raised(RuntimeError("a bug"))]) as rpc:
        ruled, bug = rpc.call(*requests(place)), rpc.call(*requests(place))

    if is_server(place):
        assert (ruled.code, ruled.details) == (NOT_FOUND, "'no such order'")
        assert bug.code is INTERNAL
        assert ERROR_ID.fullmatch(bug.details)
        assert len(log.records) == 1
    else:
        assert ruled.code is bug.code is UNKNOWN
        assert not [record for record in log.records if record.name == "interpose.errors"]


# --- played by hand -------------------------------------------------------------------------------------------------


def status_of(to_status: ExceptionToStatus, error: BaseException, **more: Any) -> Outcome:
    _, outcome = play(to_status, incoming(), raising(error, **more))
    return outcome


def test_the_nearest_class_counts() -> None:
    """As with `except`, whatever the order of the mapping."""
    to_status = ExceptionToStatus({Exception: UNKNOWN, LookupError: INVALID, KeyError: NOT_FOUND})

    codes = [status_of(to_status, error).code for error in (KeyError("k"), IndexError("i"), ValueError("v"))]

    assert codes == [NOT_FOUND, INVALID, UNKNOWN]


def test_a_rule_may_be_a_function() -> None:
    """It gives a status error, a code, or None for the next class."""

    def rich(error: OSError) -> StatusError:
        return errors.Unavailable(f"errno {error.errno}", trailing_metadata=(("x-why", "disk"),))

    to_status = ExceptionToStatus({OSError: rich, KeyError: lambda _: None, LookupError: lambda _: INVALID})

    disk, missing = status_of(to_status, OSError(28, "full")), status_of(to_status, KeyError("k"))

    assert (disk.code, disk.details) == (grpc.StatusCode.UNAVAILABLE, "errno 28")
    assert disk.trailing_metadata["x-why"] == "disk"
    assert missing.code is INVALID


def test_a_group_is_one_exception() -> None:
    """What a task group raises has the rule of groups, and a bug's answer without one."""

    def first(group: BaseExceptionGroup[Any]) -> StatusError | None:
        found = group.subgroup(StatusError)
        return None if found is None else next(error for error in found.exceptions if isinstance(error, StatusError))

    group = ExceptionGroup("of tasks", [KeyError("k"), errors.NotFound("no such book")])

    assert status_of(ExceptionToStatus({BaseExceptionGroup: first}), group).details == "no such book"
    assert ERROR_ID.fullmatch(status_of(ExceptionToStatus({KeyError: NOT_FOUND}), group).details)


def test_a_rule_may_be_a_class_of_errors() -> None:
    """`errors.NotFound` stands for its code."""
    outcome = status_of(ExceptionToStatus({KeyError: errors.NotFound}), KeyError("k"))

    assert (outcome.code, outcome.details) == (NOT_FOUND, "'k'")


@pytest.mark.parametrize("rule", [lambda error: 1 / 0, lambda error: "NOT_FOUND", lambda error: grpc.StatusCode.OK])
def test_a_rule_that_fails_makes_a_bug_of_it(rule: Any, log: pytest.LogCaptureFixture) -> None:
    """Two records, the rule's failure and the exception itself; the peer is told the id."""
    outcome = status_of(ExceptionToStatus({KeyError: rule}), KeyError("secret"))

    assert outcome.code is INTERNAL
    assert ERROR_ID.fullmatch(outcome.details)
    assert len(log.records) == 2


def test_a_rule_may_raise_a_status() -> None:
    """The same as giving it."""

    def refuse(error: KeyError) -> None:
        raise errors.OutOfRange("beyond")

    assert status_of(ExceptionToStatus({KeyError: refuse}), KeyError()).code is grpc.StatusCode.OUT_OF_RANGE


def test_the_code_of_bugs_is_yours_to_choose() -> None:
    """INTERNAL unless you say otherwise."""
    outcome = status_of(ExceptionToStatus(unknown=UNKNOWN), ZeroDivisionError("secret"))

    assert outcome.code is UNKNOWN
    assert ERROR_ID.fullmatch(outcome.details)


def test_the_exception_stays_known_on_this_side() -> None:
    """As the cause of the status, for the interceptors further out; what passed is still counted."""
    error = KeyError("k")

    outcome = status_of(ExceptionToStatus({KeyError: NOT_FOUND}), error)

    assert isinstance(outcome.error, errors.NotFound)
    assert outcome.error.__cause__ is error


@pytest.mark.parametrize("failure", [RuntimeError, SystemExit])
def test_an_exception_without_a_text_has_its_name(failure: type[BaseException]) -> None:
    """Even one whose `str` fails."""

    class Unspeakable(Exception):
        def __str__(self) -> str:
            raise failure

    assert status_of(ExceptionToStatus({Unspeakable: INVALID}), Unspeakable()).details == "Unspeakable"


def test_a_request_to_exit_is_a_bug_of_the_handler() -> None:
    """SystemExit from a handler ends the RPC, not the process, and says nothing to the peer."""
    outcome = status_of(ExceptionToStatus(), SystemExit("secret"))

    assert outcome.code is INTERNAL
    assert ERROR_ID.fullmatch(outcome.details)


@pytest.mark.parametrize("error", [grpc.RpcError(), TimeoutError(), asyncio.CancelledError()], ids=repr)
@pytest.mark.parametrize("code", [CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED], ids=lambda code: code.name)
def test_the_end_of_an_rpc_passes(error: BaseException, code: grpc.StatusCode, log: pytest.LogCaptureFixture) -> None:
    """How a handler learns that its client has gone is no mistake of its own."""
    outcome = status_of(ExceptionToStatus({Exception: INVALID}), error, code=code, details="so the core says")

    assert (outcome.code, outcome.details, outcome.local) == (code, "so the core says", True)
    assert isinstance(outcome.error, StatusError)
    assert outcome.error.__cause__ is error
    assert not log.records


@pytest.mark.parametrize("error", [KeyError("secret"), TimeoutError("secret"), SystemExit("secret")], ids=repr)
def test_a_bug_met_after_the_client_has_gone_is_logged(error: BaseException, log: pytest.LogCaptureFixture) -> None:
    """Nobody hears of it otherwise; the outcome stays that of a client that has gone."""
    outcome = status_of(ExceptionToStatus(), error, code=CANCELLED, details="the client cancelled")

    [record] = log.records
    assert record.exc_info
    assert record.exc_info[1] is error
    assert (outcome.code, outcome.details) == (CANCELLED, "the client cancelled")


@pytest.mark.parametrize("outcome", [Outcome(), failing(INVALID), raising(KeyError("grpc's own"), INTERNAL)])
def test_on_a_client_nothing_is_changed(outcome: Outcome, log: pytest.LogCaptureFixture) -> None:
    """Its failures are the server's, or grpc's."""
    played = testing.play(ExceptionToStatus({Exception: NOT_FOUND}), [outcome])

    assert played.outcome is played.sent[0].outcome
    assert (played.outcome.code, played.outcome.error) == (outcome.code, outcome.error)
    assert not log.records


def test_a_broken_log_does_not_cost_the_answer() -> None:
    """The peer is told the status all the same."""

    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OSError("disk full")

    logger = logging.Logger("broken")  # noqa: LOG001  it must not outlive this test
    logger.addHandler(Broken())

    assert status_of(ExceptionToStatus(logger=logger), KeyError("secret")).code is INTERNAL


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"mapping": [KeyError]}, "mapping must be a dict like"),
        ({"mapping": {"KeyError": NOT_FOUND}}, "'KeyError' in the mapping must be an exception class"),
        ({"mapping": {errors.NotFound: INVALID}}, "NotFound in the mapping must be an exception class other than"),
        ({"mapping": {KeyError: grpc.StatusCode.OK}}, "KeyError must lead to a grpc.StatusCode other than OK"),
        ({"mapping": {KeyError: "NOT_FOUND"}}, "or a function of it, not 'NOT_FOUND'"),
        ({"mapping": {KeyError: StatusError}}, "KeyError must lead to"),
        ({"mapping": {KeyError: dict}}, "KeyError must lead to"),
        ({"unknown": grpc.StatusCode.OK}, "unknown must be a grpc.StatusCode other than OK"),
        ({"logger": "errors"}, "logger must be like logging.getLogger"),
        ({"mapping": {1: 2, 3: NOT_FOUND}, "unknown": 13, "logger": 1}, "1 .*; 1 .*; 3 .*; unknown .*; logger "),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], complaint: str) -> None:
    """Every fault, with what to write instead."""
    with pytest.raises(ValueError, match=f"^ExceptionToStatus: .*{complaint}"):
        ExceptionToStatus(**options)
