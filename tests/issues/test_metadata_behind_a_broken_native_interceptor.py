"""An outcome tells its metadata also if a native interceptor beneath raised an exception of its own: there are none."""

import gc
from collections.abc import Iterator
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import Call, Flow, Kind, Outcome, intercept_channel
from interpose.testing.echo import Echo, Stub

# The finalizers of grpc.aio's intercepted calls, and callbacks of its own, raise what the interceptor raised.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def collected_here() -> Iterator[None]:
    """So that they do it in the test that made them."""
    yield
    gc.collect()


class Broken:
    """A native interceptor with a bug, for any kind of RPC."""

    async def _breaks(self, continuation: Any, details: Any, request: Any) -> Any:
        raise KeyError("a bug")

    def _breaks_on_sync(self, continuation: Any, details: Any, request: Any) -> Any:
        raise KeyError("a bug")


def broken(asyncio: bool, kind: Kind) -> Any:
    base = getattr(grpc.aio if asyncio else grpc, f"{kind.value.title().replace('_', '')}ClientInterceptor")
    breaks = Broken._breaks if asyncio else Broken._breaks_on_sync
    return type("Broken", (base,), {f"intercept_{kind.value}": breaks})()


def seen(outcome: Outcome) -> tuple[Any, ...]:
    return outcome.code, outcome.initial_metadata, outcome.trailing_metadata, outcome.error_details


def keep(outcomes: list[tuple[Any, ...]]) -> Any:
    def flow(call: Call) -> Flow:
        outcomes.append(seen((yield call)))

    return flow


NOTHING = (grpc.StatusCode.INTERNAL, (), (), ())


@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.value)
async def test_on_asyncio(kind: Kind) -> None:
    """Empty metadata, and the bug for the caller."""
    outcomes: list[tuple[Any, ...]] = []
    async with Echo().serve_aio() as target:
        native = grpc.aio.insecure_channel(target, interceptors=[broken(True, kind)])
        async with intercept_channel(native, keep(outcomes)) as channel:
            call = getattr(Stub(channel), kind.value)(iter("a") if kind.request_streaming else "a", timeout=10)
            with pytest.raises(KeyError, match="a bug"):
                await (call.read() if kind.response_streaming else call)
            assert list(await call.initial_metadata()) == list(await call.trailing_metadata()) == []

    assert outcomes == [NOTHING]


@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.value)
def test_on_sync(kind: Kind) -> None:
    """The same."""
    outcomes: list[tuple[Any, ...]] = []
    with Echo().serve() as target:
        native = grpc.intercept_channel(grpc.insecure_channel(target), broken(False, kind))
        with intercept_channel(native, keep(outcomes)) as channel:
            stub = getattr(Stub(channel), kind.value)
            request: Any = iter("a") if kind.request_streaming else "a"
            with pytest.raises(KeyError, match="a bug"):
                list(stub(request, timeout=10))

    assert outcomes == [NOTHING]
