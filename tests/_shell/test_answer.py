"""What a handler did, recorded: whichever way it fails, there is one outcome."""

import concurrent.futures
from typing import Any

import grpc
import pytest
from google.protobuf import empty_pb2

from interpose import Call, Kind, Metadata, Method, Outcome, Side, context, errors
from interpose._details import MAX_DETAILS, MAX_STATUS, can_be_details, described, sendable, status_code, text
from interpose._shell.answer import Abort, Answer, arrived, recording
from interpose._shell.closing import trailers, unexpected

UNKNOWN, NOT_FOUND, OK = grpc.StatusCode.UNKNOWN, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.OK


class Native:
    """grpc's own context, as far as a record asks it."""

    def __init__(self, left: float | None = None) -> None:
        self.left = left
        self.asked: list[str] = []

    def invocation_metadata(self) -> Any:
        return (("a", "1"),)

    def time_remaining(self) -> float | None:
        return self.left

    def peer(self) -> str:
        self.asked.append("peer")
        return "ipv4:127.0.0.1:5"


class Clock:
    """Time that stands until it is moved."""

    def __init__(self) -> None:
        self.time = 100.0

    def now(self) -> float:
        return self.time


def record(kind: Kind = Kind.UNARY_UNARY, left: float | None = None, **wishes: Any) -> Any:
    """The record of an RPC whose handler is about to be called."""
    clock: Any = Clock()
    native: Any = Native(left)
    answer: Any
    answer, call = arrived(recording(Answer, clock, None), native, Method("/a/b", kind), "request")
    if "timeout" in wishes:
        call = call.with_timeout(wishes["timeout"])
    if "initial" in wishes:
        call = call.with_initial_metadata(wishes["initial"])
    answer.begin(call)
    return answer


def test_what_arrives() -> None:
    """The call has what the client sent, and is the current one."""
    answer = record(left=3.0)
    call = answer._call

    assert call.side is Side.SERVER
    assert call.request == "request"
    assert call.metadata == Metadata([("a", "1")])
    assert call.timeout == 3
    assert call.deadline == 103
    assert call.peer == "ipv4:127.0.0.1:5"
    assert context.current_call() is call
    assert record(Kind.STREAM_UNARY)._call.request is None


@pytest.mark.parametrize("left", [None, 9.2e18])
def test_without_a_deadline(left: float | None) -> None:
    """Both ways in which grpc says that there is none mean None."""
    answer = record(left=left)

    assert answer.deadline() is None
    assert answer.arrived_with() is None


def test_the_deadline_is_read_once() -> None:
    """It is a moment: looking later does not move it."""
    answer = record(left=3.0)
    assert answer.deadline() == 103

    answer.clock.time = 102.0
    answer._native.left = 1.5

    assert answer.deadline() == 103
    assert answer.arrived_with() == 3


def test_the_peer_is_asked_once() -> None:
    """And not again when the RPC may be over."""
    answer = record()

    assert answer.peer() == answer.peer() == "ipv4:127.0.0.1:5"
    assert answer._native.asked == ["peer"]


def test_when_all_is_over() -> None:
    """The call lives on without the context."""
    answer = record()
    call = answer.over()

    assert call is not None
    assert call.peer is None
    assert answer.over() is None
    assert not answer.initial_metadata_due
    assert answer.initial_metadata([("a", "1")]) == Metadata([("a", "1")])


def test_an_answer() -> None:
    """A handler that returns has succeeded."""
    answer = record()
    answer.clock.time = 100.5

    outcome = answer.outcome(None, "response", None)

    assert outcome.ok
    assert outcome.response == "response"
    assert (outcome.requests, outcome.responses, outcome.elapsed) == (1, 1, 0.5)
    assert outcome.replayable


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("explicit", [False, True])
def test_messages_are_counted(kind: Kind, explicit: bool) -> None:
    """As many as passed, one for a unary message; also where the handler said OK itself."""
    answer = record(kind)
    answer.received, answer.sent = 3, 4
    if explicit:
        answer.set_code(OK)

    outcome = answer.outcome(None, None, None)

    assert outcome.ok
    assert outcome.requests == (3 if kind.request_streaming else 1)
    assert outcome.responses == (4 if kind.response_streaming else 1)
    assert outcome.replayable is (kind is Kind.UNARY_UNARY)


