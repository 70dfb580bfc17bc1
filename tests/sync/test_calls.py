"""What a sync stub gives on a wrapped channel behaves as what it gives on a raw one.

The fixture `rpc` runs a test on a raw channel and on wrapped ones, through generated stubs and bare multi-callables:
what is true of grpc is asserted, and must be true of us.
"""

from __future__ import annotations

import copy
import gc
import pickle
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from interpose import Call, Flow, Kind, chain, errors, intercept_channel, when
from tests.protos.compiled import Generated
from tests.protos.features import (
    ANSWERS,
    BOUND,
    BREAK,
    FAIL,
    HOLD,
    INITIAL,
    TRAILING,
    Features,
    looks,
    passes,
    replaces,
    resends,
    resends_later,
    served,
    stub,
)

WAYS: dict[str, Callable[[grpc.Channel], grpc.Channel]] = {
    "raw": lambda channel: channel,
    "empty": intercept_channel,
    "passes": lambda channel: intercept_channel(channel, passes),
    "stack": lambda channel: intercept_channel(channel, passes, chain(looks, replaces), when("*", looks)),
    "resends": lambda channel: intercept_channel(channel, passes, resends),
    "resends_later": lambda channel: intercept_channel(channel, resends_later, looks),
}
BARE = ["raw", "passes", "resends"]  # ways that are tested through bare multi-callables too
WRAPPED = [way for way in WAYS if way != "raw"]
UNARY = [Kind.UNARY_UNARY, Kind.STREAM_UNARY]
STREAMS = [Kind.UNARY_STREAM, Kind.STREAM_STREAM]

both_unary = pytest.mark.parametrize("kind", UNARY, ids=lambda kind: kind.value)
both_streams = pytest.mark.parametrize("kind", STREAMS, ids=lambda kind: kind.value)
every_kind = pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.value)
wrapped_only = pytest.mark.parametrize("rpc", [(way, "generated") for way in WRAPPED], indirect=True, ids="-".join)


@dataclass
class Rpc:
    """A service that runs, and the stub to call it."""

    channel: grpc.Channel
    service: Features
    stub: dict[Kind, Any]

    def requests(self, kind: Kind) -> Any:
        """What to send: "a", or "a" and "b" as a stream."""
        text = self.service.text
        return iter([text(text="a"), text(text="b")]) if kind.request_streaming else text(text="a")

    def call(self, kind: Kind, metadata: Any = None, timeout: float | None = BOUND, **options: Any) -> Any:
        """Blocks for a unary response; gives a stream otherwise."""
        return self.stub[kind](self.requests(kind), timeout=timeout, metadata=metadata, **options)

    def with_call(self, kind: Kind, metadata: Any = None, timeout: float | None = BOUND) -> Any:
        return self.stub[kind].with_call(self.requests(kind), timeout=timeout, metadata=metadata)

    def future(self, kind: Kind, metadata: Any = None, timeout: float | None = BOUND) -> Any:
        return self.stub[kind].future(self.requests(kind), timeout=timeout, metadata=metadata)

    def start(self, kind: Kind, metadata: Any = None, timeout: float | None = BOUND) -> Any:
        """A call that does not block: a future, or a stream."""
        begin = self.call if kind.response_streaming else self.future
        return begin(kind, metadata, timeout)

    def finish(self, kind: Kind, call: Any) -> list[str]:
        """Wait for the end; gives the texts that came, or raises the failure."""
        return texts(call) if kind.response_streaming else [call.result(BOUND).text]

    def held(self, kind: Kind, timeout: float | None = BOUND) -> Any:
        """A call that is at the server, which answers when the gate opens."""
        call = self.start(kind, HOLD, timeout)
        assert self.service.arrived.wait(BOUND)
        return call


def texts(messages: Any) -> list[str]:
    return [message.text for message in messages]


def pairs(metadata: Any) -> list[tuple[str, Any]]:
    return [(key, value) for key, value in metadata if key.startswith("x-")]


