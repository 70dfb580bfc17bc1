"""Channels that OpenTelemetry, Sentry or a native interceptor wrapped before us have targets all the same."""

from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import Call, Flow, errors, intercept_channel
from interpose.interceptors.circuit_breaker import CircuitBreaker
from interpose.mechanisms.window import calls
from interpose.testing import failed
from interpose.testing.echo import Echo, Stub


class Passes(grpc.UnaryUnaryClientInterceptor):  # type: ignore[type-arg]
    """A native interceptor, as instrumentation puts one on every channel."""

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return continuation(details, request)


class Wrapper(grpc.Channel):
    """A channel of somebody else, which keeps the one inside where nobody finds it."""

    def __init__(self, inside: grpc.Channel) -> None:
        self._hidden = inside

    def unary_unary(self, *args: Any, **kwargs: Any) -> Any:
        return self._hidden.unary_unary(*args, **kwargs)

    unary_stream = stream_unary = stream_stream = unary_unary

    def subscribe(self, callback: Any, try_to_connect: Any = False) -> None: ...

    def unsubscribe(self, callback: Any) -> None: ...

    def close(self) -> None:
        self._hidden.close()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class Proxy(Wrapper):
    """One as wrapt makes them."""

    @property
    def __wrapped__(self) -> grpc.Channel:
        return self._hidden


WRAPS: dict[str, Callable[[grpc.Channel], Any]] = {
    "native": lambda channel: grpc.intercept_channel(channel, Passes()),
    "native twice": lambda channel: grpc.intercept_channel(grpc.intercept_channel(channel, Passes()), Passes()),
    "wrapt": Proxy,
    "hidden": Wrapper,
}


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
def test_a_dead_backend_does_not_take_a_healthy_one_along(wrap: Callable[[grpc.Channel], Any]) -> None:
    """One breaker for each of them, by its address or, where that is hidden, by its channel."""
    breaker = CircuitBreaker(minimum=2, window=calls(2))
    targets: list[str] = []

    def note(call: Call) -> Flow:
        targets.append(str(call.method.target))
        yield call

    dead, well = Echo([failed(grpc.StatusCode.UNAVAILABLE), ...]), Echo()
    with dead.serve() as first, well.serve() as second:
        for address, refusals in ((first, 3), (second, 0)):
            with intercept_channel(wrap(grpc.insecure_channel(address)), note, breaker) as channel:
                stub = Stub(channel).unary_unary
                for _ in range(refusals):
                    with pytest.raises(errors.Unavailable):
                        stub("a")
                if not refusals:
                    assert stub("a") == "a"

    assert len(dead.attempts) == 2
    known = "" if wrap is Wrapper else f"dns:///{second}"
    assert targets[-1] == known
