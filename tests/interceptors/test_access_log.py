"""AccessLog: one record per RPC, however it ends."""

import asyncio
import gc
import io
import json
import logging
import threading
from contextvars import copy_context
from typing import Any

import grpc
import pytest
from opentelemetry import trace

from interpose import (
    Call,
    Flow,
    Kind,
    Metadata,
    Outcome,
    Side,
    chain,
    context,
    errors,
    intercept_channel,
    testing,
)
from interpose.interceptors import AccessLog, Identity, RequestId, Retry
from interpose.interceptors.access_log import CLIENT_LEVELS, SERVER_LEVELS, JsonFormatter, JsonLines, Redactor
from interpose.mechanisms.json_lines import MACHINE_READABLE
from interpose.testing import PLACES, Echo, Place, Stub, failed, ok
from tests.facts.serving import serving
from tests.interceptors.driving import (
    Given,
    failing,
    incoming,
    is_server,
    outgoing,
    overdue,
    play,
    raising,
    requests,
    retrying,
)
from tests.protos.compiled import Generated
from tests.protos.features import served, stub

Code = grpc.StatusCode
TYPES = {
    "unary_unary": "unary",
    "stream_unary": "client_stream",
    "unary_stream": "server_stream",
    "stream_stream": "bidi_stream",
}


