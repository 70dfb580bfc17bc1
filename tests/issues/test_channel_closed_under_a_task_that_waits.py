"""grpcio 1.66's asyncio channel looks into the tasks that wait as it is closed, and has to bear our calls there."""

import asyncio

import grpc
import grpc.aio

from interpose import intercept_channel
from interpose.testing import Echo, Stub, ok


async def test_a_task_waits_for_the_code() -> None:
    """The channel closes, and the task learns that the call was cancelled."""
    echo = Echo([ok(hang=True)])
    async with echo.serve_aio() as target:
        channel = intercept_channel(grpc.aio.insecure_channel(target))
        task = asyncio.create_task(Stub(channel).unary_unary("a").code())
        await asyncio.to_thread(echo.wait_begun)

        await channel.close()

        assert await asyncio.wait_for(task, 10) is grpc.StatusCode.CANCELLED
