"""What grpc's sync client does to naive interceptors, row by row: none of it happens on an intercepted channel.

A test is named after the row of the table of facts that it holds; the tables at the end of this file say where else a
row is held, and why a row has no test here.
"""

import gc
import itertools
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import grpc
import grpc.experimental
import pytest

from interpose import Call, Flow, Interceptor, Kind, Outcome, errors, intercept_channel
from interpose._clock import SYSTEM, Clock
from interpose.testing import Echo, FakeClock, failed, ok
from interpose.testing.echo import decode, encode, path

PATIENCE = 10.0  # seconds after which a test counts as hung

OK = grpc.StatusCode.OK
CANCELLED = grpc.StatusCode.CANCELLED
DEADLINE_EXCEEDED = grpc.StatusCode.DEADLINE_EXCEEDED
INTERNAL = grpc.StatusCode.INTERNAL
NOT_FOUND = grpc.StatusCode.NOT_FOUND
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
UNKNOWN = grpc.StatusCode.UNKNOWN

ALL = pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.value)
UNARY = pytest.mark.parametrize("kind", [Kind.UNARY_UNARY, Kind.STREAM_UNARY], ids=lambda kind: kind.value)
STREAMING = pytest.mark.parametrize("kind", [Kind.UNARY_STREAM, Kind.STREAM_STREAM], ids=lambda kind: kind.value)
BLOCKING = pytest.mark.parametrize("blocking", [True, False], ids=["blocking", "future"])

SINGLE_THREADED = (grpc.experimental.ChannelOptions.SingleThreadedUnaryStream, 1)
NO_CORE_RETRIES = ("grpc.enable_retries", 0)


# --- helpers ----------------------------------------------------------------------------------------------------------


class Watch:
    """A flow that notes its outcomes."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self._ended = threading.Event()

    def __call__(self, call: Call) -> Flow:
        outcome = yield call
        self.outcomes.append(outcome)
        self._ended.set()

    def outcome(self) -> Outcome:
        """The one outcome there was, or will soon be."""
        assert self._ended.wait(PATIENCE), "the flow was told nothing"
        [outcome] = self.outcomes
        return outcome


class Gate:
    """A service that says when it has begun, and goes on when it is let; a stream has sent one message by then."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go = threading.Event()
        self.ended = threading.Semaphore(0)  # released for each RPC that grpc tells the handler is over

    def handlers(self, *, asyncio: bool) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(
            "interpose.testing.Echo",
            {
                "unary_unary": grpc.unary_unary_rpc_method_handler(self._unary, decode, encode),
                "stream_unary": grpc.stream_unary_rpc_method_handler(self._unary, decode, encode),
                "unary_stream": grpc.unary_stream_rpc_method_handler(self._stream, decode, encode),
                "stream_stream": grpc.stream_stream_rpc_method_handler(self._stream, decode, encode),
            },
        )

    def close(self) -> None:
        self.go.set()

    def _begin(self, context: grpc.ServicerContext) -> None:
        context.add_callback(self.ended.release)
        self.begun.set()

    def _unary(self, argument: Any, context: grpc.ServicerContext) -> str:
        self._begin(context)
        self.go.wait(PATIENCE)
        return "answer"

    def _stream(self, argument: Any, context: grpc.ServicerContext) -> Iterator[str]:
        self._begin(context)
        yield "first"
        self.go.wait(PATIENCE)
        yield "last"


class Uploads:
    """A service for request streams: fails the first attempts by script, and notes what the others read to the end."""

    def __init__(self, *reads: int | None) -> None:
        self._reads = list(reads)  # how many messages to read before a failure, per attempt; then all, and an answer
        self.seconds = threading.Event()  # set once a second attempt has begun
        self.begun = 0
        self.complete: list[list[str]] = []

    def handlers(self, *, asyncio: bool) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(
            "interpose.testing.Echo",
            {"stream_unary": grpc.stream_unary_rpc_method_handler(self._upload, decode, encode)},
        )

    def close(self) -> None:
        self.seconds.set()

    def _upload(self, requests: Iterator[str], context: grpc.ServicerContext) -> str:
        self.begun += 1
        if self.begun == 2:
            self.seconds.set()
        reads = self._reads.pop(0) if self._reads else None
        messages = list(itertools.islice(requests, reads))
        if reads is not None:
            context.abort(UNAVAILABLE, "as scripted")
        self.complete.append(messages)
        return ",".join(messages)


class Link:
    """A channel with interceptors to a service of the test."""

    def __init__(self, target: str, server: grpc.Server, native: grpc.Channel, channel: grpc.Channel) -> None:
        self.target = target
        self.server = server
        self.native = native
        self.channel = channel

    def stub(self, kind: Kind) -> Any:
        return getattr(self.channel, kind.value)(path(kind), encode, decode)

    def start(self, kind: Kind, *requests: str, **options: Any) -> Any:
        """Start an RPC without waiting: a future for unary responses."""
        stub = self.stub(kind)
        return (stub if kind.response_streaming else stub.future)(requested(kind, *requests), **options)

    def call(self, kind: Kind, *requests: str, blocking: bool = True, **options: Any) -> list[str]:
        """Perform an RPC to its end; gives its messages or raises its failure."""
        if kind.response_streaming:
            return list(self.start(kind, *requests, **options))
        if blocking:
            return [self.stub(kind)(requested(kind, *requests), **options)]
        return [self.start(kind, *requests, **options).result(PATIENCE)]


def requested(kind: Kind, *requests: str) -> Any:
    messages = requests or ("a",)
    return iter(messages) if kind.request_streaming else messages[0]


@contextmanager
def opened(
    service: Any, *interceptors: Interceptor, options: Iterable[tuple[str, Any]] = (), clock: Clock = SYSTEM
) -> Iterator[Link]:
    """Serve, connect, and clean up."""
    with serving(service) as (target, server), grpc.insecure_channel(target, list(options)) as native:
        yield Link(target, server, native, intercept_channel(native, *interceptors, clock=clock))