def test_details_and_trailing_metadata_of_an_answer() -> None:
    """They travel with OK, too."""
    answer = record()
    answer.set_details(b"well done")
    answer.set_trailing_metadata((("b", "2"),))

    outcome = answer.outcome(None, None, None)

    assert outcome.details == "well done"
    assert outcome.trailing_metadata == Metadata([("b", "2")])
    assert answer.decided


WAYS = ["abort", "abort by number", "swallowed abort", "set_code", "set_code by number", "raise"]


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_fail_is_one_outcome(way: str) -> None:
    """Abort, set_code and a raised status give the same."""
    answer = record()
    error: BaseException | None = None
    if "abort" in way:
        error = answer.record_abort(5 if "number" in way else NOT_FOUND, "gone", (("b", "2"),))
        error = None if "swallowed" in way else error
    elif way == "raise":
        error = errors.NotFound("gone", trailing_metadata=[("b", "2")])
    else:
        answer.set_code(5 if "number" in way else NOT_FOUND)
        answer.set_details("gone")
        answer.set_trailing_metadata((("b", "2"),))

    outcome = answer.outcome(error, "dropped", None)

    assert (outcome.code, outcome.details, outcome.response) == (NOT_FOUND, "gone", None)
    assert isinstance(outcome.error, errors.NotFound)
    assert list(outcome.trailing_metadata) == [("b", "2")]


def test_an_unexpected_exception() -> None:
    """It is UNKNOWN, and the exception itself; a code that was set before stands."""
    error = ValueError("a secret")
    answer, coded = record(), record()
    coded.set_code(NOT_FOUND)
    coded.set_details("gone")

    bare, told = answer.outcome(error, None, None), coded.outcome(error, None, None)

    assert (bare.code, bare.details, bare.error) == (UNKNOWN, "", error)
    assert (told.code, told.details, told.error) == (NOT_FOUND, "gone", error)
    assert unexpected(bare) is error


def test_ok_and_an_exception() -> None:
    """A handler that said OK and then broke has failed."""
    answer = record()
    answer.set_code(OK)

    assert answer.outcome(ValueError(), None, None).code is UNKNOWN


def test_abort_and_ok() -> None:
    """A handler that swallows its own abort and says OK has failed all the same."""
    answer = record()
    answer.record_abort(NOT_FOUND, "gone")
    answer.set_code(OK)

    outcome = answer.outcome(None, "response", None)

    assert outcome.code is UNKNOWN
    assert outcome.response is None


def test_abort_with_ok(caplog: pytest.LogCaptureFixture) -> None:
    """It is UNKNOWN, as with sync grpc, and logged."""
    answer = record()

    outcome = answer.outcome(answer.record_abort(OK, "fine"), None, None)

    assert (outcome.code, outcome.details) == (UNKNOWN, "")
    assert "abort() called with StatusCode.OK" in caplog.text


def test_raising_after_an_abort(caplog: pytest.LogCaptureFixture) -> None:
    """The abort stands; what was raised is logged."""
    answer = record()
    assert isinstance(answer.record_abort(NOT_FOUND, "gone"), Abort)

    outcome = answer.outcome(ValueError("a secret"), None, None)

    assert (outcome.code, outcome.details) == (NOT_FOUND, "gone")
    assert "raised after it had aborted" in caplog.text