class Counter:
    """A callback that counts, and can be waited for."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self._called = threading.Event()

    def __call__(self, *arguments: Any) -> None:
        self.calls.append(arguments)
        self._called.set()

    def wait(self) -> list[tuple[Any, ...]]:
        assert self._called.wait(BOUND)
        return self.calls


@pytest.fixture(
    params=[(way, style) for way in WAYS for style in ("generated", "bare") if style == "generated" or way in BARE],
    ids="-".join,
)
def rpc(request: pytest.FixtureRequest, generated: Generated) -> Iterator[Rpc]:
    """The service behind a channel, wrapped in one way, called through one kind of stub."""
    way, style = request.param
    with served(generated) as (target, service):
        channel = WAYS[way](grpc.insecure_channel(target, [("grpc.enable_retries", 0)]))
        try:
            yield Rpc(channel, service, stub(generated, channel, style))
        finally:
            service.gate.set()
            channel.close()


# --- answers ----------------------------------------------------------------------------------------------------------


@both_unary
def test_a_stub_method_gives_the_response(rpc: Rpc, kind: Kind) -> None:
    """A unary response is what the stub method returns."""
    assert rpc.call(kind).text == ANSWERS[kind][0]


@both_unary
def test_with_call_gives_the_response_and_a_call_that_has_ended(rpc: Rpc, kind: Kind) -> None:
    """`with_call` gives the response and a `grpc.Call` that tells how the RPC went."""
    response, call = rpc.with_call(kind, timeout=None)

    assert response.text == ANSWERS[kind][0]
    assert isinstance(call, grpc.Call) and isinstance(call, grpc.Future)
    assert call.code() is grpc.StatusCode.OK and call.details() == ""
    assert pairs(call.initial_metadata()) == [INITIAL] and pairs(call.trailing_metadata()) == list(TRAILING)
    assert call.done() and not call.running() and not call.is_active() and not call.cancelled()
    assert call.time_remaining() is None and not call.cancel() and not call.add_callback(pytest.fail)
    assert call.result() is response and call.exception() is None and call.traceback() is None
    done = Counter()
    call.add_done_callback(done)
    assert done.calls == [(call,)]


@both_unary
def test_a_future_gives_the_response(rpc: Rpc, kind: Kind) -> None:
    """`future` gives a `grpc.Future` and `grpc.Call` whose result is the response."""
    call = rpc.future(kind, timeout=None)

    assert isinstance(call, grpc.Call) and isinstance(call, grpc.Future)
    assert call.result(BOUND).text == ANSWERS[kind][0] == call.result().text
    assert call.exception() is None and call.traceback() is None
    assert call.code() is grpc.StatusCode.OK and call.details() == ""
    assert pairs(call.initial_metadata()) == [INITIAL] and pairs(call.trailing_metadata()) == list(TRAILING)
    assert call.done() and not call.running() and not call.is_active() and not call.cancelled() and not call.cancel()
    assert call.time_remaining() is None


@both_streams
def test_a_response_stream_gives_the_responses(rpc: Rpc, kind: Kind) -> None:
    """A response stream is an iterator and a `grpc.Call`, and goes on saying that it has ended."""
    call = rpc.call(kind, timeout=None)

    assert isinstance(call, grpc.Call) and isinstance(call, grpc.Future) and iter(call) is call
    assert texts(call) == ANSWERS[kind]
    assert list(call) == [] and next(call, None) is None
    assert call.code() is grpc.StatusCode.OK and call.details() == ""
    assert pairs(call.initial_metadata()) == [INITIAL] and pairs(call.trailing_metadata()) == list(TRAILING)
    assert call.done() and not call.running() and not call.is_active() and not call.cancelled() and not call.cancel()
    assert call.result(BOUND) is None and call.exception() is None and call.traceback() is None
    assert call.time_remaining() is None


@both_streams
def test_a_response_stream_has_next(rpc: Rpc, kind: Kind) -> None:
    """`stream.next()` is `next(stream)`."""
    call = rpc.call(kind)

    assert [call.next().text, next(call).text] == ANSWERS[kind][:2]
    assert texts(call) == ANSWERS[kind][2:]


@every_kind
def test_metadata_and_deadline_reach_the_server(rpc: Rpc, kind: Kind) -> None:
    """What the application sends beside the messages reaches the server, duplicates and bytes too."""
    sent = (("x-key", "one"), ("x-key", "two"), ("x-key-bin", b"\x00\xff"))
    call = rpc.start(kind, sent, timeout=BOUND)
    rpc.finish(kind, call)

    last = [pair for pair in rpc.service.seen[-1] if pair in sent]
    assert last == list(sent)
    assert 0 < rpc.service.remaining[-1] <= BOUND + 0.5


@every_kind
def test_metadata_items_have_names(rpc: Rpc, kind: Kind) -> None:
    """The items of received metadata have `key` and `value`."""
    call = rpc.start(kind)
    rpc.finish(kind, call)

    assert [(item.key, item.value) for item in call.trailing_metadata()] == list(TRAILING)
    assert INITIAL in [(item.key, item.value) for item in call.initial_metadata()]


# --- failures ---------------------------------------------------------------------------------------------------------


@both_unary
@pytest.mark.parametrize("form", ["call", "with_call"])
def test_a_blocking_call_raises_its_failure(rpc: Rpc, kind: Kind, form: str) -> None:
    """What a blocking call raises is an RpcError, a Call and a Future that has ended."""
    with pytest.raises(grpc.RpcError) as caught:
        getattr(rpc, form)(kind, FAIL)

    error: Any = caught.value
    assert isinstance(error, grpc.Call) and isinstance(error, grpc.Future)
    assert error.code() is grpc.StatusCode.NOT_FOUND and error.details() == "no such thing"
    assert pairs(error.initial_metadata()) == [INITIAL] and pairs(error.trailing_metadata()) == list(TRAILING)
    assert "no such thing" in error.debug_error_string() and "NOT_FOUND" in repr(error) and "NOT_FOUND" in str(error)
    assert error.done() and not error.running() and not error.cancelled() and not error.cancel()
    assert error.exception() is error and error.traceback() is not None
    with pytest.raises(grpc.RpcError) as again:
        error.result()
    assert again.value is error
    done = Counter()
    error.add_done_callback(done)
    assert done.calls == [(error,)]


@both_unary
def test_a_future_raises_its_failure(rpc: Rpc, kind: Kind) -> None:
    """`result` raises what `exception` gives; the call tells the same."""
    call = rpc.future(kind, FAIL)

    with pytest.raises(grpc.RpcError) as caught:
        call.result(BOUND)
    for error in (caught.value, call.exception(BOUND), call):
        assert error.code() is grpc.StatusCode.NOT_FOUND and error.details() == "no such thing"
        assert pairs(error.initial_metadata()) == [INITIAL] and pairs(error.trailing_metadata()) == list(TRAILING)
        assert "no such thing" in error.debug_error_string() and "NOT_FOUND" in repr(error)
    assert isinstance(call.exception(), grpc.RpcError) and call.traceback() is not None
    assert call.done() and not call.running() and not call.is_active() and not call.cancelled() and not call.cancel()


@both_streams
@pytest.mark.parametrize("act", [FAIL, BREAK], ids=["at once", "later"])
def test_a_response_stream_raises_its_failure(rpc: Rpc, kind: Kind, act: Any) -> None:
    """A stream that fails gives what came before, then raises the failure, and raises it again when asked again."""
    call = rpc.call(kind, act)
    came: list[str] = []
    with pytest.raises(grpc.RpcError) as caught:
        for message in call:
            came.append(message.text)  # noqa: PERF401  what came before counts
    with pytest.raises(grpc.RpcError) as again:
        next(call)

    assert came == (["A"] if act is BREAK else [])
    for error in (caught.value, again.value, call, call.exception(BOUND)):
        assert isinstance(error, grpc.Call) and isinstance(error, grpc.Future)
        assert error.code() is grpc.StatusCode.NOT_FOUND and error.details() == "no such thing"
        assert pairs(error.initial_metadata()) == [INITIAL] and pairs(error.trailing_metadata()) == list(TRAILING)
        assert "no such thing" in error.debug_error_string()
    with pytest.raises(grpc.RpcError):
        call.result(BOUND)
    assert call.done() and call.traceback() is not None and not call.is_active() and not call.cancelled()


@every_kind
def test_a_method_that_nobody_serves(rpc: Rpc, kind: Kind) -> None:
    """An unknown method is UNIMPLEMENTED."""
    text = rpc.service.text
    path = "/interpose.tests.Features/Nothing"
    method = getattr(rpc.channel, kind.value)(path, text.SerializeToString, text.FromString)
    call = (method if kind.response_streaming else method.future)(rpc.requests(kind), timeout=BOUND)

    with pytest.raises(grpc.RpcError) as caught:
        rpc.finish(kind, call)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED  # type: ignore[attr-defined]


@every_kind
def test_the_deadline_ends_a_call(rpc: Rpc, kind: Kind) -> None:
    """A deadline that passes while the server works gives DEADLINE_EXCEEDED."""
    call = rpc.start(kind, HOLD, timeout=0.1)

    with pytest.raises(grpc.RpcError) as caught:
        rpc.finish(kind, call)
    assert caught.value.code() is call.code() is grpc.StatusCode.DEADLINE_EXCEEDED  # type: ignore[attr-defined]
    assert call.time_remaining() == 0 and call.done() and not call.cancelled()


@both_unary
def test_the_deadline_ends_a_blocking_call(rpc: Rpc, kind: Kind) -> None:
    """A blocking call raises DEADLINE_EXCEEDED when its time is over."""
    with pytest.raises(grpc.RpcError) as caught:
        rpc.call(kind, HOLD, timeout=0.1)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", [Kind.STREAM_UNARY, Kind.STREAM_STREAM], ids=lambda kind: kind.value)
def test_a_request_stream_that_raises_ends_the_call(rpc: Rpc, kind: Kind) -> None:
    """An exception of the application's request iterator ends the RPC with UNKNOWN, in grpc's words."""

    def requests() -> Iterator[Any]:
        yield rpc.service.text(text="a")
        raise LookupError("of the application")

    method = rpc.stub[kind]
    call = (method if kind.response_streaming else method.future)(requests(), timeout=BOUND)
    with pytest.raises(grpc.RpcError) as caught:
        rpc.finish(kind, call)

    error: Any = caught.value
    assert error.code() is grpc.StatusCode.UNKNOWN and error.details() == "Exception iterating requests!"


@both_unary
@pytest.mark.parametrize("fault", ["serializing request", "deserializing response"])
def test_a_serializer_that_raises_is_internal(rpc: Rpc, kind: Kind, fault: str) -> None:
    """A message that cannot be serialized or parsed ends the RPC with INTERNAL, in grpc's words."""

    def broken(message: Any) -> Any:
        raise LookupError("of the application")

    text = rpc.service.text
    serializers = (broken, text.FromString) if "request" in fault else (text.SerializeToString, broken)
    path = "/interpose.tests.Features/" + {Kind.UNARY_UNARY: "Ask", Kind.STREAM_UNARY: "Collect"}[kind]
    method = getattr(rpc.channel, kind.value)(path, *serializers)

    with pytest.raises(grpc.RpcError) as caught:
        method(rpc.requests(kind), timeout=BOUND)
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.INTERNAL and error.details() == f"Exception {fault}!"