@contextmanager
def serving(service: Any, address: str = "127.0.0.1:0") -> Iterator[tuple[str, grpc.Server]]:
    pool = futures.ThreadPoolExecutor(8)
    server = grpc.server(pool, options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((service.handlers(asyncio=False),))
    port = server.add_insecure_port(address)
    server.start()
    try:
        yield address.replace(":0", f":{port}"), server
    finally:
        service.close()
        server.stop(None).wait(PATIENCE)
        pool.shutdown()


@contextmanager
def refusing() -> Iterator[str]:
    """An address where nobody listens."""
    import socket

    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{reserved.getsockname()[1]}"


class Background:
    """Work on a thread of its own, for what might hang."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work = work
        self._future: futures.Future[Any] = futures.Future()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._future.set_result(self._work())
        except BaseException as error:
            self._future.set_exception(error)

    def result(self) -> Any:
        """What the work gave or raised; TimeoutError if it hangs."""
        try:
            return self._future.result(PATIENCE)
        finally:
            self._thread.join(PATIENCE)


def in_time(work: Callable[[], Any]) -> Any:
    """Do the work; TimeoutError if it hangs."""
    return Background(work).result()


def passing(call: Call) -> Flow:
    yield call


def again(times: int = 1, **asks: Any) -> Interceptor:
    """A flow that sends a call that failed again."""

    def resend(call: Call) -> Flow:
        outcome = yield call
        for _ in range(times):
            if outcome.ok or not outcome.replayable:
                return outcome
            outcome = yield call
        return outcome

    return resend


def buffered(max_bytes: int) -> Interceptor:
    def buffer(call: Call) -> Flow:
        yield call.buffered(max_bytes)

    return buffer


def late(seconds: float) -> Interceptor:
    def delay(call: Call) -> Flow:
        yield call.after(seconds)

    return delay


# --- exactly one outcome ----------------------------------------------------------------------------------------------


@ALL
@BLOCKING
def test_one_outcome_after_exhaustion(kind: Kind, blocking: bool) -> None:
    """An RPC that ends well is told to the flow once, also after grpc objects are collected and the channel closed."""
    watch = Watch()

    with opened(Echo(), watch) as link:
        messages = in_time(lambda: link.call(kind, "a", "b", blocking=blocking))
        gc.collect()

    assert messages
    assert watch.outcome().ok


@ALL
@BLOCKING
def test_one_outcome_after_an_error(kind: Kind, blocking: bool) -> None:
    """An RPC that the server fails is told to the flow once."""
    watch = Watch()

    with opened(Echo([failed(NOT_FOUND, after=2)]), watch) as link:
        with pytest.raises(errors.NotFound):
            in_time(lambda: link.call(kind, "a", "b", "c", blocking=blocking))
        gc.collect()

    assert watch.outcome().code is NOT_FOUND
    assert watch.outcome().responses == (2 if kind.response_streaming else 0)


@ALL
def test_one_outcome_after_cancel(kind: Kind) -> None:
    """cancel() ends the RPC at once, with one outcome; a second cancel() does nothing."""
    watch, gate = Watch(), Gate()

    with opened(gate, watch) as link:
        call = link.start(kind)
        assert gate.begun.wait(PATIENCE)
        answers = call.cancel(), call.cancel()
        outcome = watch.outcome()

    assert answers == (True, False)
    assert outcome.code is CANCELLED
    assert watch.outcome() is outcome


@STREAMING
def test_one_outcome_after_cancel_in_the_middle_of_a_stream(kind: Kind) -> None:
    """A stream that is cancelled while another thread reads it ends for both, with one outcome."""
    watch, gate = Watch(), Gate()

    with opened(gate, watch) as link:
        stream = link.start(kind)
        assert next(stream) == "first"
        reader = Background(lambda: next(stream))
        stream.cancel()
        with pytest.raises(grpc.RpcError) as caught:
            reader.result()

    assert caught.value.code() is CANCELLED
    assert watch.outcome().code is CANCELLED
    assert watch.outcome().responses == 1


@ALL
@BLOCKING
def test_one_outcome_after_the_deadline(kind: Kind, blocking: bool) -> None:
    """A deadline that passes while the server is silent is one outcome."""
    watch = Watch()

    with opened(Gate(), watch) as link, pytest.raises(errors.DeadlineExceeded):
        in_time(lambda: link.call(kind, blocking=blocking, timeout=0.2))

    assert watch.outcome().code is DEADLINE_EXCEEDED


@STREAMING
def test_one_outcome_after_the_deadline_of_a_stream_that_nobody_reads(kind: Kind) -> None:
    """A deadline ends a stream that is held and not read: no reader is needed to tell the flow."""
    watch = Watch()

    with opened(Gate(), watch) as link:
        stream = link.start(kind, timeout=0.2)
        outcome = watch.outcome()
        code = in_time(stream.code)

    assert outcome.code is code is DEADLINE_EXCEEDED


@ALL
@BLOCKING
def test_one_outcome_after_the_channel_was_closed(kind: Kind, blocking: bool) -> None:
    """close() of the channel ends RPCs under way, each with one outcome, and frees who waits for them."""
    watch, gate = Watch(), Gate()

    with opened(gate, watch) as link:
        caller = Background(lambda: link.call(kind, blocking=blocking))
        assert gate.begun.wait(PATIENCE)
        link.channel.close()
        with pytest.raises(errors.Cancelled):
            caller.result()

    assert watch.outcome().code is CANCELLED


@ALL
@BLOCKING
def test_one_outcome_after_the_server_stopped(kind: Kind, blocking: bool) -> None:
    """A server that stops without grace ends RPCs under way, each with one outcome."""
    watch, gate = Watch(), Gate()

    with opened(gate, watch) as link:
        caller = Background(lambda: link.call(kind, blocking=blocking))
        assert gate.begun.wait(PATIENCE)
        link.server.stop(None)
        with pytest.raises((errors.Unavailable, errors.Cancelled)):
            caller.result()

    assert watch.outcome().code in (UNAVAILABLE, CANCELLED)


@UNARY
@BLOCKING
def test_closing_the_channel_ends_a_call_that_waits_to_be_sent(kind: Kind, blocking: bool) -> None:
    """A call that is delayed for a minute ends as CANCELLED when its channel is closed, and is not sent."""
    watch, echo, delayed = Watch(), Echo(), threading.Event()

    def delay(call: Call) -> Flow:
        delayed.set()
        yield call.after(60)

    with opened(echo, watch, delay) as link:
        caller = Background(lambda: link.call(kind, blocking=blocking))
        assert delayed.wait(PATIENCE)
        link.channel.close()
        with pytest.raises(errors.Cancelled):
            caller.result()

    assert watch.outcome().code is CANCELLED
    assert not echo.attempts


@ALL
@BLOCKING
def test_closing_the_channel_ends_a_flow_that_would_try_on(kind: Kind, blocking: bool) -> None:
    """Once a channel is closed, a flow that sends again later is answered at once, as often as it tries."""
    watch, delayed = Watch(), threading.Event()

    def stubborn(call: Call) -> Flow:
        outcome = yield call.buffered()
        for _ in range(3):
            if outcome.ok or not outcome.replayable:
                return outcome
            delayed.set()
            outcome = yield call.buffered().after(60)
        return outcome

    with opened(Echo([failed(UNAVAILABLE)]), watch, stubborn) as link:
        caller = Background(lambda: link.call(kind, blocking=blocking))
        assert delayed.wait(PATIENCE)
        link.channel.close()
        with pytest.raises((grpc.RpcError, ValueError)):
            caller.result()

    assert not watch.outcome().ok


@ALL
def test_cancel_ends_a_call_that_waits_to_be_sent(kind: Kind) -> None:
    """cancel() of a call that is delayed for a minute ends it now, and it is not sent."""
    watch, echo = Watch(), Echo()

    with opened(echo, watch, late(60)) as link:
        call = link.start(kind)
        assert not call.done()
        assert call.cancel()
        outcome = watch.outcome()

    assert outcome.code is CANCELLED
    assert call.done()
    assert call.cancelled()
    assert not echo.attempts


@STREAMING
def test_dropping_a_stream_that_waits_to_be_sent_ends_it(kind: Kind) -> None:
    """A response stream that is dropped before its delayed call was sent is not sent."""
    watch, echo = Watch(), Echo()

    with opened(echo, watch, late(60)) as link:
        call = link.start(kind)
        del call
        gc.collect()
        outcome = watch.outcome()

    assert outcome.code is CANCELLED
    assert not echo.attempts


def test_cancelling_from_the_callback_of_another_call_does_not_dead_lock() -> None:
    """A callback, on grpc's own thread, may cancel other calls of the channel."""
    watch = Watch()

    with opened(Gate(), watch) as link:
        stream, future = link.start(Kind.UNARY_STREAM), link.start(Kind.UNARY_UNARY)
        cancelled = threading.Event()

        def cancel_all(first: Any) -> None:
            stream.cancel()
            future.cancel()
            cancelled.set()

        link.start(Kind.UNARY_UNARY, timeout=0.05).add_done_callback(cancel_all)
        assert cancelled.wait(PATIENCE)
        codes = in_time(lambda: (stream.code(), future.code()))

    assert codes == (CANCELLED, CANCELLED)
    assert len(watch.outcomes) == 3


# --- C: the sync client -----------------------------------------------------------------------------------------------


@ALL
@BLOCKING
def test_c01_a_failure_is_a_value_for_flows_and_an_exception_for_callers(kind: Kind, blocking: bool) -> None:
    """No flow needs an `except` to see a failure, and no caller is given a failure as a return value."""
    raised: list[BaseException] = []
    watch = Watch()

    def careful(call: Call) -> Flow:
        try:
            yield call
        except BaseException as error:
            raised.append(error)
            raise

    with opened(Echo([failed(NOT_FOUND)]), watch, careful) as link, pytest.raises(grpc.RpcError) as caught:
        in_time(lambda: link.call(kind, blocking=blocking))

    assert not raised
    assert watch.outcome().code is NOT_FOUND
    assert isinstance(caught.value, grpc.Call)
    assert isinstance(caught.value, errors.NotFound)
    assert caught.value.code() is NOT_FOUND


class NativeFault(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """A native interceptor with a bug."""

    def _intercept(self, continuation: Any, details: Any, request: Any) -> Any:
        raise KeyError("a bug")

    intercept_unary_unary = intercept_unary_stream = intercept_stream_unary = intercept_stream_stream = _intercept


@ALL
@BLOCKING
def test_c02_the_bug_of_a_native_interceptor_is_no_answer_of_the_server(kind: Kind, blocking: bool) -> None:
    """What a native interceptor below raises is a local failure for flows, and reaches the caller as it is."""
    watch = Watch()

    with serving(Echo()) as (target, server), grpc.insecure_channel(target) as native:
        channel = intercept_channel(grpc.intercept_channel(native, NativeFault()), watch)
        with pytest.raises(KeyError, match="a bug"):
            in_time(lambda: Link(target, server, native, channel).call(kind, blocking=blocking))

    outcome = watch.outcome()
    assert outcome.local
    assert isinstance(outcome.error, KeyError)
    assert outcome.trailing_metadata == ()


@STREAMING
def test_c03_a_healthy_stream_is_no_exception(kind: Kind) -> None:
    """A stream is a grpc.Call and a grpc.Future, and, unlike grpc's own, neither an RpcError nor an Exception."""
    with opened(Echo(), passing) as link:
        stream = link.start(kind)
        is_error = isinstance(stream, Exception)
        list(stream)

    assert isinstance(stream, grpc.Call)
    assert isinstance(stream, grpc.Future)
    assert not is_error


@STREAMING
def test_c04_a_flow_does_not_block_a_stream_that_nobody_reads(kind: Kind) -> None:
    """A stub gives its stream at once, and the flow is told nothing until the stream has been read."""
    watch = Watch()

    with opened(Echo(), watch) as link:
        stream = in_time(lambda: link.start(kind, "a", "b"))
        before = stream.done(), len(watch.outcomes)
        messages = list(stream)
        outcome = watch.outcome()

    assert before == (False, 0)
    assert outcome.ok
    assert outcome.responses == len(messages)
    assert stream.code() is OK


@STREAMING
def test_c04_what_asks_for_the_end_of_a_stream_is_answered_once_it_is_read(kind: Kind) -> None:
    """code() waits for the end on another thread, while this one reads."""
    with opened(Echo([ok(trailing=(("x-end", "1"),))]), passing) as link:
        stream = link.start(kind)
        asker = Background(lambda: (stream.code(), stream.details(), stream.exception(), stream.trailing_metadata()))
        list(stream)
        code, details, exception, trailing = asker.result()

    assert (code, details, exception) == (OK, "", None)
    assert ("x-end", "1") in trailing


def test_c05_a_single_threaded_stream_is_read_like_any_other() -> None:
    """With grpc's option for single-threaded streams messages pass, and the flow is told the end once."""
    watch = Watch()

    with opened(Echo(), watch, options=[SINGLE_THREADED]) as link:
        stream = link.start(Kind.UNARY_STREAM)
        messages = in_time(lambda: list(stream))

    assert messages == ["a"] * 3
    assert stream.code() is OK
    assert watch.outcome().ok
    assert watch.outcome().responses == 3


def test_c05_a_single_threaded_stream_fails_like_any_other() -> None:
    """With grpc's option for single-threaded streams a failure in the middle is typed, and told once."""
    watch = Watch()

    with opened(Echo([failed(NOT_FOUND, after=1)]), watch, options=[SINGLE_THREADED]) as link:
        stream = link.start(Kind.UNARY_STREAM)
        first = next(stream)
        with pytest.raises(errors.NotFound):
            in_time(lambda: next(stream))

    assert first == "a"
    assert watch.outcome().responses == 1


def test_c05_a_single_threaded_stream_can_be_cancelled() -> None:
    """With grpc's option for single-threaded streams cancel() ends the stream with one outcome."""
    watch = Watch()

    with opened(Gate(), watch, options=[SINGLE_THREADED]) as link:
        stream = link.start(Kind.UNARY_STREAM)
        assert next(stream) == "first"
        assert in_time(stream.cancel)
        with pytest.raises(grpc.RpcError):
            in_time(lambda: next(stream))

    assert watch.outcome().code is stream.code() is CANCELLED


def test_c05_a_single_threaded_stream_can_be_dropped() -> None:
    """With grpc's option for single-threaded streams a dropped stream ends, and reaches the server as cancelled."""
    watch, gate = Watch(), Gate()

    with opened(gate, watch, options=[SINGLE_THREADED]) as link:
        stream = link.start(Kind.UNARY_STREAM)
        assert next(stream) == "first"
        del stream
        gc.collect()
        outcome = watch.outcome()
        told = gate.ended.acquire(timeout=PATIENCE)

    assert told
    assert outcome.code is CANCELLED


def test_c05_asking_a_single_threaded_stream_for_its_end_too_early_does_not_hang() -> None:
    """As on grpc's own, code() of a single-threaded stream that nobody has read is a UsageError: nobody would tell."""
    with opened(Gate(), passing, options=[SINGLE_THREADED]) as link:
        stream = link.start(Kind.UNARY_STREAM, timeout=2 * PATIENCE)
        with pytest.raises(grpc.experimental.UsageError):
            in_time(stream.code)
        stream.cancel()


@UNARY
def test_c06_a_future_does_not_wait_for_the_server(kind: Kind) -> None:
    """future() returns while the handler is still at work, and the flow resumes when it is done."""
    watch, gate = Watch(), Gate()

    with opened(gate, watch) as link:
        future = in_time(lambda: link.start(kind))
        before = future.done(), len(watch.outcomes)
        gate.go.set()
        result = future.result(PATIENCE)

    assert before == (False, 0)
    assert result == "answer"
    assert watch.outcome().ok


@ALL
def test_c06_nothing_that_does_not_block_waits_for_a_delay(kind: Kind) -> None:
    """future() and streams return at once although a flow has delayed the call for a minute."""
    with opened(Echo(), late(60)) as link:
        call = in_time(lambda: link.start(kind))
        done = call.done()
        call.cancel()

    assert not done


@ALL
def test_c06_nothing_that_does_not_block_waits_for_another_attempt(kind: Kind) -> None:
    """future() and streams return at once although a flow sends again later; the last attempt gives the result."""
    delayed = threading.Event()

    def retry(call: Call) -> Flow:
        outcome = yield call.buffered()
        while not outcome.ok and outcome.replayable:
            delayed.set()
            outcome = yield call.buffered().after(0.01)

    echo = Echo([failed(UNAVAILABLE), failed(UNAVAILABLE)])
    with opened(echo, retry) as link:
        call = in_time(lambda: link.start(kind, "a", "b"))
        messages = in_time(lambda: list(call) if kind.response_streaming else [call.result(PATIENCE)])

    assert delayed.is_set()
    assert messages
    assert call.code() is OK
    assert len(echo.attempts) == 3


@UNARY
def test_c06_a_future_tells_its_callbacks_once_after_the_last_attempt(kind: Kind) -> None:
    """A done callback of a future that is sent twice is called once, when all is over."""
    called: list[Any] = []
    over = threading.Event()

    def note(future: Any) -> None:
        called.append(future.code())
        over.set()

    with opened(Echo([failed(UNAVAILABLE)]), again(), buffered(100)) as link:
        link.start(kind).add_done_callback(note)
        assert over.wait(PATIENCE)

    assert called == [OK]


@ALL
@BLOCKING
def test_c07_a_local_rejection_is_raised_where_a_servers_would_be(kind: Kind, blocking: bool) -> None:
    """A flow that refuses: blocking calls raise at once, futures in result(), streams at the first message."""

    def refuse(call: Call) -> Flow:
        raise errors.PermissionDenied("not you")
        yield call

    with opened(Echo(), refuse) as link:
        started = link.start(kind)  # raises nothing yet
        with pytest.raises(errors.PermissionDenied, match="not you"):
            link.call(kind, blocking=blocking)
        code = started.code()

    assert code is grpc.StatusCode.PERMISSION_DENIED


@ALL
def test_c08_a_cancelled_call_answers_every_question(kind: Kind) -> None:
    """After cancel(): code() is CANCELLED, result() and exception() raise FutureCancelledError, next() an RpcError."""
    gate = Gate()

    with opened(gate, passing) as link:
        call = link.start(kind)
        assert gate.begun.wait(PATIENCE)
        call.cancel()
        code = in_time(call.code)
        for question in (call.result, call.exception, call.traceback):
            with pytest.raises(grpc.FutureCancelledError):
                question(PATIENCE)
        if kind.response_streaming:
            with pytest.raises(errors.Cancelled):
                next(call)

    assert code is CANCELLED
    assert call.cancelled()
    assert call.done()
    assert not call.running()
    assert not call.is_active()
    assert call.details()
    assert call.initial_metadata() == ()
    assert call.trailing_metadata() == ()


@ALL
def test_c09_an_intercepted_call_can_do_what_grpcs_own_can(kind: Kind) -> None:
    """Under interceptors a future or stream keeps every method and property of grpc's own."""
    with opened(Echo(), passing) as link:
        ours = link.start(kind)
        native_stub = getattr(link.native, kind.value)(path(kind), encode, decode)
        theirs = (native_stub if kind.response_streaming else native_stub.future)(requested(kind))
        missing = {name for name in dir(theirs) if not name.startswith("_")} - set(dir(ours))
        for call in (ours, theirs):
            if kind.response_streaming:
                list(call)
            else:
                call.result(PATIENCE)

    exceptions_own = set(dir(Exception))  # grpc's calls are exceptions, ours are not
    iterators_own = set() if kind.response_streaming else {"next"}  # grpc's futures pretend to be iterators
    assert missing - exceptions_own - iterators_own == set()


class NativeGenerator(grpc.UnaryStreamClientInterceptor, grpc.StreamStreamClientInterceptor):
    """A native interceptor that answers with a bare generator, as several packages do."""

    def _intercept(self, continuation: Any, details: Any, request: Any) -> Any:
        yield from continuation(details, request)

    intercept_unary_stream = intercept_stream_stream = _intercept


@STREAMING
def test_c09_a_native_interceptor_below_may_answer_with_a_bare_generator(kind: Kind) -> None:
    """A stream over a bare generator has all methods of a call: its end is seen by reading it."""
    watch = Watch()

    with serving(Echo()) as (target, server), grpc.insecure_channel(target) as native:
        channel = intercept_channel(grpc.intercept_channel(native, NativeGenerator()), watch)
        stream = Link(target, server, native, channel).start(kind, "a", "b")
        messages = in_time(lambda: list(stream))

    assert messages
    assert stream.code() is OK
    assert watch.outcome().responses == len(messages)


@STREAMING
def test_c09_a_failure_through_a_bare_generator_keeps_its_status(kind: Kind) -> None:
    """The status of a stream that fails below a bare generator is the one that the server sent."""
    watch = Watch()

    with serving(Echo([failed(NOT_FOUND)])) as (target, server), grpc.insecure_channel(target) as native:
        channel = intercept_channel(grpc.intercept_channel(native, NativeGenerator()), watch)
        with pytest.raises(errors.NotFound):
            in_time(lambda: Link(target, server, native, channel).call(kind))

    assert watch.outcome().code is NOT_FOUND


@STREAMING
def test_c09_a_bug_in_a_bare_generator_ends_the_stream(kind: Kind) -> None:
    """An exception of a bare generator reaches the reader as it is, and is a local failure for flows, told once."""
    watch = Watch()

    class Buggy(NativeGenerator):
        def _intercept(self, continuation: Any, details: Any, request: Any) -> Any:
            yield next(continuation(details, request))
            raise KeyError("a bug")

        intercept_unary_stream = intercept_stream_stream = _intercept

    with serving(Echo()) as (target, server), grpc.insecure_channel(target) as native:
        channel = intercept_channel(grpc.intercept_channel(native, Buggy()), watch)
        with pytest.raises(KeyError, match="a bug"):
            in_time(lambda: Link(target, server, native, channel).call(kind, "a", "b"))

    assert watch.outcome().local
    assert watch.outcome().responses == 1


@BLOCKING
def test_c10_a_kept_request_stream_is_sent_again_in_full(blocking: bool) -> None:
    """The second attempt of a buffered request stream sends every message, though the application gave each once."""
    uploads = Uploads(2)

    with opened(uploads, again(), buffered(100)) as link:
        [answer] = in_time(lambda: link.call(Kind.STREAM_UNARY, "a", "b", "c", blocking=blocking))

    assert answer == "a,b,c"
    assert uploads.begun == 2


@BLOCKING
@pytest.mark.parametrize("interceptors", [(), (buffered(2),)], ids=["unbuffered", "past the limit"])
def test_c10_a_request_stream_that_is_not_kept_is_not_sent_again(
    interceptors: tuple[Interceptor, ...], blocking: bool
) -> None:
    """A flow that sends a stream again which was not kept, or outgrew its buffer: the first failure stands."""
    uploads, outcomes = Uploads(3), list[Outcome]()

    def stubborn(call: Call) -> Flow:
        outcomes.append((yield call))
        outcomes.append((yield call))

    with opened(uploads, stubborn, *interceptors) as link, pytest.raises(errors.Unavailable, match="as scripted"):
        in_time(lambda: link.call(Kind.STREAM_UNARY, "a", "b", "c", blocking=blocking))

    [outcome] = outcomes
    assert not outcome.replayable
    assert uploads.begun == 1
    assert not uploads.complete


@BLOCKING
def test_c10_a_message_that_came_between_two_attempts_is_not_lost(blocking: bool) -> None:
    """The application makes up its mind while the first attempt fails: its next message goes to the second attempt."""
    uploads = Uploads(1)

    def messages() -> Iterator[str]:
        yield "a"
        uploads.seconds.wait(PATIENCE)
        yield "b"
        yield "c"

    with opened(uploads, again(), buffered(100)) as link:
        stub = link.stub(Kind.STREAM_UNARY)
        in_time(lambda: stub(messages()) if blocking else stub.future(messages()).result(PATIENCE))

    assert uploads.complete == [["a", "b", "c"]]


@BLOCKING
def test_c10_a_message_past_the_limit_that_came_between_two_attempts_is_not_lost(blocking: bool) -> None:
    """As before, and the message outgrows the buffer: what the server takes for the whole stream has no hole."""
    uploads = Uploads(1)

    def messages() -> Iterator[str]:
        yield "a"
        uploads.seconds.wait(PATIENCE)
        yield "b" * 200
        yield "c"

    with opened(uploads, again(), buffered(100)) as link:
        stub = link.stub(Kind.STREAM_UNARY)
        in_time(lambda: stub(messages()) if blocking else stub.future(messages()).result(PATIENCE))

    assert uploads.complete == [["a", "b" * 200, "c"]]


@BLOCKING
def test_c10_an_unbuffered_stream_is_not_read_by_two_attempts(blocking: bool) -> None:
    """An attempt fails before the application gave its first message: no later attempt sends a stream with a hole."""
    uploads, failed_once = Uploads(0), threading.Event()

    def retry(call: Call) -> Flow:
        outcome = yield call
        failed_once.set()
        if outcome.replayable:
            yield call

    def messages() -> Iterator[str]:
        failed_once.wait(PATIENCE)
        yield "a"
        yield "b"

    def perform() -> Any:
        stub = link.stub(Kind.STREAM_UNARY)
        return stub(messages()) if blocking else stub.future(messages()).result(PATIENCE)

    with opened(uploads, retry) as link:
        try:
            in_time(perform)
        except errors.Unavailable as error:
            refused = error.details() == "as scripted"
        else:
            refused = False

    assert uploads.complete == ([] if refused else [["a", "b"]])


@BLOCKING
def test_c10_copies_of_a_stream_that_outgrows_its_buffer_are_not_cut_off(blocking: bool) -> None:
    """Hedged copies of a stream that outgrows its buffer: the answer is one to the whole of it, each time."""
    messages = ["a" * 10, "b" * 10, "c" * 10]

    def hedge(call: Call) -> Flow:
        yield call.buffered(15).hedged(copies=2, delay=0)

    with opened(Uploads(), hedge) as link:
        answers = [in_time(lambda: link.call(Kind.STREAM_UNARY, *messages, blocking=blocking)) for _ in range(10)]

    assert answers == [[",".join(messages)]] * 10


@pytest.mark.parametrize("kind", [Kind.STREAM_UNARY, Kind.STREAM_STREAM], ids=lambda kind: kind.value)
@BLOCKING
@pytest.mark.parametrize("interceptors", [(), (buffered(100),)], ids=["unbuffered", "buffered"])
def test_c11_an_exception_of_the_request_stream_is_the_cause(
    kind: Kind, blocking: bool, interceptors: tuple[Interceptor, ...]
) -> None:
    """What breaks the application's request stream is the `__cause__` of what the stub raises and flows are told."""
    watch, fault = Watch(), KeyError("no such row")

    def messages() -> Iterator[str]:
        yield "a"
        raise fault

    def perform() -> None:
        stub = link.stub(kind)
        if kind.response_streaming:
            list(stub(messages()))
        elif blocking:
            stub(messages())
        else:
            stub.future(messages()).result(PATIENCE)

    with opened(Echo(), watch, *interceptors) as link, pytest.raises(errors.Unknown) as caught:
        in_time(perform)

    outcome = watch.outcome()
    assert caught.value.__cause__ is fault
    assert outcome.error is not None
    assert outcome.error.__cause__ is fault
    assert outcome.local


@ALL
@BLOCKING
def test_c12_every_attempt_gets_what_is_left_of_the_deadline(kind: Kind, blocking: bool) -> None:
    """Time that flows and earlier attempts have spent is taken off; the deadline was fixed when the stub was called."""
    clock, echo = FakeClock(), Echo([failed(UNAVAILABLE)])

    def slow(call: Call) -> Flow:
        clock.advance(10)
        outcome = yield call.buffered()
        assert not outcome.ok
        clock.advance(10)
        yield call.buffered()

    with opened(echo, slow, clock=clock) as link:
        in_time(lambda: link.call(kind, blocking=blocking, timeout=30))

    first, second = (attempt.time_remaining or 1e9 for attempt in echo.attempts)
    assert first < 20.5
    assert second < 10.5


@ALL
@BLOCKING
def test_c12_a_timeout_of_one_attempt_stays_within_the_deadline(kind: Kind, blocking: bool) -> None:
    """with_timeout() shortens an attempt and never lengthens the RPC."""
    echo = Echo([failed(UNAVAILABLE)])

    def per_attempt(call: Call) -> Flow:
        yield call.buffered().with_timeout(5)
        yield call.buffered().with_timeout(500)

    with opened(echo, per_attempt) as link:
        in_time(lambda: link.call(kind, blocking=blocking, timeout=30))

    first, second = (attempt.time_remaining or 1e9 for attempt in echo.attempts)
    assert first < 5.5
    assert second < 30.5


@ALL
@BLOCKING
@pytest.mark.parametrize("timeout", [0, 0.0, -1, -1e9])
def test_c13_without_time_nothing_is_sent(kind: Kind, blocking: bool, timeout: float) -> None:
    """timeout=0, or less, is DEADLINE_EXCEEDED made here, where grpc's own would mostly succeed on loopback."""
    watch, echo = Watch(), Echo()

    with opened(echo, watch) as link, pytest.raises(errors.DeadlineExceeded) as caught:
        in_time(lambda: link.call(kind, blocking=blocking, timeout=timeout))

    assert not echo.attempts
    assert caught.value.local
    assert watch.outcome().local


@ALL
@BLOCKING
def test_c13_an_attempt_after_the_deadline_is_not_sent(kind: Kind, blocking: bool) -> None:
    """A flow that has used up the deadline and sends again: nothing is sent."""
    clock, echo, watch = FakeClock(), Echo([failed(UNAVAILABLE)]), Watch()

    def slow(call: Call) -> Flow:
        yield call.buffered()
        clock.advance(30)
        yield call.buffered()

    with opened(echo, watch, slow, clock=clock) as link, pytest.raises(errors.DeadlineExceeded):
        in_time(lambda: link.call(kind, blocking=blocking, timeout=30))

    assert len(echo.attempts) == 1
    assert watch.outcome().local


@ALL
@BLOCKING
def test_c13_a_delay_ends_at_the_deadline(kind: Kind, blocking: bool) -> None:
    """A call that is to be sent after its deadline ends at the deadline, and is not sent."""
    watch, echo = Watch(), Echo()

    with opened(echo, watch, late(60)) as link, pytest.raises(errors.DeadlineExceeded):
        in_time(lambda: link.call(kind, blocking=blocking, timeout=0.1))

    assert not echo.attempts
    assert watch.outcome().local


@ALL
@pytest.mark.parametrize(
    "metadata",
    [None, (), [], (("x-k", "1"), ("x-k", "2"), ("x-b-bin", b"\x00")), [("x-k", "1"), ("x-k", "2")]],
    ids=["None", "empty tuple", "empty list", "tuple", "list"],
)
def test_c14_metadata_of_every_shape_arrives_whole(kind: Kind, metadata: Any) -> None:
    """Flows add a pair to None, a tuple or a list; repeated keys arrive, in order, and the list is left as it was."""
    echo, before = Echo(), list(metadata or ())

    def add(call: Call) -> Flow:
        yield call.with_metadata(("x-k", "3"), ("x-own", "here"))

    with opened(echo, add) as link:
        link.call(kind, metadata=metadata)

    [attempt] = echo.attempts
    assert attempt.values("x-k") == [value for key, value in before if key == "x-k"] + ["3"]
    assert attempt.values("x-own") == ["here"]
    assert list(metadata or ()) == before


@pytest.mark.parametrize(
    "pair",
    [("X Key", "v"), ("x-k", "ü"), ("x-k", "a\nb"), ("x-k", 5), ("x-k-bin", "text"), ("", "v"), ("x-k", None)],
    ids=repr,
)
def test_c15_a_pair_that_cannot_travel_is_refused_where_it_is_set(pair: Any) -> None:
    """A flow that sets a pair the wire would refuse is told so in its own line; keys in capitals are just lowered."""
    echo, refused = Echo(), list[str]()

    def careless(call: Call) -> Flow:
        with pytest.raises(ValueError, match="metadata") as caught:
            call.with_metadata(pair)
        refused.append(str(caught.value))
        yield call.with_metadata(("X-Capital", "fine"))

    with opened(echo, careless) as link:
        link.call(Kind.UNARY_UNARY)

    assert len(refused) == 1
    assert echo.attempts[0].values("x-capital") == ["fine"]


@ALL
@BLOCKING
@pytest.mark.parametrize("pair", [("X-Key", "v"), ("x-k", "ü"), ("x-k", "a\nb")], ids=repr)
def test_c15_what_the_application_sets_wrong_is_a_local_failure(kind: Kind, blocking: bool, pair: Any) -> None:
    """Metadata of the application that grpc refuses fails as without interceptors, and does not look like an answer."""
    watch, echo = Watch(), Echo()

    with opened(echo, watch) as link, pytest.raises((grpc.RpcError, ValueError)):
        in_time(lambda: link.call(kind, blocking=blocking, metadata=(pair,)))

    assert watch.outcome().code is INTERNAL
    assert watch.outcome().local
    assert not echo.attempts


@pytest.mark.parametrize("key", ["grpc-timeout", "grpc-previous-rpc-attempts", "grpc-trace-bin", "grpc-status"])
def test_c16_keys_of_grpc_itself_are_refused(key: str) -> None:
    """A flow cannot set a key that gRPC drops or misreads; the error names one that it can set."""
    refused = list[str]()

    def careless(call: Call) -> Flow:
        with pytest.raises(ValueError, match="belongs to gRPC") as caught:
            call.with_metadata((key, b"1" if key.endswith("-bin") else "1"))
        refused.append(str(caught.value))
        yield call

    with opened(Echo(), careless) as link:
        link.call(Kind.UNARY_UNARY)

    assert f"x-{key}" in refused[0]


class NativeDetails(NativeGenerator):
    """A native interceptor with call details of its own class, which lack what it does not care for."""

    def _intercept(self, continuation: Any, details: Any, request: Any) -> Any:
        class Details(grpc.ClientCallDetails):  # type: ignore[misc]  # untyped
            method, timeout, credentials = details.method, details.timeout, details.credentials
            metadata = (*(details.metadata or ()), ("x-native", "1"))

        return continuation(Details(), request)

    intercept_unary_unary = intercept_stream_unary = _intercept
    intercept_unary_stream = intercept_stream_stream = _intercept


class NativeUnaryDetails(NativeDetails, grpc.UnaryUnaryClientInterceptor, grpc.StreamUnaryClientInterceptor):
    pass


@ALL
@BLOCKING
def test_c17_native_interceptors_may_stand_above_and_below(kind: Kind, blocking: bool) -> None:
    """Native interceptors, with details of their own class, and ours run on one channel, in either order."""
    watch, echo = Watch(), Echo()

    with serving(echo) as (target, server), grpc.insecure_channel(target) as native:
        below = grpc.intercept_channel(native, NativeUnaryDetails())
        channel = grpc.intercept_channel(intercept_channel(below, watch), NativeUnaryDetails())
        messages = in_time(lambda: Link(target, server, native, channel).call(kind, blocking=blocking))

    assert messages
    assert watch.outcome().ok
    assert echo.attempts[0].values("x-native") == ["1", "1"]


def test_c18_channels_put_on_channels_are_one_stack() -> None:
    """intercept_channel twice: the later interceptors are outermost, as with grpc's own."""
    order = list[str]()

    def named(name: str) -> Interceptor:
        def flow(call: Call) -> Flow:
            order.append(name)
            yield call

        return flow

    with opened(Echo(), named("c"), named("d")) as link:
        channel = intercept_channel(link.channel, named("a"), named("b"))
        channel.unary_unary(path(Kind.UNARY_UNARY), encode, decode)("x")

    assert order == ["a", "b", "c", "d"]


@ALL
def test_c20_stub_methods_can_be_registered(kind: Kind) -> None:
    """Generated stubs register their methods with the channel, by an argument that only they give."""
    watch = Watch()

    with opened(Echo(), watch) as link:
        stub = getattr(link.channel, kind.value)(path(kind), encode, decode, _registered_method=True)
        answer = stub(requested(kind))
        messages = list(answer) if kind.response_streaming else [answer]

    assert messages
    assert watch.outcome().ok


@STREAMING
def test_c22_leaving_a_loop_early_ends_the_rpc(kind: Kind) -> None:
    """`break` out of a stream, and its being collected, is one outcome: CANCELLED, with the messages that were read."""
    watch, gate = Watch(), Gate()

    with opened(gate, watch) as link:
        for message in link.start(kind):
            assert message == "first"
            break
        gc.collect()
        outcome = watch.outcome()
        told = gate.ended.acquire(timeout=PATIENCE)

    assert told
    assert outcome.code is CANCELLED
    assert outcome.responses == 1


def test_c22_a_stream_in_a_reference_cycle_ends_when_it_is_collected() -> None:
    """A stream that is dropped as part of a cycle ends with the next garbage collection."""
    watch, gate = Watch(), Gate()

    with opened(gate, watch) as link:
        cycle: list[Any] = [link.start(Kind.UNARY_STREAM)]
        cycle.append(cycle)
        assert gate.begun.wait(PATIENCE)
        del cycle
        gc.collect()
        outcome = watch.outcome()

    assert outcome.code is CANCELLED


@UNARY
def test_c22_a_future_that_is_dropped_ends(kind: Kind) -> None:
    """A future that the application drops is cancelled, as grpc's own is: nobody is left to read its answer."""
    watch, gate = Watch(), Gate()

    with opened(gate, watch) as link:
        future = link.start(kind)
        assert gate.begun.wait(PATIENCE)
        del future
        gc.collect()
        outcome = watch.outcome()
        told = gate.ended.acquire(timeout=PATIENCE)

    assert told
    assert outcome.code is CANCELLED


@UNARY
def test_c22_a_future_with_a_callback_is_kept(kind: Kind) -> None:
    """A future that only its own callback knows is not dropped: the callback is called with the answer."""
    gate, answers, over = Gate(), list[str](), threading.Event()

    def note(future: Any) -> None:
        answers.append(future.result())
        over.set()

    with opened(gate, passing) as link:
        link.start(kind).add_done_callback(note)
        assert gate.begun.wait(PATIENCE)
        gc.collect()
        gate.go.set()
        assert over.wait(PATIENCE)

    assert answers == ["answer"]


def test_c23_a_status_made_here_says_so() -> None:
    """A status that no peer sent has `local` set and says so in its text; one of the server's has not."""
    with opened(Echo([failed(NOT_FOUND)]), passing) as link:
        with pytest.raises(errors.DeadlineExceeded) as ours:
            link.call(Kind.UNARY_UNARY, timeout=0)
        with pytest.raises(errors.NotFound) as theirs:
            link.call(Kind.UNARY_UNARY)

    assert ours.value.local
    assert "made locally" in str(ours.value)
    assert not theirs.value.local
    assert "made locally" not in str(theirs.value)


# --- rows of the second pass: interceptors ----------------------------------------------------------------------------


class Unserializable:
    """A message that no serializer takes."""


@pytest.mark.parametrize("kind", [Kind.UNARY_UNARY, Kind.UNARY_STREAM], ids=lambda kind: kind.value)
@BLOCKING
def test_row01_a_message_that_cannot_be_serialized_is_a_local_failure(kind: Kind, blocking: bool) -> None:
    """A request that grpc cannot serialize fails on every way of calling, is told once, and is not the server's."""
    watch, echo = Watch(), Echo()

    def perform() -> None:
        stub = getattr(link.channel, kind.value)(path(kind), lambda message: message.encode(), decode)
        if kind.response_streaming:
            list(stub(Unserializable()))
        elif blocking:
            stub(Unserializable())
        else:
            stub.future(Unserializable()).result(PATIENCE)

    with opened(echo, watch) as link, pytest.raises(errors.Internal):
        in_time(perform)

    assert watch.outcome().code is INTERNAL
    assert watch.outcome().local
    assert not echo.attempts


@ALL
@BLOCKING
def test_row06_a_flow_that_raises_ends_the_rpc_with_a_status_that_names_it(kind: Kind, blocking: bool) -> None:
    """A bug in a flow, before or after its yield, is INTERNAL with its name, for the caller and the flows around it."""
    watch, echo = Watch(), Echo()

    def buggy(call: Call) -> Flow:
        raise ValueError("a bug")
        yield call

    with opened(echo, watch, buggy) as link, pytest.raises(errors.Internal, match="buggy") as caught:
        in_time(lambda: link.call(kind, blocking=blocking))

    assert isinstance(caught.value.__cause__, ValueError)
    assert not echo.attempts
    assert watch.outcome().local
    assert watch.outcome().code is INTERNAL


application: ContextVar[str] = ContextVar("application", default="unset")


@ALL
@BLOCKING
def test_row10_what_a_flow_sets_stays_in_its_flows(kind: Kind, blocking: bool) -> None:
    """What a flow sets in a context variable is seen by the flows within, not by the caller or its request stream."""
    seen: dict[str, str] = {}

    def setting(call: Call) -> Flow:
        application.set("flow")
        yield call
        seen["outer flow"] = application.get()

    def inner(call: Call) -> Flow:
        seen["inner flow"] = application.get()
        yield call

    def messages() -> Iterator[str]:
        seen["messages"] = application.get()
        yield "a"

    def perform() -> None:
        application.set("application")
        stub, request = link.stub(kind), messages() if kind.request_streaming else "a"
        if kind.response_streaming:
            for _ in stub(request):
                seen["stream"] = application.get()
        elif blocking:
            stub(request)
        else:
            stub.future(request).result(PATIENCE)
        seen["caller"] = application.get()

    with opened(Echo(), setting, inner) as link:
        in_time(perform)

    assert seen.pop("inner flow") == seen.pop("outer flow") == "flow"
    assert set(seen.values()) == {"application"}


@BLOCKING
def test_row10_messages_of_a_later_attempt_run_in_the_applications_context_too(blocking: bool) -> None:
    """A request stream sees the application's context variables in every attempt, also in one that a timer sent."""
    uploads, seen = Uploads(1), list[str]()

    def retry(call: Call) -> Flow:
        application.set("flow")
        outcome = yield call.buffered()
        if not outcome.ok:
            yield call.buffered().after(0.01)

    def messages() -> Iterator[str]:
        for message in "abcd":
            seen.append(application.get())
            yield message
            if message == "a":
                uploads.seconds.wait(PATIENCE)

    def perform() -> None:
        application.set("application")
        stub = link.stub(Kind.STREAM_UNARY)
        _ = stub(messages()) if blocking else stub.future(messages()).result(PATIENCE)

    with opened(uploads, retry) as link:
        in_time(perform)

    assert seen == ["application"] * 4
    assert uploads.complete == [list("abcd")]


# --- rows of the second pass: deadline and cancel ---------------------------------------------------------------------


@ALL
def test_row30_without_a_deadline_there_is_none(kind: Kind) -> None:
    """No timeout: None for the flow, for the call, and for the server, not some 292 years."""
    echo, seen = Echo(), list[Any]()

    def look(call: Call) -> Flow:
        seen.extend((call.timeout, call.deadline))
        yield call

    with opened(echo, look) as link:
        call = link.start(kind)
        seen.append(call.time_remaining())
        _ = list(call) if kind.response_streaming else call.result(PATIENCE)

    assert seen == [None, None, None]
    assert echo.attempts[0].time_remaining is None


@ALL
@BLOCKING
@pytest.mark.parametrize("timeout", [1e9, 9e9, 9.3e18, float("inf")])
def test_row31_a_timeout_of_ages_is_no_deadline(kind: Kind, blocking: bool, timeout: float) -> None:
    """A timeout that grpc would take for a deadline in the past is no deadline: from the application or from a flow."""
    echo = Echo()

    def ages(call: Call) -> Flow:
        yield call.with_timeout(timeout)

    with opened(echo, ages) as link:
        in_time(lambda: link.call(kind, blocking=blocking, timeout=timeout))
        in_time(lambda: link.call(kind, blocking=blocking))

    assert [attempt.time_remaining for attempt in echo.attempts] == [None, None]


@ALL
@BLOCKING
def test_row31_a_timeout_that_is_no_number_ends_the_call(kind: Kind, blocking: bool) -> None:
    """timeout=nan never hangs: it is DEADLINE_EXCEEDED, as on grpc's own channel."""
    watch = Watch()

    with opened(Gate(), watch) as link, pytest.raises(errors.DeadlineExceeded):
        in_time(lambda: link.call(kind, blocking=blocking, timeout=float("nan")))

    assert watch.outcome().code is DEADLINE_EXCEEDED


@ALL
@pytest.mark.parametrize("timeout", [None, 0.2], ids=["cancel", "deadline"])
def test_row33_the_end_of_a_call_reaches_the_server(kind: Kind, timeout: float | None) -> None:
    """A cancel, or the deadline, of an intercepted call is told to the server's handler."""
    gate = Gate()

    with opened(gate, passing) as link:
        call = link.start(kind, timeout=timeout)
        if timeout is None:
            assert gate.begun.wait(PATIENCE)
            call.cancel()
        told = gate.ended.acquire(timeout=PATIENCE) if gate.begun.wait(PATIENCE) else False

    assert told


@ALL
def test_row36_a_callback_after_the_end_is_not_taken(kind: Kind) -> None:
    """add_callback() after the end returns False and calls nobody; add_done_callback() calls at once."""
    called = list[Any]()

    with opened(Echo(), passing) as link:
        call = link.start(kind)
        _ = list(call) if kind.response_streaming else call.result(PATIENCE)
        taken = call.add_callback(lambda: called.append("callback"))
        call.add_done_callback(called.append)

    assert taken is False
    assert called == [call]


@ALL
def test_row37_a_callback_that_raises_stops_no_other(kind: Kind, caplog: pytest.LogCaptureFixture) -> None:
    """A callback that raises is logged; the others run, and so does the flow."""
    watch, second, third = Watch(), threading.Event(), threading.Event()

    def raising() -> None:
        raise ValueError("a bug")

    with opened(Gate(), watch) as link, caplog.at_level(logging.ERROR):
        call = link.start(kind)
        call.add_callback(raising)
        call.add_callback(second.set)
        call.add_done_callback(lambda _: raising())
        call.add_done_callback(lambda _: third.set())
        call.cancel()
        called = second.wait(PATIENCE), third.wait(PATIENCE)

    assert called == (True, True)
    assert watch.outcome().code is CANCELLED
    assert sum(record.exc_info is not None for record in caplog.records) == 2


@STREAMING
def test_row38_streams_that_are_dropped_end_on_the_server(kind: Kind) -> None:
    """Streams begun and dropped: an outcome for each, and the server is told of each."""
    gate, watches = Gate(), [Watch() for _ in range(6)]  # fewer than the server has threads: each handler holds one
    current = iter(watches)

    def each(call: Call) -> Flow:
        yield from next(current)(call)

    with opened(gate, each) as link:
        for _ in watches:
            assert next(link.start(kind)) == "first"
        gc.collect()
        codes = [watch.outcome().code for watch in watches]
        told = [gate.ended.acquire(timeout=PATIENCE) for _ in watches]

    assert codes == [CANCELLED] * 6
    assert all(told)


def test_row38_a_stream_is_dropped_while_its_requests_wait() -> None:
    """A stream whose request iterator waits ends when it is dropped; its thread goes once the iterator returns."""
    watch, gate, more = Watch(), Gate(), threading.Event()

    def messages() -> Iterator[str]:
        yield "a"
        more.wait(PATIENCE)

    with opened(gate, watch) as link:
        stream = link.stub(Kind.STREAM_STREAM)(messages())
        assert next(stream) == "first"
        del stream
        gc.collect()
        outcome = watch.outcome()
        more.set()

    assert outcome.code is CANCELLED
    assert outcome.requests == 1


@pytest.mark.parametrize("delay", [0, 60], ids=["streaming", "delayed"])
@pytest.mark.parametrize("options", [(), (SINGLE_THREADED,)], ids=["threads", "single-threaded"])
def test_row41_a_finalizer_runs_no_flow(delay: float, options: tuple[tuple[str, Any], ...]) -> None:
    """A stream collected inside code that holds a lock, which its flow wants at the end, does not dead-lock."""
    lock, ended, gate = threading.Lock(), threading.Event(), Gate()

    def locking(call: Call) -> Flow:
        yield call.after(delay)
        with lock:
            ended.set()

    def drop() -> None:
        cycle: list[Any] = [link.start(Kind.UNARY_STREAM)]
        cycle.append(cycle)
        if not delay:
            assert next(cycle[0]) == "first"
        with lock:
            del cycle
            gc.collect()

    with opened(gate, locking, options=options) as link:
        in_time(drop)
        told = ended.wait(PATIENCE)

    assert told


def test_row42_a_server_may_end_a_stream_before_the_client_has() -> None:
    """A bidi call that the server ends while the client still has requests to send is OK, with one outcome."""
    watches, hold = [Watch() for _ in range(30)], threading.Event()
    current = iter(watches)

    def each(call: Call) -> Flow:
        yield from next(current)(call)

    def messages() -> Iterator[str]:
        yield "a"
        hold.wait(PATIENCE)

    gate = Gate()
    gate.go.set()
    with opened(gate, each) as link:
        answers = [in_time(lambda: list(link.stub(Kind.STREAM_STREAM)(messages()))) for _ in watches]
        hold.set()

    assert answers == [["first", "last"]] * len(watches)
    assert all(watch.outcome().ok for watch in watches)


# --- rows of the second pass: connection ------------------------------------------------------------------------------


@ALL
@BLOCKING
def test_row43_a_refused_connection_is_one_failure(kind: Kind, blocking: bool) -> None:
    """Nobody listens: UNAVAILABLE for caller and flow, once."""
    watch = Watch()

    with refusing() as target, grpc.insecure_channel(target) as native:
        link = Link(target, None, native, intercept_channel(native, watch))
        with pytest.raises(errors.Unavailable):
            in_time(lambda: link.call(kind, blocking=blocking))

    assert watch.outcome().code is UNAVAILABLE
    assert watch.outcome().responses == 0


@ALL
@BLOCKING
def test_row43_wait_for_ready_waits_to_the_deadline(kind: Kind, blocking: bool) -> None:
    """Nobody listens and the call waits for a connection: the deadline ends it, once."""
    watch = Watch()

    with refusing() as target, grpc.insecure_channel(target) as native:
        link = Link(target, None, native, intercept_channel(native, watch))
        with pytest.raises(errors.DeadlineExceeded):
            in_time(lambda: link.call(kind, blocking=blocking, wait_for_ready=True, timeout=0.2))

    assert watch.outcome().code is DEADLINE_EXCEEDED


FAST_RECONNECT = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 100)]


