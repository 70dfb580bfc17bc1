"""An application that writes by itself may have said `done_writing` before an attempt that follows begins."""

from __future__ import annotations

from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import Call, Flow, Kind, intercept_channel
from interpose.testing import Echo, failed, ok
from interpose.testing.echo import decode, encode, path
from tests.support.patience import PATIENCE


def again(call: Call) -> Flow:
    """Sends what can be sent twice, and keeps no message for that."""
    outcome = yield call
    if not outcome.ok and outcome.replayable:
        yield call


@pytest.mark.parametrize("kind", [Kind.STREAM_UNARY, Kind.STREAM_STREAM], ids=lambda kind: kind.value)
async def test_the_next_attempt_is_closed_too(kind: Kind) -> None:
    """Its handler would wait for messages until the deadline."""
    echo = Echo([failed(grpc.StatusCode.UNAVAILABLE), ok()])

    with echo.serve() as target:
        async with grpc.aio.insecure_channel(target) as bare:
            method: Any = getattr(intercept_channel(bare, again), kind.value)(path(kind), encode, decode)
            call = method(timeout=PATIENCE)
            await call.done_writing()
            code = await call.code()

    assert (code, len(echo.attempts)) == (grpc.StatusCode.OK, 2)
