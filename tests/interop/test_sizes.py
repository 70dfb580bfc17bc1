"""Whatever a failure carries, its code reaches the client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import BytesValue, StringValue
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from interpose import errors
from interpose.testing import Place
from tests.interop.calling import STACKS, pass_on
from tests.interop.serving import serving
from tests.support.examples import examples

SIZES = st.one_of(st.integers(0, 200), st.integers(1500, 2500), st.integers(5000, 9000))
TEXTS = st.builds(
    lambda letter, size: letter * size, st.sampled_from(["x", "ü", "%", "😀", "\ud800", "\n", "\0"]), SIZES
)
VALUES = st.builds(lambda size: "v" * size, SIZES)
BYTES = st.builds(lambda size: b"\xff" * size, SIZES)
PAIRS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["a", "x-some-longer-key"]), VALUES),
        st.tuples(st.just("x-data-bin"), BYTES),
        st.tuples(st.just(errors.RICH_KEY), BYTES),
    ),
    max_size=12,
)
RICH = st.lists(st.builds(lambda value: BytesValue(value=value), BYTES), max_size=4)


class Peer:
    """A server that fails with what it is told, and a bare client of it."""

    def __init__(self) -> None:
        self.next: Any = None

    def fail(self, context: Any) -> None:
        """What the handlers do."""
        raise self.next

    def told(self, channel: grpc.Channel, error: errors.StatusError) -> Any:
        """What a bare client sees of an error."""
        self.next = error
        unary = channel.unary_unary("/interop.v1.Peer/Unary", StringValue.SerializeToString)
        with pytest.raises(grpc.RpcError) as raised:
            unary(StringValue(), timeout=20)
        return raised.value


@pytest.fixture(params=STACKS)
def peer(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Calls a server with an error; gives what the client sees."""
    server = Peer()
    with serving(request.param, server.fail, pass_on) as target, grpc.insecure_channel(target) as channel:
        yield lambda error: server.told(channel, error)


@settings(max_examples=examples(150), suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(details=TEXTS, pairs=PAIRS, rich=RICH)
def test_the_code_arrives(peer: Any, details: str, pairs: list[Any], rich: list[Any]) -> None:
    """With any text, any trailing metadata and any details beside it, of whatever sizes."""
    seen = peer(errors.DataLoss(details, *rich, trailing_metadata=pairs))

    assert seen.code() is grpc.StatusCode.DATA_LOSS
    assert seen.details()[:5] == details.replace("\ud800", "?")[:5]


def test_a_request_with_too_much_metadata(place: Place) -> None:
    """It is refused by the peer's gRPC with a status, at once; the next call is served."""
    with place.open(pass_on) as rpc:
        refused = rpc.call("a", metadata=(("x-large", "v" * 100_000),))
        served = rpc.call("a")

    assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert served.ok