# --- futures ----------------------------------------------------------------------------------------------------------


@every_kind
def test_a_call_that_is_under_way(rpc: Rpc, kind: Kind) -> None:
    """While the server works a call is active, tells the time left and the initial metadata, and times out waiters."""
    call = rpc.held(kind)

    assert call.is_active() and call.running() and not call.done() and not call.cancelled()
    assert 0 < call.time_remaining() <= BOUND
    if kind is not Kind.UNARY_UNARY:  # there grpc asks for initial metadata together with the response
        assert pairs(call.initial_metadata()) == [INITIAL]
    for wait in (call.result, call.exception, call.traceback):
        with pytest.raises(grpc.FutureTimeoutError):
            wait(timeout=0.01)
    assert call.is_active()
    rpc.service.gate.set()
    assert rpc.finish(kind, call) == ANSWERS[kind]


@every_kind
def test_callbacks_come_once(rpc: Rpc, kind: Kind) -> None:
    """Each callback is called once at the end: with the call, or with nothing; later ones at once, or never."""
    call = rpc.held(kind)
    done, over = Counter(), Counter()
    call.add_done_callback(done)
    assert call.add_callback(over)
    rpc.service.gate.set()
    rpc.finish(kind, call)

    assert done.wait() == [(call,)] and over.wait() == [()]
    late = Counter()
    call.add_done_callback(late)
    assert late.calls == [(call,)] and not call.add_callback(over)
    assert len(done.calls) == len(over.calls) == 1