@contextmanager
def address() -> Iterator[str]:
    """An address of our own, which no other program can take between two servers of a test."""
    with tempfile.TemporaryDirectory() as folder:
        yield f"unix:{Path(folder) / 'socket'}"


@ALL
def test_row43_wait_for_ready_waits_for_the_server(kind: Kind) -> None:
    """A call that waits for a connection is answered once the server is there; nothing was sent before."""
    watch, echo = Watch(), Echo()

    with address() as target, grpc.insecure_channel(target, FAST_RECONNECT) as native:
        link = Link(target, None, native, intercept_channel(native, watch))
        call = link.start(kind, wait_for_ready=True, timeout=PATIENCE)
        early = call.done()
        with serving(echo, target):
            messages = in_time(lambda: list(call) if kind.response_streaming else [call.result(PATIENCE)])

    assert not early
    assert messages
    assert watch.outcome().ok
    assert len(echo.attempts) == 1


@ALL
@BLOCKING
def test_row44_a_closed_channel_raises_what_grpc_raises(kind: Kind, blocking: bool) -> None:
    """A call on a closed channel raises grpc's ValueError; for flows it is a local failure, told once."""
    watch = Watch()

    with opened(Echo(), watch) as link:
        link.channel.close()
        with pytest.raises(ValueError, match=r"[Cc]hannel"):
            link.call(kind, blocking=blocking)

    assert watch.outcome().code is INTERNAL
    assert watch.outcome().local


