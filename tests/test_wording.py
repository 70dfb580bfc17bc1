"""What grpc's own texts mean: each row of the table is made to happen on a wire, by the grpcio that is installed."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import Call, Flow, Kind, Outcome, intercept_channel
from interpose._executed import MAY_HAVE_RUN
from interpose._method import Target
from interpose._wording import TABLE, Meaning, Wording, made_here, meaning_of, sent_by_peer
from interpose.interceptors import CircuitBreaker, Retry
from interpose.interceptors.repeating import was_not_executed
from interpose.mechanisms.breaker import Mode
from interpose.mechanisms.budget import Unlimited
from interpose.testing import failed
from interpose.testing.echo import Echo, Stub
from tests.conformance.a6.peer import fail, peer, read_all, send
from tests.conformance.a6.wire import (
    Reply,
    answering,
    cut_off,
    gone_away,
    gone_away_behind,
    http,
    refused,
    without_status,
)
from tests.support.patience import PATIENCE

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED

SMALL = [("grpc.max_send_message_length", 50), ("grpc.max_receive_message_length", 200)]
ROUND_ROBIN = [("grpc.service_config", '{"loadBalancingConfig": [{"round_robin": {}}]}')]

STACKS = pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "asyncio"])
KINDS = pytest.mark.parametrize("kind", [Kind.UNARY_UNARY, Kind.STREAM_STREAM], ids=lambda kind: kind.value)


@dataclass
class Seen:
    """What an interceptor on the client was told, and thought of it at once. Made for one call."""

    outcomes: list[Outcome] = field(default_factory=list)
    unexecuted: list[bool] = field(default_factory=list)

    def __call__(self, call: Call) -> Flow:
        before = self.outcomes[-1].attempts if self.outcomes else 0
        outcome = yield call
        self.outcomes.append(outcome)
        self.unexecuted.append(was_not_executed(call, outcome, before))


@dataclass(frozen=True)
class Client:
    """How a call is made: on which channel, and with what."""

    target: str
    options: list[tuple[str, Any]] = field(default_factory=list)
    request: str = "a"
    credentials: grpc.CallCredentials | None = None

    def call(self, asynchronous: bool, kind: Kind, *stack: Any) -> None:
        """Make one call, and wait for its end."""
        if asynchronous:
            asyncio.run(self._call_aio(kind, stack))
            return
        with intercept_channel(self._open(grpc), *stack) as channel, suppress(grpc.RpcError):
            answer = getattr(Stub(channel), kind.value)(self._request(kind), **self._given())
            list(answer if kind.response_streaming else ())

    async def _call_aio(self, kind: Kind, stack: Any) -> None:
        async with intercept_channel(self._open(grpc.aio), *stack) as channel:
            with suppress(grpc.RpcError):
                answer: Any = getattr(Stub(channel), kind.value)(self._request(kind), **self._given())
                if kind.response_streaming:
                    [_ async for _ in answer]
                else:
                    await answer

    def _open(self, stack: Any) -> Any:
        options = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1), *self.options]
        if self.credentials is None:
            return stack.insecure_channel(self.target, options)
        return stack.secure_channel(self.target, grpc.local_channel_credentials(), options)

    def _request(self, kind: Kind) -> Any:
        return iter([self.request]) if kind.request_streaming else self.request

    def _given(self) -> dict[str, Any]:
        return {"timeout": PATIENCE, "credentials": self.credentials}


# --- causes -------------------------------------------------------------------------------------------------------------


@contextmanager
def nobody(options: Any = (), addresses: int = 1) -> Iterator[Client]:
    """Ports at which nobody listens."""
    with socket.socket() as one, socket.socket() as two:
        for taken in (one, two):
            taken.bind(("127.0.0.1", 0))
        ports = [taken.getsockname()[1] for taken in (one, two)[:addresses]]
        yield Client("ipv4:" + ",".join(f"127.0.0.1:{port}" for port in ports), list(options))


def no_name() -> AbstractContextManager[Client]:
    """A name that cannot be one: nobody need be asked."""
    return nullcontext(Client("dns:///" + "x" * 80 + ".invalid:443"))


def replied(reply: Reply) -> Callable[[], AbstractContextManager[Client]]:
    """A server made of frames."""

    @contextmanager
    def opened() -> Iterator[Client]:
        with answering(reply) as server:
            yield Client(server.target)

    return opened


class Plugin(grpc.AuthMetadataPlugin):
    """Credentials that cannot be had."""

    def __init__(self, *pairs: tuple[str, str]) -> None:
        self._pairs = pairs

    def __call__(self, context: Any, callback: Any) -> None:
        if not self._pairs:
            raise RuntimeError("no token")
        callback(self._pairs, None)


def without_credentials(*pairs: tuple[str, str]) -> Callable[[], AbstractContextManager[Client]]:
    """A server that is well, and a plugin that is not."""

    @contextmanager
    def opened() -> Iterator[Client]:
        with serving(grpc.local_server_credentials()) as target:
            yield Client(target, credentials=grpc.metadata_call_credentials(Plugin(*pairs)))

    return opened


@contextmanager
def serving(credentials: Any) -> Iterator[str]:
    """A bare server, which nobody reaches."""
    server = grpc.server(futures.ThreadPoolExecutor(1))
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait(PATIENCE)


def sized(request: int = 1, answer: int = 1, client: Any = (), server: Any = ()) -> Any:
    """Messages of so many bytes, and limits."""

    @contextmanager
    def opened() -> Iterator[Client]:
        with peer((read_all, send("y" * answer)), options=list(server)) as echo:
            yield Client(echo.target, list(client), "x" * request)

    return opened


CAUSES: dict[str, tuple[Callable[[], AbstractContextManager[Client]], Meaning]] = {
    "nobody listens": (nobody, Meaning.UNCONNECTED),
    "nobody listens anywhere": (lambda: nobody(ROUND_ROBIN, 2), Meaning.UNCONNECTED),
    "no such name": (no_name, Meaning.UNCONNECTED),
    "goaway": (replied(gone_away), Meaning.REFUSED),
    "refused": (replied(refused), Meaning.SAID_REFUSED),
    "a proxy answers": (replied(http(503)), Meaning.FROM_PROXY),
    "no status": (replied(without_status), Meaning.WITHOUT_STATUS),
    "a plugin that raises": (without_credentials(), Meaning.NO_CREDENTIALS),
    "a plugin with a bad key": (without_credentials(("Bad Key", "x")), Meaning.NO_CREDENTIALS),
    "sent by the client": (sized(60, client=SMALL), Meaning.TOO_LARGE),
    "received by the client": (sized(1, 1000, client=SMALL), Meaning.TOO_LARGE),
    "received by the server": (sized(160, server=[("grpc.max_receive_message_length", 100)]), Meaning.TOO_LARGE),
    "sent by the server": (sized(1, 1000, server=[("grpc.max_send_message_length", 100)]), Meaning.TOO_LARGE),
    "cut off": (replied(cut_off), Meaning.CUT_OFF),
    "cut off behind a goaway": (replied(gone_away_behind), Meaning.CUT_OFF),
}

LOCAL = {"a plugin that raises", "a plugin with a bad key", "sent by the client", "received by the client"}
UNEXECUTED = {Meaning.UNCONNECTED, Meaning.REFUSED, Meaning.NO_CREDENTIALS}

NAMES = {"^DNS resolution failed for ", "^errors resolving "}  # one of the two, by the version


@STACKS
@KINDS
@pytest.mark.parametrize("cause", CAUSES)
def test_each_happens(cause: str, kind: Kind, asynchronous: bool) -> None:
    """The text, what follows from it, and whose failure it is."""
    opened, meaning = CAUSES[cause]
    seen = Seen()
    with opened() as client:
        client.call(asynchronous, kind, seen)

    [outcome] = seen.outcomes
    assert meaning_of(outcome.code, outcome.details) is meaning, outcome
    assert seen.unexecuted == [meaning in UNEXECUTED]
    assert outcome.local is (cause in LOCAL)


def test_each_row_happens() -> None:
    """None stands in the table that this grpcio never says, but for what another version says in its place."""
    seen = Seen()
    for opened, _ in CAUSES.values():
        with opened() as client:
            client.call(False, Kind.UNARY_UNARY, seen)

    def happened(row: Wording) -> bool:
        told = (outcome.details for outcome in seen.outcomes if outcome.code is row.code)
        return any(re.search(row.text, details, re.IGNORECASE) for details in told)

    missed = {row.text for row in TABLE if not happened(row)}
    assert missed < NAMES and len(missed) == 1


# --- what nobody should fall for ----------------------------------------------------------------------------------------

PASSED_ON = [
    "failed to connect to all addresses; last error: UNKNOWN: ipv4:10.0.0.7:50051: Failed to connect to remote host",
    "connections to all backends failing; last error: UNKNOWN: ipv4:10.0.0.7:50051: Failed to connect to remote host",
    "errors resolving stock:443: [field:hostname lookup error:address lookup failed for stock:443]",
    "DNS resolution failed for stock:443: C-ares status is not ARES_SUCCESS",
]


@STACKS
@KINDS
@pytest.mark.parametrize("details", PASSED_ON)
def test_a_server_that_passes_on_what_its_dependency_said(details: str, kind: Kind, asynchronous: bool) -> None:
    """A bare one, in the very words of grpc: there is a connection to that server, so it has executed the call."""
    seen = Seen()
    with peer((read_all, fail(UNAVAILABLE, details))) as server:
        Client(server.target).call(asynchronous, kind, seen)

    assert seen.unexecuted == [False]


@STACKS
@pytest.mark.parametrize(
    "text",
    [
        "Stream removed (GOAWAY received; Error code: 0; Debug Text: )",
        "Received RST_STREAM with error code 7",  # which older versions of ours believe, and users of the convention
    ],
)
def test_a_server_of_ours_says_that_it_may_have_run(text: str, asynchronous: bool) -> None:
    """Where the text of a handler would mislead, in whatever version: it is the transport's own."""
    seen = Seen()
    with Echo([failed(UNAVAILABLE, text)]).serve(passing) as target:
        Client(target).call(asynchronous, Kind.UNARY_UNARY, seen)

    [outcome] = seen.outcomes
    assert (outcome.details, seen.unexecuted) == (text, [False])
    assert MAY_HAVE_RUN in outcome.trailing_metadata


