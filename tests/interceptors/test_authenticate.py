"""Authenticate: no handler runs for a caller that is not known."""

import asyncio
import logging
import threading
from collections.abc import Generator, Iterator
from concurrent.futures import Future
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interpose import Call, Flow, Kind, Method, Side, chain, context, describe, errors, wait
from interpose.interceptors import (
    HEALTH_AND_REFLECTION,
    Authenticate,
    Credentials,
    Identity,
    StaticTokens,
    UnauthenticatedDetails,
)
from interpose.interceptors.authenticate import REFUSAL
from interpose.testing import Place, Stub, failed, ok, play
from tests.facts.serving import KINDS, serving
from tests.interceptors.driving import is_server, requests
from tests.interceptors.identities import known, served_by
from tests.support.patience import PATIENCE

UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
SORTS = ["sync", "plain", "async"]
SECRET = "tok-0123456789.secret"
OTHER = "tok-other"
TOKENS = StaticTokens({SECRET: "ann", OTHER: Identity("bob", frozenset({"read"}))})


def bearer(token: str = SECRET) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


def outcome_of(authenticate: Authenticate, metadata: Any = None, **options: Any) -> Any:
    """How an incoming call ends."""
    options = {"side": Side.SERVER, "method": "/shop.v1.Orders/Place", **options}
    shown = bearer() if metadata is None else metadata
    return play(authenticate, [ok(), ...], metadata=shown, **options).outcome


def refusal_of(authenticate: Authenticate, metadata: Any = (), **options: Any) -> Any:
    """The outcome of a call that never reaches the handler."""
    options = {"side": Side.SERVER, "method": "/shop.v1.Orders/Place", **options}
    outcome = play(authenticate, [], metadata=metadata, **options).outcome
    assert (outcome.code, outcome.details) == (UNAUTHENTICATED, REFUSAL)
    return outcome


# --- on servers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sort", SORTS)
def test_a_handler_knows_who_calls(sort: str) -> None:
    """In every kind of RPC; and a stranger's call does not reach it, nor does the next one see the last one's caller."""
    with serving(sort, known(sort), Authenticate(TOKENS)) as client:
        for kind in KINDS:
            ann = client.call(kind=kind, metadata=bearer())
            other = client.call(kind=kind, metadata=bearer(OTHER))
            stranger = client.call(kind=kind)

            assert set(ann.messages) == {"ann"}
            assert set(other.messages) == {"bob"}
            assert (stranger.code, stranger.details, stranger.messages) == (UNAUTHENTICATED, REFUSAL, [])


@pytest.mark.parametrize("sort", SORTS)
def test_a_refusal_waits_for_no_message(sort: str) -> None:
    """A client that opens request streams and sends nothing is refused at once, and holds no thread: one has to do."""
    silent = threading.Event()

    def nothing() -> Iterator[str]:
        silent.wait(10)
        yield from ()

    with serving(sort, known(sort), Authenticate(TOKENS), workers=1) as client:
        for kind in ("stream_unary", "stream_stream"):
            for _ in range(3):
                assert client.call(kind=kind, stream=nothing()).code is UNAUTHENTICATED
        assert client.call(metadata=bearer()).messages == ["ann"]
        silent.set()


@pytest.mark.parametrize("sort", SORTS)
def test_public_methods_are_open_to_all(sort: str) -> None:
    """Without an identity, also for a caller that shows one; and those beside them are not."""
    public = "/facts.Server/unary_{unary,stream}"

    with serving(sort, known(sort), Authenticate(TOKENS, public=public)) as client:
        assert client.call(metadata=bearer()).messages == ["nobody"]
        assert client.call(kind="stream_unary").code is UNAUTHENTICATED


def test_an_identity_from_elsewhere_is_forgotten() -> None:
    """Whatever the context says before the call was looked at: of a public method nobody is the caller."""
    seen: list[Identity | None] = []

    def note(call: Call) -> Flow:
        seen.append(context.identity())
        yield call

    health = "/grpc.health.v1.Health/Check"
    assert served_by(chain(Authenticate(TOKENS), note), identity=Identity("ann"), method=health).ok
    assert seen == [None]


def test_it_stands_on_servers_only(place: Place) -> None:
    """For a channel no call is made, not even by a chain inside of a flow, and the error says what to use."""
    if not is_server(place):
        outcome = play(Authenticate(TOKENS), [], kind=place.kind).outcome
        assert (outcome.code, outcome.details) == (grpc.StatusCode.INTERNAL, Authenticate.belongs.text)
        return

    with place.open(Authenticate(TOKENS)) as rpc:
        assert rpc.call(*requests(place), metadata=bearer()).ok