@ALL
@BLOCKING
def test_row45_a_server_that_stops_with_grace_finishes_what_it_has_begun(kind: Kind, blocking: bool) -> None:
    """stop(grace): the RPC under way is answered, and one that comes later is UNAVAILABLE, each told once."""
    gate, watches = Gate(), [Watch(), Watch()]
    current = iter(watches)

    def each(call: Call) -> Flow:
        yield from next(current)(call)

    with opened(gate, each) as link:
        caller = Background(lambda: link.call(kind, blocking=blocking))
        assert gate.begun.wait(PATIENCE)
        stopped = link.server.stop(PATIENCE)
        with pytest.raises((errors.Unavailable, errors.Cancelled)):
            in_time(lambda: link.call(kind, blocking=blocking))
        gate.go.set()
        messages = caller.result()
        stopped.wait(PATIENCE)

    assert messages[-1] in ("answer", "last")
    assert watches[0].outcome().ok
    assert not watches[1].outcome().ok


SERVER = """
import os, threading
from concurrent import futures
import grpc
import grpc.experimental

def forever(argument, context):
    os.write(1, b"begun\\n")
    threading.Event().wait()

def stream(argument, context):
    yield b"first"
    forever(argument, context)

methods = {
    "unary_unary": grpc.unary_unary_rpc_method_handler(forever),
    "stream_unary": grpc.stream_unary_rpc_method_handler(forever),
    "unary_stream": grpc.unary_stream_rpc_method_handler(stream),
    "stream_stream": grpc.stream_stream_rpc_method_handler(stream),
}
server = grpc.server(futures.ThreadPoolExecutor(8))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("interpose.testing.Echo", methods),))
print(server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
server.wait_for_termination()
"""