def passing(call: Call) -> Flow:
    """An interceptor, so that the server is ours."""
    yield call


def test_the_core_may_name_the_peer() -> None:
    """Up to 1.78 it does where a server sent the status, with an address, and only there."""
    assert sent_by_peer('UNKNOWN:Error received from peer ipv4:127.0.0.1:50051 {grpc_message:"x", grpc_status:14}')
    assert not sent_by_peer('UNKNOWN:Error received from peer  {grpc_message:"x", grpc_status:14}')
    assert not sent_by_peer("UNAVAILABLE:x")


@pytest.mark.parametrize(
    ("details", "peer", "here"),
    [
        ("CLIENT: Sent message larger than max (60 vs. 50)", "", True),
        ("CLIENT: Sent message larger than max (60 vs. 50)", "unix:a", False),  # a server passes it on
        ("CLIENT: Received message larger than max (60 vs. 50)", "unix:a", True),  # and older versions name it here
        ("Stream removed (CLIENT: Received message larger than max (60 vs. 50))", "", True),
        ("SERVER: Received message larger than max (60 vs. 50)", "unix:a", False),
        ("SERVER: Received message larger than max (60 vs. 50)", "", False),
        ("too many calls", "", False),
    ],
)
def test_whose_limit_it_is(details: str, peer: str, here: bool) -> None:
    """That of this side is local, and says nothing of the server."""
    assert made_here(EXHAUSTED, details, f"UNKNOWN:Error received from peer {peer} {{grpc_status:8}}") is here