@both_unary
def test_a_callback_may_read_the_result(rpc: Rpc, kind: Kind) -> None:
    """Within a done callback everything that waits for the end is there already."""
    call = rpc.held(kind)
    told: queue.Queue[Any] = queue.Queue()
    call.add_done_callback(lambda call: told.put((call.result().text, call.code(), call.done())))
    rpc.service.gate.set()

    assert told.get(timeout=BOUND) == (ANSWERS[kind][0], grpc.StatusCode.OK, True)


@wrapped_only
@both_unary
def test_a_callback_that_raises_silences_no_other(rpc: Rpc, kind: Kind) -> None:
    """After a callback that raises the next ones are called; grpc itself forgets them."""
    call = rpc.held(kind)
    done, over = Counter(), Counter()

    def broken(*_: Any) -> None:
        raise LookupError("of the application")

    call.add_done_callback(broken)
    call.add_done_callback(done)
    call.add_callback(broken)
    call.add_callback(over)
    rpc.service.gate.set()

    assert done.wait() and over.wait() and call.result(BOUND).text == ANSWERS[kind][0]


@both_unary
def test_many_threads_may_wait(rpc: Rpc, kind: Kind) -> None:
    """All threads that wait for a future get its result."""
    call = rpc.held(kind)
    with futures.ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(call.result, BOUND) for _ in range(4)]
        rpc.service.gate.set()

    assert [future.result(BOUND).text for future in waiting] == ANSWERS[kind] * 4


