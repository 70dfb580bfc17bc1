"""The identity of a caller: in the context of handlers, in the log, and in the calls that handlers make."""

import logging
from typing import Any
from urllib.parse import unquote

import grpc
import pytest

from interpose import Call, Flow, Side, chain, context, intercept_channel
from interpose.interceptors import (
    AccessLog,
    Authenticate,
    ConcurrencyLimit,
    Identity,
    PropagateContext,
    RateLimit,
    RequestId,
    StaticTokens,
)
from interpose.interceptors.keys import by_identity
from interpose.mechanisms.concurrency import Fixed
from interpose.testing import Echo, Stub, incoming, ok, play
from tests.facts.serving import KINDS, serving
from tests.interceptors.identities import known
from tests.support.patience import PATIENCE

SECRET = "a-secret-token"
BEARER = (("authorization", f"Bearer {SECRET}"),)
SORTS = ["sync", "plain", "async"]


def authenticate(subject: str = "ann") -> Authenticate:
    return Authenticate(StaticTokens({SECRET: subject}))


# --- the log ----------------------------------------------------------------------------------------------------------


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record.__dict__)


def logging_to(kept: Kept) -> AccessLog:
    logger = logging.Logger("test.access", logging.DEBUG)  # noqa: LOG001  it must not outlive its test
    logger.addHandler(kept)
    return AccessLog(logger)


@pytest.mark.parametrize("sort", SORTS)
def test_the_log_has_the_subject(sort: str) -> None:
    """Of a known caller, and nothing else of the credentials; of a stranger there is no field."""
    kept = Kept()

    with serving(sort, known(sort), logging_to(kept), authenticate("ann\nFAKE")) as client:
        for kind in KINDS:
            client.call(kind=kind, metadata=BEARER)
            client.call(kind=kind)

    subjects = [record.get("auth.sub") for record in kept.records]
    assert sorted(map(str, subjects)) == ["None"] * 4 + [r"ann\nFAKE"] * 4
    assert SECRET not in repr(kept.records)


def test_a_clients_log_has_none() -> None:
    """Who calls this handler is not who it calls."""
    kept = Kept()

    def inside(call: Call) -> Flow:
        play(logging_to(kept), [ok()])
        yield call

    play(chain(authenticate(), inside), [ok()], side=Side.SERVER, metadata=BEARER)

    (record,) = kept.records
    assert "auth.sub" not in record


# --- outgoing calls ---------------------------------------------------------------------------------------------------


def handed_on(subject: str | None, *options: Any, **more: Any) -> Call:
    """The call that a handler makes whose caller is this one."""
    propagate = PropagateContext(("x-tenant",), **{"identity": "x-caller", **more})
    made: list[Call] = []

    def inside(call: Call) -> Flow:
        made.append(play(propagate, [ok()], metadata=options).sent[0].call)
        yield call

    stack = [propagate, *([] if subject is None else [authenticate(subject)]), inside]
    metadata = [("x-tenant", "acme"), ("x-caller", "forged"), *BEARER]
    play(chain(*stack), [ok()], side=Side.SERVER, metadata=metadata)
    return made[0]


@pytest.mark.parametrize(
    "subject", ["ann", "spiffe://example.org/ns/web", "Ännchen von Tharau", "a%b\n", "a@b.example"]
)
def test_the_subject_is_handed_on(subject: str) -> None:
    """Percent-encoded where metadata could not carry it; the token never is."""
    metadata = handed_on(subject).metadata

    (told,) = metadata.get_all("x-caller")
    assert unquote(str(told)) == subject
    assert "authorization" not in metadata
    assert SECRET not in repr(metadata)


def test_what_stood_there_is_not_believed() -> None:
    """Of a call without an identity, and of what the handler put there: the next service is told who called, or nothing."""
    assert "x-caller" not in handed_on(None, ("x-caller", "admin")).metadata
    assert handed_on("ann", ("X-Caller", "admin")).metadata.get_all("x-caller") == ["ann"]