class Kept(logging.Handler):
    """Keeps records, and waits for one."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.came = threading.Semaphore(0)

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        self.came.release()

    @property
    def fields(self) -> list[dict[str, Any]]:
        return [record.__dict__ for record in self.records]


def logger_to(handler: logging.Handler, level: int = logging.DEBUG) -> logging.Logger:
    """A logger that ends here."""
    logger = logging.Logger("test.access", level)  # noqa: LOG001  it must not outlive its test
    logger.addHandler(handler)
    return logger


@pytest.fixture
def kept() -> Kept:
    return Kept()


def log_of(outcome: Outcome, given: Given, **options: Any) -> dict[str, Any]:
    """The fields of the one record that an RPC leaves."""
    kept = Kept()
    played = testing.play(AccessLog(logger_to(kept), **options), [outcome], **given)
    [fields] = kept.fields
    assert played.outcome is played.sent[0].outcome
    return fields


# --- in all places --------------------------------------------------------------------------------------------------


def test_one_record_for_an_answer(place: Place, kept: Kept) -> None:
    """With the fields of go-grpc-middleware, at INFO on a server and DEBUG on a client."""
    with place.open(AccessLog(logger_to(kept))) as rpc:
        rpc.call(*requests(place), timeout=30)

    [fields] = kept.fields
    assert (fields[MACHINE_READABLE], fields["levelno"]) == (
        "finished call",
        logging.INFO if is_server(place) else logging.DEBUG,
    )
    assert fields["protocol"] == "grpc"
    assert fields["grpc.component"] == place.side.value
    assert fields["grpc.service"] == "interpose.testing.Echo"
    assert fields["grpc.method"] == place.kind.value
    assert fields["grpc.method_type"] == TYPES[place.kind.value]
    assert fields["grpc.code"] == "OK"
    assert 0 <= fields["grpc.time_ms"] < 30_000
    assert fields["grpc.start_time"] < fields["grpc.request.deadline"]
    assert fields.get("peer.address", "").startswith("ipv4:127.0.0.1:") is is_server(place)
    assert not {"grpc.error", "grpc.attempts", "request_id"} & set(fields)


def test_one_record_for_a_failure(place: Place, kept: Kept) -> None:
    """With the code by its name, and the details."""
    with place.open(AccessLog(logger_to(kept)), script=[failed(Code.DATA_LOSS, "disk 3 is gone")]) as rpc:
        rpc.call(*requests(place))

    [fields] = kept.fields
    assert (fields["grpc.code"], fields["grpc.error"]) == ("DATA_LOSS", "disk 3 is gone")
    assert fields["levelno"] == (logging.ERROR if is_server(place) else logging.WARNING)
    assert "grpc.request.deadline" not in fields


def test_one_record_for_a_refusal_further_in(place: Place, kept: Kept) -> None:
    """Also if nothing was sent, and if an interceptor broke."""

    def refuse(call: Call) -> Flow:
        raise errors.PermissionDenied("not you")
        yield call

    def broken(call: Call) -> Flow:
        raise KeyError("bug")
        yield call

    for culprit, code in ((refuse, "PERMISSION_DENIED"), (broken, "INTERNAL")):
        with place.open(AccessLog(logger_to(kept)), culprit) as rpc:
            rpc.call(*requests(place))

        assert kept.records.pop().__dict__["grpc.code"] == code
        assert not kept.records


def test_the_request_id_is_in_it_wherever_it_is_made(place: Place, kept: Kept) -> None:
    """RequestId may stand further out or further in."""
    given = (("x-request-id", "seven"),)

    for stack in ((RequestId(), AccessLog(logger_to(kept))), (AccessLog(logger_to(kept)), RequestId())):
        with place.open(*stack) as rpc:
            rpc.call(*requests(place), metadata=given)

    assert [fields["request_id"] for fields in kept.fields] == ["seven", "seven"]


def test_attempts_are_told_when_there_were_several(place: Place, kept: Kept) -> None:
    """Outside of Retry one record per RPC, inside of it one per attempt."""
    outer, inner = AccessLog(logger_to(kept)), Kept()
    script = [failed(Code.UNAVAILABLE, unread=is_server(place)), ok()]

    with place.open(outer, Retry(safe=True, backoff=lambda _: 0.0), AccessLog(logger_to(inner)), script=script) as rpc:
        rpc.call(*requests(place))

    assert [(fields["grpc.code"], fields["grpc.attempts"]) for fields in kept.fields] == [("OK", 2)]
    assert [fields["grpc.code"] for fields in inner.fields] == ["UNAVAILABLE", "OK"]


def test_what_the_rpc_carries_is_not_logged(place: Place, kept: Kept) -> None:
    """No message, no metadata, no credential."""
    with place.open(AccessLog(logger_to(kept))) as rpc:
        rpc.call(*["hunter2"] * len(requests(place)), metadata=(("authorization", "hunter2"),))

    assert "hunter2" not in str(kept.fields)


@pytest.mark.parametrize("place", [place for place in PLACES if not place.asyncio and not is_server(place)], ids=str)
def test_one_record_for_a_call_that_its_client_cancels(place: Place, kept: Kept) -> None:
    """CANCELLED, once, whoever tells it first."""
    with place.open(AccessLog(logger_to(kept)), script=[ok(hang=True)]) as rpc:
        stub = getattr(rpc.channel, place.kind.value)(f"/interpose.testing.Echo/{place.kind.value}")
        argument = iter([b"a"]) if place.kind.request_streaming else b"a"
        call = stub(argument) if place.kind.response_streaming else stub.future(argument)
        call.cancel()
        assert kept.came.acquire(timeout=10)

    assert [fields["grpc.code"] for fields in kept.fields] == ["CANCELLED"]


@pytest.mark.parametrize(
    ("leave", "kind"),
    [*(("cancel", kind) for kind in Kind), ("drop", Kind.UNARY_STREAM), ("drop", Kind.STREAM_STREAM)],
)
async def test_one_record_for_an_asyncio_call_that_is_left(leave: str, kind: Kind, kept: Kept) -> None:
    """Cancelled, or dropped by the application in the middle of its stream: CANCELLED, once."""
    async with Echo([ok("a", "b", hang=True)]).serve_aio() as target, grpc.aio.insecure_channel(target) as bare:
        call = getattr(Stub(intercept_channel(bare, AccessLog(logger_to(kept)))), kind.value)(
            ["hello"] if kind.request_streaming else "hello"
        )
        if leave == "cancel":
            call.cancel()
        del call
        gc.collect()
        assert await asyncio.to_thread(kept.came.acquire, timeout=10)

    assert [fields["grpc.code"] for fields in kept.fields] == ["CANCELLED"]


@pytest.mark.parametrize("kind", ["unary_stream", "stream_stream"])
def test_one_record_for_a_stream_that_is_dropped(kind: str, kept: Kept) -> None:
    """The application forgets it, without a cancel: CANCELLED, once."""
    with Echo([ok("a", "b", "c")]).serve() as target, grpc.insecure_channel(target) as bare:
        call = getattr(Stub(intercept_channel(bare, AccessLog(logger_to(kept)))), kind)("hello")
        next(call)
        del call
        gc.collect()
        assert kept.came.acquire(timeout=10)

    assert [fields["grpc.code"] for fields in kept.fields] == ["CANCELLED"]


@pytest.mark.parametrize("kind", ["unary_stream", "stream_stream"])
@pytest.mark.parametrize("sort", ["sync", "async"])
def test_one_record_on_a_server_whose_client_leaves_a_stream(sort: str, kind: str, kept: Kept) -> None:
    """With the peer's address and the request id, which grpc itself no longer knows by then."""

    def endless(_: Any, native: Any) -> Any:
        while True:
            yield "x" * 100_000

    async def endless_later(_: Any, native: Any) -> Any:
        while True:
            yield "x" * 100_000

    handler = endless if sort == "sync" else endless_later
    with serving(sort, {kind: handler}, AccessLog(logger_to(kept)), RequestId()) as client:
        call = client.start(kind=kind)
        next(call)
        call.cancel()
        assert kept.came.acquire(timeout=10)

    [fields] = kept.fields
    assert fields["grpc.code"] == "CANCELLED"
    assert fields["peer.address"].startswith("ipv4:127.0.0.1:")
    assert fields["request_id"]