# --- tokens -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_scheme_is_blind_to_case(scheme: str) -> None:
    """RFC 7235, 2.1."""
    assert outcome_of(Authenticate(TOKENS), [("authorization", f"{scheme} {SECRET}")]).ok


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ([], "no credentials that a verifier knows"),
        ([("authorization", f"Basic {SECRET}")], 'a verifier knows: authorization is not of the form "Bearer …"'),
        ([("authorization", SECRET)], 'a verifier knows: authorization is not of the form "Bearer …"'),
        ([("authorization", "Bearer")], "a token with characters that no token has"),
        ([("authorization", f"Bearer  {SECRET}")], "a token with characters that no token has"),
        ([("authorization", f"Bearer {SECRET} more")], "a token with characters that no token has"),
        ([("authorization", f"Bearer {SECRET}\n")], "a token with characters that no token has"),
        ([("authorization", "Bearer nope")], "an unknown token"),
        ([("authorization", f"Bearer {SECRET}x")], "an unknown token"),
        ([*bearer(), *bearer()], "2 values of authorization, and one is allowed"),
        ([("authorization", "Bearer " + "x" * 8193)], "a token of 8193 characters, and 8192 are allowed"),
    ],
)
def test_what_is_no_good_token_is_refused(
    metadata: list[tuple[str, str]], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With the same words for all; the log has the reason, and no token."""
    with caplog.at_level(logging.INFO, "interpose"):
        refusal_of(Authenticate(TOKENS), metadata)

    (record,) = caplog.records
    assert record.getMessage().endswith(reason)
    assert record.levelno == logging.INFO
    assert "/shop.v1.Orders/Place" in record.getMessage()
    assert SECRET not in caplog.text


@given(st.text(max_size=40))
def test_no_authorization_is_taken_for_another(text: str) -> None:
    """Whatever it says: the handler runs only if it is the one token."""
    refusal_of(Authenticate(TOKENS), [("authorization", text)])


def test_longer_tokens_may_be_allowed() -> None:
    """The limit is yours."""
    long = "x" * 10_000
    tokens = StaticTokens({long: "ann"})

    assert outcome_of(Authenticate(tokens, max_token=10_000), bearer(long)).ok
    refusal_of(Authenticate(tokens, max_token=9_999), bearer(long))


# --- verifiers --------------------------------------------------------------------------------------------------------


def test_any_function_may_verify() -> None:
    """It may give an identity, a subject, or None; and see all that the caller shows."""
    seen: list[Credentials] = []

    def verify(credentials: Credentials) -> str | None:
        seen.append(credentials)
        return "ann" if credentials.metadata.get("x-key") == "k" else None

    assert outcome_of(Authenticate(verify), [("x-key", "k")], peer="ipv4:10.0.0.1:5").ok
    refusal_of(Authenticate(verify), [("x-key", "other")])

    assert seen[0].token is None
    assert seen[0].peer == "ipv4:10.0.0.1:5"
    assert str(seen[0].method) == "/shop.v1.Orders/Place"
    assert seen[0].auth_context == {}
    assert "k" not in repr(seen[0]).partition("for")[0]


def test_several_are_asked_in_order() -> None:
    """The first that gives an identity decides; a refusal lets the next one try."""
    asked: list[str] = []

    def first(credentials: Credentials) -> str | None:
        asked.append("first")
        if credentials.token == OTHER:
            raise errors.Unauthenticated("not mine")
        return None

    def second(credentials: Credentials) -> str | None:
        asked.append("second")
        return "ann" if credentials.token else None

    authenticate = Authenticate(first, second)
    assert outcome_of(authenticate).ok
    assert outcome_of(authenticate, bearer(OTHER)).ok
    refusal_of(authenticate)

    assert asked == ["first", "second"] * 3


def test_the_reasons_of_all_are_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Each with the name of its verifier."""

    def not_today(credentials: Credentials) -> None:
        raise errors.Unauthenticated("not today")

    with caplog.at_level(logging.INFO, "interpose"):
        refusal_of(Authenticate(TOKENS, not_today), bearer("nope"))

    assert "StaticTokens: an unknown token; " in caplog.text
    assert "not_today: not today" in caplog.text


@pytest.mark.parametrize(
    "error",
    [KeyError(SECRET), errors.Unavailable(SECRET), errors.Internal(SECRET), SystemExit(SECRET), RecursionError(SECRET)],
    ids=lambda error: type(error).__name__,
)
def test_a_verifier_that_fails_denies(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    """At once, whatever the next one would say; the log says where it failed, and not what with: that may be the token."""

    def broken(credentials: Credentials) -> str:
        raise error

    authenticate = Authenticate(broken, TOKENS)
    with caplog.at_level(logging.INFO, "interpose"):
        refusal_of(authenticate, bearer())

    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert f"broken raised {type(error).__name__}" in caplog.text
    assert "in broken" in caplog.text
    assert SECRET not in caplog.text
    assert authenticate.snapshot().faults == 1
    assert authenticate.snapshot().refused == 0


@pytest.mark.parametrize("code", [UNAUTHENTICATED, grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED])
def test_a_call_of_its_own_that_fails_is_a_fault(code: grpc.StatusCode, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever with: it says nothing of the caller, and is no reason to ask the next verifier."""
    with Place(False, Side.CLIENT, Kind.UNARY_UNARY).open(script=[failed(code, SECRET)]) as rpc:

        def introspected(credentials: Credentials) -> str:
            return str(Stub(rpc.channel).unary_unary("a", timeout=PATIENCE))

        authenticate = Authenticate(introspected, TOKENS)
        refusal_of(authenticate, bearer())

    assert (authenticate.snapshot().faults, authenticate.snapshot().refused) == (1, 0)
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    "found", [True, 1, b"ann", object(), "", ["ann"]], ids=["True", "1", "bytes", "object", "empty", "list"]
)
def test_what_is_no_identity_denies(found: Any) -> None:
    """A verifier that gives something else is at fault."""
    authenticate = Authenticate(lambda credentials: found)

    refusal_of(authenticate)

    assert authenticate.snapshot().faults == 1


def test_ctrl_c_stays_ctrl_c() -> None:
    """It is no answer about a caller."""

    def interrupted(credentials: Credentials) -> str:
        raise KeyboardInterrupt

    authenticate = Authenticate(interrupted)
    assert play(authenticate, [], side=Side.SERVER).outcome.code is grpc.StatusCode.INTERNAL
    assert authenticate.snapshot().faults == 0


async def accept(credentials: Credentials) -> str:
    await asyncio.sleep(0)
    return "ann"


@pytest.mark.parametrize("sort", ["plain", "async"])
def test_an_async_verifier_is_awaited(sort: str) -> None:
    """On asyncio servers, for plain handlers as well."""
    with serving(sort, known(sort), Authenticate(accept)) as client:
        assert [set(client.call(kind=kind).messages) for kind in KINDS] == [{"ann"}] * 4


def test_an_async_verifier_on_a_sync_server_lets_nobody_in(caplog: pytest.LogCaptureFixture) -> None:
    """And the log says what to write instead; also if nothing shows that it is async until it is asked."""
    hidden = Authenticate(lambda credentials: accept(credentials))

    with serving("sync", known("sync"), Authenticate(accept)) as client:
        assert client.call(metadata=bearer()).code is grpc.StatusCode.INTERNAL
    with serving("sync", known("sync"), hidden) as client:
        assert client.call(metadata=bearer()).code is UNAUTHENTICATED

    assert "accept is async, and this is the sync side: give a plain function" in caplog.text
    assert "<lambda> is async, and this is the sync side: give a plain function" in caplog.text
    assert hidden.snapshot().faults == 1


def test_a_server_that_is_wrapped_refuses_an_async_verifier() -> None:
    """Before anybody calls it."""
    with (
        pytest.raises(TypeError, match="Authenticate cannot run here: accept is async, and this is the sync side"),
        serving("sync", {}, around=[Authenticate(TOKENS, accept)]),
    ):
        pass


@pytest.mark.parametrize("sort", SORTS)
def test_a_verifier_may_wait_on_both_stacks(sort: str) -> None:
    """As a generator, for a Future that another thread sets."""

    def looked_up(credentials: Credentials) -> Generator[Any, Any, str | None]:
        answer: Future[str | None] = Future()
        threading.Timer(0.001, answer.set_result, ["ann" if credentials.token else None]).start()
        return (yield from wait(answer))

    with serving(sort, known(sort), Authenticate(looked_up)) as client:
        assert client.call(metadata=bearer()).messages == ["ann"]
        assert client.call().code is UNAUTHENTICATED


@pytest.mark.parametrize("timeout", [None, 0.05])
@pytest.mark.parametrize(("sort", "later"), [("sync", False), ("plain", False), ("plain", True), ("async", True)])
def test_a_client_that_goes_while_it_waits_is_no_fault(
    sort: str, later: bool, timeout: float | None, caplog: pytest.LogCaptureFixture
) -> None:
    """It cancels, or its time is up. Nothing is counted or logged as an error; the thread that waited is free."""
    asked = threading.Event()
    never: Future[str] = Future()

    def waiting(credentials: Credentials) -> Generator[Any, Any, str]:
        asked.set()
        return (yield from wait(never))

    async def waiting_long(credentials: Credentials) -> str:
        asked.set()
        return await asyncio.get_running_loop().create_future()

    authenticate = Authenticate(waiting_long if later else waiting)
    with serving(sort, known(sort), authenticate) as client:
        call = client.start(kind="unary_unary", timeout=timeout)
        assert asked.wait(10)
        if timeout is None:
            call.cancel()

    assert authenticate.snapshot().faults == 0
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


# --- what can be seen of it -------------------------------------------------------------------------------------------


def test_a_refusal_says_that_nothing_was_executed() -> None:
    """So a client may send the call again with another token, whatever it does."""
    outcome = refusal_of(Authenticate(TOKENS))

    assert outcome.trailing_metadata["interpose-not-executed"] == "/shop.v1.Orders/Place"
    assert outcome.local


def test_counts_and_hook() -> None:
    """Accepted, public, refused and faults apart; the hook is told of the last two."""
    told: list[UnauthenticatedDetails] = []

    def verify(credentials: Credentials) -> str | None:
        return {"a": "ann"}[credentials.token] if credentials.token else None

    authenticate = Authenticate(verify, on_refuse=told.append)
    outcome_of(authenticate, bearer("a"))
    outcome_of(authenticate, method="/grpc.health.v1.Health/Check")
    refusal_of(authenticate)
    refusal_of(authenticate, bearer("b"))

    state = authenticate.snapshot()
    assert (state.accepted, state.public, state.refused, state.faults) == (1, 1, 1, 1)
    assert [(details.fault, details.method) for details in told] == [
        (False, "/shop.v1.Orders/Place"),
        (True, "/shop.v1.Orders/Place"),
    ]


def test_a_hook_that_fails_lets_nobody_in(caplog: pytest.LogCaptureFixture) -> None:
    """The call is refused all the same."""
    refusal_of(Authenticate(TOKENS, on_refuse=lambda details: 1 / 0))

    assert "ZeroDivisionError" in caplog.text


def test_a_strangers_text_keeps_to_its_line(caplog: pytest.LogCaptureFixture) -> None:
    """What comes from a caller is escaped and cut."""

    def verify(credentials: Credentials) -> None:
        raise errors.Unauthenticated("kid 'a\nFAKE LINE" + "x" * 1000)

    with caplog.at_level(logging.INFO, "interpose"):
        refusal_of(Authenticate(verify))

    assert "\nFAKE" not in caplog.text
    assert len(caplog.records[0].getMessage()) < 500


def test_describe_says_what_is_public() -> None:
    """The default set by its names, and for one method whether it is."""
    authenticate = Authenticate(TOKENS)

    told = describe(authenticate, method="/shop.v1.Orders/Place")
    health = describe(authenticate, method="/grpc.health.v1.Health/Check")

    assert all(pattern in told for pattern in HEALTH_AND_REFLECTION)
    assert "Refuse calls of unknown callers. Public: " in told
    assert "Let anybody call this method. Public: " in health
    assert "Public: nothing." in describe(Authenticate(TOKENS, public=()))
    assert SECRET not in repr(authenticate)


def test_many_methods_are_not_remembered() -> None:
    """A generic handler may answer to any name; the right answer is given all the same."""
    authenticate = Authenticate(TOKENS, public="/open.*/*")
    for number in range(4100):
        authenticate._public.get(Method(f"/shop.S/M{number}", Kind.UNARY_UNARY))

    assert len(authenticate._public._known) == 4096
    assert outcome_of(authenticate, (), method="/open.S/M").ok
    refusal_of(authenticate, method="/shop.S/Other")


# --- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verifiers", "options", "complaint"),
    [
        ((), {}, "give at least one verifier"),
        (("token",), {}, r"a verifier must be a function of Credentials, not a str: write StaticTokens\(\{…\}\)$"),
        ((StaticTokens,), {}, "StaticTokens is a class: give an instance"),
        ((TOKENS,), {"public": "/shop.v1.Orders"}, "public '/shop.v1.Orders' names no method: write"),
        ((TOKENS,), {"public": [1]}, "public 1 is no text"),
        ((TOKENS,), {"public": None}, "public None is no text"),
        ((TOKENS,), {"max_token": 0}, "max_token must be a whole number from 1"),
        ((TOKENS,), {"on_refuse": "log"}, "on_refuse must be a function of UnauthenticatedDetails, not 'log'"),
        ((), {"max_token": -1, "public": "no method"}, "give .*; public .*; max_token "),
    ],
)
def test_options_that_make_no_sense_are_refused(
    verifiers: tuple[Any, ...], options: dict[str, Any], complaint: str
) -> None:
    """Every fault, with what to write instead."""
    with pytest.raises(ValueError, match=f"^Authenticate: {complaint}"):
        Authenticate(*verifiers, **options)