def test_it_is_not_handed_on_unasked() -> None:
    """Without `identity=` a call has what was named, and nothing of the caller."""
    metadata = handed_on("ann", identity=None).metadata

    assert "ann" not in repr(metadata)
    assert metadata["x-tenant"] == "acme"


@pytest.mark.parametrize("sort", ["sync", "plain"])
def test_from_one_server_to_the_next(sort: str) -> None:
    """The flows of the outgoing call know who called as well; detached, they still do, and nothing is sent."""
    behind = Echo()
    seen: list[Identity | None] = []
    propagate = PropagateContext(identity="x-caller")

    def note(call: Call) -> Flow:
        seen.append(context.identity())
        yield call

    with serving("sync", {}, services=[behind.handlers(asyncio=False)]) as next_server:
        stub = Stub(intercept_channel(next_server.channel, propagate, note)).unary_unary

        def handle(request: str, native: Any) -> str:
            with context.detached():
                stub(request, timeout=PATIENCE)
            return str(stub(request, timeout=PATIENCE))

        with serving(sort, {"unary_unary": handle}, propagate, authenticate()) as client:
            assert client.call(metadata=BEARER).messages == ["a"]

    assert seen == [Identity("ann"), Identity("ann")]
    assert [attempt.values("x-caller") for attempt in behind.attempts] == [[], ["ann"]]
    assert not any(attempt.values("authorization") for attempt in behind.attempts)


@pytest.mark.parametrize(
    "identity", ["two words", "x-caller-bin", "X-CALLER-BIN", 1, "grpc-caller", "x-tenant", "X-Tenant"]
)
def test_a_key_that_is_none_is_refused(identity: Any) -> None:
    """And one that carries something else."""
    with pytest.raises(ValueError, match=r"^PropagateContext: identity must be "):
        PropagateContext(("x-tenant",), identity=identity)


# --- limits -----------------------------------------------------------------------------------------------------------


def test_limits_know_the_caller() -> None:
    """Each caller has a rate of their own, and a share of what may be in flight."""
    tokens = StaticTokens({f"token-of-{name}": name for name in ("ann", "bob")})
    at_once = ConcurrencyLimit(Fixed(9), partition=by_identity)
    seen: list[dict[str, int]] = []

    def inside(call: Call) -> Flow:
        seen.append(at_once.snapshot().partitions)
        yield call

    stack = chain(Authenticate(tokens), RateLimit("1/hour"), at_once, inside)

    def calls(name: str, port: int) -> grpc.StatusCode:
        metadata = [("authorization", f"Bearer token-of-{name}")]
        peer = f"ipv4:192.0.2.1:{port}"
        return play(stack, [ok(), ...], side=Side.SERVER, metadata=metadata, peer=peer).outcome.code

    assert [calls(name, port) for port, name in enumerate(("ann", "bob", "ann", "bob"))] == [
        grpc.StatusCode.OK,
        grpc.StatusCode.OK,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    ]
    assert seen == [{"\0ann": 1}, {"\0bob": 1}]


# --- the context ------------------------------------------------------------------------------------------------------


def test_nobody_is_known_outside_of_a_call() -> None:
    """Nor where nothing looked at the credentials; a client's call knows no transport."""
    assert context.identity() is None
    assert incoming(auth_context={"peer_dns": [b"web"]}).auth_context == {"peer_dns": [b"web"]}
    assert play(RequestId(), [ok()]).sent[0].call.auth_context == {}


@pytest.mark.parametrize("sort", SORTS)
def test_a_call_that_is_over_tells_nothing_of_its_transport(sort: str) -> None:
    """Asked after the end, grpc could crash."""
    calls: list[Call] = []

    def keep(call: Call) -> Flow:
        calls.append(call)
        assert b"ssl" not in call.auth_context.get("transport_security_type", ())
        yield call

    with serving(sort, known(sort), keep) as client:
        assert client.call().code is grpc.StatusCode.OK

    assert calls[0].auth_context == {}
