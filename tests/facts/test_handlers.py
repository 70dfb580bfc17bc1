"""What handlers are given and how they are found out: shapes, messages, the context, callbacks."""

import functools
import inspect
import json
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent import futures
from functools import partial
from inspect import unwrap
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import Call, Flow, Metadata, server_interceptor
from interpose.testing.echo import decode, encode
from tests.facts.handling import ALL, ASYNC, UNARY, Flood, Shape, answering, drained, handling, serve, shapes
from tests.facts.hosting import LOOP
from tests.facts.serving import MAKE, SERVICE, Watch
from tests.support.patience import PATIENCE

pytestmark = pytest.mark.usefixtures("hosts")

Code = grpc.StatusCode

UNARY_OF = dict(zip(["sync", "plain", "async"], UNARY, strict=True))


# --- shapes -----------------------------------------------------------------------------------------------------------


@pytest.mark.fact("S-13")
@shapes(ALL)
def test_responses_that_can_be_iterated_are_not_streamed(shape: Shape) -> None:
    """Lists as messages stay single messages: the kind of an RPC is what its handler says."""
    watch = Watch()
    loads: Any = lambda data: json.loads(data)  # noqa: E731
    dumps: Any = lambda message: json.dumps(message).encode()  # noqa: E731
    [function] = handling(shape, answering(["a", "b"])).values()

    with serve(shape, {shape.kind: MAKE[shape.kind](function, loads, dumps)}, watch) as rpc:
        native = getattr(rpc.channel, shape.kind)(f"/{SERVICE}/{shape.kind}", dumps, loads)
        reply = native(iter([["x"]]) if shape.uploads else ["x"], timeout=PATIENCE)
        messages = list(reply) if shape.streams else [reply]

    assert messages == [["a", "b"]]
    [outcome] = watch.outcomes
    assert outcome.responses == 1 and outcome.requests == 1
    assert outcome.response == (None if shape.streams else ["a", "b"])


DETAILS: Any = type("Details", (), {"method": "/a.B/C", "invocation_metadata": ()})


@pytest.mark.fact("S-14")
def test_attributes_of_a_handler_and_its_serializers_are_kept() -> None:
    """The handler that grpc is given has the function's attributes and the serializers of the one it replaces."""

    def watch_all(request: Any, context: Any) -> Iterator[Any]:
        yield request

    pool = object()
    watch_all.experimental_thread_pool = pool  # type: ignore[attr-defined]
    handler = grpc.unary_stream_rpc_method_handler(watch_all, decode, encode)

    made = server_interceptor(Watch()).intercept_service(lambda _: handler, DETAILS)

    assert made is not handler and made.unary_stream is not watch_all
    assert made.unary_stream.experimental_thread_pool is pool
    assert unwrap(made.request_deserializer) is decode and unwrap(made.response_serializer) is encode
    assert (made.request_streaming, made.response_streaming) == (False, True)
    assert made.unary_unary is made.stream_unary is made.stream_stream is None


@pytest.mark.fact("S-14", "S-16")
@shapes(ASYNC)
def test_an_async_handler_keeps_its_shape(shape: Shape) -> None:
    """A coroutine function stays one, a generator too; attributes and serializers are those of the handler."""
    [(kind, function)] = handling(shape, answering("a")).items()
    function.mark = object()

    async def found(_: Any) -> Any:
        return MAKE[kind](function, decode, encode)

    async def intercepted() -> Any:
        return await server_interceptor(Watch()).intercept_service(found, DETAILS)

    made = LOOP.run(intercepted())

    wrapped = getattr(made, kind)
    assert wrapped is not function and wrapped.mark is function.mark
    assert inspect.iscoroutinefunction(wrapped) == inspect.iscoroutinefunction(function)
    assert inspect.isasyncgenfunction(wrapped) == inspect.isasyncgenfunction(function)
    assert unwrap(made.request_deserializer) is decode and unwrap(made.response_serializer) is encode


