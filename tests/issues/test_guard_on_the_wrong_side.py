"""An interceptor on the wrong side was found out by the first call: it is refused where the stack is made."""

from __future__ import annotations

from collections.abc import Callable
from concurrent import futures
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import chain, intercept_channel, intercept_server, native_interceptors, server_interceptor, when
from interpose.interceptors import Authenticate, Authorize, BearerToken, StaticTokens, anyone

GUARD = Authenticate(StaticTokens({"a": "ann"}))
BEARER = BearerToken(lambda: "a")


def a_channel(*stack: Any) -> object:
    return intercept_channel(grpc.insecure_channel("unix:nowhere"), *stack)


def a_server(*stack: Any) -> object:
    return intercept_server(grpc.server(futures.ThreadPoolExecutor(1)), *stack)


async def test_on_asyncio() -> None:
    """The same."""
    with pytest.raises(ValueError, match="a channel takes BearerToken"):
        intercept_channel(grpc.aio.insecure_channel("unix:nowhere"), GUARD)
    with pytest.raises(ValueError, match="a server takes Authenticate"):
        intercept_server(grpc.aio.server(), BEARER)


@pytest.mark.parametrize(
    ("make", "stack", "remedy"),
    [
        (a_channel, (GUARD,), "Authenticate belongs on a server: a channel takes BearerToken"),
        (a_channel, (when("/a.B/*", Authorize(anyone)),), "Authorize belongs on a server: give it to intercept_server"),
        (native_interceptors, (GUARD,), "Authenticate belongs on a server"),
        (a_server, (chain(BEARER),), "BearerToken belongs on a channel: a server takes Authenticate"),
        (server_interceptor, (BEARER,), "BearerToken belongs on a channel"),
    ],
)
def test_it_is_refused(make: Callable[..., object], stack: tuple[Any, ...], remedy: str) -> None:
    """With what to write instead, also inside of a chain."""
    with pytest.raises(ValueError, match=remedy):
        make(*stack)


def test_on_its_own_side() -> None:
    """It is taken."""
    assert a_channel(BEARER)
    assert a_server(GUARD)
