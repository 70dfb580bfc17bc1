"""A hedged call that ends with its incoming RPC raises `errors.Cancelled` on asyncio too: its own task was not cancelled."""

import grpc.aio
import pytest

from interpose import Call, Flow, Kind, errors, intercept_channel
from interpose._scope import Scope
from interpose.testing import Act, Echo, Stub


@pytest.mark.parametrize("kind", [Kind.UNARY_UNARY, Kind.UNARY_STREAM], ids=str)
async def test_it_was_not_the_task_that_was_cancelled(kind: Kind) -> None:
    """As an RPC that is not hedged does, and as both do on sync."""
    scope = Scope()

    def hedged(call: Call) -> Flow:
        yield call.hedged(copies=2, delay=3600)

    def belongs(call: Call) -> Flow:
        yield call.within(scope)

    async with (
        Echo([Act(hang=True), ...]).serve_aio() as target,
        intercept_channel(grpc.aio.insecure_channel(target), hedged, belongs) as channel,
    ):
        call = Stub(channel).method(kind)("a", timeout=20)
        scope.close()
        with pytest.raises(errors.Cancelled):
            await (call.read() if kind.response_streaming else call)
