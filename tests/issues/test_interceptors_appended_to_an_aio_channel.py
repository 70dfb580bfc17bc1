"""Google's transports and pymilvus append native interceptors to lists of a grpc.aio channel: of a wrapped one as well."""

from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import Call, Flow, Kind, intercept_channel
from interpose.testing.echo import Echo, Stub


def appended(kind: Kind, order: list[str]) -> Any:
    """A native interceptor for one kind of RPC, as such libraries have it."""

    async def intercept(self: Any, continuation: Any, details: Any, request: Any) -> Any:
        order.append("appended")
        details.metadata.add("x-appended", "yes")
        return await continuation(details, request)

    base = getattr(grpc.aio, f"{kind.value.title().replace('_', '')}ClientInterceptor")
    return type("Appended", (base,), {f"intercept_{kind.value}": intercept})()


def first(stub: Any, channel: Any, add: Callable[[Any], None]) -> Any:
    made = stub(channel)
    add(channel)
    return made


def later(stub: Any, channel: Any, add: Callable[[Any], None]) -> Any:
    add(channel)
    return stub(channel)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("when", [first, later], ids=["behind the stub", "before it"])
@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.value)
async def test_it_runs_below_ours(kind: Kind, when: Any, layers: int) -> None:
    """Whether the stub's method was made before or after; with several layers of ours below all of them."""
    order: list[str] = []

    def ours(call: Call) -> Flow:
        order.append("ours")
        yield call.with_metadata(("x-ours", "yes"))

    def add(channel: Any) -> None:
        getattr(channel, f"_{kind.value}_interceptors").append(appended(kind, order))

    echo = Echo()
    async with echo.serve_aio() as target:
        channel = grpc.aio.insecure_channel(target)
        for _ in range(layers):
            channel = intercept_channel(channel, ours)
        async with channel:
            method = when(lambda channel: getattr(Stub(channel), kind.value), channel, add)
            call = method(iter(["a"]) if kind.request_streaming else "a", timeout=10)
            assert await (call.read() if kind.response_streaming else call) == "a"

    assert order == ["ours"] * layers + ["appended"]
    assert [attempt.values("x-appended") for attempt in echo.attempts] == [["yes"]]
