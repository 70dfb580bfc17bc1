"""Retry: what may be executed twice, and what was certainly not executed once."""

import logging
from typing import Any

import grpc
import pytest

from interpose import Call, Flow, Interceptor, Kind, Outcome, Side, chain, errors, testing
from interpose._executed import MAY_HAVE_RUN
from interpose.interceptors import BY_CONVENTION, Retry
from interpose.interceptors.repeating import MAX_METHODS
from interpose.interceptors.retry import UNSAFE
from interpose.testing import Place, failed, ok, raised
from interpose.testing.acts import Act
from tests.interceptors.driving import at_once, notes, outgoing, play, requests, retrying
from tests.protos.compiled import Generated

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
INTERNAL = grpc.StatusCode.INTERNAL

METHOD = "/interpose.testing.Echo/unary_unary"
WORD = ("interpose-not-executed", METHOD)
SAFE = pytest.mark.parametrize("safe", [None, False, lambda call: False], ids=["None", "False", "function"])


def sent(retry: Interceptor, *acts: Act, **given: Any) -> int:
    """How often a call is sent that ends like the first act, and well if it is sent again."""
    return len(testing.play(retry, [*acts, ok(), ...], **given).sent)


# --- what is declared ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [UNAVAILABLE, INTERNAL])
@pytest.mark.parametrize(
    ("safe", "attempts"),
    [(None, 1), (False, 1), (True, 2), (lambda call: call.method.name == "unary_unary", 2), (lambda call: False, 1)],
)
def test_somebody_has_to_say_that_a_call_is_safe(safe: Any, attempts: int, code: grpc.StatusCode) -> None:
    """Any status that a server sends may come after the deed is done, UNAVAILABLE as well."""
    assert sent(Retry(2, codes={code}, safe=safe), failed(code)) == attempts


@pytest.mark.parametrize("code", [UNAVAILABLE, INTERNAL])
@pytest.mark.parametrize(("name", "attempts"), [("Read", 2), ("Put", 2), ("Add", 1)])
def test_the_proto_says_what_is_safe(name: str, attempts: int, code: grpc.StatusCode, generated: Generated) -> None:
    """NO_SIDE_EFFECTS and IDEMPOTENT are repeated on every listed code, other methods are not."""
    generated("idempotency_pb2")

    assert sent(Retry(codes={code}), failed(code), method=f"/interpose.tests.idempotency.Ledger/{name}") == attempts


def test_what_is_wanted_again_has_to_be_safe() -> None:
    """`retry_if` does not say that a call may be executed twice."""
    retry = Retry(2, retry_if=lambda outcome: True)

    assert [sent(retry, act) for act in (ok(), failed(INTERNAL), failed(UNAVAILABLE))] == [1, 1, 1]


def test_naming_an_error_makes_no_call_of_a_client_safe() -> None:
    """A status that a server told may be one of `errors` by its class; its call may have been executed all the same."""
    assert sent(Retry(2, codes={INTERNAL}, errors=(errors.Internal,)), failed(INTERNAL)) == 1


@pytest.mark.parametrize(
    ("safe", "attempts"), [(None, 2), (BY_CONVENTION, 2), (True, 2), (False, 1), (lambda call: False, 1)]
)
def test_naming_an_error_says_that_it_is_safe(safe: Any, attempts: int) -> None:
    """Unless `safe` denies it."""
    retry = Retry(2, errors=(OSError,), safe=safe)

    assert sent(retry, raised(ConnectionError()), side=Side.SERVER) == attempts


@pytest.mark.parametrize(("safe", "attempts"), [(None, 2), (BY_CONVENTION, 2), (True, 2), (False, 1)])
def test_a_way_to_resume_says_that_it_is_safe(safe: Any, attempts: int) -> None:
    """Also where nothing was delivered yet; unless `safe` denies it."""
    retry = Retry(2, resume=lambda call, last: call, safe=safe)

    assert sent(retry, failed(UNAVAILABLE), kind=Kind.UNARY_STREAM) == attempts
    assert sent(retry, failed(UNAVAILABLE), kind=Kind.UNARY_UNARY) == (
        2 if safe is True else 1 + (safe is BY_CONVENTION)
    )