@pytest.mark.parametrize("sort", ["sync", "plain", "async"])
def test_a_bug_in_a_handler_is_told_by_its_class(sort: str, kept: Kept) -> None:
    """Its text is for grpc's own log, or for ExceptionToStatus."""

    def broken(request: str, native: Any) -> str:
        raise ValueError("secret")

    async def broken_later(request: str, native: Any) -> str:
        raise ValueError("secret")

    handlers = {"unary_unary": broken_later if sort == "async" else broken}
    with serving(sort, handlers, AccessLog(logger_to(kept))) as client:
        client.call()

    [fields] = kept.fields
    assert (fields["grpc.code"], fields["grpc.error"]) == ("UNKNOWN", "ValueError")


@pytest.mark.parametrize("broken", [logging.Handler.emit, None], ids=["handler", "filter"])
def test_a_broken_log_does_not_hurt(place: Place, broken: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The RPC is answered, and the failure is told once."""
    logger = logger_to(Broken() if broken else Kept())
    if not broken:
        logger.addFilter(lambda record: 1 / 0 > 0)

    with place.open(AccessLog(logger)) as rpc:
        replies = [rpc.call(*requests(place)) for _ in range(3)]

    assert all(reply.ok for reply in replies)
    assert [record.message for record in caplog.records if record.name == "interpose"] == [
        "AccessLog could not write to <Logger test.access (DEBUG)>; its later failures are not logged"
    ]


class Broken(logging.Handler):
    """Its disk is full."""

    def emit(self, record: logging.LogRecord) -> None:
        raise OSError("disk full")


# --- start, payloads, metadata, sampling ------------------------------------------------------------------------------


def messages_of(kept: Kept) -> list[str]:
    return [str(fields[MACHINE_READABLE]) for fields in kept.fields]


def test_a_record_of_the_start_on_wish(place: Place, kept: Kept) -> None:
    """One in front, with what is known by then, at the level of OK."""
    with place.open(RequestId(), AccessLog(logger_to(kept), start=True), script=[failed(Code.DATA_LOSS)]) as rpc:
        rpc.call(*requests(place), timeout=30)

    started, finished = kept.fields
    assert (started[MACHINE_READABLE], finished[MACHINE_READABLE]) == ("started call", "finished call")
    assert started["levelno"] == (logging.INFO if is_server(place) else logging.DEBUG)
    assert not {"grpc.code", "grpc.time_ms", "grpc.error"} & set(started)
    shared = {name for name in started if "." in name or name in {"protocol", "request_id"}}
    assert {"grpc.start_time", "grpc.request.deadline", "request_id"} <= shared
    assert all(started[name] == finished[name] for name in shared)


def test_a_record_of_each_message_on_wish(place: Place, kept: Kept) -> None:
    """As it passes, between start and end, with what the redactor leaves of it."""
    log = AccessLog(logger_to(kept), start=True, payloads=lambda message: {"text": message.upper()})

    with place.open(RequestId(), log) as rpc:
        reply = rpc.call(*requests(place))

    sent = [fields["grpc.request.content"] for fields in kept.fields if "grpc.request.content" in fields]
    came = [fields["grpc.response.content"] for fields in kept.fields if "grpc.response.content" in fields]
    assert sent == [{"text": text.upper()} for text in requests(place)]
    assert came == [{"text": text.upper()} for text in reply.messages]
    words = ("request received", "response sent") if is_server(place) else ("request sent", "response received")
    assert (messages_of(kept)[0], messages_of(kept)[-1]) == ("started call", "finished call")
    assert sorted(messages_of(kept)[1:-1]) == sorted([words[0]] * len(sent) + [words[1]] * len(came))
    assert len({fields["request_id"] for fields in kept.fields}) == 1
    assert {fields["grpc.method"] for fields in kept.fields} == {place.kind.value}


@pytest.mark.parametrize("kind", Kind)
def test_messages_of_a_plain_handler_on_an_asyncio_server(kind: Kind, kept: Kept) -> None:
    """Are told in the same way, with the same fields."""
    place = Place(asyncio=True, side=Side.SERVER, kind=kind)

    with place.open(RequestId(), AccessLog(logger_to(kept), start=True, payloads=str), plain=True) as rpc:
        reply = rpc.call(*requests(place))

    told = [(fields[MACHINE_READABLE], fields.get("grpc.request.content")) for fields in kept.fields]
    assert told[0][0] == "started call" and told[-1][0] == "finished call"
    assert [content for message, content in told if message == "request received"] == list(requests(place))
    assert [message for message, _ in told].count("response sent") == len(reply.messages)
    assert len({fields["request_id"] for fields in kept.fields}) == 1


def test_messages_have_the_id_of_their_rpc(place: Place, kept: Kept) -> None:
    """Not that of the request whose handler makes the call, where the application chose another for this one."""

    def call() -> None:
        context.set_request_id("incoming")
        with place.open(RequestId(), AccessLog(logger_to(kept), payloads=str)) as rpc:
            rpc.call(*requests(place), metadata=(("x-request-id", "own"),))

    copy_context().run(call)

    assert len(kept.fields) >= 3
    assert {fields["request_id"] for fields in kept.fields} == {"own"}


def test_what_is_no_protobuf_message_is_not_shown(place: Place, kept: Kept) -> None:
    """Without a redactor of one's own: its type and length."""
    with place.open(AccessLog(logger_to(kept), payloads=True)) as rpc:
        rpc.call(*["hunter2"] * len(requests(place)))

    contents = {value for fields in kept.fields for name, value in fields.items() if name.endswith(".content")}
    assert contents <= {"<str, 7>", "<str, 14>", "<str, 15>"}
    assert "<str, 7>" in contents
    assert "hunter2" not in str(kept.fields)


def test_messages_of_an_attempt_that_failed(place: Place, kept: Kept) -> None:
    """What was sent is told, and then the end, once."""
    log = AccessLog(logger_to(kept), payloads=str)

    with place.open(log, script=[failed(Code.NOT_FOUND)]) as rpc:
        rpc.call(*requests(place))

    assert set(messages_of(kept)[:-1]) <= {"request received", "request sent"}
    assert messages_of(kept)[-1] == "finished call"


def test_metadata_that_is_asked_for(place: Place, kept: Kept) -> None:
    """Each key is a list of texts; what was not sent is not there, and what was not asked for neither."""
    log = AccessLog(logger_to(kept), metadata=["X-Tenant", "x-absent"], start=True)
    sent = (("x-tenant", "acme"), ("x-tenant", "b"), ("authorization", "hunter2"), ("x-raw-bin", b"hunter2"))

    with place.open(log) as rpc:
        rpc.call(*requests(place), metadata=sent)

    for fields in kept.fields:
        assert fields["grpc.request.metadata.x-tenant"] == ["acme", "b"]
        assert [name for name in fields if name.startswith("grpc.request.metadata")] == [
            "grpc.request.metadata.x-tenant"
        ]
    assert "hunter2" not in str(kept.fields)


def test_a_sample_of_the_records(place: Place, kept: Kept) -> None:
    """By code: here a half of those with OK, and all others."""
    chances = iter([0.4, 0.6, 0.5, 0.1])
    log = AccessLog(logger_to(kept), sample={Code.OK: 0.5}, random=lambda: next(chances))
    script = [ok(), ok(), failed(Code.NOT_FOUND), ok(), ok()]

    with place.open(log, script=script) as rpc:
        for _ in script:
            rpc.call(*requests(place))

    assert [(fields["grpc.code"], fields.get("grpc.sample_rate")) for fields in kept.fields] == [
        ("OK", 0.5),
        ("NOT_FOUND", None),
        ("OK", 0.5),
    ]


# --- broken things --------------------------------------------------------------------------------------------------


class Anything(BaseException):
    """What nobody expects."""


def broken(*_: Any) -> Any:
    raise Anything("hunter2")


class BrokenSink:
    """Raises where it is asked, or only when it is written to."""

    def __init__(self, *enabled: bool) -> None:
        self._enabled = iter(enabled)

    def isEnabledFor(self, level: int) -> bool:
        return next(self._enabled, None) or broken()

    write = broken


@pytest.mark.parametrize(
    "options",
    [
        {"logger": BrokenSink()},
        {"logger": BrokenSink(*[True] * 1000)},
        {"wall": broken},
        {"random": broken, "sample": {Code.OK: 0.5}},
        {"payloads": broken},
    ],
    ids=lambda options: next(iter(options)),
)
def test_nothing_that_breaks_hurts(
    place: Place, options: dict[str, Any], kept: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever it raises: the RPC is answered, and each kind of failure is told once."""
    log = AccessLog(**{"logger": logger_to(kept), "start": True, "payloads": str, **options})

    with place.open(log) as rpc:
        replies = [rpc.call(*requests(place)) for _ in range(2)]

    assert all(reply.ok for reply in replies)
    assert len([record for record in caplog.records if record.name == "interpose"]) == 1


def test_a_redactor_that_breaks(place: Place, kept: Kept, caplog: pytest.LogCaptureFixture) -> None:
    """Each record is written, without the message; the text of the exception, which may hold it, goes nowhere."""
    with place.open(AccessLog(logger_to(kept), payloads=broken)) as rpc:
        assert rpc.call(*requests(place)).ok

    contents = {value for fields in kept.fields for name, value in fields.items() if name.endswith(".content")}
    assert contents == {"<str, not shown: Anything>"}
    assert "hunter2" not in caplog.text
    assert "its redactor raised Anything" in caplog.text


def test_a_record_is_not_doubled(place: Place, kept: Kept) -> None:
    """Where one handler has written it and the next one breaks, it is not written again."""
    logger = logger_to(kept)
    logger.addHandler(Broken())

    with place.open(AccessLog(logger, start=True)) as rpc:
        rpc.call(*requests(place))

    assert messages_of(kept) == ["started call", "finished call"]


def test_one_record_for_a_deadline(place: Place, kept: Kept) -> None:
    """DEADLINE_EXCEEDED or CANCELLED, as this side is told, once."""
    with place.open(AccessLog(logger_to(kept)), script=[ok(hang=True)]) as rpc:
        overdue(rpc.call, kept.came, *requests(place))

    [fields] = kept.fields
    assert fields["grpc.code"] in {"DEADLINE_EXCEEDED", "CANCELLED"}


def test_one_record_for_each_copy_of_a_hedged_call(kept: Kept) -> None:
    """Outside of it one, inside of it one per copy: also for the copy that lost."""

    def hedged(call: Call) -> Flow:
        yield call.hedged(copies=2, delay=1.0)

    inner = Kept()
    script = [ok("slow", delay=9), ok("quick", delay=1)]

    testing.play(chain(AccessLog(logger_to(kept)), hedged, AccessLog(logger_to(inner))), script)

    assert [fields["grpc.code"] for fields in kept.fields] == ["OK"]
    assert sorted(fields["grpc.code"] for fields in inner.fields) == ["CANCELLED", "OK"]


def test_a_secret_of_a_proto_stays_here(generated: Generated, kept: Kept) -> None:
    """A protobuf message is shown as a dict, without what a rule hides."""
    log = AccessLog(logger_to(kept), payloads=Redactor("interpose.tests.Text.text"))

    with served(generated) as (target, _), intercept_channel(grpc.insecure_channel(target), log) as channel:
        answer = stub(generated, channel, "generated")[Kind.UNARY_UNARY](generated("features_pb2").Text(text="hunter2"))

    assert answer.text == "HUNTER2"
    request, response, _ = kept.fields
    assert request["grpc.request.content"] == response["grpc.response.content"] == {"text": "[REDACTED]"}


def test_records_as_json(place: Place) -> None:
    """Each is one line, with all that it holds."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    log = AccessLog(logger_to(handler), payloads=True, metadata=["x-tenant"], start=True)

    with place.open(log, script=[failed(Code.NOT_FOUND, "no\r\n\x00😀")]) as rpc:
        rpc.call(*requests(place), metadata=(("x-tenant", "acme"),))

    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert (
        lines[-1].items()
        >= {
            "message": "finished call",
            "logger": "test.access",
            "grpc.code": "NOT_FOUND",
            "grpc.error": "no\\r\\n\\x00😀",
            "grpc.method": place.kind.value,
        }.items()
    )
    assert all(line["grpc.request.metadata.x-tenant"] == ["acme"] for line in lines)


# --- played by hand -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("levels", "codes"),
    [
        (("INFO", "DEBUG"), "OK CANCELLED NOT_FOUND ALREADY_EXISTS INVALID_ARGUMENT"),
        (("INFO", "INFO"), "UNAUTHENTICATED"),
        (("WARNING", "DEBUG"), "RESOURCE_EXHAUSTED FAILED_PRECONDITION ABORTED OUT_OF_RANGE"),
        (("WARNING", "INFO"), "DEADLINE_EXCEEDED PERMISSION_DENIED"),
        (("WARNING", "WARNING"), "UNAVAILABLE"),
        (("ERROR", "INFO"), "UNKNOWN"),
        (("ERROR", "WARNING"), "UNIMPLEMENTED INTERNAL DATA_LOSS"),
    ],
)
def test_levels_are_those_of_go_grpc_middleware(levels: tuple[str, str], codes: str) -> None:
    """On a server and on a client, for each code."""
    for name in codes.split():
        outcome = failing(getattr(Code, name)) if name != "OK" else Outcome()

        assert (log_of(outcome, incoming())["levelname"], log_of(outcome, outgoing())["levelname"]) == levels


def test_every_code_has_a_level() -> None:
    """On both sides."""
    assert set(SERVER_LEVELS) == set(CLIENT_LEVELS) == set(Code)


def test_dates_and_durations() -> None:
    """RFC 3339 in UTC to the millisecond, and milliseconds to the microsecond."""
    clock, kept = testing.FakeClock(), Kept()
    log = AccessLog(logger_to(kept), wall=lambda: 1_700_000_000.5)

    testing.play(log, [testing.ok(delay=0.25)], timeout=3, clock=clock)

    [fields] = kept.fields
    assert fields["grpc.start_time"] == "2023-11-14T22:13:20.250Z"
    assert fields["grpc.request.deadline"] == "2023-11-14T22:13:23.250Z"
    assert fields["grpc.time_ms"] == 250.0


def test_what_strangers_wrote_is_one_short_line() -> None:
    """Line breaks and control characters of details, names and addresses are escaped, and all is cut."""
    name = "/pkg.\x1bSvc/" + "M\n" * 5000
    fields = log_of(
        failing(Code.NOT_FOUND, "gone\r\nFAKE LINE" + "x" * 5000), incoming(name=name, peer="unix:\x00evil")
    )

    assert fields["grpc.error"].startswith("gone\\r\\nFAKE LINExxx")
    assert fields["grpc.service"] == "pkg.\\x1bSvc"
    assert fields["peer.address"] == "unix:\\x00evil"
    assert all(
        len(value) < 4000 and value.isprintable()
        for key, value in fields.items()
        if key.startswith("grpc.") and isinstance(value, str)
    )


@pytest.mark.parametrize("make", [incoming, outgoing])
def test_a_log_that_is_off_costs_nothing(make: Any) -> None:
    """Neither time nor date is looked at, and grpc is not asked for peer and deadline."""

    class Never(testing.FakeClock):
        def now(self) -> float:
            raise AssertionError("looked at the clock")

    kept = Kept()
    log = AccessLog(logger_to(kept, logging.CRITICAL), wall=Never().now)

    _, outcome = play(log, make(), failing(Code.INTERNAL))

    assert outcome.code is Code.INTERNAL
    assert not kept.records


def test_a_level_that_is_off_computes_no_fields() -> None:
    """A server that logs warnings only asks for no date on OK."""

    def never() -> float:
        raise AssertionError("asked for the date")

    kept = Kept()
    play(AccessLog(logger_to(kept, logging.WARNING), wall=never), incoming(), Outcome())

    assert not kept.records


def log_with_id(kept: Kept, request_id: str) -> None:
    context.set_request_id(request_id)
    play(AccessLog(logger_to(kept)), outgoing(), Outcome())


def test_a_record_factory_of_the_application_is_no_obstacle() -> None:
    """One that sets `request_id` on every record makes `log(extra=…)` raise; ours is written, with our id."""
    usual = logging.getLogRecordFactory()

    def factory(*arguments: Any, **options: Any) -> logging.LogRecord:
        record = usual(*arguments, **options)
        record.request_id = "theirs"
        return record

    logging.setLogRecordFactory(factory)
    try:
        kept = Kept()
        copy_context().run(log_with_id, kept, "ours")
    finally:
        logging.setLogRecordFactory(usual)

    assert [fields["request_id"] for fields in kept.fields] == ["ours"]


def test_the_log_has_a_name_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    """It is "interpose.access", so that one line of configuration turns it on."""
    with caplog.at_level(logging.INFO, "interpose.access"):
        play(AccessLog(), incoming(), Outcome())

    assert [(record.name, record.__dict__[MACHINE_READABLE]) for record in caplog.records] == [
        ("interpose.access", "finished call")
    ]


def test_a_failure_of_grpc_itself_is_logged() -> None:
    """A channel that is closed fails with an exception and not with a status."""
    fields = log_of(raising(ValueError("closed"), Code.INTERNAL, details="ValueError: closed"), outgoing())

    assert (fields["grpc.code"], fields["grpc.error"]) == ("INTERNAL", "ValueError: closed")


@pytest.mark.parametrize("make", [incoming, outgoing])
def test_a_deadline_that_no_calendar_has(make: Any) -> None:
    """Is given as the last date there is."""
    fields = log_of(Outcome(), make(timeout=1e12))

    assert (fields["grpc.code"], fields["grpc.request.deadline"]) == ("OK", "9999-12-31T23:59:59.000Z")


def test_metadata_that_is_odd_in_every_way() -> None:
    """As a peer or an application may send it: the record is written, and shows what was asked for."""
    sent = Metadata.trusted([("x-trace-bin", "bad=padding"), ("", ""), ("x-id", None), ("X-ID", "\U0001f600\x00")])

    fields = log_of(Outcome(), incoming(metadata=sent), metadata=["x-id"])

    assert fields["grpc.request.metadata.x-id"] == ["<NoneType>", "\U0001f600\\x00"]


def test_values_of_strangers_are_bounded() -> None:
    """Length and number of metadata values; and bytes where grpc gave bytes."""
    sent = Metadata.trusted([("x-long", "x" * 100_000), *[("x-many", f"{n}\r\n") for n in range(50)], ("x-odd", b"s")])

    fields = log_of(Outcome(), incoming(metadata=sent), metadata=["x-long", "x-many", "x-odd"])

    assert fields["grpc.request.metadata.x-long"] == ["x" * 256 + "…"]
    assert fields["grpc.request.metadata.x-many"] == [f"{n}\\r\\n" for n in range(8)]
    assert fields["grpc.request.metadata.x-odd"] == ["<bytes, 1>"]


def test_a_text_of_a_redactor_is_one_short_line(kept: Kept) -> None:
    """It goes the way of all texts of strangers."""
    testing.play(AccessLog(logger_to(kept), payloads=lambda message: "a\nFAKE" * 5000), **outgoing())

    content = kept.fields[0]["grpc.request.content"]
    assert content.startswith("a\\nFAKEa") and content.isprintable() and len(content) < 6000


def test_nothing_is_tapped_that_nobody_reads() -> None:
    """Where the level of payloads is off, or nobody asked for them, the call goes on as it is."""
    for logger, options in ((logger_to(Kept(), logging.INFO), {"payloads": True}), (logger_to(Kept()), {})):
        arrived: list[Call] = []

        def first(call: Call, arrived: list[Call] = arrived) -> Flow:
            arrived.append(call)
            yield call

        sent, _ = play(chain(first, AccessLog(logger, **options)), outgoing(), Outcome())

        assert sent == arrived  # calls are equal if they are the same


def test_a_level_that_is_off_writes_no_start() -> None:
    """On a client at INFO neither start nor end of a good call, but the end of a bad one."""
    kept = Kept()
    log = AccessLog(logger_to(kept, logging.INFO), start=True)

    play(log, outgoing(), Outcome())
    play(log, outgoing(), failing(Code.INTERNAL))

    assert messages_of(kept) == ["finished call"]


def test_a_logger_whose_level_cannot_be_asked_for_messages(caplog: pytest.LogCaptureFixture) -> None:
    """It breaks when it is asked again; the call goes on untapped."""
    _, outcome = play(AccessLog(BrokenSink(True), payloads=True), outgoing(), Outcome())

    assert outcome.ok
    assert "AccessLog could not write to" in caplog.text


def test_the_rate_at_its_ends() -> None:
    """1 is always, 0 is never, and neither says a rate that is none."""
    kept = Kept()
    log = AccessLog(logger_to(kept), sample={Code.OK: 1, Code.NOT_FOUND: 0}, random=lambda: 0.0)

    for outcome in (Outcome(), failing(Code.NOT_FOUND)):
        play(log, outgoing(), outcome)

    assert [(fields["grpc.code"], "grpc.sample_rate" in fields) for fields in kept.fields] == [("OK", False)]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"logger": "access"}, "logger must be None or like logging.getLogger\\('interpose.access'\\), not 'access'"),
        ({"wall": 1}, "wall must be a function like time.time, not 1"),
        ({"start": 1}, "start must be True or False, not 1"),
        ({"payloads": "all"}, r"payloads must be True, False, or a redactor like .*, not 'all'"),
        ({"metadata": "x-tenant"}, r"metadata must be a list of keys, like \['x-tenant'\], not 'x-tenant'"),
        ({"metadata": 7}, r"metadata must be a list of keys, like \['x-tenant'\], not 7"),
        ({"metadata": [7]}, "metadata must have keys like 'x-tenant', not 7"),
        ({"metadata": ["two words"]}, "metadata must have keys like 'x-tenant', not 'two words'"),
        ({"metadata": ["Authorization"]}, "metadata must not have 'Authorization': credentials and cookies are never"),
        ({"metadata": ["grpcgateway-cookie"]}, "metadata must not have 'grpcgateway-cookie'"),
        ({"metadata": ["x-trace-bin"]}, "metadata must not have 'x-trace-bin': values in -bin are never logged"),
        ({"sample": 0.5}, r"sample must be a dict like {StatusCode.OK: 0.01}, not 0.5"),
        ({"sample": {0: 0.5}}, "sample must have keys like StatusCode.OK, not 0"),
        ({"sample": {Code.OK: 2}}, "sample must have rates from 0 to 1, not 2"),
        ({"sample": {Code.OK: float("nan")}}, "sample must have rates from 0 to 1, not nan"),
        ({"sample": {Code.OK: True}}, "sample must have rates from 0 to 1, not True"),
        ({"random": 0.5}, "random must be a function like random.random, not 0.5"),
        ({"logger": 1, "wall": 1, "start": 1}, "logger .*; start .*; wall "),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], complaint: str) -> None:
    """Every fault, with what to write instead."""
    with pytest.raises(ValueError, match=f"^AccessLog: {complaint}"):
        AccessLog(**options)