@pytest.mark.fact("S-14")
def test_a_handlers_own_thread_pool_is_used() -> None:
    """A handler with `experimental_thread_pool` runs, its flow too, in a thread of that pool."""
    watch, seen = Watch(), list[str]()

    def where(request: str, context: Any) -> str:
        seen.append(threading.current_thread().name)
        return request

    with futures.ThreadPoolExecutor(1, thread_name_prefix="own") as pool:
        where.experimental_thread_pool = pool  # type: ignore[attr-defined]
        with serve("sync", {"unary_unary": where}, watch) as rpc:
            rpc.call()

    assert [*seen, *watch.threads] == ["own_0", "own_0"]


class Service:
    """Handlers as they are written in real life: methods, decorated, partial."""

    async def method(self, request: str, context: Any) -> str:
        return f"method {request}"

    @staticmethod
    async def static(request: str, context: Any) -> str:
        return f"static {request}"

    @classmethod
    async def of_class(cls, request: str, context: Any) -> str:
        return f"class {request}"

    async def stream(self, request: str, context: Any) -> AsyncIterator[str]:
        yield f"stream {request}"

    async def configured(self, word: str, request: str, context: Any) -> str:
        return f"{word} {request}"


def decorated(function: Any) -> Any:
    @functools.wraps(function)
    async def around(request: Any, context: Any) -> Any:
        return await function(request, context)

    return around


@pytest.mark.fact("S-16")
@pytest.mark.parametrize(
    ("function", "answer"),
    [
        (Service().method, "method a"),
        (Service.static, "static a"),
        (Service.of_class, "class a"),
        (decorated(Service().method), "method a"),
        (partial(Service().configured, "partial"), "partial a"),
    ],
    ids=["method", "static", "class", "decorated", "partial"],
)
def test_handlers_however_they_are_written(function: Any, answer: str) -> None:
    """Methods, decorated functions and partials serve through an interceptor."""
    watch = Watch()

    with serve("async", {"unary_unary": function}, watch) as rpc:
        reply = rpc.call("a")

    assert reply.messages == [answer] and watch.outcomes[0].response == answer


def returns_a_generator(request: str, context: Any) -> AsyncIterator[str]:
    return Service().stream(request, context)


class CallableObject:
    """An object with an async `__call__`, which grpc does not take for a coroutine function."""

    async def __call__(self, request: str, context: Any) -> str:
        return "called"


def returns_a_coroutine(request: str, context: Any) -> Any:
    return Service().method(request, context)


@pytest.mark.fact("S-16")
@pytest.mark.parametrize(
    ("kind", "function"),
    [("unary_stream", returns_a_generator), ("unary_unary", CallableObject()), ("unary_unary", returns_a_coroutine)],
    ids=["generator", "callable", "coroutine"],
)
def test_handlers_that_grpc_cannot_serve_end_with_a_status(kind: str, function: Any) -> None:
    """What grpc.aio fails to serve fails through an interceptor too: a failure, and no empty stream."""
    watch = Watch()
    strict = MAKE[kind](function, decode, str.encode)

    with serve("async", {kind: strict}, watch) as rpc:
        reply = rpc.call(kind=kind)
        outcome = watch.next()
    if inspect.iscoroutine(outcome.response):
        outcome.response.close()

    assert not reply.ok and reply.code is not Code.DEADLINE_EXCEEDED and len(watch.outcomes) == 1


# --- messages ---------------------------------------------------------------------------------------------------------


