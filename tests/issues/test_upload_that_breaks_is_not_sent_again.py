"""An upload whose own messages raise has failed on this side, with UNKNOWN: `Retry` must not take that for a server's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import Call, Flow, Kind, errors, intercept_channel
from interpose.interceptors import Retry
from interpose.testing import Echo
from interpose.testing.echo import decode, encode, path
from tests.support.patience import PATIENCE

RETRY = Retry(codes={grpc.StatusCode.UNKNOWN}, safe=True, backoff=lambda _: 0.0)

uploads = pytest.mark.parametrize("kind", [Kind.STREAM_UNARY, Kind.STREAM_STREAM], ids=lambda kind: kind.value)


class Sent:
    """An interceptor that counts what is sent."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, call: Call) -> Flow:
        self.count += 1
        yield call


def broken() -> Iterator[str]:
    yield "a"
    raise LookupError("of the application")


@uploads
def test_on_sync(kind: Kind) -> None:
    """It is sent once, and the error says that no server sent it."""
    sent = Sent()

    with Echo().serve() as target, grpc.insecure_channel(target) as bare:
        method: Any = getattr(intercept_channel(bare, RETRY, sent), kind.value)(path(kind), encode, decode)
        with pytest.raises(errors.Unknown, match="Exception iterating requests") as caught:
            answer = method(broken(), timeout=PATIENCE)
            list(answer)

    assert (sent.count, caught.value.local) == (1, True)


@uploads
async def test_on_asyncio(kind: Kind) -> None:
    """The same."""
    sent = Sent()

    async def requests() -> AsyncIterator[str]:
        for message in broken():
            yield message

    with Echo().serve() as target:
        async with grpc.aio.insecure_channel(target) as bare:
            method: Any = getattr(intercept_channel(bare, RETRY, sent), kind.value)(path(kind), encode, decode)
            call = method(requests(), timeout=PATIENCE)
            with pytest.raises(errors.Unknown, match="Exception iterating requests") as caught:
                _ = [message async for message in call] if kind.response_streaming else await call

    assert (sent.count, caught.value.local) == (1, True)
