"""Authorize: no handler runs for a caller that may not call it."""

import asyncio
import logging
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interpose import Call, Kind, Side, describe, errors
from interpose.interceptors import (
    Authenticate,
    Authorize,
    DeniedDetails,
    Identity,
    StaticTokens,
    anyone,
    require,
)
from interpose.interceptors.authorize import REFUSAL
from interpose.testing import PLACES, Place, Stub, failed, incoming, play
from tests.facts.serving import KINDS, serving
from tests.interceptors.driving import requests
from tests.interceptors.identities import known, served_by
from tests.support.patience import PATIENCE

DENIED = grpc.StatusCode.PERMISSION_DENIED
SORTS = ["sync", "plain", "async"]

READER = Identity("ann", frozenset({"orders.read"}))
WRITER = Identity("bob", frozenset({"orders.read", "orders.write"}))
TABLE = {
    "/shop.v1.Orders/{Get,List}*": require("orders.read"),
    "/shop.v1.Orders/*": require("orders.write"),
    "/shop.v1.Catalog/*": anyone,
}


def code_of(authorize: Authorize, identity: Identity | None, method: str = "/shop.v1.Orders/Place") -> Any:
    """How a call of this caller ends."""
    outcome = served_by(authorize, identity=identity, method=method)
    assert outcome.ok or (outcome.code, outcome.details) == (DENIED, REFUSAL)
    return outcome.code.name


# --- rules ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "reader", "writer", "stranger"),
    [
        ("/shop.v1.Orders/Get", "OK", "OK", "PERMISSION_DENIED"),
        ("/shop.v1.Orders/ListAll", "OK", "OK", "PERMISSION_DENIED"),
        ("/shop.v1.Orders/Place", "PERMISSION_DENIED", "OK", "PERMISSION_DENIED"),
        ("/shop.v1.Orders/get", "PERMISSION_DENIED", "OK", "PERMISSION_DENIED"),
        ("/shop.v1.Catalog/List", "OK", "OK", "OK"),
        ("/shop.v2.Orders/Get", "PERMISSION_DENIED", "PERMISSION_DENIED", "PERMISSION_DENIED"),
        ("/grpc.health.v1.Health/Check", "OK", "OK", "OK"),
    ],
)
def test_the_first_row_that_fits_decides(method: str, reader: str, writer: str, stranger: str) -> None:
    """What no row fits is denied to all; health and reflection need no row."""
    authorize = Authorize(TABLE)

    assert [code_of(authorize, who, method) for who in (READER, WRITER, None)] == [reader, writer, stranger]


@pytest.mark.parametrize("everything", ["*", "**", "/*", "*/*", "/*/*"])
def test_what_is_public_is_so_unless_a_row_names_it(everything: str) -> None:
    """A row for everything takes no health check away; one that names a public method is not opened by the default."""
    check, reflect = "/grpc.health.v1.Health/Check", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
    table = {"/grpc.reflection.*/*": require("orders.write"), everything: require("orders.read")}
    authorize = Authorize(table)

    assert [code_of(authorize, None, method) for method in (check, reflect)] == ["OK", "PERMISSION_DENIED"]
    assert [code_of(authorize, who, reflect) for who in (READER, WRITER)] == ["PERMISSION_DENIED", "OK"]
    assert code_of(Authorize({"/grpc.health.v1.Health/*": require(), "*": anyone}), None, check) == "PERMISSION_DENIED"
    assert code_of(Authorize({"/shop.*/*": require()}, public="/shop.v1.Orders/Place"), None) == "PERMISSION_DENIED"
    assert code_of(Authorize(require(), public="/shop.v1.Orders/Place"), None) == "OK"


def test_one_rule_for_everything() -> None:
    """Without a table."""
    assert code_of(Authorize(require("orders.write")), WRITER) == "OK"
    assert code_of(Authorize(require("orders.write")), READER) == "PERMISSION_DENIED"
    assert code_of(Authorize(require()), READER) == "OK"
    assert code_of(Authorize(require()), None) == "PERMISSION_DENIED"
    assert code_of(Authorize(anyone), None) == "OK"
    assert code_of(Authorize(lambda identity, call: anyone(identity, call)), READER) == "OK"


@given(st.sets(st.sampled_from("abcdef")), st.sets(st.sampled_from("abcdef")))
def test_all_scopes_are_required(needed: set[str], has: set[str]) -> None:
    """A caller passes if it has every one, and only then."""
    verdict = require(*needed)(Identity("ann", frozenset(has)), incoming())

    assert verdict is (needed <= has)


