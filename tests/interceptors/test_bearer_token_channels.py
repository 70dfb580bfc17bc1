"""BearerToken: over which channels the token goes, and as what."""

import asyncio
from collections.abc import Iterator
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import errors, intercept_channel, native_interceptors
from interpose._method import Target
from interpose.interceptors import BearerToken, Token
from interpose.interceptors.bearer_token import INSECURE
from interpose.testing import Echo
from interpose.testing.echo import Stub
from tests.support import tls
from tests.support.patience import PATIENCE

UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED


def provider() -> Token:
    return Token("token-1")


@pytest.fixture
def targets() -> Iterator[tuple[str, str, Echo]]:
    """An echo service: by TLS, without, and itself."""
    echo = Echo()
    with tls.pool() as threads:
        server = grpc.server(threads)
        server.add_generic_rpc_handlers((echo.handlers(asyncio=False),))
        with tls.ports(server) as (secure, insecure):
            yield secure, insecure, echo


def channels(target: str, credentials: Any = None) -> Iterator[Any]:
    """A sync channel and an asyncio one."""
    for grpc_ in (grpc, grpc.aio):
        yield grpc_.insecure_channel(target) if credentials is None else grpc_.secure_channel(target, credentials)


def tells(channel: Any) -> bool:
    """Does it say where it goes? Older versions of grpc.aio do not: then nothing is known of it."""
    return bool(str(Target.of(channel)))


async def called(channel: Any, *stack: Any, **options: Any) -> Any:
    """What one call ends with: "OK", or its error."""
    wrapped = intercept_channel(channel, *stack)
    asynchronous = isinstance(channel, grpc.aio.Channel)
    try:
        call = Stub(wrapped).unary_unary
        answer = call("hello", timeout=PATIENCE, **options) if asynchronous else None
        await answer if asynchronous else await asyncio.to_thread(call, "hello", timeout=PATIENCE, **options)
    except grpc.RpcError as error:
        return error
    else:
        return "OK"


async def closed(channel: Any) -> None:
    done = channel.close()
    if done is not None:
        await done


async def test_no_token_on_an_insecure_channel(targets: tuple[str, str, Echo]) -> None:
    """The call ends here, with what to do; nothing of it is sent, and the token is in no metadata."""
    _, insecure, echo = targets
    before = len(echo.attempts)

    for channel in channels(insecure):
        bearer = BearerToken(provider, safe=True)
        for _ in range(2):
            error = await called(channel, bearer)
            assert (error.code(), error.details(), error.local) == (UNAUTHENTICATED, INSECURE, True)
        assert bearer.snapshot().refused == 0
        await closed(channel)

    assert len(echo.attempts) == before


async def test_a_secure_channel_carries_it(targets: tuple[str, str, Echo]) -> None:
    """As call credentials, until grpc has taken them once; then as metadata. The server sees no difference."""
    secure, _, echo = targets
    for channel in channels(secure, tls.channel_credentials()):
        bearer = BearerToken(provider)
        seen: list[tuple[bool, bool]] = []

        def further_in(call: Any, seen: list[tuple[bool, bool]] = seen) -> Any:
            seen.append((call.credentials is not None, "authorization" in call.metadata))
            yield call

        known = tells(channel)
        wrapped = intercept_channel(channel, bearer, further_in)
        stub = Stub(wrapped).unary_unary
        for _ in range(3):
            answer = stub("hello", timeout=PATIENCE) if isinstance(channel, grpc.aio.Channel) else None
            await answer if answer is not None else await asyncio.to_thread(stub, "hello", timeout=PATIENCE)
        await closed(channel)

        later = (False, True) if known else (True, False)
        assert seen == [(True, False), later, later]
        assert [attempt.values("authorization") for attempt in echo.attempts[-3:]] == [["Bearer token-1"]] * 3


async def test_credentials_of_the_call_go_along(targets: tuple[str, str, Echo]) -> None:
    """Those that the application gave it are sent as well."""
    secure, _, echo = targets

    class Own(grpc.AuthMetadataPlugin):
        def __call__(self, context: Any, callback: Any) -> None:
            callback((("x-own", "1"),), None)

    for channel in channels(secure, tls.channel_credentials()):
        own = grpc.metadata_call_credentials(Own())
        assert await called(channel, BearerToken(provider), credentials=own) == "OK"
        await closed(channel)

        assert echo.attempts[-1].values("x-own") == ["1"]
        assert echo.attempts[-1].values("authorization") == ["Bearer token-1"]


@pytest.mark.parametrize("insecure", ["local", True, False])
async def test_loopback_and_unix_sockets_by_choice(insecure: Any) -> None:
    """`insecure="local"` is for these."""
    for unix in (False, True):
        echo = Echo()
        with echo.serve(unix=unix) as target:
            for channel in channels(target):
                allowed = insecure is True or (insecure == "local" and tells(channel))
                ended = await called(channel, BearerToken(provider, insecure=insecure))
                assert (ended == "OK") is allowed
                await closed(channel)


def test_local_is_not_for_other_machines() -> None:
    """There the token goes as call credentials, which grpc refuses if the channel is insecure."""
    for insecure, secret in (("local", True), (True, False)):
        channel = intercept_channel(
            grpc.insecure_channel("192.0.2.1:1"), BearerToken(lambda: "token", insecure=insecure), seen := Noted()
        )
        with channel, pytest.raises(grpc.RpcError):
            Stub(channel).unary_unary("hello", timeout=0.2)

        assert seen.with_credentials == [secret]


class Noted:
    """An interceptor that notes whether a call has credentials, and sends nothing."""

    def __init__(self) -> None:
        self.with_credentials: list[bool] = []

    def __call__(self, call: Any) -> Any:
        self.with_credentials.append(call.credentials is not None)
        raise errors.Unavailable("not sent", local=True)
        yield call


def test_channels_that_do_not_say_where_they_go(targets: tuple[str, str, Echo]) -> None:
    """One list of native interceptors may be used for many: what is known of one says nothing of the next."""
    secure, insecure, echo = targets
    stack = native_interceptors(BearerToken(provider))

    with grpc.secure_channel(secure, tls.channel_credentials()) as bare:
        for _ in range(2):
            assert Stub(grpc.intercept_channel(bare, *stack)).unary_unary("hello", timeout=PATIENCE) == "hello"
    with grpc.insecure_channel(insecure) as bare, pytest.raises(grpc.RpcError) as refused:
        Stub(grpc.intercept_channel(bare, *stack)).unary_unary("hello", timeout=PATIENCE)

    assert refused.value.code() is UNAUTHENTICATED  # type: ignore[attr-defined]  # grpc's stubs know it of calls only
    assert len(echo.attempts[-2:]) == 2