@pytest.mark.parametrize(("safe", "attempts"), [(True, 2), (False, 1), (None, 1), (BY_CONVENTION, 1)])
def test_what_took_too_long_may_have_been_executed(safe: Any, attempts: int) -> None:
    """So the call has to be safe."""
    assert sent(Retry(2, per_attempt=2, safe=safe), Act(hang=True)) == attempts


# --- what is certain ----------------------------------------------------------------------------------------------------


def refusing_once(after: bool = False) -> Interceptor:
    """An interceptor that refuses the first call, or the answer to it."""
    refusals = [errors.Unavailable("the circuit breaker is open", local=True)]

    def refuse(call: Call) -> Flow:
        if refusals and not after:
            raise refusals.pop()
        yield call
        if refusals:
            raise refusals.pop()

    return refuse


@SAFE
def test_what_never_left_is_sent_again(safe: Any, place: Place) -> None:
    """An interceptor further in refused it: certain on both sides."""
    with place.open(Retry(2, safe=safe, backoff=at_once), refusing_once()) as rpc:
        reply = rpc.call(*requests(place))

    assert reply.ok
    assert len(rpc.attempts) == 1


@pytest.mark.parametrize("side", Side)
def test_what_was_refused_behind_the_deed_is_not(side: Side) -> None:
    """An interceptor that refuses an answer refuses locally as well; but the call was executed."""
    played = testing.play(chain(Retry(), refusing_once(after=True)), [ok()], side=side)

    assert played.outcome.details == "the circuit breaker is open"
    assert len(played.sent) == 1


def test_what_a_flow_further_in_sent_before_counts() -> None:
    """Its last call was refused and its first was not: the server may have executed that one."""
    breaker, asked = errors.Unavailable("the circuit breaker is open", local=True), list[Call]()

    def open_at_second(call: Call) -> Flow:
        asked.append(call)
        if len(asked) > 1:
            raise breaker
        yield call

    played = testing.play(
        chain(Retry(backoff=at_once), retrying(2, backoff=at_once), open_at_second), [failed(UNAVAILABLE)]
    )

    assert (len(asked), len(played.sent), played.outcome.attempts) == (2, 1, 1)


def test_an_error_of_another_call_is_no_refusal() -> None:
    """A flow that answers by a call of its own, to another server, passes on what that one failed with."""
    other = errors.native_class(errors.Unavailable, grpc.aio.AioRpcError)("the circuit breaker is open", local=True)

    def forward(call: Call) -> Flow:
        raise other
        yield call

    played = testing.play(chain(Retry(), forward), [])

    assert notes(played.outcome) == [f"Retry: attempt 1 was the last: {UNSAFE}"]


@SAFE
@pytest.mark.parametrize("code", [UNAVAILABLE, EXHAUSTED])
def test_a_guard_on_the_server_says_that_it_refused(safe: Any, code: grpc.StatusCode) -> None:
    """By a word in its trailing metadata that names the method, beside the pause it asks for."""
    retry = Retry(2, codes={UNAVAILABLE, EXHAUSTED}, safe=safe)
    played = testing.play(retry, [failed(code, trailing=[WORD], pushback=0.5), ok()])

    assert [attempt.at for attempt in played.sent] == [0, 0.5]


@pytest.mark.parametrize(
    "words",
    [
        [("interpose-not-executed", "/pay.v1.Cards/Charge")],  # what a handler's dependency said
        [WORD, ("interpose-not-executed", "/pay.v1.Cards/Charge")],
        [MAY_HAVE_RUN],
        [WORD, MAY_HAVE_RUN],
        [("interpose-not-executed", "")],
        [("interpose-not-executed-bin", METHOD.encode())],
    ],
)
def test_the_word_about_another_call_proves_nothing(words: Any) -> None:
    """A handler passes its dependency's error on, trailing metadata and all."""
    assert sent(Retry(2), failed(UNAVAILABLE, trailing=words)) == 1


def test_on_a_server_no_word_tells_that_the_handler_did_not_run() -> None:
    """It did: what it says is what another server has said of the same method."""
    assert sent(Retry(2), failed(UNAVAILABLE, trailing=[WORD]), side=Side.SERVER) == 1


