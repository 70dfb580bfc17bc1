"""BearerToken: this program's own token on every call, fresh, and never on a wire that others can read."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import Kind, Side, context, errors, intercept_channel
from interpose.interceptors import (
    Authenticate,
    BearerToken,
    Identity,
    RefreshDetails,
    Retry,
    StaticTokens,
    Token,
    not_executed,
)
from interpose.interceptors.bearer_token import PAUSE, REFUSED_PAUSE
from interpose.testing import Echo, FakeClock, Place, failed, incoming, ok, play
from interpose.testing.echo import Stub
from tests.interceptors.driving import is_server, requests
from tests.support.patience import PATIENCE

UNAUTHENTICATED, UNAVAILABLE = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNAVAILABLE
CLIENTS = [Place(asyncio, Side.CLIENT, kind) for asyncio in (False, True) for kind in Kind]
REFUSED = failed(UNAUTHENTICATED, "expired")


class Numbered:
    """A provider: token-1, token-2 …, or an exception."""

    def __init__(self, expires_in: float | None = None) -> None:
        self.given = 0
        self.expires_in = expires_in
        self.error: Exception | None = None
        self.hold: threading.Event | None = None

    def __call__(self) -> Token:
        self.given += 1
        if self.hold is not None:
            self.hold.wait(10)
        if self.error is not None:
            raise self.error
        return Token(f"token-{self.given}", self.expires_in)


class NumberedLater(Numbered):
    """The same, async."""

    async def __call__(self) -> Token:  # type: ignore[override]  # that is the difference
        await asyncio.sleep(0)
        return Numbered.__call__(self)


def provider_for(place: Place) -> Any:
    return NumberedLater() if place.asyncio else Numbered()


def tokens(rpc: Any) -> list[list[Any]]:
    """What the server was sent, attempt by attempt."""
    return [attempt.values("authorization") for attempt in rpc.attempts]


@pytest.fixture(params=CLIENTS, ids=str)
def client(request: pytest.FixtureRequest) -> Place:
    """Every client."""
    found: Place = request.param
    return found


# --- the token --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("later", [False, True])
def test_every_call_has_the_token(client: Place, later: bool) -> None:
    """Of a plain provider and of an async one; it is asked once."""
    provider = NumberedLater() if later else Numbered()
    if later and not client.asyncio:
        with (
            pytest.raises(TypeError, match="BearerToken cannot run here: its provider is async"),
            client.open(BearerToken(provider)),
        ):
            pass
        return

    with client.open(BearerToken(provider, insecure=True)) as rpc:
        for _ in range(3):
            assert rpc.call(*requests(client)).ok

    assert tokens(rpc) == [["Bearer token-1"]] * 3
    assert provider.given == 1


def test_a_text_is_a_token() -> None:
    """That is good until a server refuses it."""
    bearer = BearerToken(lambda: "token", insecure=True)
    played = play(bearer, [ok()], answers=())

    assert played.sent[0].metadata["authorization"] == "Bearer token"
    assert bearer.snapshot().expires_in == float("inf")


def test_a_call_with_its_own_is_left_alone() -> None:
    """Whatever it is."""
    provider = Numbered()

    played = play(BearerToken(provider), [ok()], metadata=[("authorization", "Basic abc")])

    assert played.sent[0].metadata.get_all("authorization") == ["Basic abc"]
    assert provider.given == 0


def test_it_stands_on_channels_only(place: Place) -> None:
    """On a server no handler is called, not even by a chain inside of a flow, and the error says what to use."""
    bearer = BearerToken(Numbered(), insecure=True)
    if is_server(place):
        outcome = play(bearer, [], side=Side.SERVER, kind=place.kind).outcome
        assert (outcome.code, outcome.details) == (grpc.StatusCode.INTERNAL, BearerToken.belongs.text)
        return

    with place.open(bearer) as rpc:
        assert rpc.call(*requests(place)).ok


# --- freshness --------------------------------------------------------------------------------------------------------


def sent(bearer: BearerToken, clock: FakeClock, *script: Any, **options: Any) -> Any:
    """Play a call; gives its outcome, and the tokens that were sent."""
    played = play(bearer, script or [ok()], clock=clock, **options)
    return played.outcome, [each.metadata.get("authorization") for each in played.sent]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def fetched(bearer: BearerToken) -> None:
    """Wait for the fetch that is under way."""
    running = bearer._background.running()
    if running is not None:
        running.result(10)


def run(bearer: BearerToken, clock: FakeClock, *script: Any, **options: Any) -> Any:
    """As `sent`, with a token that is there before the call needs it: by hand nothing waits for a thread."""
    if bearer._held is None:
        bearer._fetch(None, clock)
    return sent(bearer, clock, *script, **options)


def test_a_token_is_fetched_before_it_expires(clock: FakeClock) -> None:
    """From `refresh_before` on; the call that notices it goes on with the one that is there."""
    provider = Numbered(expires_in=100)
    bearer = BearerToken(provider, refresh_before=30, insecure=True)
    run(bearer, clock)

    clock.advance(69.9)
    assert sent(bearer, clock)[1] == ["Bearer token-1"]
    assert provider.given == 1
    clock.advance(0.1)
    provider.hold = threading.Event()
    assert [sent(bearer, clock)[1] for _ in range(5)] == [["Bearer token-1"]] * 5
    provider.hold.set()
    fetched(bearer)

    assert provider.given == 2
    assert sent(bearer, clock)[1] == ["Bearer token-2"]


def test_a_short_token_is_used_for_half_of_its_life(clock: FakeClock) -> None:
    """Or each call would have the next one fetched."""
    provider = Numbered(expires_in=10)
    bearer = BearerToken(provider, refresh_before=30, insecure=True)
    run(bearer, clock)

    clock.advance(4.9)
    sent(bearer, clock)
    fetched(bearer)

    assert provider.given == 1


def test_a_fetch_that_comes_too_late_does_nothing(clock: FakeClock) -> None:
    """A call that wanted one before the last one ended finds the token there."""
    provider = Numbered()
    bearer = BearerToken(provider, insecure=True)

    bearer._fetch(None, clock)
    bearer._fetch(None, clock)

    assert provider.given == 1


def test_one_fetch_for_a_hundred_calls() -> None:
    """They wait for it, and each is sent with what it gives."""
    provider = Numbered()
    provider.hold = threading.Event()
    echo = Echo()
    with echo.serve(workers=20) as target, grpc.insecure_channel(target) as bare:
        stub = Stub(intercept_channel(bare, BearerToken(provider, insecure=True)))
        calls = [stub.unary_unary.future("hello", timeout=PATIENCE) for _ in range(100)]  # none of them blocks
        assert not any(call.done() for call in calls)
        provider.hold.set()
        assert [call.result() for call in calls] == ["hello"] * 100

    assert provider.given == 1
    assert [attempt.values("authorization") for attempt in echo.attempts] == [["Bearer token-1"]] * 100


async def test_one_fetch_for_a_hundred_tasks() -> None:
    """Of an async provider, in a task of its own: that the call is cancelled which came first changes nothing."""
    asked: list[tuple[Any, Any]] = []
    go = asyncio.Event()

    async def provide() -> str:
        asked.append((context.current_call(), context.identity()))
        await go.wait()
        return "token"

    echo = Echo()
    async with echo.serve_aio() as target, grpc.aio.insecure_channel(target) as bare:
        stub = Stub(intercept_channel(bare, BearerToken(provide, insecure=True)))
        context.set_identity(Identity("ann"))
        calls = [asyncio.ensure_future(stub.unary_unary("hello", timeout=PATIENCE)) for _ in range(100)]
        while not asked:  # noqa: ASYNC110  the provider sets no event of this test's
            await asyncio.sleep(0)
        calls[0].cancel()
        await asyncio.sleep(0)
        go.set()
        assert await asyncio.gather(*calls[1:]) == ["hello"] * 99

    assert asked == [(None, None)]  # it belongs to no RPC
    assert {attempt.values("authorization")[0] for attempt in echo.attempts} == {"Bearer token"}


async def test_an_async_provider_is_asked_ahead() -> None:
    """While the token is good no call waits for the next one, also if its provider hangs."""
    clock = FakeClock()
    hold = asyncio.Event()
    given = 0

    async def provide() -> Token:
        nonlocal given
        given += 1
        if given > 1:
            await hold.wait()
        return Token(f"token-{given}", expires_in=100)

    echo = Echo()
    async with echo.serve_aio() as target, grpc.aio.insecure_channel(target) as bare:
        bearer = BearerToken(provide, insecure=True)
        stub = Stub(intercept_channel(bare, bearer, clock=clock)).unary_unary
        await stub("hello", timeout=PATIENCE)
        clock.advance(80)
        for _ in range(5):
            assert await stub("hello", timeout=PATIENCE) == "hello"
        fetch = bearer._background.running()
        assert fetch is not None
        hold.set()
        await asyncio.wrap_future(fetch)
        await stub("hello", timeout=PATIENCE)

    sent = [attempt.values("authorization")[0] for attempt in echo.attempts]
    assert sent == ["Bearer token-1"] * 6 + ["Bearer token-2"]


def test_a_provider_that_fails(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    """Calls end with UNAVAILABLE, made here; it is not asked again for a second; its text stays out of the log."""
    provider = Numbered(expires_in=100)
    provider.error = OSError("s3cret")
    told: list[RefreshDetails] = []
    bearer = BearerToken(provider, insecure=True, on_refresh=told.append)
    bearer._fetch(None, clock)

    for _ in range(3):
        outcome = play(bearer, [], clock=clock).outcome
        assert (outcome.code, outcome.local) == (UNAVAILABLE, True)
        assert outcome.error is not None
        assert outcome.error.__cause__ is provider.error
    assert provider.given == 1
    assert "its provider raised OSError" in caplog.text
    assert "s3cret" not in caplog.text

    clock.advance(PAUSE)
    provider.error = None
    bearer._fetch(None, clock)
    assert sent(bearer, clock)[1] == ["Bearer token-2"]
    assert [details.error is None for details in told] == [False, True]
    assert told[1].expires_in == 100
    assert (bearer.snapshot().fetched, bearer.snapshot().failures) == (1, 1)


def test_a_good_token_outlives_its_provider(clock: FakeClock) -> None:
    """While it is good calls are sent with it; then they fail."""
    provider = Numbered(expires_in=100)
    bearer = BearerToken(provider, insecure=True)
    run(bearer, clock)
    provider.error = OSError()

    clock.advance(80)
    assert sent(bearer, clock)[1] == ["Bearer token-1"]
    fetched(bearer)
    assert sent(bearer, clock)[1] == ["Bearer token-1"]
    assert bearer.snapshot().expires_in == 20
    clock.advance(20)
    bearer._fetch(bearer._held, clock)
    assert play(bearer, [], clock=clock).outcome.code is UNAVAILABLE


def test_no_thread_to_be_had(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is a provider that fails: calls with a good token go on, others end with UNAVAILABLE."""
    bearer = BearerToken(Numbered(expires_in=100), insecure=True)

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        assert play(bearer, [], clock=clock).outcome.code is UNAVAILABLE
    clock.advance(PAUSE)
    run(bearer, clock)
    clock.advance(80)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        assert sent(bearer, clock)[1] == ["Bearer token-1"]