def test_a_future_that_is_dropped_is_cancelled(rpc: Rpc) -> None:
    """A future that nobody holds any more is cancelled."""
    call = rpc.held(Kind.UNARY_UNARY)
    del call
    gc.collect()

    assert rpc.service.gone.wait(BOUND)
    assert not rpc.service.gate.is_set()


@both_unary
def test_a_future_does_not_wait_for_a_flow(generated: Generated, kind: Kind) -> None:
    """`future` returns at once however long a flow delays the call, and can be cancelled meanwhile."""

    def later(call: Call) -> Flow:
        yield call.after(1e6)

    with served(generated) as (target, service), intercept_channel(grpc.insecure_channel(target), later) as channel:
        rpc = Rpc(channel, service, stub(generated, channel, "generated"))
        call = rpc.future(kind, timeout=None)
        assert call.running() and call.is_active() and not call.done() and call.time_remaining() is None
        with pytest.raises(grpc.FutureTimeoutError):
            call.result(timeout=0.01)
        assert call.cancel() and call.cancelled()
        with pytest.raises(grpc.FutureCancelledError):
            call.result(BOUND)
        assert not service.seen


@both_unary
def test_a_future_does_not_wait_between_attempts(generated: Generated, kind: Kind) -> None:
    """While a flow waits to send again a future is active; cancelled then, it sends no more."""
    waiting = threading.Event()

    def again(call: Call) -> Flow:
        yield call.buffered().with_metadata(("x-fail-first", "yes"))
        waiting.set()
        yield call.buffered().after(1e6)

    with served(generated) as (target, service), intercept_channel(grpc.insecure_channel(target), again) as channel:
        rpc = Rpc(channel, service, stub(generated, channel, "generated"))
        call = rpc.future(kind)
        done = Counter()
        call.add_done_callback(done)
        assert waiting.wait(BOUND)
        assert call.running() and not call.done() and not done.calls
        assert call.cancel() and done.wait() == [(call,)]
        assert call.code() is grpc.StatusCode.CANCELLED and len(service.seen) == 1