@contextmanager
def server_process() -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """A server in a process of its own, which may be killed."""
    process = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield f"127.0.0.1:{int(process.stdout.readline())}", process
    finally:
        process.kill()
        process.wait(PATIENCE)
        process.stdout.close()


@BLOCKING
def test_row46_a_killed_server_is_one_failure(blocking: bool) -> None:
    """A server that is killed in the middle of RPCs of all kinds ends each of them as UNAVAILABLE, once."""
    watches = {path(kind): Watch() for kind in Kind}

    def each(call: Call) -> Flow:
        yield from watches[str(call.method)](call)

    with server_process() as (target, process), grpc.insecure_channel(target) as native:
        link = Link(target, None, native, intercept_channel(native, each))
        callers = [Background(lambda kind=kind: link.call(kind, blocking=blocking)) for kind in Kind]
        assert process.stdout is not None
        for _ in callers:
            assert process.stdout.readline() == "begun\n"
        os.kill(process.pid, signal.SIGKILL)
        for caller in callers:
            with pytest.raises(errors.Unavailable):
                caller.result()

    for kind in Kind:
        outcome = watches[path(kind)].outcome()
        assert outcome.code is UNAVAILABLE
        # The reset of the connection may overtake the response that a stream had sent.
        assert outcome.responses <= (1 if kind.response_streaming else 0)