@pytest.mark.parametrize("given", [None, b"token", 7, "", "two words", "new\nline", ("token", 60)], ids=repr)
def test_what_is_no_token_is_a_failure(given: Any, clock: FakeClock) -> None:
    """Of the provider; nothing of it is sent."""
    bearer = BearerToken(lambda: given, insecure=True)
    bearer._fetch(None, clock)

    assert play(bearer, [], clock=clock).outcome.code is UNAVAILABLE


def test_an_awaitable_in_disguise_is_a_failure(clock: FakeClock) -> None:
    """A plain function that gives a coroutine: nobody would await it."""
    later = NumberedLater()
    made: list[Any] = []

    def provide() -> Any:
        made.append(later())
        return made[0]

    bearer = BearerToken(provide, insecure=True)
    bearer._fetch(None, clock)
    made[0].close()

    assert isinstance(bearer._failure, tuple)
    assert "async def" in str(bearer._failure[1])


def test_a_provider_that_calls_itself_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """Through the very channel that waits for its token; it would wait for ever."""
    calls: list[Any] = []

    def provide() -> str:
        return str(calls[-1]("token", timeout=PATIENCE))

    async def provide_later() -> str:
        return str(await calls[-1]("token", timeout=PATIENCE))

    for place, provider in ((CLIENTS[0], provide), (CLIENTS[4], provide_later)):
        with place.open(BearerToken(provider, insecure=True)) as rpc:
            calls.append(Stub(rpc.channel).unary_unary)

            assert rpc.call("hello").code is UNAVAILABLE

    assert caplog.text.count("its provider raised Internal") == 2