@pytest.mark.fact("S-17")
@shapes(ASYNC)
def test_hooks_see_and_change_every_message(shape: Shape) -> None:
    """Taps and maps see what handlers read and write, by generator or by `read` and `write`, and counts are right."""
    seen, got, watch = list[str](), list[str](), Watch()

    def hook(call: Call) -> Flow:
        yield call.map(requests=str.upper, responses=lambda text: f"<{text}>").tap(requests=seen.append)

    async def requests(argument: Any, context: Any) -> str:
        got.extend(await drained(shape, argument, context) if shape.uploads else [argument])
        return "".join(got)

    async def stream(argument: Any, context: Any) -> AsyncIterator[str]:
        text = await requests(argument, context)
        yield text
        yield text

    async def writing(argument: Any, context: Any) -> None:
        text = await requests(argument, context)
        await context.write(text)
        await context.write(text)

    handler = requests if not shape.streams else writing if shape.writes else stream

    with serve(shape, {shape.kind: handler}, watch, hook) as rpc:
        reply = rpc.call("a", "b") if shape.uploads else rpc.call("a")

    sent = ["A", "B"] if shape.uploads else ["A"]
    times = 2 if shape.streams else 1
    assert got == seen == sent
    assert reply.messages == [f"<{''.join(sent)}>"] * times
    [outcome] = watch.outcomes
    assert (outcome.requests, outcome.responses) == (len(sent), times)


@pytest.mark.fact("S-17")
def test_a_conversation_by_read_and_write() -> None:
    """A bidi handler may read and write in turns through an interceptor, and end before the client has."""
    watch, answers = Watch(), list[str]()
    turn, over = threading.Semaphore(0), threading.Event()

    async def talk(argument: Any, context: Any) -> None:
        while (message := await context.read()) != "bye":
            await context.write(f"{message}!")

    def speak() -> Iterator[str]:
        for word in ("a", "b"):
            yield word
            turn.acquire(timeout=PATIENCE)
        yield "bye"
        over.wait(PATIENCE)

    with serve("async", {"stream_stream": talk}, watch) as rpc:
        for answer in rpc.stub("stream_stream")(speak(), timeout=PATIENCE):
            answers.append(answer)
            turn.release()
        over.set()

    assert answers == ["a!", "b!"]
    assert (watch.outcomes[0].requests, watch.outcomes[0].responses) == (3, 2)


# --- the context ------------------------------------------------------------------------------------------------------


@pytest.mark.fact("S-18")
@shapes(UNARY)
def test_a_handler_has_the_whole_context(shape: Shape) -> None:
    """A handler's context is of grpc's class for its sort, and answers everything that one can be asked."""
    seen: dict[str, Any] = {}
    asked = ("peer", "peer_identities", "peer_identity_key", "auth_context", "code", "trailing_metadata")
    asked += ("done", "cancelled") if shape.waits else ("is_active",)

    def body(context: Any) -> str:
        seen.update({name: getattr(context, name)() for name in asked})
        seen["native"] = isinstance(context, grpc.aio.ServicerContext if shape.waits else grpc.ServicerContext)
        seen["metadata"] = dict(context.invocation_metadata())
        context.set_compression(grpc.Compression.Gzip)
        context.disable_next_message_compression()
        return "a"

    with serve(shape, handling(shape, body), Watch()) as rpc:
        reply = rpc.call(metadata=(("x-key", "value"),))

    assert reply.ok, reply.details
    assert seen["native"] and seen["peer"].startswith("ipv4:127.0.0.1:") and seen["metadata"]["x-key"] == "value"
    assert seen.get("is_active", True) and not seen.get("done") and not seen.get("cancelled")
    assert seen["code"] is None and not seen["trailing_metadata"]
    assert not seen["peer_identities"] and seen["peer_identity_key"] is None and isinstance(seen["auth_context"], dict)


@pytest.mark.fact("S-18")
@pytest.mark.parametrize("stack", ["sync", "aio"])
def test_the_context_has_every_method_of_its_base(stack: str) -> None:
    """No public method of grpc's `ServicerContext` is left to the abstract base class."""
    from interpose.aio.context import ServicerContext as Asynchronous
    from interpose.sync.context import ServicerContext as Synchronous

    base: Any = grpc.ServicerContext if stack == "sync" else grpc.aio.ServicerContext
    ours: Any = Synchronous if stack == "sync" else Asynchronous
    names = [name for name, _ in inspect.getmembers(base, callable) if not name.startswith("_")]

    assert names
    assert [name for name in names if getattr(ours, name) is getattr(base, name)] == []


