"""The testing kit as users type it: checked by mypy --strict and pyright, never run."""

import random
from collections.abc import AsyncIterator, Iterator
from typing import assert_type

import grpc
import pytest

from interpose import Call, Flow, Kind, Metadata, Outcome, Side, intercept_channel
from interpose.interceptors import Retry
from interpose.mechanisms.backoff import exponential
from interpose.testing import (
    PLACES,
    Act,
    Echo,
    FakeClock,
    FaultProxy,
    Place,
    Reply,
    Rpc,
    Stub,
    died,
    failed,
    incoming,
    no_leaks,
    no_task_leaks,
    ok,
    play,
    raised,
)

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


def passes(call: Call) -> Flow:
    yield call


def test_played() -> None:
    """Scripts hold acts, outcomes and dots."""
    script: list[Act] = [failed(UNAVAILABLE, pushback=0.3, after=1), raised(KeyError("id")), died(), ok("a", delay=1)]
    played = play(passes, script, side=Side.SERVER, kind=Kind.UNARY_STREAM, timeout=3, metadata=(("x-a", "b"),))
    assert_type(played.outcome, Outcome)
    assert_type(played.sent[0].metadata, Metadata)
    play(passes, [failed(UNAVAILABLE), ...])
    play(passes, [Outcome.success("kept")], incoming=incoming(metadata=(("x-a", "b"),)), answers=["token", OSError()])


def test_in_places(place: Place) -> None:
    """A place is opened around interceptors."""
    clock = FakeClock(auto=True)
    retry = Retry(backoff=exponential(random=random.Random(7).random))
    with no_leaks(), place.open(retry, passes, script=[failed(UNAVAILABLE), ...], clock=clock) as rpc:
        assert_type(rpc.call("hello", timeout=1.0), Reply)
        assert_type(rpc.attempts[0].values("x-a"), list[str | bytes])
    assert_type(PLACES[0].kind, Kind)
    assert_type(clock.pauses, list[float])


@pytest.fixture
def opened(place: Place) -> Iterator[Rpc]:
    with place.open(passes) as rpc:
        yield rpc


def test_served() -> None:
    """The service, its client, and a proxy between them."""
    with Echo([ok("hello")]).serve(passes, unix=True) as target, FaultProxy(target) as proxy:
        assert_type(target, str)
        proxy.delay(0.01)
        with intercept_channel(grpc.insecure_channel(proxy.target), passes) as channel:
            Stub(channel).unary_unary("hello")


async def test_served_on_asyncio() -> None:
    """The same there."""

    async def messages() -> AsyncIterator[str]:
        yield "a"

    async with (
        no_task_leaks(),
        Echo().serve_aio(passes, plain=True) as target,
        grpc.aio.insecure_channel(target) as channel,
    ):
        await Stub(channel).stream_unary(messages())