def identified(call: Call) -> Flow:
    """What stands outside of the log, and knows the caller and the trace."""
    context.set_identity(Identity("ann"))
    with trace.use_span(trace.NonRecordingSpan(trace.SpanContext(1, 2, False))):
        yield call


ENDS: list[list[Any]] = [[Outcome.success("answer")], [failing(Code.NOT_FOUND, 'no "such" order')]]
RICH = {"metadata": ["x-tenant"], "sample": {Code.OK: 0.5, Code.NOT_FOUND: 0.5}, "random": lambda: 0.0}


@pytest.mark.parametrize(
    ("around", "options", "inside", "given", "ends"),
    [
        ([], {}, [], incoming(), ENDS),
        ([identified], RICH, [], incoming(timeout=5.0, metadata=[("x-tenant", "ä".encode().hex())]), ENDS),
        ([], {}, [retrying()], outgoing(timeout=5.0), [[failing(Code.UNAVAILABLE), ok()]] * 2),
    ],
    ids=["plain", "with all there is", "attempts"],
)
def test_lines_without_logging(
    around: list[Any], options: dict[str, Any], inside: list[Any], given: Given, ends: list[list[Any]]
) -> None:
    """They are the same, with the same fields in the same order."""
    stream, through = io.StringIO(), io.StringIO()
    handler = logging.StreamHandler(through)
    handler.setFormatter(JsonFormatter())
    logger = logger_to(handler)
    for log in (logger, JsonLines(stream, level=logging.DEBUG, name=logger.name)):
        logs = AccessLog(log, start=True, **options)
        for outcomes in ends:
            copy_context().run(
                testing.play, chain(*around, RequestId(make=lambda: "order-17"), logs, *inside), outcomes, **given
            )

    moving = {"time", "grpc.start_time", "grpc.request.deadline", "grpc.time_ms"}
    lines, expected = (
        [
            [(name, moving & {name} or value) for name, value in json.loads(line).items()]
            for line in text.getvalue().splitlines()
        ]
        for text in (stream, through)
    )
    assert len(lines) == 4
    assert lines == expected