def test_row47_a_server_that_stands_still_is_ended_by_the_deadline() -> None:
    """A server that is stopped with its connections open is silent: the deadline ends the calls, each once."""
    watches = {path(kind): Watch() for kind in Kind}

    def each(call: Call) -> Flow:
        yield from watches[str(call.method)](call)

    with server_process() as (target, process), grpc.insecure_channel(target) as native:
        grpc.channel_ready_future(native).result(PATIENCE)
        os.kill(process.pid, signal.SIGSTOP)
        link = Link(target, None, native, intercept_channel(native, each))
        for kind in Kind:
            with pytest.raises(errors.DeadlineExceeded):
                in_time(lambda kind=kind: link.call(kind, timeout=0.2))

    assert [watch.outcome().code for watch in watches.values()] == [DEADLINE_EXCEEDED] * 4


def test_row48_a_channel_outlives_its_server() -> None:
    """A stub works again when its server is back at the same address, without being made anew."""
    watches = [Watch() for _ in range(3)]
    current = iter(watches)

    def each(call: Call) -> Flow:
        yield from next(current)(call)

    with address() as target, grpc.insecure_channel(target, FAST_RECONNECT) as native:
        link = Link(target, None, native, intercept_channel(native, each))
        with serving(Echo(), target):
            link.call(Kind.UNARY_UNARY, wait_for_ready=True, timeout=PATIENCE)
        with pytest.raises(errors.Unavailable):
            link.call(Kind.UNARY_UNARY)
        with serving(Echo(), target):
            link.call(Kind.UNARY_UNARY, wait_for_ready=True, timeout=PATIENCE)

    assert [watch.outcome().code for watch in watches] == [OK, UNAVAILABLE, OK]


