"""The repr of a failed call tells what grpc's does: the status, the details, and what the core said."""

import grpc
import grpc.aio
import pytest

from interpose import Call, Flow, intercept_channel

NOBODY = "unix:/nonexistent/nobody-listens"


def passes(call: Call) -> Flow:
    yield call


@pytest.fixture(params=["raw", "wrapped"])
def wrapped(request: pytest.FixtureRequest) -> bool:
    """Is the channel ours?"""
    return bool(request.param == "wrapped")


def test_a_failed_call_shows_what_the_core_said(wrapped: bool) -> None:
    """The repr and the str of a sync future that failed have the core's text."""
    native = grpc.insecure_channel(NOBODY)
    with intercept_channel(native, passes) if wrapped else native as channel:
        call = channel.unary_unary("/a/B").future(b"", timeout=10)
        call.exception()

    assert "debug_error_string" in repr(call) and call.debug_error_string() in repr(call)
    assert call.debug_error_string() in str(call)


async def test_a_failed_asyncio_call_shows_what_the_core_said(wrapped: bool) -> None:
    """The repr and the str of an asyncio call that failed have the core's text."""
    native = grpc.aio.insecure_channel(NOBODY)
    async with intercept_channel(native, passes) if wrapped else native as channel:
        call = channel.unary_unary("/a/B")(b"", timeout=10)
        with pytest.raises(grpc.aio.AioRpcError):
            await call

        assert "debug_error_string" in repr(call) and await call.debug_error_string() in repr(call)
        assert await call.debug_error_string() in str(call)
