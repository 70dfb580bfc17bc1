"""Response streams of native interceptors that are bare iterators: what can be known of such a call, and its cancel."""

import threading
from collections.abc import Iterator
from typing import Any

import grpc

from interpose import Call, Flow, Outcome, intercept_channel
from interpose._grpcio.bare import Bare
from interpose.testing import Echo, Stub
from tests.support.patience import PATIENCE


class Generating(grpc.UnaryStreamClientInterceptor):  # type: ignore[misc]
    """A native interceptor that gives a generator in the place of the call, as several do."""

    def __init__(self) -> None:
        self.closed = 0

    def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        try:
            yield from continuation(details, request)
        finally:
            self.closed += 1


def test_cancelling_a_stream_over_a_generator_closes_it() -> None:
    """`cancel` while it is read closes the generator, once, and the flows are told CANCELLED."""
    told: list[Outcome] = []
    native = Generating()

    def watch(call: Call) -> Flow:
        told.append((yield call))

    with Echo().serve() as target, grpc.insecure_channel(target) as channel:
        stream = Stub(intercept_channel(grpc.intercept_channel(channel, native), watch)).unary_stream("a")
        first = next(stream)
        initial = stream.initial_metadata()
        cancelled = stream.cancel()
        closed = native.closed

        assert (first, list(initial), cancelled, closed) == ("a", [], True, 1)
        assert stream.code() is grpc.StatusCode.CANCELLED
        assert not stream.cancel()
    assert [(outcome.code, outcome.responses) for outcome in told] == [(grpc.StatusCode.CANCELLED, 1)]


def test_it_is_cancelled_once_and_only_before_its_end() -> None:
    """An iterator without `close` is cancelled as well; a second cancel, or one after the end, changes nothing."""
    running, read = Bare(iter("ab")), Bare(iter("a"))
    before = running.is_active()
    list(iter(lambda: next(read, None), None))

    assert before and running.cancel() and not running.cancel()
    assert (running.code(), running.cancelled(), running.is_active()) == (grpc.StatusCode.CANCELLED, True, False)
    assert not read.cancel()
    assert (read.code(), read.cancelled(), read.is_active()) == (grpc.StatusCode.OK, False, False)


def test_cancelling_under_a_reader_lets_it_finish() -> None:
    """A generator that another thread reads cannot be closed; the cancel holds all the same, and does not raise."""
    reading, go_on = threading.Event(), threading.Event()
    read: list[str] = []

    def messages() -> Iterator[str]:
        reading.set()
        go_on.wait(PATIENCE)
        yield "late"

    bare = Bare(messages())
    reader = threading.Thread(target=lambda: read.append(next(bare)))
    reader.start()
    assert reading.wait(PATIENCE)
    cancelled = bare.cancel()
    go_on.set()
    reader.join(PATIENCE)

    assert cancelled and bare.cancelled()
    assert read == ["late"]
