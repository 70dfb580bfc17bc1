"""AccessLog: one record per RPC, however it ends."""

import logging
import threading
from contextvars import copy_context
from typing import Any

import grpc
import pytest

from interpose import Call, Flow, Outcome, context, errors, testing
from interpose.interceptors import AccessLog, RequestId, Retry
from interpose.interceptors.access_log import CLIENT_LEVELS, SERVER_LEVELS
from interpose.testing import PLACES, Place, failed, ok
from tests.facts.serving import serving
from tests.interceptors.driving import Given, failing, incoming, is_server, outgoing, play, raising, requests

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
    assert (fields["msg"], fields["levelno"]) == ("finished call", logging.INFO if is_server(place) else logging.DEBUG)
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

    with place.open(outer, Retry(backoff=lambda _: 0.0), AccessLog(logger_to(inner)), script=script) as rpc:
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
        "AccessLog could not write to <Logger test.access (DEBUG)>; its later failures are not told"
    ]


class Broken(logging.Handler):
    """Its disk is full."""

    def emit(self, record: logging.LogRecord) -> None:
        raise OSError("disk full")


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
    log = AccessLog(logger_to(kept), clock=clock, wall=lambda: 1_700_000_000.5)

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
    log = AccessLog(logger_to(kept, logging.CRITICAL), clock=Never(), wall=Never().now)

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

    assert [(record.name, record.getMessage()) for record in caplog.records] == [("interpose.access", "finished call")]


def test_a_failure_of_grpc_itself_is_logged() -> None:
    """A channel that is closed fails with an exception and not with a status."""
    fields = log_of(raising(ValueError("closed"), Code.INTERNAL, details="ValueError: closed"), outgoing())

    assert (fields["grpc.code"], fields["grpc.error"]) == ("INTERNAL", "ValueError: closed")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"logger": "access"}, "logger must be like logging.getLogger\\('interpose.access'\\), not 'access'"),
        ({"clock": 1}, r"clock must have a method now\(\)"),
        ({"wall": 1}, "wall must be a function like time.time, not 1"),
        ({"logger": 1, "clock": 1, "wall": 1}, "logger .*; clock .*; wall "),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], complaint: str) -> None:
    """Every fault, with what to write instead."""
    with pytest.raises(ValueError, match=f"^AccessLog: {complaint}"):
        AccessLog(**options)
