"""What is different on purpose: each row of the table on the migration page, shown on both packages."""

from __future__ import annotations

import asyncio
import gc
import re
import threading
from collections.abc import AsyncIterator, Callable
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf import descriptor_pool
from google.protobuf.struct_pb2 import ListValue, Struct

from tests.compat.apis import BOTH, ORIGINAL, OURS, Api
from tests.compat.observing import acall, aserved, call, served
from tests.compat.services import ACTS, KINDS, AsyncService, Book, Service, Text

PAGE = Path(__file__).parents[2] / "docs" / "migrate" / "grpc-interceptor.md"
ROW = re.compile(r"^\| `(?P<name>[a-z-]+)` \| .+ \| .+ \|$", re.MULTILINE)

shown: set[str] = set()


def difference(name: str) -> Callable[[Any], Any]:
    """Marks the test that shows a row of the table."""
    shown.add(name)
    return lambda test: test


def test_the_table_is_complete() -> None:
    """The table on the page has a row for each difference shown here, and no other."""
    table = PAGE.read_text("utf-8").partition("## What is different on purpose")[2]

    assert sorted(row["name"] for row in ROW.finditer(table)) == sorted(shown)


# --- exceptions to statuses -------------------------------------------------------------------------------------------


def listed(*_: Any) -> ListValue:
    found = ListValue()
    found.extend(["a", "b"])
    return found


def structured(*_: Any) -> Struct:
    found = Struct()
    found.update({"a": "b"})
    return found


@difference("iterable-message")
@pytest.mark.parametrize("answer", [listed, structured])
@pytest.mark.parametrize("kind", ["unary_unary", "stream_unary"])
def test_a_message_that_can_be_iterated_is_a_message(kind: str, answer: Any) -> None:
    """The handler says what a response is, not the response."""
    codes = {}
    for api in BOTH:
        make = getattr(grpc, f"{kind}_rpc_method_handler")
        handler = make(answer, None, lambda message: message.SerializeToString())
        with served(handler, [api.ExceptionToStatusInterceptor()]) as channel:
            codes[api] = call(channel, kind)["code"]

    assert codes == {ORIGINAL: grpc.StatusCode.INTERNAL, OURS: grpc.StatusCode.OK}


class Countdown:
    """All that grpc asks of a response stream, and no more."""

    def __init__(self, error: Exception) -> None:
        self._left = 2
        self._error = error

    def __next__(self) -> Text:
        self._left -= 1
        if self._left < 0:
            raise self._error
        return Text(str(self._left))


@difference("bare-iterator")
def test_what_a_stream_raises_reaches_the_interceptor() -> None:
    """Also from an iterator that has `__next__` alone."""
    codes = {}
    for api in BOTH:
        error = api.exceptions.NotFound()
        handler = grpc.unary_stream_rpc_method_handler(lambda _, __, error=error: Countdown(error), None, Text.write)
        with served(handler, [api.ExceptionToStatusInterceptor()]) as channel:
            codes[api] = call(channel, "unary_stream")["code"]

    assert codes == {ORIGINAL: grpc.StatusCode.UNKNOWN, OURS: grpc.StatusCode.NOT_FOUND}


def crashes(api: Api, reports: list[str]) -> type:
    """A user's interceptor that reports crashes."""

    class Reporting(api.ExceptionToStatusInterceptor):
        def handle_exception(self, ex: Exception, *rest: Any) -> None:
            reports.append(type(ex).__name__)
            super().handle_exception(ex, *rest)

    return Reporting


def acrashes(api: Api, reports: list[str]) -> type:
    class Reporting(api.AsyncExceptionToStatusInterceptor):
        async def handle_exception(self, ex: Exception, *rest: Any) -> None:
            reports.append(type(ex).__name__)
            await super().handle_exception(ex, *rest)

    return Reporting


@difference("abort")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("act", ["abort", "late abort"])
def test_an_abort_is_no_crash(kind: str, act: str) -> None:
    """A handler that aborts has chosen its status: `handle_exception` does not hear of it, and the status stands."""
    reports: dict[Api, list[str]] = {api: [] for api in BOTH}
    codes = set()
    for api in BOTH:
        with served(Service(api, Book()).handler(kind), [crashes(api, reports[api])()]) as channel:
            codes.add(call(channel, kind, (("act", act),))["code"])

    assert reports == {ORIGINAL: ["Exception"], OURS: []}
    assert codes == {grpc.StatusCode.FAILED_PRECONDITION}


