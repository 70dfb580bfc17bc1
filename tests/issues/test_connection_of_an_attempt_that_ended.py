"""asyncio: whoever waits for the connection of a call is not left waiting, or cancelled, because an attempt of it was.

grpc.aio never answers who asks for the connection of a call that was cancelled before it had one, and raises CancelledError
where the native call was cancelled and the task was not: by `answered_within`, by `cancel()`, or by a channel that closes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import pytest

from interpose import Call, Flow, Kind, errors, intercept_channel
from interpose.testing import Echo, ok
from interpose.testing.echo import path
from tests.support.patience import PATIENCE

EVERY = pytest.mark.parametrize("kind", list(Kind), ids=str)
NOBODY = "unix:/nowhere/at/all"


def once(call: Call) -> Flow:
    yield call.answered_within(0.1)


def again(call: Call) -> Flow:
    outcome = yield call.buffered().answered_within(0.1)
    if not outcome.ok:
        yield call.buffered()


def passes(call: Call) -> Flow:
    yield call


def start(channel: Any, kind: Kind, **options: Any) -> Any:
    request = iter([b"a"]) if kind.request_streaming else b"a"
    return getattr(channel, kind.value)(path(kind))(request, timeout=PATIENCE, **options)


async def connected(call: Any) -> None:
    await asyncio.wait_for(call.wait_for_connection(), PATIENCE)


@pytest.fixture
async def silent_once() -> AsyncIterator[str]:
    """A server that answers each call but the first."""
    async with Echo([ok(hang=True)]).serve_aio() as target:
        yield target


@EVERY
async def test_an_attempt_that_was_not_answered(silent_once: str, kind: Kind) -> None:
    """The one behind it is connected."""
    async with intercept_channel(grpc.aio.insecure_channel(silent_once), again) as channel:
        call = start(channel, kind)
        await connected(call)

        assert (await call) if not kind.response_streaming else [message async for message in call]
        assert await call.code() is grpc.StatusCode.OK


@EVERY
async def test_the_only_attempt_was_not_connected(kind: Kind) -> None:
    """The failure of the RPC is raised, in time."""
    async with intercept_channel(grpc.aio.insecure_channel(NOBODY), once) as channel:
        call = start(channel, kind, wait_for_ready=True)

        with pytest.raises(errors.DeadlineExceeded):
            await connected(call)


@EVERY
@pytest.mark.parametrize("end", ["cancel", "close"])
async def test_a_call_that_is_cancelled_meanwhile(kind: Kind, end: str) -> None:
    """It says so to who waits."""
    channel = intercept_channel(grpc.aio.insecure_channel(NOBODY), passes)
    call = start(channel, kind, wait_for_ready=True)
    waiting = asyncio.ensure_future(connected(call))
    await asyncio.sleep(0)

    if end == "cancel":
        call.cancel()
    else:
        await channel.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await channel.close()


@EVERY
async def test_the_task_that_waits_is_cancelled(kind: Kind) -> None:
    """It is the task's own cancel."""
    async with intercept_channel(grpc.aio.insecure_channel(NOBODY), passes) as channel:
        call = start(channel, kind, wait_for_ready=True)
        waiting = asyncio.ensure_future(call.wait_for_connection())
        await asyncio.sleep(0)

        waiting.cancel()
        done, _ = await asyncio.wait([waiting], timeout=PATIENCE)

        assert done and waiting.cancelled()
        call.cancel()
