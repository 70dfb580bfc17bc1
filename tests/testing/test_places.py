"""A place: what it tells of a call that raised, and that nothing goes on behind its end."""

import asyncio

import grpc
import pytest

from interpose import AsyncFlow, Call, Side
from interpose.testing import PLACES, Place

ASYNCIO_CLIENTS = [place for place in PLACES if place.asyncio and place.side is Side.CLIENT]


def test_a_call_that_cannot_be_made_is_a_reply_too(place: Place) -> None:
    """What the stub raises that is no status, here of metadata that is no text, is told and not raised in the test."""
    with place.open() as rpc:
        reply = rpc.call("hello", metadata=(("x-number", 5),))

    assert isinstance(reply.error, TypeError)
    assert (reply.ok, reply.code, reply.details) == (False, grpc.StatusCode.UNKNOWN, str(reply.error))
    assert (reply.messages, tuple(reply.initial_metadata), tuple(reply.trailing_metadata)) == ([], (), ())
    assert not rpc.attempts


@pytest.mark.parametrize("place", ASYNCIO_CLIENTS, ids=str)
def test_a_task_that_still_runs_is_waited_for(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an interceptor left running on the loop comes to its end before the loop is stopped."""
    tasks: list[asyncio.Task[str]] = []
    released = asyncio.Event()

    async def late() -> str:
        await released.wait()
        for _ in range(20):  # turns of the loop
            await asyncio.sleep(0)
        return "done"

    async def leaves_a_task(call: Call) -> AsyncFlow:
        tasks.append(asyncio.create_task(late()))
        yield call

    with place.open(leaves_a_task) as rpc:
        left = rpc._serving.__aexit__

        async def leave(*error: object) -> None:
            await left(*error)
            asyncio.get_running_loop().call_soon(released.set)  # the turn after the server has gone

        monkeypatch.setattr(rpc._serving, "__aexit__", leave, raising=False)
        reply = rpc.call("hello")

    assert reply.ok
    assert [task.done() and task.result() for task in tasks] == ["done"]