@difference("abort")
@pytest.mark.parametrize("kind", [*KINDS, "unary_stream_written", "stream_stream_written"])
async def test_an_abort_on_asyncio_is_no_crash(kind: str) -> None:
    """The same on asyncio."""
    reports: dict[Api, list[str]] = {api: [] for api in BOTH}
    for api in BOTH:
        async with aserved(AsyncService(api, Book()).handler(kind), [acrashes(api, reports[api])()]) as channel:
            await acall(channel, kind.removesuffix("_written"), (("act", "abort"),))

    assert reports == {ORIGINAL: ["AbortError"], OURS: []}


@difference("heir-without-init")
def test_an_heir_need_not_call_init() -> None:
    """A subclass with an `__init__` of its own treats unknown exceptions as the class does without arguments."""
    details = {}
    for api in BOTH:

        class Heir(api.ExceptionToStatusInterceptor):
            def __init__(self) -> None:
                pass

        with served(Service(api, Book()).handler("unary_unary"), [Heir()]) as channel:
            details[api] = call(channel, "unary_unary", (("act", "bug"),))["details"]

    assert "'Heir' object has no attribute" in details[ORIGINAL]
    assert details[OURS] == "Exception calling application: a bug"


@difference("handler-that-returns")
def test_a_handle_exception_that_returns_loses_nothing() -> None:
    """It must raise; if it does not, the exception that it was given is raised."""
    details = {}
    for api in BOTH:

        class Silent(api.ExceptionToStatusInterceptor):
            def handle_exception(self, *_: Any) -> None:
                pass

        with served(Service(api, Book()).handler("unary_unary"), [Silent()]) as channel:
            details[api] = call(channel, "unary_unary", (("act", "bug"),))["details"]

    assert "response_or_iterator" in details[ORIGINAL]
    assert details[OURS] == "Exception calling application: a bug"


# --- asyncio servers --------------------------------------------------------------------------------------------------


def quoting(api: Api) -> Any:
    """A user's interceptor that sees each message of both streams."""

    class Quoting(api.AsyncServerInterceptor):
        async def intercept(self, method, request_or_iterator, context, method_name):
            if hasattr(request_or_iterator, "__aiter__"):
                request_or_iterator = self._upper(request_or_iterator)
            async for message in method(request_or_iterator, context):
                yield Text(f"<{message.text}>")

        async def _upper(self, requests: AsyncIterator[Text]) -> AsyncIterator[Text]:
            async for request in requests:
                yield Text(request.text.upper())

    return Quoting()


