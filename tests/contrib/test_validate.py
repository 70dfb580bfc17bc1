"""Validate: what is refused, where, with what word for the caller, and that nothing passes unjudged."""

import asyncio
import importlib
import sys
import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import grpc
import grpc.aio
import proto
import protovalidate
import pytest
from grpc_status import rpc_status

from interpose import (
    Call,
    Flow,
    Kind,
    Method,
    Outcome,
    Side,
    chain,
    describe,
    errors,
    intercept_channel,
    intercept_server,
)
from interpose._served import Served
from interpose.contrib.validate import InvalidDetails, Validate, ValidateState
from interpose.interceptors import Retry
from interpose.testing import PLACES, Echo, FakeClock, Place, Stub, ok, play
from interpose.testing.codec import decode, encode
from tests.contrib.ruled import buf, google
from tests.interceptors.driving import is_server

INVALID, INTERNAL = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INTERNAL
SERVER, CLIENT = Side.SERVER, Side.CLIENT
SERVICE = "interpose.testing.Echo"

SHORT = "must be at least 3 characters"


def order(name: str = "abc", **fields: Any) -> Any:
    return google("Order")(id=name, **fields)


def judged(validate: Validate, message: Any, side: Side = SERVER, **given: Any) -> Outcome:
    """How an RPC with this request ends, played by hand."""
    return play(validate, [ok(), ...], side=side, requests=[message], **given).outcome


def fields(ended: Any) -> list[tuple[str, str]]:
    """What a client is told of each field: where, and what is wrong."""
    (bad_request,) = errors.parse_details(ended.trailing_metadata)
    return [(one.field, one.description) for one in bad_request.field_violations]


# --- in all places --------------------------------------------------------------------------------------------------


def test_a_request_that_breaks_its_rules(place: Place) -> None:
    """Is refused before a handler sees it, or before it is sent; what came before it in a stream has passed."""
    streams = place.kind.request_streaming
    sent = [order(), order("ab", items=[google("Item")(name="x")]), order()] if streams else [order("ab")]

    with place.open(Validate()) as rpc:
        good = rpc.call(order())
        bad = rpc.call(*sent)

    where = ", message 2 of the stream" if streams and is_server(place) else ""
    more = ", and 1 more violation" if streams else ""
    assert good.ok
    assert (bad.code, bad.details) == (INVALID, f"invalid request{where}: id: {SHORT}{more}")
    assert fields(bad)[0] == ("id", SHORT)
    assert getattr(bad.error, "local", False) is not is_server(place)
    assert all(request.id == "abc" for attempt in rpc.attempts for request in attempt.requests)
    assert len(rpc.attempts) == 1 or streams  # the call that was good; of a stream the good messages are sent


