"""The request stream of an asyncio call: what each of several uploads gets of it."""

from collections.abc import AsyncIterator

import pytest

from interpose import Call, Kind, Method, errors
from interpose.aio.requests import Requests

CALL = Call(Method("/pay.v1.Cards/Charge", Kind.STREAM_UNARY))


async def words() -> AsyncIterator[str]:
    for word in ("one", "two", "three"):
        yield word


async def test_an_upload_that_fell_behind_is_broken_once_the_buffer_overflows() -> None:
    """It fails rather than end early: the server would take a part for the whole. The upload in front gets all."""
    requests = Requests(words(), str.encode)
    first, second = requests.upload(CALL.buffered(5)), requests.upload(CALL.buffered(5))
    assert first is not None and second is not None
    ahead = [kept.message async for kept in first]
    with pytest.raises(errors.ResourceExhausted, match="the requests outgrew their buffer"):
        async for _ in second:
            pass

    assert ahead == ["one", "two", "three"]
    assert isinstance(second.error, errors.ResourceExhausted) and second.error.local
    assert not requests.repeatable