def test_a_function_is_told_caller_and_call() -> None:
    """It gives True or False; a caller that is not known does not come to it."""
    asked: list[tuple[str, str]] = []

    def own(identity: Identity, call: Call) -> bool:
        asked.append((identity.subject, str(call.method)))
        return identity.subject == "ann"

    authorize = Authorize(own)

    assert [code_of(authorize, who) for who in (READER, WRITER, None)] == ["OK", *["PERMISSION_DENIED"] * 2]
    assert asked == [("ann", "/shop.v1.Orders/Place"), ("bob", "/shop.v1.Orders/Place")]


@pytest.mark.parametrize("verdict", [1, "yes", None, object(), Identity("ann")], ids=lambda value: type(value).__name__)
def test_only_true_is_true(verdict: Any) -> None:
    """Another answer denies, and is a fault."""
    authorize = Authorize(lambda identity, call: verdict)

    assert code_of(authorize, READER) == "PERMISSION_DENIED"
    assert authorize.snapshot().faults == 1


@pytest.mark.parametrize("error", [KeyError("s3cret"), errors.NotFound("s3cret"), SystemExit("s3cret")], ids=repr)
def test_a_rule_that_fails_denies(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    """The log says where, and not what with."""

    def broken(identity: Identity, call: Call) -> bool:
        raise error

    authorize = Authorize(broken)

    assert code_of(authorize, READER) == "PERMISSION_DENIED"
    assert f"broken raised {type(error).__name__}" in caplog.text
    assert "s3cret" not in caplog.text
    assert authorize.snapshot().faults == 1


def test_a_call_of_its_own_that_is_denied_is_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    """It was this server that was not allowed there, and not the caller here."""
    with Place(False, Side.CLIENT, Kind.UNARY_UNARY).open(script=[failed(DENIED, "s3cret")]) as rpc:
        authorize = Authorize(lambda identity, call: Stub(rpc.channel).unary_unary("a", timeout=PATIENCE) == "a")
        assert code_of(authorize, READER) == "PERMISSION_DENIED"

    assert authorize.snapshot().faults == 1
    assert "s3cret" not in caplog.text


def test_a_rule_may_say_why(caplog: pytest.LogCaptureFixture) -> None:
    """By raising PermissionDenied; its text is for the log alone, and it is no fault."""

    def closed(identity: Identity, call: Call) -> bool:
        raise errors.PermissionDenied("after hours\nFAKE LINE")

    authorize = Authorize(closed)
    with caplog.at_level(logging.INFO, "interpose"):
        assert code_of(authorize, READER) == "PERMISSION_DENIED"

    assert "closed: after hours" in caplog.text
    assert "\nFAKE" not in caplog.text
    assert authorize.snapshot().denied == 1


def test_ctrl_c_stays_ctrl_c() -> None:
    """It is no answer about a caller."""

    def interrupted(identity: Identity, call: Call) -> bool:
        raise KeyboardInterrupt

    outcome = served_by(Authorize(interrupted), identity=READER, refused=True)

    assert outcome.code is grpc.StatusCode.INTERNAL


# --- on servers -------------------------------------------------------------------------------------------------------


async def writers(identity: Identity, call: Call) -> bool:
    await asyncio.sleep(0)
    return "orders.write" in identity.scopes


@pytest.mark.parametrize("sort", SORTS)
def test_it_stands_behind_authenticate(sort: str) -> None:
    """In every kind of RPC, before a message of a request stream is read, and an async rule is awaited."""
    stack = [
        Authenticate(StaticTokens({"r": READER, "w": WRITER})),
        Authorize({"/facts.*/*": require("orders.write") if sort == "sync" else writers}),
    ]
    silent = threading.Event()

    def nothing() -> Iterator[str]:
        silent.wait(10)
        yield from ()

    with serving(sort, known(sort), *stack, workers=1) as client:
        for kind in KINDS:
            stream = nothing() if kind.startswith("stream") else None
            denied = client.call(kind=kind, metadata=(("authorization", "Bearer r"),), stream=stream)
            assert (denied.code, denied.details) == (DENIED, REFUSAL)
        assert {client.call(kind=kind, metadata=(("authorization", "Bearer w"),)).messages[0] for kind in KINDS} == {
            "bob"
        }
        silent.set()


def test_without_authenticate_all_is_denied(caplog: pytest.LogCaptureFixture) -> None:
    """The log says what is missing."""
    with caplog.at_level(logging.INFO, "interpose"), serving("sync", known("sync"), Authorize(require())) as client:
        assert client.call().code is DENIED

    assert "the caller is not known; is Authenticate outside of Authorize?" in caplog.text


def test_an_async_rule_on_a_sync_server(caplog: pytest.LogCaptureFixture) -> None:
    """A server that is wrapped refuses it when it is made; any other lets nobody in."""
    hidden = Authorize(lambda identity, call: writers(identity, call))

    assert code_of_sync(Authorize({"/facts.*/*": writers})) is grpc.StatusCode.INTERNAL
    assert code_of_sync(hidden) is DENIED
    assert "is async, and this is the sync side: give a plain function" in caplog.text
    with pytest.raises(TypeError, match=r"Authorize cannot run here: the rule of '/facts.\*/\*' is async"):
        serving("sync", {}, around=[Authorize({"/facts.*/*": writers})]).__enter__()


def code_of_sync(authorize: Authorize) -> grpc.StatusCode:
    stack = [Authenticate(StaticTokens({"w": WRITER})), authorize]
    with serving("sync", known("sync"), *stack) as client:
        return client.call(metadata=(("authorization", "Bearer w"),)).code


def test_it_stands_on_servers_only() -> None:
    """On a channel no call is sent."""
    played = play(Authorize(anyone), [])

    assert played.outcome.code is grpc.StatusCode.INTERNAL
    assert "Authorize belongs on a server" in played.outcome.details


# --- what can be seen of it -------------------------------------------------------------------------------------------


def test_a_denial_says_that_nothing_was_executed() -> None:
    """So a client knows that its call did nothing."""
    outcome = served_by(Authorize(TABLE), identity=READER, refused=True)

    assert outcome.trailing_metadata["interpose-not-executed"] == "/shop.v1.Orders/Place"
    assert outcome.local


def test_counts_and_hook(caplog: pytest.LogCaptureFixture) -> None:
    """Allowed, denied and faults apart; the hook is told of the last two, and its own failure changes nothing."""
    told: list[DeniedDetails] = []
    authorize = Authorize({**TABLE, "/a.B/*": lambda identity, call: 1 / 0}, on_deny=told.append)

    code_of(authorize, WRITER)
    code_of(authorize, READER)
    code_of(authorize, None)
    code_of(authorize, READER, "/a.B/C")

    state = authorize.snapshot()
    assert (state.allowed, state.denied, state.faults) == (1, 2, 1)
    assert [(details.subject, details.fault) for details in told] == [("ann", False), (None, False), ("ann", True)]
    assert "does not allow it" in told[0].reason
    assert code_of(Authorize(TABLE, on_deny=lambda details: 1 / 0), READER) == "PERMISSION_DENIED"


def test_describe_says_what_a_method_needs() -> None:
    """The rule of one method, or the whole table."""
    authorize = Authorize(TABLE)

    assert "This method: require('orders.write')." in describe(authorize, method="/shop.v1.Orders/Place")
    assert "Deny this method to everybody: no row of the policy fits it." in describe(authorize, method="/a.B/C")
    assert "/shop.v1.Catalog/*: anyone" in describe(authorize)


# --- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "options", "complaint"),
    [
        ({}, {}, "policy must have at least one row"),
        ({"/a.B": require("c")}, {}, "the row '/a.B' names no method: write"),
        ({1: require("c")}, {}, "the row 1 is no text"),
        ({"/a.B/*": "c"}, {}, r"the rule of '/a.B/\*' must be a rule: write require\('c'\), not 'c'"),
        ({"/a.B/*": ["c"]}, {}, r"the rule of '/a.B/\*' must be require\(…\), anyone or a function"),
        ({"/a.B/*": require}, {}, r"the rule of '/a.B/\*' must be require\(…\), anyone or a function"),
        ("orders.read", {}, r"policy must be a rule: write require\('orders.read'\)"),
        (None, {}, r"policy must be require\(…\), anyone or a function"),
        (Identity, {}, r"policy must be require\(…\), anyone or a function"),
        (anyone, {"public": "x"}, "public 'x' names no method"),
        (anyone, {"on_deny": 1}, "on_deny must be a function of DeniedDetails, not 1"),
        ({"/a.B": 1}, {"on_deny": 1}, "the row .*; the rule .*; on_deny "),
    ],
)
def test_options_that_make_no_sense_are_refused(policy: Any, options: dict[str, Any], complaint: str) -> None:
    """Every fault, with what to write instead."""
    with pytest.raises(ValueError, match=f"^Authorize: {complaint}"):
        Authorize(policy, **options)


@pytest.mark.parametrize("scope", [1, None, "", "two words", b"read", ["read"], "a\nb", 'qu"ote', "é"], ids=repr)
def test_a_scope_that_is_none_is_refused(scope: Any) -> None:
    """In a rule, and in an identity."""
    with pytest.raises(ValueError, match=r"^require: a scope must be a text without spaces, like 'orders.read', not"):
        require("fine", scope)
    with pytest.raises(ValueError, match=r"^a scope must be a text without spaces"):
        Identity("ann", [scope])  # type: ignore[arg-type]  # what the test is about


@pytest.mark.parametrize("place", [place for place in PLACES if place.side is Side.SERVER], ids=str)
def test_a_refused_place_is_every_place(place: Place) -> None:
    """On every server the call is denied before its handler."""
    with place.open(Authorize(require())) as rpc:
        assert not rpc.call(*requests(place)).ok
        assert not rpc.attempts