def test_a_word_counts_for_one_attempt() -> None:
    """An interceptor further in sent the call twice, and only the second was refused."""

    def twice(call: Call) -> Flow:
        yield call
        yield call

    played = testing.play(chain(Retry(), twice), [failed(UNAVAILABLE), failed(UNAVAILABLE, trailing=[WORD])])

    assert len(played.sent) == 2


@pytest.mark.parametrize(
    ("details", "again"),
    [
        ("Stream removed (GOAWAY received; Error code: 0; Debug Text: )", True),
        ("GOAWAY received; Error code: 0; Debug Text: ", True),
        ("Stream removed (RST_STREAM (Received RST_STREAM with error code 7))", False),
        ("Received RST_STREAM with error code 7", False),
        ("Getting metadata from plugin failed with error: no token", True),
        ("Illegal metadata", True),
        ("Stream removed (Socket closed (GOAWAY received; Error code: 0; Debug Text: ))", False),
        ("Stream removed (Transport closed (Socket closed (GOAWAY received; Error code: 0; Debug Text: )))", False),
        ("Stream removed (Socket closed)", False),
        ("Socket closed", False),
        ("Received RST_STREAM with error code 77", False),
        ("Stream removed (RST_STREAM (Received RST_STREAM with error code 2))", False),
        ("my backend said: GOAWAY received;", False),
        ("Cancelling all calls", False),
        ("Received http2 header with status: 503", False),
        ("upstream request timeout", False),
        ("upstream connect error or disconnect/reset before headers. reset reason: connection termination", False),
        ("failed to connect to all addresses; last error: …", False),  # no channel here that could not connect
        ("errors resolving pay:443: …", False),
        ("", False),
    ],
)
@SAFE
def test_what_the_transport_says(details: str, again: bool, safe: Any) -> None:
    """Where the server did not look at the stream the call is sent again, else not."""
    assert sent(Retry(2, safe=safe), failed(UNAVAILABLE, details)) == 1 + again


@pytest.mark.parametrize(
    "more",
    [
        {"initial": [("x-node", "7")]},
        {"trailing": [("server", "envoy")]},
    ],
    ids=["initial", "trailing"],
)
def test_what_comes_with_metadata_was_sent_by_a_server(more: Any) -> None:
    """The transport has none, so this is a text that a server passes on."""
    assert sent(Retry(2), failed(UNAVAILABLE, "GOAWAY received; Error code: 0", **more)) == 1


@pytest.mark.parametrize(("peer", "attempts"), [("", 2), ("ipv4:127.0.0.1:50051", 1), ("unix:", 1)])
def test_where_the_core_names_the_peer_a_server_sent_it(peer: str, attempts: int) -> None:
    """As up to grpcio 1.78."""
    details = "GOAWAY received; Error code: 0"
    debug = f'UNKNOWN:Error received from peer {peer} {{grpc_message:"{details}", grpc_status:14}}'
    told = Outcome(UNAVAILABLE, None, details, errors.Unavailable(details, debug_error_string=debug), replayable=True)

    assert len(play(Retry(2), outgoing(), *[told, Outcome()][:attempts])[0]) == attempts


# --- by convention ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("act", "attempts"),
    [
        (failed(UNAVAILABLE), 2),
        (failed(UNAVAILABLE, "Received http2 header with status: 503"), 1),
        (failed(UNAVAILABLE, "Received RST_STREAM with error code 7"), 2),
        (failed(UNAVAILABLE, initial=[("x-node", "7")]), 1),
        (failed(UNAVAILABLE, "Socket closed"), 1),
        (failed(UNAVAILABLE, "Stream removed (Socket closed (GOAWAY received; …))"), 1),
        (failed(UNAVAILABLE, "Cancelling all calls"), 1),
        (failed(UNAVAILABLE, trailing=[MAY_HAVE_RUN]), 1),
        (failed(UNAVAILABLE, trailing=[WORD]), 2),
        (failed(INTERNAL), 1),
    ],
)
def test_a_convention_may_be_trusted(act: Act, attempts: int) -> None:
    """UNAVAILABLE without metadata in front of it is "not executed", where nothing speaks against it."""
    assert sent(Retry(2, codes={UNAVAILABLE, INTERNAL}, safe=BY_CONVENTION), act) == attempts