# --- rows of the second pass: the core's own retry --------------------------------------------------------------------


def core_retry(attempts: int) -> list[tuple[str, Any]]:
    """Channel options with which grpc's core sends again by itself."""
    config = """{"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": %d, "initialBackoff": "0.01s",
        "maxBackoff": "0.01s", "backoffMultiplier": 1, "retryableStatusCodes": ["UNAVAILABLE"]}}]}"""
    return [("grpc.service_config", config % attempts)]


def send_twice(call: Call) -> Flow:
    yield call
    yield call


@pytest.mark.parametrize("blocking", [True, False], ids=["blocking", "future"])
def test_row50_flows_see_one_call_where_the_core_sends_three(blocking: bool) -> None:
    """The core's own attempts are one attempt for flows; only the server can tell them apart, by the core's key."""
    watch, echo = Watch(), Echo([failed(UNAVAILABLE)] * 2)

    with opened(echo, watch, options=core_retry(3)) as link:
        in_time(lambda: link.call(Kind.UNARY_UNARY, blocking=blocking))

    previous = [attempt.values("grpc-previous-rpc-attempts") for attempt in echo.attempts]
    assert previous == [[], ["1"], ["2"]]
    assert watch.outcome().ok
    assert watch.outcome().attempts == 1


def test_row51_the_core_stops_at_five() -> None:
    """Ten attempts asked of the core are five; the caller and the flow see the last failure, once."""
    watch, echo = Watch(), Echo([failed(UNAVAILABLE)] * 10)

    with opened(echo, watch, options=core_retry(10)) as link, pytest.raises(errors.Unavailable):
        in_time(lambda: link.call(Kind.UNARY_UNARY))

    assert len(echo.attempts) == 5
    assert watch.outcome().attempts == 1