@pytest.mark.fact("S-18")
@shapes(UNARY)
def test_changed_metadata_reaches_the_handler(shape: Shape) -> None:
    """What a flow changes in the call's metadata is what the handler's context shows; the peer is known to flows."""
    peers, seen = list[Any](), list[Any]()

    def mark(call: Call) -> Flow:
        peers.append(call.peer)
        yield call.without_metadata("x-key").with_metadata(("x-mark", "1"), ("x-mark", "2"))

    def body(context: Any) -> str:
        metadata = Metadata.trusted(context.invocation_metadata())
        seen.extend((metadata.get_all("x-key"), metadata.get_all("x-mark")))
        return "a"

    with serve(shape, handling(shape, body), mark) as rpc:
        rpc.call(metadata=(("x-key", "value"),))

    assert seen == [[], ["1", "2"]] and peers[0].startswith("ipv4:127.0.0.1:")


@pytest.mark.fact("S-18")
def test_a_plain_handler_may_cancel_its_rpc() -> None:
    """`context.cancel()` ends the RPC on a sync server: the client and the flow see CANCELLED."""
    watch = Watch()

    def body(context: Any) -> str:
        over = threading.Event()
        context.add_callback(over.set)
        context.cancel()
        assert over.wait(PATIENCE)
        return "a"

    with serve("sync", handling(UNARY_OF["sync"], body), watch) as rpc:
        reply = rpc.call()
        outcome = watch.next()

    assert reply.code is outcome.code is Code.CANCELLED


# --- callbacks --------------------------------------------------------------------------------------------------------


@pytest.mark.fact("S-11", "R-36")
@shapes(UNARY)
def test_callbacks_of_a_handler_are_called_once(shape: Shape) -> None:
    """What a plain handler gives to `add_callback`, or an async one to `add_done_callback`, is called once."""
    called, over = list[Any](), threading.Semaphore(0)
    given: list[Any] = []

    def note(*arguments: Any) -> None:
        called.append(arguments)
        over.release()

    def body(context: Any) -> str:
        given.append((context,) if shape.waits else ())
        answer = context.add_done_callback(note) if shape.waits else context.add_callback(note)
        assert shape.waits or answer is True
        return "a"

    with serve(shape, handling(shape, body), Watch()) as rpc:
        reply = rpc.call()
        assert over.acquire(timeout=PATIENCE)

    assert reply.ok and called == given and not over.acquire(blocking=False)


@pytest.mark.fact("R-37")
def test_a_plain_handlers_callback_that_raises_stops_no_other() -> None:
    """A callback that raises is logged, and the others are called, on a sync server."""
    called = threading.Event()

    def fail() -> None:
        raise ValueError("callback")

    def body(context: Any) -> str:
        context.add_callback(fail)
        context.add_callback(called.set)
        return "a"

    with serve("sync", handling(UNARY_OF["sync"], body), Watch()) as rpc:
        reply = rpc.call()
        assert called.wait(PATIENCE)

    assert reply.ok


@pytest.mark.fact("R-36")
@shapes(shape for shape in ASYNC if shape.streams)
def test_an_async_handlers_callback_that_raises_leaves_the_flow_its_outcome(shape: Shape) -> None:
    """A done callback that raises silences the later ones of its handler; the flow still has its outcome."""
    watch = Watch()

    def fail(_: Any) -> None:
        raise ValueError("callback")

    flood = Flood(shape, "x" * 1_000_000, first=lambda context: context.add_done_callback(fail))
    with serve(shape, flood.handlers, watch) as rpc:
        pending = rpc.start("a")
        assert flood.started.wait(PATIENCE)
        pending.cancel()
        outcome = watch.only()

    assert outcome.code is Code.CANCELLED