def test_the_convention_does_not_ask_the_proto_less(generated: Generated) -> None:
    """What is declared is safe on all codes all the same."""
    generated("idempotency_pb2")
    retry = Retry(codes={INTERNAL}, safe=BY_CONVENTION)

    assert sent(retry, failed(INTERNAL), method="/interpose.tests.idempotency.Ledger/Put") == 2


# --- a response without a status ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("details", ["Stream removed", "Stream removed (Data frame with END_STREAM flag received)"])
@pytest.mark.parametrize(("code", "attempts"), [(UNAVAILABLE, 2), (grpc.StatusCode.UNKNOWN, 2), (INTERNAL, 1)])
def test_a_proxy_that_answered_counts_by_either_code(code: Any, attempts: int, details: str) -> None:
    """By UNAVAILABLE, which its HTTP status would have been, and by UNKNOWN, which the caller sees and may have listed."""
    retry = Retry(2, codes={code}, safe=True)

    assert sent(retry, failed(grpc.StatusCode.UNKNOWN, details)) == attempts


# --- sizes --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "details",
    [
        "CLIENT: Sent message larger than max (60 vs. 50)",
        "SERVER: Received message larger than max (160 vs. 100)",
        "Stream removed (CLIENT: Received message larger than max (1000 vs. 200))",
    ],
)
def test_what_is_too_large_never_passes(details: str) -> None:
    """It is RESOURCE_EXHAUSTED, and will be so for ever: not retried, and no token is taken, though the code is listed."""
    retry = retrying(codes={EXHAUSTED})

    assert sent(retry, failed(EXHAUSTED, details)) == 1
    assert sent(retry, failed(EXHAUSTED, "too many calls")) == 2


# --- what is said of it -------------------------------------------------------------------------------------------------


def test_it_is_said_once_per_method(caplog: pytest.LogCaptureFixture) -> None:
    """At INFO, with the remedy; and in a note of each error."""
    retry = Retry()
    with caplog.at_level(logging.INFO, "interpose"):
        played = [testing.play(retry, [failed(UNAVAILABLE)], method=f"/pay.v1.Cards/{name}") for name in "ABA"]

    assert [(record.levelname, record.args) for record in caplog.records] == [
        ("INFO", (played[number].sent[0].call.method, "UNAVAILABLE", UNSAFE)) for number in (0, 1)
    ]
    assert caplog.messages[0].startswith(
        "Retry does not send /pay.v1.Cards/A again, which ended with UNAVAILABLE: it may "
    )
    assert "write Retry(safe=True) for it" in caplog.messages[0]
    assert [notes(each.outcome) for each in played] == [[f"Retry: attempt 1 was the last: {UNSAFE}"]] * 3


@pytest.mark.parametrize(
    ("retry", "act", "given"),
    [
        (Retry(), failed(grpc.StatusCode.NOT_FOUND), {}),
        (Retry(), failed(UNAVAILABLE, pushback="-1"), {}),
        (Retry(backoff=lambda _: 9.0), failed(UNAVAILABLE), {"timeout": 5}),
        (Retry(1), failed(UNAVAILABLE), {}),
        (retrying(1), failed(UNAVAILABLE), {}),
        (Retry(), failed(UNAVAILABLE, after=1), {"kind": Kind.UNARY_STREAM}),
    ],
)
def test_it_is_said_where_safety_alone_was_in_the_way(
    retry: Retry, act: Act, given: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Not where the call would not have been sent again in any case."""
    with caplog.at_level(logging.INFO, "interpose"):
        assert sent(retry, act, **given) == 1

    assert not caplog.records


def test_it_is_said_of_so_many_methods(caplog: pytest.LogCaptureFixture) -> None:
    """What a proxy passes on may have any name."""
    retry = Retry()
    with caplog.at_level(logging.INFO, "interpose"):
        for number in range(MAX_METHODS + 10):
            testing.play(retry, [failed(UNAVAILABLE)], method=f"/proxied.S/M{number}")

    assert len(caplog.records) == MAX_METHODS