# --- what follows from it -----------------------------------------------------------------------------------------------


@STACKS
@KINDS
@pytest.mark.parametrize("cause", [cause for cause in CAUSES if cause in LOCAL])
def test_a_breaker_does_not_open_for_it(cause: str, kind: Kind, asynchronous: bool) -> None:
    """The server is healthy, whatever code this side gave itself."""
    breaker = CircuitBreaker(minimum=1, codes={UNAVAILABLE, EXHAUSTED})
    with CAUSES[cause][0]() as client:
        client.call(asynchronous, kind, breaker)

    [state] = breaker.snapshot().values()
    assert (state.mode, state.failures) == (Mode.CLOSED, 0)


@STACKS
@KINDS
@pytest.mark.parametrize("cause", CAUSES)
def test_a_retry_goes_by_it(cause: str, kind: Kind, asynchronous: bool) -> None:
    """A call that is not safe is sent again where it was not executed; one that is too large not even if it is safe."""
    opened, meaning = CAUSES[cause]
    large = meaning is Meaning.TOO_LARGE
    seen = Seen()
    retry = Retry(2, codes={UNAVAILABLE, EXHAUSTED}, backoff=lambda _: 0.0, budget=Unlimited(), safe=large or None)
    with opened() as client:
        client.call(asynchronous, kind, retry, seen)

    assert len(seen.outcomes) == (2 if meaning in UNEXECUTED else 1)


def test_a_channel_that_does_not_tell() -> None:
    """One of somebody else's, or one that is closed, is not known to lack a connection."""
    channel = grpc.insecure_channel("localhost:1")
    target = Target.of(channel)
    channel.close()

    assert not target.cannot_connect()
    assert not Target.of(object()).cannot_connect()
    assert not Target("").cannot_connect()