# --- cancelling -------------------------------------------------------------------------------------------------------


@every_kind
def test_a_call_can_be_cancelled(rpc: Rpc, kind: Kind) -> None:
    """`cancel` ends the call here and at the server; what waits for its result is told so."""
    call = rpc.held(kind)
    done, over = Counter(), Counter()
    call.add_done_callback(done)
    call.add_callback(over)

    assert call.cancel() and not call.cancel()
    assert call.cancelled() and call.done() and not call.is_active() and not call.running()
    assert call.code() is grpc.StatusCode.CANCELLED and call.details() == "Locally cancelled by application!"
    for wait in (call.result, call.exception, call.traceback):
        with pytest.raises(grpc.FutureCancelledError):
            wait(timeout=BOUND)
    assert done.wait() == [(call,)] and over.wait() == [()]
    assert rpc.service.gone.wait(BOUND)


@both_streams
def test_a_cancelled_stream_raises(rpc: Rpc, kind: Kind) -> None:
    """Reading a stream that was cancelled raises its status."""
    call = rpc.call(kind)
    assert next(call).text == "A"
    call.cancel()

    with pytest.raises(grpc.RpcError) as caught:
        texts(call)
    assert caught.value.code() is grpc.StatusCode.CANCELLED  # type: ignore[attr-defined]
    assert call.cancelled()


@both_streams
def test_a_reader_that_waits_is_woken_by_cancel(rpc: Rpc, kind: Kind) -> None:
    """A thread that waits for the next message sees the cancellation by another one."""
    call = rpc.held(kind)
    with futures.ThreadPoolExecutor(1) as pool:
        reading = pool.submit(next, call)
        call.cancel()
        with pytest.raises(grpc.RpcError) as caught:
            reading.result(BOUND)

    assert caught.value.code() is grpc.StatusCode.CANCELLED  # type: ignore[attr-defined]


@both_streams
def test_a_stream_that_is_dropped_is_cancelled(rpc: Rpc, kind: Kind) -> None:
    """A stream that nobody holds any more is cancelled."""
    call = rpc.held(kind)
    del call
    gc.collect()

    assert rpc.service.gone.wait(BOUND)
    assert not rpc.service.gate.is_set()


def test_breaking_off_a_stream(rpc: Rpc) -> None:
    """A loop left early leaves a stream that can be read on or cancelled."""
    call = rpc.call(Kind.UNARY_STREAM)
    for message in call:
        assert message.text == "A"
        break

    assert next(call).text == "A"
    assert call.cancel() or call.done()


# --- both ways --------------------------------------------------------------------------------------------------------