def test_a_response_that_breaks_its_rules(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """Is the server's fault, judged by choice: its client learns no more, a client says what is wrong."""
    answer = ok(order("ab", labels={7: "secret"}), order())

    with place.open(Validate(responses=True), script=[answer, answer]) as rpc:
        bad = rpc.call(order())

    said = "the answer of the server breaks its own rules" if is_server(place) else f"invalid response: id: {SHORT}"
    assert (bad.code, bad.details, bad.messages) == (INTERNAL, said, [])
    assert getattr(bad.error, "local", False) is not is_server(place)
    where = ", message 1 of the stream" if place.kind.response_streaming else ""
    logged = f"the response{where} of /interpose.testing.Echo/{place.kind.value} breaks its rules: id [string.min_len]"
    assert [record.getMessage().partition(" (")[0] for record in caplog.records] == [logged] * is_server(place)


# --- what the caller is told ----------------------------------------------------------------------------------------


def test_each_field_by_its_path() -> None:
    """All that is wrong, in protovalidate's order and words; the key of a map is told from its value."""
    item = google("Item")
    wrong = order(
        "x",
        items=[item(name="abc"), item()],
        by_flag={True: item()},
        by_number={-7: item()},
        by_size={2**64 - 1: item()},
        labels={-5: "x"},
        counts=[1, 0],
        gift=order("y"),
    )
    wrong.by_name['a.b"c'].name = "x"

    assert fields(judged(Validate(), wrong)) == [
        ("id", SHORT),
        ("items[1].name", SHORT),
        (r'by_name["a.b\"c"].name', SHORT),
        ("by_flag[true].name", SHORT),
        ("by_number[-7].name", SHORT),
        ("by_size[18446744073709551615].name", SHORT),
        ("labels[-5]", "key: must be greater than 0"),
        ("labels[-5]", "must be at least 2 characters"),
        ("counts[1]", "must be greater than 0"),
        ("gift.id", SHORT),
    ]


def test_a_rule_of_the_whole_message() -> None:
    """Has no path."""
    outcome = judged(Validate(), google("Period")(start=2, end=1))

    assert outcome.details == "invalid request: the end must come after the start"
    assert fields(outcome) == [("", "the end must come after the start")]


def test_others_read_what_is_packed() -> None:
    """grpcio-status, which insists that code and text are the same."""
    with (
        Echo().serve(Validate()) as target,
        grpc.insecure_channel(target) as channel,
        pytest.raises(grpc.RpcError) as refused,
    ):
        Stub(channel).unary_unary(order("ü" * 2))

    status = rpc_status.from_call(refused.value)
    assert status is not None
    assert (status.code, status.message) == (3, f"invalid request: id: {SHORT}")
    assert [part.type_url for part in status.details] == ["type.googleapis.com/google.rpc.BadRequest"]


def test_a_key_is_not_in_the_text() -> None:
    """Details reach logs, and a key may be a secret: only the details for programs have it."""
    wrong = order()
    wrong.by_name["hunter2"].name = "x"
    outcome = judged(Validate(), wrong)

    assert outcome.details == f"invalid request: by_name[…].name: {SHORT}"
    assert fields(outcome)[0][0] == 'by_name["hunter2"].name'


def test_what_a_caller_can_make_long_is_cut() -> None:
    """It arrives with its code, whatever it sends: a key of many bytes, and more violations than have room."""
    long = order()
    long.by_name["ü" * 100_000].name = "x"
    many = order(items=[google("Item")() for _ in range(400)])

    with Echo().serve(Validate()) as target, grpc.insecure_channel(target) as channel:
        refusals = []
        for message in (long, many):
            with pytest.raises(grpc.RpcError) as refused:
                Stub(channel).unary_unary(message)
            refusals.append(rpc_status.from_call(refused.value))

    cut, listed = (status.details[0].value for status in refusals)
    assert [status.code for status in refusals] == [3, 3]
    assert refusals[0].message == f"invalid request: by_name[…].name: {SHORT}, and maybe more violations"
    assert refusals[1].message == f"invalid request: items[0].name: {SHORT}, and 399 more violations"
    assert 500 < len(cut) < 700
    assert 4000 < len(listed) <= 4096


def test_a_large_message_is_looked_at_until_the_first_violation() -> None:
    """protovalidate takes some 3 KB for each that it lists, where a peer sends a byte."""
    wrong = order("ab", counts=[0] * 2000)
    full = Validate(full_report=1 << 20)

    assert [len(fields(judged(one, wrong))) for one in (Validate(), full)] == [1, 85]  # as many as have room
    assert judged(Validate(), wrong).details == f"invalid request: id: {SHORT}, and maybe more violations"
    assert judged(full, wrong).details == f"invalid request: id: {SHORT}, and 2000 more violations"


# --- runtimes -------------------------------------------------------------------------------------------------------


class Envelope(proto.Message):  # type: ignore[misc]  # untyped
    """proto-plus takes no rules itself; those of google's messages in it count."""

    order = proto.Field(proto.MESSAGE, number=1, message=google("Order"))


def test_messages_of_each_runtime() -> None:
    """google's, protobuf-py's and those of proto-plus are judged alike."""
    validate, wrong = Validate(), order("ab")

    told = [fields(judged(validate, one)) for one in (wrong, buf("Order")(id="ab"), Envelope(order=wrong))]

    assert [[path for path, _ in one] for one in told] == [["id"], ["id"], ["order.id"]]
    assert all(judged(validate, one).ok for one in (order(), buf("Order")(id="abc"), Envelope(order=order())))
    assert judged(validate, buf("Order")(id="ab", counts=[0] * 2000)).details.endswith("maybe more violations")


@pytest.mark.parametrize("message", [b"bytes", "text", None, SimpleNamespace(DESCRIPTOR=None)], ids=str)
def test_what_has_no_rules_is_refused_by_name(message: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A guard that lets pass what it does not understand is none."""
    outcomes = [judged(Validate(), message, side) for side in Side]

    kind = type(message).__name__
    fault = f"Validate cannot judge {kind}, the request of /interpose.testing.Echo/unary_unary: only messages of"
    assert [outcome.code for outcome in outcomes] == [INTERNAL, INTERNAL]
    assert outcomes[0].details.startswith(fault)  # a client's own
    assert outcomes[1].details == "the request cannot be validated"
    assert all(record.getMessage().startswith(fault) for record in caplog.records)


# --- rules that are wrong -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        (google("Senseless")(number=1), 'got "buf.validate.FieldRules.string"'),
        (google("Missing")(number=1), "error evaluating missing: no_such_field : nowhere"),
        (google("Ratio")(number=4), "error evaluating ratio: divide by zero"),
        (google("Late")(number=4, id="ab"), "error evaluating late: divide by zero"),  # behind a violation
    ],
)
def test_a_rule_that_is_wrong_is_no_fault_of_the_caller(
    message: Any, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    """INTERNAL, the fault in the log once a minute, and not a word of it for the peer."""
    clock = FakeClock()
    validate = Validate()

    outcomes = [judged(validate, message, clock=clock) for _ in range(3)]
    clock.advance(60)
    outcomes.append(judged(validate, message, clock=clock))

    assert {(outcome.code, outcome.details) for outcome in outcomes} == {(INTERNAL, "the request cannot be validated")}
    texts = [record.getMessage() for record in caplog.records]
    assert all(fault in text for text in texts)
    assert [text.rpartition(" (")[2] for text in texts] == ["1 since the last line)", "3 since the last line)"]
    assert validate.snapshot() == ValidateState(requests=0, responses=0, faults=4)


def test_a_rule_that_fails_for_some_messages_judges_the_others() -> None:
    """It refuses only what it cannot judge."""
    assert judged(Validate(), google("Ratio")(number=5, id="abc")).ok
    assert fields(judged(Validate(), google("Ratio")(number=5)))[0][0] == "id"


def test_rules_that_do_not_compile_are_found_without_a_message() -> None:
    """Of the methods that google's runtime knows; an empty message may break rules, or make one fail."""
    methods = [Method(f"/rules.Desk/{name}", Kind.UNARY_UNARY) for name in ("Place", "Count", "Count", "Weigh")]
    served = Served((*methods, Method("/unheard.Of/It", Kind.UNARY_UNARY)))

    (fault,) = Validate(responses=True).check_served(served)

    assert fault.startswith("Validate: the rules of rules.Senseless are wrong: expected rule ")
    assert list(Validate(requests=False, responses=True).check_served(served)) == []


async def test_a_server_with_such_rules_does_not_start() -> None:
    """On both stacks."""
    handlers = {"Count": grpc.unary_unary_rpc_method_handler(lambda request, context: order(), google("Senseless"))}
    count = grpc.method_handlers_generic_handler("rules.Desk", handlers)

    with futures.ThreadPoolExecutor(1) as pool:
        threads, loop = (intercept_server(server, Validate()) for server in (grpc.server(pool), grpc.aio.server()))
        for server in (threads, loop):
            server.add_generic_rpc_handlers((count,))
        with pytest.raises(ValueError, match=r"the rules of rules\.Senseless are wrong"):
            threads.start()
        with pytest.raises(ValueError, match=r"the rules of rules\.Senseless are wrong"):
            await loop.start()


# --- streams --------------------------------------------------------------------------------------------------------


def stubborn(requests: Iterator[Any], context: Any) -> Iterator[Any]:
    """Takes a refusal for the end of the stream, and answers all the same."""
    seen = []
    with suppress(errors.InvalidArgument):
        seen += [request.id for request in requests]
    yield from [order()] * 3


def stubborn_unary(requests: Iterator[Any], context: Any) -> Any:
    return next(stubborn(requests, context))


def silent(requests: Iterator[Any], context: Any) -> Iterator[Any]:
    """Answers nothing."""
    with suppress(errors.InvalidArgument):
        yield from ()
        list(requests)


def mistaken(requests: Iterator[Any], context: Any) -> Any:
    """Makes another status of it."""
    with suppress(errors.InvalidArgument):
        list(requests)
    context.abort(grpc.StatusCode.UNAVAILABLE, "come back")


async def stubborn_async(requests: Any, context: Any) -> Any:
    """Goes on reading, too."""
    for _ in range(3):
        with suppress(errors.InvalidArgument):
            assert (await context.read()).id == "abc"
    await context.write(order())


HANDLERS = {
    Kind.STREAM_STREAM: grpc.stream_stream_rpc_method_handler,
    Kind.STREAM_UNARY: grpc.stream_unary_rpc_method_handler,
}


def serve(server: Any, kind: Kind, handler: Any) -> tuple[Any, str]:
    """A server that validates, with one method."""
    server = intercept_server(server, Validate())
    handlers = {kind.value: HANDLERS[kind](handler, decode, encode)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    return server, f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"


def answered_by(kind: Kind, handler: Any) -> tuple[grpc.StatusCode, list[Any]]:
    """What a client is answered that sends a good message and a bad one."""
    got: list[Any] = []
    with futures.ThreadPoolExecutor(2) as pool:
        server, target = serve(grpc.server(pool), kind, handler)
        server.start()
        with grpc.insecure_channel(target) as channel, pytest.raises(grpc.RpcError) as refused:
            call = Stub(channel).method(kind)(iter([order(), order("ab")]))
            got += list(call)
        server.stop(None).wait()
    return refused.value.code(), got  # type: ignore[attr-defined]  # it is a grpc.Call


def test_a_handler_cannot_go_on_after_a_refusal() -> None:
    """It may catch the error, but the RPC ends with it, and nothing that it answers is sent."""
    assert answered_by(Kind.STREAM_STREAM, stubborn) == (INVALID, [])


def test_nor_can_one_that_answers_once_or_not_at_all() -> None:
    """The same of a unary answer, of none, and of another status."""
    assert answered_by(Kind.STREAM_UNARY, stubborn_unary) == (INVALID, [])
    assert answered_by(Kind.STREAM_STREAM, silent) == (INVALID, [])
    assert answered_by(Kind.STREAM_UNARY, mistaken) == (INVALID, [])


async def test_an_async_handler_cannot_either() -> None:
    """Nor one that reads and writes by hand, whatever follows the message that was refused."""
    server, target = serve(grpc.aio.server(), Kind.STREAM_STREAM, stubborn_async)
    await server.start()
    async with grpc.aio.insecure_channel(target) as channel:
        call = Stub(channel).stream_stream([order(), order("ab"), order()])
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call.read()
    await server.stop(None)

    assert refused.value.code() is INVALID


@pytest.mark.parametrize("place", [one for one in PLACES if one.kind is Kind.STREAM_STREAM], ids=str)
def test_a_refusal_does_not_wait_for_the_rest_of_the_stream(place: Place) -> None:
    """The client is told at once, while it could still send."""
    held = threading.Event()

    def unfinished() -> Iterator[Any]:
        yield order("ab")
        held.wait(20)

    if place.asyncio:
        asyncio.run(_told_at_once(place))
        return
    here = [Validate()]
    with Echo().serve(*(here if is_server(place) else ())) as target, grpc.insecure_channel(target) as native:
        channel = native if is_server(place) else intercept_channel(native, *here)
        with pytest.raises(grpc.RpcError) as refused:
            next(Stub(channel).stream_stream(unfinished()))
        held.set()

    assert refused.value.code() is INVALID  # type: ignore[attr-defined]  # it is a grpc.Call


async def _told_at_once(place: Place) -> None:
    here = [Validate()]
    echo = Echo().serve_aio(*(here if is_server(place) else ()))
    async with echo as target, grpc.aio.insecure_channel(target) as native:
        channel: Any = native if is_server(place) else intercept_channel(native, *here)
        call = Stub(channel).stream_stream()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call.write(order("ab"))
            await call.read()

    assert refused.value.code() is INVALID


# --- in a stack -----------------------------------------------------------------------------------------------------


def renamed(call: Call) -> Flow:
    """Changes what the handler sees."""
    yield call.map(requests=lambda message: order("ab"))


@pytest.mark.parametrize("side", Side)
def test_what_an_outer_interceptor_makes_of_a_request_is_judged(side: Side) -> None:
    """Not what it was before."""
    place = Place(asyncio=False, side=side, kind=Kind.UNARY_UNARY)
    with place.open(renamed, Validate()) as outside, place.open(Validate(), renamed) as inside:
        replies = [rpc.call(order()) for rpc in (outside, inside)]

    assert [reply.code for reply in replies] == [INVALID, grpc.StatusCode.OK]
    assert outside.attempts == []


def test_a_refusal_is_not_retried() -> None:
    """Neither on the client itself nor by the word of a server."""
    played = play(chain(Retry(safe=True), Validate()), [], side=CLIENT, requests=[order("ab")])

    assert (played.outcome.code, played.sent) == (INVALID, [])


def test_orders_that_are_wrong() -> None:
    """`describe` says what it does, and warns of what stands inside of it."""
    from interpose.interceptors import AccessLog, RateLimit

    told = describe(Validate(), AccessLog(), RateLimit("1/second"))

    assert "1. Validate   Refuse messages that break the rules in their proto" in told
    assert "! Validate is outside of AccessLog: calls that are refused are not in the log" in told
    assert "! Validate is outside of RateLimit: calls that are refused are not counted" in told


# --- seeing ---------------------------------------------------------------------------------------------------------


def test_what_it_tells_of_itself(caplog: pytest.LogCaptureFixture) -> None:
    """Numbers, and a hook that is given protovalidate's own violations and may fail."""
    seen: list[InvalidDetails] = []

    def broken(details: InvalidDetails) -> None:
        seen.append(details)
        raise OSError("disk full")

    validate = Validate(responses=True, on_invalid=broken)
    play(validate, [], side=SERVER, requests=[order("ab")])
    play(validate, [ok(order("ab"))], side=CLIENT, requests=[order()])

    assert validate.snapshot() == ValidateState(requests=1, responses=1, faults=0)
    assert [(one.side, one.direction, one.message_type, one.number) for one in seen] == [
        (SERVER, "request", "rules.Order", 1),
        (CLIENT, "response", "rules.Order", 1),
    ]
    assert seen[0].violations[0].proto.rule_id == "string.min_len"
    assert [record.message for record in caplog.records] == [
        "on_invalid failed; the message is refused all the same"
    ] * 2


def test_a_validator_of_ones_own() -> None:
    """Judges in the place of protovalidate's own, and is asked for all violations only if there is one."""

    class Counting:
        def __init__(self) -> None:
            self.asked: list[str] = []
            self._validator = protovalidate.Validator()

        def validate(self, message: Any, *, fail_fast: bool = False) -> None:
            self.asked.append("validate")
            self._validator.validate(message, fail_fast=fail_fast)

        def collect_violations(self, message: Any, *, fail_fast: bool = False) -> list[Any]:
            self.asked.append("collect")
            return []  # of a message that another thread has mended meanwhile

    validator = Counting()
    assert judged(Validate(validator=validator), order()).ok
    assert fields(judged(Validate(validator=validator), order("ab"))) == [("id", SHORT)]
    assert validator.asked == ["validate", "validate", "collect"]


def test_threads_may_share_it_from_the_first_message_on() -> None:
    """Rules are compiled once, whoever comes first."""
    validate = Validate()
    with futures.ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda number: judged(validate, order("abc"[: number % 4])), range(200)))

    assert [outcome.ok for outcome in outcomes] == [number % 4 == 3 for number in range(200)]


def test_options_that_make_no_sense() -> None:
    """Each is named, with what to write instead."""
    with pytest.raises(ValueError, match=r"^Validate: ") as refusal:
        Validate(
            requests=0,  # type: ignore[arg-type]
            responses=None,  # type: ignore[arg-type]
            full_report=-1,
            validator=protovalidate.Validator,  # type: ignore[arg-type]
            on_invalid=5,  # type: ignore[arg-type]
        )

    assert str(refusal.value).split("; ") == [
        "Validate: one of requests and responses must be True: it would judge nothing",
        "requests must be True or False, not 0",
        "responses must be True or False, not None",
        "full_report must be a whole number of bytes from 0 to 1048576, not -1",
        f"validator must be None or a protovalidate.Validator(), not {protovalidate.Validator!r}",
        "on_invalid must be a function of InvalidDetails, not 5",
    ]


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """ImportError with the line to install, where it is imported; and not before."""
    monkeypatch.delitem(sys.modules, "interpose.contrib.validate")
    monkeypatch.setitem(sys.modules, "protovalidate", None)

    with pytest.raises(ImportError, match=r'pip install "interpose\[validate\]"') as refusal:
        importlib.import_module("interpose.contrib.validate")

    assert isinstance(refusal.value.__cause__, ImportError)