@pytest.mark.parametrize(
    ("gone", "details"),
    [
        (grpc.StatusCode.CANCELLED, "the client cancelled, or the server was stopped"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline passed"),
    ],
)
def test_a_client_that_has_gone(gone: grpc.StatusCode, details: str) -> None:
    """The outcome says why nobody listens; an exception of the handler's stays in it, a status it raised is it."""
    error = RuntimeError()

    outcome = record().outcome(None, "response", gone)

    assert (outcome.code, outcome.details, outcome.local) == (gone, details, True)
    assert isinstance(outcome.error, errors.of(gone))
    assert record().outcome(error, None, gone).error is error
    assert record().outcome(errors.NotFound(), None, gone).code is NOT_FOUND


def test_trailing_metadata_is_merged() -> None:
    """What the handler set stands in front of what its error carries."""
    answer = record()
    answer.set_trailing_metadata((("a", "1"),))

    outcome = answer.outcome(errors.NotFound(trailing_metadata=[("b", "2")]), None, None)

    assert list(outcome.trailing_metadata) == [("a", "1"), ("b", "2")]


def test_trailing_metadata_is_checked() -> None:
    """The handler is told, before a client waits in vain."""
    with pytest.raises(ValueError, match="x-bad"):
        record().set_trailing_metadata((("x-bad", 5),))


def test_a_second_attempt_begins_anew() -> None:
    """What the handler decided in the first is forgotten."""
    answer = record(Kind.STREAM_STREAM)
    answer.received = answer.sent = 3
    answer.record_abort(NOT_FOUND, "gone", (("a", "1"),))

    answer.begin(answer._call.with_metadata(("x-again", "1")))
    outcome = answer.outcome(None, None, None)

    assert outcome.ok
    assert (outcome.requests, outcome.responses) == (0, 0)
    assert outcome.trailing_metadata == Metadata()
    assert not answer.decided
    call = context.current_call()
    assert isinstance(call, Call)
    assert call.metadata["x-again"] == "1"


def test_time_remaining() -> None:
    """The nearer of the client's deadline and an interceptor's timeout, and never less than nothing."""
    near, far, bare = record(left=1.0, timeout=5), record(left=9.0, timeout=5), record(timeout=5)

    assert record(left=3.0).time_remaining() == 3
    assert record().time_remaining() is None
    assert (near.time_remaining(), far.time_remaining(), bare.time_remaining()) == (1, 5, 5)
    assert not bare.expired()
    bare.clock.time = 106.0
    assert bare.time_remaining() == 0
    assert bare.expired()
    assert not record().expired()


def test_initial_metadata() -> None:
    """The interceptors' pairs, then the handler's; due until it was sent."""
    answer = record(initial=("a", "1"))

    assert answer.initial_metadata_due
    assert list(answer.initial_metadata([("b", "2")])) == [("a", "1"), ("b", "2")]
    assert not answer.initial_metadata_due
    assert not record().initial_metadata_due


@pytest.mark.parametrize(
    ("given", "code"), [(NOT_FOUND, NOT_FOUND), (5, NOT_FOUND), (0, OK), (99, UNKNOWN), ("x", UNKNOWN), (None, UNKNOWN)]
)
def test_codes(given: Any, code: grpc.StatusCode) -> None:
    """A number will do, and what is no code is UNKNOWN."""
    assert status_code(given) is code


@pytest.mark.parametrize(
    ("given", "said"), [("a", "a"), (b"a", "a"), (b"\xff", "\ufffd"), (None, ""), (5, "5"), (["a"], "['a']")]
)
def test_texts(given: Any, said: str) -> None:
    """Details are text, whatever is given."""
    assert text(given) == said


def wire_size(details: str) -> int:
    """Bytes of a grpc-message: what is not printable ASCII travels as %XX."""
    return sum(1 if 0x20 <= byte < 0x7F and byte != ord("%") else 3 for byte in details.encode())


@pytest.mark.parametrize("given", ["", "short", "x" * 4096, "x" * 5000, "ü" * 3000, "%" * 3000, "\ud800", "€" * 9000])
def test_details_that_reach_the_client(given: str) -> None:
    """They are cut, visibly, to what a client takes, and hold only what UTF-8 can say."""
    sent = sendable(given)

    assert wire_size(sent) <= MAX_DETAILS + 40
    assert sent == given or sent.endswith(" bytes)") or given == "\ud800"
    assert sent.startswith(given[:5].replace("\ud800", "?"))


def test_trailers_that_reach_the_client() -> None:
    """Packed details that would turn the status into RESOURCE_EXHAUSTED are left out; the rest stays."""
    pairs = [("a", "1"), (errors.RICH_KEY, b"x" * MAX_STATUS)]
    fits = [("a", "1"), (errors.RICH_KEY, b"x" * 100)]

    assert trailers(Outcome.success()) == Metadata()
    assert list(trailers(Outcome.success(trailing_metadata=fits))) == fits
    assert list(trailers(Outcome.failure(errors.NotFound("gone", trailing_metadata=pairs)))) == [("a", "1")]


def test_the_largest_of_the_trailers_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    """The rest stays in its order, and the log names what the client does not see, not its value."""
    pairs = [("x-secret", "s" * 100_000), ("a", "1"), ("sum-bin", b"x" * 5400), ("a", "2")]

    left = trailers(Outcome.failure(errors.NotFound("gone", trailing_metadata=pairs)))

    assert list(left) == [("a", "1"), ("a", "2")]
    assert "['sum-bin', 'x-secret']" in caplog.text
    assert "ssss" not in caplog.text


@pytest.mark.parametrize("details", ["", "x" * 9000, "😀" * 1200, "%" * 1200])
@pytest.mark.parametrize("count", [1, 10, 100])
def test_trailers_and_details_fit_together(details: str, count: int) -> None:
    """By HTTP/2's own count, with base64 and 32 bytes for each field, they stay below the 8 KiB that clients take."""
    pairs = [("x-text", "x" * 60), ("x-data-bin", b"x" * 60)] * count

    left = trailers(Outcome.failure(errors.NotFound(details, trailing_metadata=pairs)))
    fields = [(key, len(value) * (4 / 3 if key.endswith("-bin") else 1)) for key, value in left]

    assert wire_size(sendable(details)) + sum(32 + len(key) + size for key, size in fields) <= MAX_STATUS + 100 < 8192
    assert count == 100 or len(left) == 2 * count


def test_the_text_of_an_exception_has_its_room() -> None:
    """Where grpc is to answer with it, as much is left out as if it were as long as may be."""
    pairs = Metadata([("x-large", "x" * 6000)])
    raised = Outcome(UNKNOWN, error=ValueError("text"), trailing_metadata=pairs)

    assert trailers(raised) == Metadata()
    assert trailers(Outcome(UNKNOWN, error=errors.Unknown(), trailing_metadata=pairs)) == pairs


def test_trailers_of_an_answer_stay() -> None:
    """What is too large for one client may be what another was set up to take."""
    pairs = Metadata([("x-large", "x" * 100_000)])

    assert trailers(Outcome.success(trailing_metadata=pairs)) == pairs


@pytest.mark.parametrize(
    "odd", [("x-odd", "ü"), ("x-odd", "a\nb"), ("X Odd", "1"), ("x-odd-bin", "text"), ("grpc-odd", "1")]
)
def test_what_the_wire_refuses_is_left_out(odd: Any) -> None:
    """An error of another server may carry what this one cannot send: the status is sent all the same."""
    error = errors.NotFound(trailing_metadata=Metadata.trusted([odd, ("a", "1")]))

    assert list(trailers(Outcome.failure(error))) == [("a", "1")]


def test_the_last_packed_status_stands(caplog: pytest.LogCaptureFixture) -> None:
    """One that the handler had set before it raised belongs to another status."""
    later = errors.NotFound("why", empty_pb2.Empty()).trailing_metadata()
    pairs = Metadata.trusted([(errors.RICH_KEY, b"\x08\x05"), ("a", "1"), *later])

    left = trailers(Outcome(NOT_FOUND, None, "why", errors.NotFound("why"), trailing_metadata=pairs))

    assert list(left) == [("a", "1"), *later]
    assert not caplog.records


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError


@pytest.mark.parametrize(
    ("error", "can"),
    [
        (ValueError("text"), True),
        (ValueError("x" * MAX_DETAILS), False),
        (ValueError("\ud800"), False),
        (Unprintable(), False),
        (SystemExit(), False),
        (KeyboardInterrupt(), False),
        (StopIteration(), False),
        (concurrent.futures.CancelledError(), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_grpc_can_say(error: BaseException, can: bool) -> None:
    """What grpc would choke on is said by us."""
    assert can_be_details(error) is can
    assert described(error)


def test_how_an_exception_is_described() -> None:
    """As sync grpc does."""
    assert described(ValueError("a")) == "Exception calling application: a"
    assert described(Unprintable()) == "Calling application raised unprintable Exception!"
    assert unexpected(Outcome.failure(errors.NotFound())) is None
    assert unexpected(Outcome.success()) is None