def test_a_conversation(rpc: Rpc) -> None:
    """On a bidi call a request may depend on the response to the one before."""
    said: queue.Queue[str | None] = queue.Queue()
    call = rpc.stub[Kind.STREAM_STREAM]((rpc.service.text(text=text) for text in iter(said.get, None)), timeout=BOUND)
    heard = []
    for text in ("how", "are", "you"):
        said.put(text)
        heard.append(next(call).text)
    said.put(None)

    assert heard == ["HOW", "ARE", "YOU"] and texts(call) == []
    assert call.code() is grpc.StatusCode.OK


def test_calls_at_once(rpc: Rpc) -> None:
    """Many threads may use one stub."""
    kinds = list(Kind) * 4
    with futures.ThreadPoolExecutor(8) as pool:
        ends = list(pool.map(lambda kind: rpc.finish(kind, rpc.start(kind)), kinds))

    assert ends == [ANSWERS[kind] for kind in kinds]


# --- errors -----------------------------------------------------------------------------------------------------------


def failure_of(rpc: Rpc, kind: Kind) -> Any:
    with pytest.raises(grpc.RpcError) as caught:
        rpc.finish(kind, rpc.start(kind, FAIL))
    return caught.value


@wrapped_only
@every_kind
def test_a_failure_is_typed_and_native(rpc: Rpc, kind: Kind) -> None:
    """`except grpc.RpcError`, `except errors.NotFound` and `except errors.StatusError` all catch what a stub raises."""
    error = failure_of(rpc, kind)

    for catches in (grpc.RpcError, errors.NotFound, errors.StatusError):
        assert isinstance(error, catches)
    assert isinstance(error, grpc.Call) and isinstance(error, grpc.Future)
    assert type(error).__name__ == "NotFound" and not error.local
    assert not error.is_active() and error.time_remaining() is None and not error.add_callback(pytest.fail)
    assert error.trailing_metadata().get_all("x-trailing") == ["2", "3"]


@wrapped_only
@every_kind
@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_a_failure_can_be_copied(rpc: Rpc, kind: Kind, duplicate: Callable[[Any], Any]) -> None:
    """A copy of an error, also one from another process, is caught by what catches the error, and tells the same."""
    error = failure_of(rpc, kind)
    twin = duplicate(error)

    assert type(twin) is type(error) and isinstance(twin, errors.NotFound) and isinstance(twin, grpc.Call)
    assert (twin.code(), twin.details(), twin.local) == (error.code(), error.details(), error.local)
    assert twin.trailing_metadata() == error.trailing_metadata() and twin.initial_metadata() == error.initial_metadata()
    assert (str(twin), repr(twin), twin.args) == (str(error), repr(error), error.args)
    assert twin.debug_error_string() == error.debug_error_string()


@wrapped_only
@pytest.mark.parametrize("kind", [Kind.STREAM_UNARY, Kind.STREAM_STREAM], ids=lambda kind: kind.value)
def test_what_a_request_stream_raised_is_the_cause(rpc: Rpc, kind: Kind) -> None:
    """The exception of the application's request iterator is the cause of the failure."""
    cause = LookupError("of the application")

    def requests() -> Iterator[Any]:
        yield rpc.service.text(text="a")
        raise cause

    method = rpc.stub[kind]
    with pytest.raises(errors.Unknown) as caught:
        rpc.finish(kind, (method if kind.response_streaming else method.future)(requests(), timeout=BOUND))
    assert caught.value.__cause__ is cause


@wrapped_only
@every_kind
def test_a_request_that_cannot_be_serialized(rpc: Rpc, kind: Kind) -> None:
    """A future or stream whose request cannot be serialized fails with INTERNAL."""
    call = (rpc.stub[kind] if kind.response_streaming else rpc.stub[kind].future)(
        iter([object()]) if kind.request_streaming else object(), timeout=BOUND
    )

    with pytest.raises((errors.Internal, errors.Unknown)) as caught:
        rpc.finish(kind, call)
    assert caught.value.details() in ("Exception serializing request!", "Exception iterating requests!")
    assert call.done()