def test_a_hook_that_fails_changes_nothing(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    """The token is used."""
    bearer = BearerToken(Numbered(), insecure=True, on_refresh=lambda details: 1 / 0)

    assert run(bearer, clock)[1] == ["Bearer token-1"]
    assert "ZeroDivisionError" in caplog.text


# --- a token that is refused ------------------------------------------------------------------------------------------


def test_a_call_is_sent_again_with_a_newer_token(client: Place) -> None:
    """If nothing of a request stream was read yet, or it is kept; and if it may be executed twice."""
    provider = provider_for(client)
    kept = Retry(attempts=2, codes={UNAVAILABLE})  # it keeps requests for those further in
    bearer = BearerToken(provider, insecure=True, safe=True)

    with client.open(kept, bearer, script=[REFUSED, ok()]) as rpc:
        reply = rpc.call(*requests(client))

    assert reply.ok
    assert tokens(rpc) == [["Bearer token-1"], ["Bearer token-2"]]
    assert (bearer.snapshot().refused, bearer.snapshot().resent) == (1, 1)


def test_a_server_of_ours_says_that_nothing_was_executed(client: Place) -> None:
    """Then every call may be sent again, whatever it does."""
    tokens = StaticTokens({"token-2": "ann"})
    echo = Echo()
    with echo.serve(Authenticate(tokens)) as target:
        if client.asyncio:
            asyncio.run(_called_later(target, client.kind))
        else:
            bearer = BearerToken(Numbered(), insecure=True)
            with grpc.insecure_channel(target) as bare:
                stub = getattr(Stub(intercept_channel(bare, bearer)), client.kind.value)
                request = iter(["a"]) if client.kind.request_streaming else "a"
                if client.kind.request_streaming:  # its requests are not kept: the next call has the newer token
                    with pytest.raises(errors.Unauthenticated):
                        list(stub(request, timeout=PATIENCE)) if client.kind.response_streaming else stub(request)
                    request = iter(["a"])
                answer = stub(request, timeout=PATIENCE)
                assert list(answer) if client.kind.response_streaming else answer
    assert len(echo.attempts) == 1


async def _called_later(target: str, kind: Kind) -> None:
    bearer = BearerToken(NumberedLater(), insecure=True)
    async with grpc.aio.insecure_channel(target) as bare:
        stub = getattr(Stub(intercept_channel(bare, bearer)), kind.value)

        async def call() -> Any:
            made = stub(iter(["a"]) if kind.request_streaming else "a", timeout=PATIENCE)
            return [message async for message in made] if kind.response_streaming else await made

        if kind.request_streaming:
            with pytest.raises(errors.Unauthenticated):
                await call()
        assert await call()


@pytest.mark.parametrize(
    ("options", "refusal", "attempts"),
    [
        ({}, REFUSED, 1),  # a handler may have passed it on
        ({"safe": True}, REFUSED, 2),
        ({"safe": lambda call: call.method.name == "unary_unary"}, REFUSED, 2),
        ({"safe": False}, REFUSED, 1),
        ({}, failed(UNAUTHENTICATED, trailing=not_executed(incoming())), 2),
        ({"safe": False}, failed(UNAUTHENTICATED, trailing=not_executed(incoming())), 2),
        ({}, failed(UNAUTHENTICATED, trailing=not_executed(incoming(Kind.UNARY_STREAM))), 1),  # of another method
        ({"safe": True}, failed(grpc.StatusCode.PERMISSION_DENIED), 1),
    ],
)
def test_a_write_is_never_done_twice(options: Any, refusal: Any, attempts: int, clock: FakeClock) -> None:
    """A call is sent again if that is safe, or if it is certain that it was not executed."""
    bearer = BearerToken(Numbered(), insecure=True, **options)

    with CLIENTS[0].open(bearer, script=[refusal, ok(), ok()], clock=clock) as rpc:
        rpc.call("hello")
        first = len(rpc.attempts)
        rpc.call("hello")

    assert first == attempts
    newest = "Bearer token-1" if refusal.code is not UNAUTHENTICATED else "Bearer token-2"
    assert tokens(rpc)[-1] == [newest]  # the next call has it in any case


def test_a_stream_that_was_answered_is_not_sent_again() -> None:
    """Its first messages were delivered."""
    place = Place(False, Side.CLIENT, Kind.UNARY_STREAM)
    with place.open(
        BearerToken(Numbered(), insecure=True, safe=True), script=[failed(UNAUTHENTICATED, after=1), ok()]
    ) as rpc:
        reply = rpc.call("hello")

    assert (reply.code, reply.messages) == (UNAUTHENTICATED, ["hello"])
    assert len(rpc.attempts) == 1


def test_once_is_enough(clock: FakeClock) -> None:
    """A newer token that is refused as well stands; nor is the next call's renewed, until ten seconds have passed."""
    provider = Numbered()
    bearer = BearerToken(provider, insecure=True, safe=True)

    with CLIENTS[0].open(bearer, script=[REFUSED, ...], clock=clock) as rpc:
        assert rpc.call("hello").code is UNAUTHENTICATED
        assert (len(rpc.attempts), provider.given) == (2, 2)
        for _ in range(5):
            rpc.call("hello")
        assert (len(rpc.attempts), provider.given) == (7, 2)
        clock.advance(REFUSED_PAUSE)
        rpc.call("hello")
        assert (len(rpc.attempts), provider.given) == (9, 3)


def test_the_same_token_is_not_sent_again(clock: FakeClock) -> None:
    """If the provider has no other."""
    bearer = BearerToken(lambda: "token", insecure=True, safe=True)

    with CLIENTS[0].open(bearer, script=[REFUSED, ...], clock=clock) as rpc:
        assert rpc.call("hello").code is UNAUTHENTICATED

    assert len(rpc.attempts) == 1


def test_a_refusal_stands_if_there_is_no_newer_token(clock: FakeClock) -> None:
    """The caller sees what the server said, and not what the provider failed with."""
    provider = Numbered()
    bearer = BearerToken(provider, insecure=True, safe=True)

    with CLIENTS[0].open(bearer, script=[ok(), REFUSED, ...], clock=clock) as rpc:
        rpc.call("hello")
        provider.error = OSError()
        reply = rpc.call("hello")

    assert (reply.code, reply.details) == (UNAUTHENTICATED, "expired")


def test_a_hundred_refusals_renew_it_once() -> None:
    """All calls that were sent with the old one are sent again with the new one."""
    provider = Numbered()
    bearer = BearerToken(provider, insecure=True)
    echo = Echo()
    all_there = threading.Barrier(10)

    def slow(credentials: Any) -> str:
        if credentials.token == "token-1":
            all_there.wait(10)
            raise errors.Unauthenticated("old")
        return "ann"

    with echo.serve(Authenticate(slow), workers=10) as target, grpc.insecure_channel(target) as bare:
        stub = Stub(intercept_channel(bare, bearer)).unary_unary
        with ThreadPoolExecutor(10) as callers:
            answers = list(callers.map(lambda _: stub("hello", timeout=PATIENCE), range(10)))

    assert answers == ["hello"] * 10
    assert provider.given == 2


# --- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"provider": "token"}, "provider must be a function that gives a Token, not the token itself$"),
        ({"refresh_before": -1}, "refresh_before must be a number of seconds, 0 or more, not -1"),
        ({"insecure": "yes"}, "insecure must be False, 'local' or True, not 'yes'"),
        ({"safe": "yes"}, "safe must be None, True, False or a function of the call, not 'yes'"),
        ({"on_refresh": 1}, "on_refresh must be a function of RefreshDetails, not 1"),
        ({"provider": None, "refresh_before": None, "insecure": None}, "provider .*; refresh_before .*; insecure "),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], complaint: str) -> None:
    """Every fault, with what to write instead."""
    options = {"provider": Numbered(), **options}

    with pytest.raises(ValueError, match=f"^BearerToken: {complaint}"):
        BearerToken(**options)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), "60", True])
def test_a_token_lasts_for_a_time(seconds: Any, clock: FakeClock) -> None:
    """A number of seconds; and its text is never shown."""
    with pytest.raises(ValueError, match=r"^Token: expires_in must be a number of seconds above 0"):
        Token("s3cret", seconds)

    assert "s3cret" not in repr(Token("s3cret", 60))
    bearer = BearerToken(lambda: Token("s3cret"))
    bearer._fetch(None, clock)
    assert bearer._held is not None
    assert "s3cret" not in repr(bearer) + repr(vars(bearer))