# The original leaves behind what it does not understand; Python tells so when it finds it.
forgetful = pytest.mark.filterwarnings(
    "ignore:.* was never awaited:RuntimeWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


@difference("read-and-write")
@forgetful
@pytest.mark.parametrize("kind", ["unary_stream", "stream_stream"])
async def test_interceptors_see_what_a_handler_reads_and_writes(kind: str) -> None:
    """A handler that calls `context.read` and `context.write` is no way around an interceptor, nor around two of them."""
    messages: dict[Api, Any] = {}
    for api in BOTH:
        handler = AsyncService(api, Book()).handler(f"{kind}_written")
        async with aserved(handler, [quoting(api), quoting(api)]) as channel:
            messages[api] = (await acall(channel, kind, (("act", "answer"),)))["messages"]
        gc.collect()

    first = "<<a!>>" if kind == "unary_stream" else "<<A!>>"
    assert messages[ORIGINAL] == []
    assert messages[OURS][0] == first and len(messages[OURS]) == 3


@difference("read-and-write")
@pytest.mark.parametrize(
    ("act", "code"), [("late bug", "UNKNOWN"), ("late grpc", "NOT_FOUND"), ("abort", "FAILED_PRECONDITION")]
)
async def test_how_such_a_handler_ends_is_seen_too(act: str, code: str) -> None:
    """What it raises after its first message comes out of the iterator, behind that message."""
    handler = AsyncService(OURS, Book()).handler("stream_stream_written")
    async with aserved(handler, [OURS.AsyncExceptionToStatusInterceptor(), quoting(OURS)]) as channel:
        seen = await acall(channel, "stream_stream", (("act", act),))

    assert seen["code"].name == code and seen["messages"] == ["<A!>"]


@difference("read-and-write")
@forgetful
async def test_replaced_requests_are_read() -> None:
    """`context.read` gives what an interceptor put in the place of the request stream."""
    handled: dict[Api, Any] = {}
    for api in BOTH:

        class Upper(api.AsyncServerInterceptor):
            async def intercept(self, method, request_or_iterator, context, method_name):
                return await method((Text(each.text.upper()) async for each in request_or_iterator), context)

        book = Book()
        async with aserved(AsyncService(api, book).handler("stream_unary_written"), [Upper()]) as channel:
            await acall(channel, "stream_unary", (("act", "answer"),))
        handled[api] = book.calls["answer"]
        gc.collect()

    assert handled == {ORIGINAL: [("handler", ["a", "b", "c"])], OURS: [("handler", ["A", "B", "C"])]}


@difference("read-and-write-in-a-stack")
async def test_each_interceptor_awaits_a_handler_that_writes() -> None:
    """With two interceptors both see its exception where they await it; in the original only the inner one."""
    saw: dict[Api, list[str]] = {api: [] for api in BOTH}
    for api in BOTH:

        class Watch(api.AsyncServerInterceptor):
            async def intercept(self, method, request_or_iterator, context, method_name):
                answer = method(request_or_iterator, context)
                try:
                    return answer if hasattr(answer, "__aiter__") else await answer
                except ValueError:
                    saw[api].append("a bug")  # noqa: B023  read at once
                    raise

        async with aserved(AsyncService(api, Book()).handler("unary_stream_written"), [Watch(), Watch()]) as channel:
            await acall(channel, "unary_stream", (("act", "late bug"),))

    assert saw == {ORIGINAL: ["a bug"], OURS: ["a bug", "a bug"]}


def passing(api: Api, way: str) -> Any:
    """A user's interceptor that returns what it is given, in ways that a coroutine allows."""

    class Passing(api.AsyncServerInterceptor):
        async def intercept(self, method, request_or_iterator, context, method_name):
            answer = method(request_or_iterator, context)
            return asyncio.ensure_future(answer) if way == "task" else answer

    return Passing()


@difference("not-awaited")
@pytest.mark.parametrize("way", ["task", "as it is"])
@forgetful
async def test_an_answer_that_was_not_awaited_is_awaited(way: str) -> None:
    """`return method(…)` will do, though the handler is a coroutine function that writes."""
    codes = {}
    for api in BOTH:
        async with aserved(AsyncService(api, Book()).handler("unary_stream_written"), [passing(api, way)]) as channel:
            codes[api] = (await acall(channel, "unary_stream", (("act", "answer"),)))["code"]
        gc.collect()

    assert codes == {ORIGINAL: grpc.StatusCode.UNKNOWN, OURS: grpc.StatusCode.OK}


async def served_plainly(api: Api, kind: str, act: str) -> Any:
    """What client and handler see of a plain handler on an asyncio server."""
    book = Book()
    stack = [api.AsyncExceptionToStatusInterceptor(grpc.StatusCode.INTERNAL)]
    async with aserved(Service(api, book).handler(kind), stack) as channel:
        return await acall(channel, kind, (("act", act),)), book.calls.get(act)


@difference("plain-handler")
@pytest.mark.parametrize(
    "act", [act for act in ACTS if act != "code and bug"]
)  # there grpc.aio puts details over details
@pytest.mark.parametrize("kind", KINDS)
def test_a_plain_handler_serves_on_asyncio(kind: str, act: str) -> None:
    """It runs in a thread, and does there what it does on a sync server."""
    book, stack = Book(), [OURS.ExceptionToStatusInterceptor(grpc.StatusCode.INTERNAL)]
    with served(Service(OURS, book).handler(kind), stack) as channel:
        sync = call(channel, kind, (("act", act),)), book.calls[act]

    assert asyncio.run(served_plainly(OURS, kind, act)) == sync


@difference("plain-handler")
@pytest.mark.parametrize("kind", KINDS)
async def test_the_original_cannot_serve_one(kind: str) -> None:
    """It awaits what is no awaitable."""
    seen, _ = await served_plainly(ORIGINAL, kind, "answer")

    assert seen["code"] is grpc.StatusCode.INTERNAL
    assert seen["details"].startswith("TypeError")


@difference("closed-stream")
async def test_a_stream_that_is_dropped_closes_its_interceptors() -> None:
    """When grpc closes the stream, the `finally` of an interceptor's generator has run."""
    closed: dict[Api, list[str]] = {api: [] for api in BOTH}
    for api in BOTH:

        class Watch(api.AsyncServerInterceptor):
            async def intercept(self, method, request_or_iterator, context, method_name):
                self.kept = self._messages(method(request_or_iterator, context))
                return self.kept

            async def _messages(self, messages: Any) -> Any:
                try:
                    async for message in messages:
                        yield message
                finally:
                    closed[api].append("closed")  # noqa: B023  read at once

        wrapped = await intercepted(Watch(), grpc.unary_stream_rpc_method_handler(each_letter))
        stream = wrapped.unary_stream("abc", None)
        await anext(stream)
        await stream.aclose()

    assert closed == {ORIGINAL: [], OURS: ["closed"]}


async def each_letter(request: str, context: Any) -> AsyncIterator[str]:
    for letter in request:
        yield letter


class Details(grpc.HandlerCallDetails):
    method = "/shop.v1.Orders/Place"
    invocation_metadata = ()


async def intercepted(interceptor: Any, handler: Any) -> Any:
    async def continuation(_: Any) -> Any:
        return handler

    return await interceptor.intercept_service(continuation, Details())


# --- both kinds of servers --------------------------------------------------------------------------------------------


def does_nothing(api: Api, asyncio: bool) -> Any:
    class Sync(api.ServerInterceptor):
        def intercept(self, method, request_or_iterator, context, method_name):
            return method(request_or_iterator, context)

    class Async(api.AsyncServerInterceptor):
        async def intercept(self, method, request_or_iterator, context, method_name):
            return await method(request_or_iterator, context)

    return Async() if asyncio else Sync()


@difference("wrapped-once")
async def test_handlers_are_wrapped_once() -> None:
    """The same handler, asked for again, is given as it was wrapped before."""
    same = {}
    for api in BOTH:
        handler, async_handler = (Service(api, Book()).handler("unary_unary") for _ in range(2))
        sync, asynchronous = does_nothing(api, asyncio=False), does_nothing(api, asyncio=True)
        first, again = (sync.intercept_service(lambda _: handler, Details()) for _ in range(2))  # noqa: B023
        third, fourth = [await intercepted(asynchronous, async_handler) for _ in range(2)]
        same[api] = first is again, third is fourth

    assert same == {ORIGINAL: (False, False), OURS: (True, True)}


@difference("thread-pool")
def test_a_handler_keeps_its_thread_pool() -> None:
    """The pool that grpc is asked for on the handler's function stands on the wrapped one too."""

    def handler(request: Any, context: Any) -> Any:
        return request

    pools = {}
    with futures.ThreadPoolExecutor(1) as pool:
        handler.experimental_thread_pool = pool
        for api in BOTH:
            found = grpc.unary_unary_rpc_method_handler(handler)
            wrapped = does_nothing(api, asyncio=False).intercept_service(lambda _: found, Details())  # noqa: B023
            pools[api] = getattr(wrapped.unary_unary, "experimental_thread_pool", None)

    assert pools == {ORIGINAL: None, OURS: pool}


# --- names, and the testing kit ---------------------------------------------------------------------------------------


@difference("module-names")
async def test_grpc_tells_the_class_of_an_exception() -> None:
    """Without an interceptor, grpc.aio sends the path of its class; so does every traceback."""
    details = {}
    for api in BOTH:
        async with aserved(AsyncService(api, Book()).handler("unary_unary")) as channel:
            stub = channel.unary_unary("/shop.v1.Orders/Place", str.encode, bytes.decode)
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await stub("a", metadata=(("act", "grpc"),))
            details[api] = failed.value.details()

    assert details == {api: f"Unexpected <class '{api.package}.exceptions.NotFound'>: " for api in BOTH}


@difference("own-pool")
def test_the_dummy_messages_are_in_a_pool_of_their_own() -> None:
    """A program may have a `dummy.proto` itself; the original's stands in everybody's pool."""
    default = descriptor_pool.Default()

    assert ORIGINAL.testing.DummyRequest.DESCRIPTOR.file.pool is default
    assert OURS.testing.DummyRequest.DESCRIPTOR.file.pool is not default


@difference("dummy-server-ends")
@pytest.mark.parametrize("aio_server", [False, True])
def test_the_dummy_server_ends_with_its_block(aio_server: bool) -> None:
    """Its threads end with it; the original's wait for the garbage collector, and leave a loop unclosed."""
    before = set(threading.enumerate())
    with OURS.testing.dummy_client({}, aio_server=aio_server) as client:
        answer = client.Execute(OURS.testing.DummyRequest(input="a"))
    own = [each for each in set(threading.enumerate()) - before if "dummy" in each.name or "Pool" in each.name]
    for thread in own:
        thread.join(10)

    assert answer.output == "a"
    assert not any(thread.is_alive() for thread in own)


@difference("dummy-server-ends")
def test_a_special_case_that_hangs_does_not_hang_the_block() -> None:
    """The block ends, as in the original, though a handler goes on."""
    go_on = threading.Event()
    with OURS.testing.dummy_client({"?": lambda *_: str(go_on.wait(30))}) as client:
        with pytest.raises(grpc.RpcError) as failed:
            client.Execute(OURS.testing.DummyRequest(input="?"), timeout=0.1)
        assert failed.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED

    assert not go_on.is_set()
    go_on.set()


@difference("dummy-server-fails")
def test_a_dummy_server_that_cannot_start_says_why() -> None:
    """What its thread raised is raised in the block's."""
    dummy_channel = OURS.module("testing.dummy_client").dummy_channel

    with (
        pytest.raises(ValueError, match="must be ServerInterceptor"),
        dummy_channel({}, [object()], aio_server=True),
    ):
        pass


@difference("dummy-client-interceptors")
async def test_the_dummy_client_takes_asyncio_interceptors() -> None:
    """An asyncio channel may have client interceptors, of the class that the original does not have."""

    class Sign(OURS.AsyncClientInterceptor):
        async def intercept(self, method, request_or_iterator, call_details):
            return await method(request_or_iterator, call_details._replace(metadata=[("x-signed", "yes")]))

    def signed(_: str, context: Any) -> str:
        return str(dict(context.invocation_metadata()).get("x-signed"))

    with OURS.testing.dummy_client({"?": signed}, None, [Sign()], aio_server=True, aio_client=True) as client:
        answer = await client.Execute(OURS.testing.DummyRequest(input="?"))

    assert answer.output == "yes"
    for api in BOTH:
        with (
            pytest.raises(TypeError, match="Client interceptors not supported"),
            api.testing.dummy_client({}, None, [object()], aio_server=False, aio_client=True),
        ):
            pass


@difference("dummy-native-interceptors")
def test_the_dummy_server_takes_any_interceptor() -> None:
    """Also one for asyncio that does not inherit from `AsyncServerInterceptor`, such as ours made of flows."""

    class Native(grpc.aio.ServerInterceptor):
        async def intercept_service(self, continuation: Any, details: Any) -> Any:
            return await continuation(details)

    with OURS.testing.dummy_client({}, [Native()], aio_server=True) as client:
        answer = client.Execute(OURS.testing.DummyRequest(input="a"))

    assert answer.output == "a"
    for api in BOTH:
        wrong = api.AsyncExceptionToStatusInterceptor(), api.ExceptionToStatusInterceptor()
        for aio_server, interceptor in enumerate(wrong):
            with (
                pytest.raises(TypeError, match="Set aio_server correctly"),
                api.testing.dummy_client({}, [interceptor], aio_server=bool(aio_server)),
            ):
                pass
    with (
        pytest.raises(TypeError, match="Set aio_server correctly"),
        ORIGINAL.testing.dummy_client({}, [Native()], aio_server=True),
    ):
        pass
