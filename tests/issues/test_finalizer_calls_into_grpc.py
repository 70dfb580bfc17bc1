"""A finalizer runs inside anybody's code, also grpc's: it hands the cancel of a dropped call to another thread."""

import gc
import threading
from collections.abc import Callable
from typing import Any

import grpc
import grpc._channel
import grpc.experimental
import pytest

from interpose import Call, Flow, intercept_channel
from interpose.testing import FakeClock, ok
from interpose.testing.echo import Echo, Stub
from tests.support.patience import PATIENCE

SINGLE = ((grpc.experimental.ChannelOptions.SingleThreadedUnaryStream, 1),)
CLASSES = (grpc._channel._MultiThreadedRendezvous, grpc._channel._SingleThreadedRendezvous)


@pytest.fixture
def cancelled_by(monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], threading.Event]:
    """The names of the threads on which grpc's calls are cancelled, and when one is."""
    names: list[str] = []
    over = threading.Event()
    for kind in CLASSES:

        def noted(call: Any, cancel: Callable[[Any], bool] = kind.cancel) -> bool:
            names.append(threading.current_thread().name)
            cancelled = cancel(call)
            over.set()
            return cancelled

        monkeypatch.setattr(kind, "cancel", noted)
    return names, over


def passes(call: Call) -> Flow:
    yield call


def hedge(call: Call) -> Flow:
    yield call.hedged(copies=2, delay=3600)


STARTS: dict[str, tuple[Callable[[Stub], Any], Any]] = {
    "future": (lambda stub: stub.unary_unary.future("a"), ()),
    "stream": (lambda stub: stub.unary_stream("a"), ()),
    "upload": (lambda stub: stub.stream_unary.future(iter("a")), ()),
    "both": (lambda stub: stub.stream_stream(iter("a")), ()),
    "single-threaded": (lambda stub: stub.unary_stream("a"), SINGLE),
}


@pytest.mark.parametrize("flow", [passes, hedge])
@pytest.mark.parametrize(("start", "options"), STARTS.values(), ids=STARTS)
def test_a_dropped_call(
    start: Callable[[Stub], Any], flow: Any, options: Any, cancelled_by: tuple[list[str], threading.Event]
) -> None:
    """It is cancelled on the clock's thread, whatever clock the channel goes by."""
    names, over = cancelled_by
    echo = Echo([ok(hang=True), ...])
    with echo.serve() as target:
        native = grpc.insecure_channel(target, options)
        with intercept_channel(native, flow, clock=FakeClock()) as channel:
            call = start(Stub(channel))
            echo.wait_begun()
            del call
            gc.collect()
            assert over.wait(PATIENCE)

    assert set(names) == {"interpose-clock"}
