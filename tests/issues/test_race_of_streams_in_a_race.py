"""A race of response streams inside of another one: the first message of who won both is delivered."""

import pytest

from interpose import Call, Flow, Kind, Side
from interpose.testing import Place, ok
from interpose.testing.acts import Act


def hedge(call: Call) -> Flow:
    yield call.hedged(copies=2, delay=3600)


@pytest.mark.parametrize("kind", [Kind.UNARY_STREAM, Kind.STREAM_STREAM], ids=lambda kind: kind.value)
@pytest.mark.parametrize("asyncio", [False, True], ids=["sync", "aio"])
@pytest.mark.parametrize("texts", [("one",), ("one", "two", "three")], ids=len)
def test_no_message_is_lost(asyncio: bool, kind: Kind, texts: tuple[str, ...]) -> None:
    """Whether one message comes, or several."""
    with Place(asyncio, Side.CLIENT, kind).open(hedge, hedge, script=[ok(*texts), Act(hang=True), ...]) as rpc:
        reply = rpc.call("a", timeout=10)

    assert (reply.ok, reply.messages) == (True, list(texts))