@pytest.mark.parametrize(("pushback", "seen"), [("-1", "-1"), ("garbage", "-9223372036854775808")])
def test_row52_pushback_reaches_flows(pushback: str, seen: str) -> None:
    """A server's pushback that stops the core is in the trailing metadata of the outcome, as the core has read it."""
    watch, echo = Watch(), Echo([failed(UNAVAILABLE, trailing=(("grpc-retry-pushback-ms", pushback),))])

    with opened(echo, watch, options=core_retry(3)) as link, pytest.raises(errors.Unavailable):
        in_time(lambda: link.call(Kind.UNARY_UNARY))

    assert len(echo.attempts) == 1
    assert watch.outcome().trailing_metadata["grpc-retry-pushback-ms"] == seen


@BLOCKING
def test_row53_hedging_is_ours(blocking: bool) -> None:
    """Grpc's core has no hedging: a slow first copy is overtaken by the second, here, and is cancelled."""
    gate, watch = Gate(), Watch()
    answered = threading.Event()

    class SlowFirst(Gate):
        def _unary(self, argument: Any, context: grpc.ServicerContext) -> str:
            first = not self.begun.is_set()
            self._begin(context)
            if first:
                answered.wait(PATIENCE)
            return "first" if first else "second"

    def hedge(call: Call) -> Flow:
        yield call.hedged(copies=2, delay=0.01)

    gate = SlowFirst()
    with opened(gate, watch, hedge) as link:
        [answer] = in_time(lambda: link.call(Kind.UNARY_UNARY, blocking=blocking))
        over = [gate.ended.acquire(timeout=PATIENCE) for _ in range(2)]
        answered.set()

    assert answer == "second"
    assert all(over)
    assert watch.outcome().ok


@pytest.mark.parametrize(
    ("options", "sends"), [(core_retry(3), 6), ([*core_retry(3), NO_CORE_RETRIES], 2)], ids=["core too", "ours only"]
)
def test_c21_row54_attempts_of_the_core_multiply_with_ours(options: list[tuple[str, Any]], sends: int) -> None:
    """Two attempts here over three of the core's are six; a channel with the core's retries off makes two."""
    watch, echo = Watch(), Echo([failed(UNAVAILABLE)] * 10)

    with opened(echo, watch, send_twice, options=options) as link, pytest.raises(errors.Unavailable):
        in_time(lambda: link.call(Kind.UNARY_UNARY))

    assert len(echo.attempts) == sends
    assert watch.outcome().attempts == 2


def test_row55_a_key_of_ones_own_counts_attempts() -> None:
    """A flow that numbers its attempts does it under a key of its own: the core's would be stripped."""
    echo = Echo([failed(UNAVAILABLE)])

    def numbering(call: Call) -> Flow:
        outcome = yield call.with_metadata(("x-retry-attempt", "0"))
        while not outcome.ok:
            outcome = yield call.with_metadata(("x-retry-attempt", str(outcome.attempts)))

    with opened(echo, numbering) as link:
        link.call(Kind.UNARY_UNARY)

    assert [attempt.values("x-retry-attempt") for attempt in echo.attempts] == [["0"], ["1"]]


@ALL
def test_row56_binary_values_carry_anything(kind: Kind) -> None:
    """Under a -bin key every byte travels, from a flow to the server."""
    echo, everything = Echo(), bytes(range(256))

    def add(call: Call) -> Flow:
        yield call.with_metadata(("x-all-bin", everything))

    with opened(echo, add) as link:
        link.call(kind)

    assert echo.attempts[0].values("x-all-bin") == [everything]


@pytest.mark.parametrize("value", ["a\rb", "a\nb", "a\0b", "a\tb", "é"], ids=repr)
def test_row56_a_flow_cannot_make_a_call_that_grpc_refuses(value: str) -> None:
    """What would be INTERNAL "Invalid metadata" far from its cause is an error of the flow that set it, by name."""
    echo = Echo()

    def careless(call: Call) -> Flow:
        yield call.with_metadata(("x-user", value))

    with opened(echo, careless) as link, pytest.raises(errors.Internal, match="careless raised ValueError") as caught:
        link.call(Kind.UNARY_UNARY)

    assert isinstance(caught.value.__cause__, ValueError)
    assert not echo.attempts


# --- rows without a test of their own ---------------------------------------------------------------------------------
#
# held by another test of this file
#   row 1, 2    test_c01, test_c06                     row 32   test_c13_without_time_nothing_is_sent
#   row 3       test_c07, test_row44                   row 34, 35, 39, 40 and the server's view of 30-33: server tests
#   row 4       test_c03                               C-21     test_c21_row54
#   row 5       test_c04, test_c05                     row 46   also: one outcome after the server stopped
#   row 7       test_c09
#
# not yet
#   C-2   "separate metric label"            metrics are a battery of a later issue; `outcome.local` is what it will ask
#   C-4   "or deadline" for held streams     a default deadline is a battery of a later issue
#   C-10  "no retry past the cap"            Retry is a battery of a later issue; replayable and the refusal are held
#   C-19  wait_for_ready without deadline    a warning belongs to describe() or the deadline battery of later issues
#   C-21  helper that builds channel options, warning about a service config: come with Retry
#   C-23  codes of breaker, limiter          come with those batteries
#   52, 55  parsing pushback as int32        comes with Retry
#   51    retry buffer, throttling           of the core alone: nothing of ours takes part
#   8, 9, 11-29  aio or server               other files of this folder
#   45    blocked handlers at the end of grace, 47 keepalive, 49, 57-59, 62: of the server, the runner, or the core alone
#   60, 61   test_process.py
