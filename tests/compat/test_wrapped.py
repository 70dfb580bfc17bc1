"""What an interceptor keeps of the handlers that it has wrapped, and what handlers of odd shapes become."""

from __future__ import annotations

import asyncio
import copy
import functools
import pickle
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import grpc
import grpc.aio
import pytest

from interpose.compat.grpc_interceptor import (
    AsyncExceptionToStatusInterceptor,
    AsyncServerInterceptor,
    ExceptionToStatusInterceptor,
    ServerInterceptor,
)
from interpose.compat.grpc_interceptor.exceptions import NotFound
from tests.compat.observing import PATH, acall, aserved, call, request_of, served
from tests.support.patience import PATIENCE


class Details(grpc.HandlerCallDetails):
    def __init__(self, method: str = PATH) -> None:
        self.method = method
        self.invocation_metadata = ()


class Named(ServerInterceptor):
    def __init__(self, name: str) -> None:
        self.name = name

    def intercept(self, method: Any, request_or_iterator: Any, context: Any, method_name: str) -> Any:
        return f"{self.name} {method(request_or_iterator, context)} {method_name}"


@dataclass(frozen=True)
class Frozen(ServerInterceptor):
    name: str

    def intercept(self, method: Any, request_or_iterator: Any, context: Any, method_name: str) -> Any:
        return f"{self.name} {method(request_or_iterator, context)}"


def echo(request: Any, context: Any) -> Any:
    return request


def wrap(interceptor: Any, handler: Any, method: str = PATH) -> Any:
    return interceptor.intercept_service(lambda _: handler, Details(method))


ECHO = grpc.unary_unary_rpc_method_handler(echo)


def test_one_handler_serves_two_methods() -> None:
    """Each method is wrapped for itself, and told its own name."""
    interceptor = Named("a")

    assert wrap(interceptor, ECHO, "/a/b").unary_unary("x", None) == "a x /a/b"
    assert wrap(interceptor, ECHO, "/a/c").unary_unary("x", None) == "a x /a/c"
    assert wrap(interceptor, ECHO, "/a/b") is wrap(interceptor, ECHO, "/a/b")


def test_another_handler_is_wrapped_anew() -> None:
    """A generic handler may give another one for the same name at any time."""
    interceptor = Named("a")
    other = grpc.unary_unary_rpc_method_handler(lambda request, context: request * 2)

    assert wrap(interceptor, ECHO).unary_unary("x", None) == f"a x {PATH}"
    assert wrap(interceptor, other).unary_unary("x", None) == f"a xx {PATH}"


def test_a_method_that_nobody_knows_stays_unknown() -> None:
    """No handler, nothing to wrap."""
    assert wrap(Named("a"), None) is None


async def test_one_that_nobody_knows_stays_unknown_on_asyncio() -> None:
    """The same."""

    async def nothing(_: Any) -> None:
        return None

    assert await AsyncExceptionToStatusInterceptor().intercept_service(nothing, Details()) is None


def test_a_handler_without_a_function_is_an_error() -> None:
    """It is told as the published package tells it."""
    with pytest.raises(RuntimeError, match="RPC handler implementation does not exist"):
        wrap(Named("a"), grpc.unary_unary_rpc_method_handler(None))


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))])
def test_a_copy_wraps_for_itself(copied: Any) -> None:
    """An interceptor that has served may be copied and pickled; the copy calls its own `intercept`."""
    interceptor = Named("first")
    wrap(interceptor, ECHO)
    other = copied(interceptor)
    other.name = "other"

    assert wrap(other, ECHO).unary_unary("x", None) == f"other x {PATH}"
    assert wrap(interceptor, ECHO).unary_unary("x", None) == f"first x {PATH}"


def test_a_frozen_dataclass_may_be_one() -> None:
    """It can neither be changed nor hashed at will, and need not be."""
    interceptor = Frozen("a")

    assert wrap(interceptor, ECHO).unary_unary("x", None) == "a x"
    assert interceptor == Frozen("a") and repr(interceptor) == "Frozen(name='a')"


def test_intercept_may_be_patched_later() -> None:
    """It is looked up at each RPC, as tests that patch it expect."""
    interceptor = Named("a")
    wrapped = wrap(interceptor, ECHO)

    with mock.patch.object(interceptor, "intercept", return_value="patched"):
        assert wrapped.unary_unary("x", None) == "patched"
    assert wrapped.unary_unary("x", None) == f"a x {PATH}"


@pytest.mark.parametrize(("answer", "stream"), [([1, 2], True), (iter("ab"), True), (3, False), ("message", False)])
def test_without_a_server_the_answer_is_looked_at(answer: Any, stream: bool) -> None:
    """Called by hand, as unit tests do, an iterable is a stream, unless it is a message."""
    if answer == "message":
        answer = mock.MagicMock(DESCRIPTOR=object(), __iter__=iter)

    found = ExceptionToStatusInterceptor().intercept(lambda *_: answer, None, mock.Mock(), PATH)

    assert (found is not answer) == stream
    assert not stream or list(found) == ([1, 2] if isinstance(answer, list) else ["a", "b"])


# --- shapes on asyncio ------------------------------------------------------------------------------------------------


def encode(message: str | bytes) -> bytes:
    """Serialize; grpc.aio makes bytes of a `str` before it asks."""
    return message if isinstance(message, bytes) else message.encode()


class Watch(AsyncServerInterceptor):
    """As the documentation of the package has it."""

    def __init__(self) -> None:
        self.threads: list[int] = []

    async def intercept(self, method: Any, request_or_iterator: Any, context: Any, method_name: str) -> Any:
        self.threads.append(threading.get_ident())
        answer = method(request_or_iterator, context)
        return answer if hasattr(answer, "__aiter__") else await answer


async def answer(request: Any, context: Any) -> str:
    if not isinstance(request, str):
        request = "".join([each async for each in request])
    if request.startswith("no"):
        await context.abort(grpc.StatusCode.ABORTED, "no")
    return f"{request}!"


async def messages(request: Any, context: Any) -> AsyncIterator[str]:
    yield await answer(request, context)


class Callable:
    async def __call__(self, request: Any, context: Any) -> str:
        return await answer(request, context)


def decorated(function: Any) -> Any:
    @functools.wraps(function)
    def inner(request: Any, context: Any) -> Any:
        asyncio.get_running_loop()
        return function(request, context)

    return inner


HIDDEN = {
    "lambda": lambda function: lambda request, context: function(request, context),
    "partial": lambda function: functools.partial(function),
    "decorated": decorated,
    "callable object": lambda function: Callable() if function is answer else functools.partial(function),
}


@pytest.mark.parametrize("how", HIDDEN)
@pytest.mark.parametrize("kind", ["unary_unary", "stream_unary", "unary_stream", "stream_stream"])
async def test_an_async_handler_in_disguise_is_served(kind: str, how: str) -> None:
    """A function that does not look async and gives a coroutine or an async generator works, as in the published package."""
    function = HIDDEN[how](messages if kind.endswith("stream") else answer)
    handler = getattr(grpc, f"{kind}_rpc_method_handler")(function, bytes.decode, encode)
    async with aserved(handler, [Watch(), Watch()]) as channel:
        seen = await acall(channel, kind)

    assert seen["messages"] == ["a!" if kind.startswith("unary") else "abc!"]


async def test_one_in_disguise_may_write() -> None:
    """A handler that writes, behind a decorator, is awaited."""

    async def write(request: str, context: Any) -> None:
        await context.write(f"{request}!")

    handler = grpc.unary_stream_rpc_method_handler(decorated(write), bytes.decode, encode)
    async with aserved(handler, [Watch(), Watch()]) as channel:
        seen = await acall(channel, "unary_stream")

    assert seen["messages"] == ["a!"] and seen["code"] is grpc.StatusCode.OK


async def test_one_in_disguise_may_abort() -> None:
    """What it awaits of its context is awaited on the loop."""
    handler = grpc.unary_unary_rpc_method_handler(HIDDEN["lambda"](answer), bytes.decode, encode)
    async with aserved(handler, [Watch()]) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await channel.unary_unary(PATH, str.encode, bytes.decode)("no")

    assert (failed.value.code(), failed.value.details()) == (grpc.StatusCode.ABORTED, "no")


class Plain:
    """A plain handler that uses all of its context."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.seen: dict[str, Any] = {}

    def answer(self, request: str, context: Any) -> str:
        self.seen["thread"] = threading.get_ident()
        self.seen["active"] = context.is_active(), context.add_callback(self.over.set)
        self.seen["peer"] = context.peer()
        context.send_initial_metadata((("x-first", "1"),))
        context.set_trailing_metadata((("x-last", "2"),))
        return request

    def status(self, request: str, context: Any) -> str:
        class Status(grpc.Status):
            code, details, trailing_metadata = grpc.StatusCode.ABORTED, "by status", (("x-last", "3"),)

        context.abort_with_status(Status())
        return "never"

    def stream(self, request: str, context: Any) -> Iterator[str]:
        try:
            yield from request * 1000
        finally:
            self.over.set()


def test_a_plain_handler_has_a_context() -> None:
    """It runs beside the loop, sends metadata, and hears of the end."""
    plain = Plain()
    watch = Watch()

    async def run() -> Any:
        handler = grpc.unary_unary_rpc_method_handler(plain.answer, bytes.decode, encode)
        async with aserved(handler, [watch]) as channel:
            asked = channel.unary_unary(PATH, str.encode, bytes.decode)("a")
            return await asked, list(await asked.initial_metadata()), list(await asked.trailing_metadata())

    response, initial, trailing = asyncio.run(run())

    assert (response, initial, trailing) == ("a", [("x-first", "1")], [("x-last", "2")])
    assert plain.seen["active"] == (True, True) and plain.seen["peer"]
    assert plain.seen["thread"] not in watch.threads
    assert plain.over.wait(10)


def test_a_plain_handler_aborts_with_a_status() -> None:
    """`abort_with_status` raises in its thread and ends the RPC."""

    async def run() -> dict[str, Any]:
        handler = grpc.unary_unary_rpc_method_handler(Plain().status, bytes.decode, encode)
        async with aserved(handler, [Watch(), AsyncExceptionToStatusInterceptor()]) as channel:
            return await acall(channel, "unary_unary")

    seen = asyncio.run(run())

    assert (seen["code"].name, seen["details"], seen["trailing"]) == ("ABORTED", "by status", [("x-last", "3")])


def test_a_plain_stream_ends_when_its_client_leaves() -> None:
    """Its generator is closed."""
    plain = Plain()

    async def run() -> None:
        handler = grpc.unary_stream_rpc_method_handler(plain.stream, bytes.decode, encode)
        async with aserved(handler, [Watch()]) as channel:
            asked = channel.unary_stream(PATH, str.encode, bytes.decode)("abc")
            await asked.read()
            asked.cancel()
            await asyncio.to_thread(plain.over.wait, 10)

    asyncio.run(run())

    assert plain.over.is_set()


def test_a_plain_handler_is_not_kept_waiting_for_requests() -> None:
    """When the client leaves, its iteration ends, and its thread is free."""
    started, over = threading.Event(), threading.Event()

    def collect(requests: Iterator[str], context: Any) -> str:
        try:
            for _ in requests:
                started.set()
        finally:
            over.set()
        return "all"

    async def run() -> None:
        handler = grpc.stream_unary_rpc_method_handler(collect, bytes.decode, encode)
        async with aserved(handler, [Watch()]) as channel:
            asked = channel.stream_unary(PATH, str.encode, bytes.decode)()
            await asked.write("a")
            await asyncio.to_thread(started.wait, 10)
            asked.cancel()
            await asyncio.to_thread(over.wait, 10)

    asyncio.run(run())

    assert started.is_set() and over.is_set()


async def test_a_writing_handler_ends_when_nobody_iterates_on() -> None:
    """An interceptor that stops in the middle cancels the handler, and waits until it has ended."""
    ended: list[str] = []

    async def write(request: str, context: Any) -> None:
        try:
            for letter in request * 3:
                await context.write(letter)
        finally:
            ended.append("handler")

    class First(AsyncServerInterceptor):
        async def intercept(self, method: Any, request_or_iterator: Any, context: Any, method_name: str) -> Any:
            written = method(request_or_iterator, context)
            iterated = aiter(written)
            yield await anext(iterated)
            await iterated.aclose()
            ended.append("interceptor")

    handler = grpc.unary_stream_rpc_method_handler(write, bytes.decode, encode)
    async with aserved(handler, [First()]) as channel:
        seen = await acall(channel, "unary_stream")

    assert seen["messages"] == ["a"] and ended == ["handler", "interceptor"]


@pytest.mark.parametrize("read", [True, False], ids=["between two messages", "while one is sent"])
async def test_a_writing_handler_ends_when_its_client_leaves(read: bool) -> None:
    """The interceptor that iterates it is closed or cancelled, as grpc does it at that moment, and the handler cancelled."""
    ended: asyncio.Queue[tuple[str, BaseException]] = asyncio.Queue()
    sending, waiting = asyncio.Event(), asyncio.Event()

    async def write(request: str, context: Any) -> None:
        try:
            await context.write(request * 3_000_000)  # more than is sent to a client that does not read
            waiting.set()
            await asyncio.Event().wait()
        except BaseException as error:
            ended.put_nowait(("handler", error))
            raise

    class Each(AsyncServerInterceptor):
        async def intercept(self, method: Any, request_or_iterator: Any, context: Any, method_name: str) -> Any:
            try:
                async for message in method(request_or_iterator, context):
                    sending.set()
                    yield message
            except BaseException as error:
                ended.put_nowait(("interceptor", error))
                raise

    handler = grpc.unary_stream_rpc_method_handler(write, bytes.decode, encode)
    async with aserved(handler, [Each()]) as channel:
        asked = channel.unary_stream(PATH, str.encode, bytes.decode)("a")
        if read:
            await asked.read()
        await asyncio.wait_for((waiting if read else sending).wait(), PATIENCE)
        asked.cancel()
        how = dict([await asyncio.wait_for(ended.get(), PATIENCE) for _ in range(2)])

    assert isinstance(how["interceptor"], (asyncio.CancelledError, GeneratorExit))
    assert isinstance(how["handler"], asyncio.CancelledError)


async def test_what_a_writing_handler_gives_is_a_coroutine() -> None:
    """It may become a task, be closed unused, and does not say that it can be iterated."""
    kinds: list[Any] = []

    async def write(request: str, context: Any) -> None:
        await context.write(request)

    class Task(AsyncServerInterceptor):
        async def intercept(self, method: Any, request_or_iterator: Any, context: Any, method_name: str) -> Any:
            method(request_or_iterator, context).close()
            written = method(request_or_iterator, context)
            kinds.append((asyncio.iscoroutine(written), hasattr(written, "__aiter__")))
            await asyncio.create_task(written)

    handler = grpc.unary_stream_rpc_method_handler(write, bytes.decode, encode)
    async with aserved(handler, [Task()]) as channel:
        seen = await acall(channel, "unary_stream")

    assert seen["messages"] == ["a"] and kinds == [(True, False)]


async def test_a_task_of_it_may_be_cancelled() -> None:
    """The handler is cancelled with it."""
    ended: list[str] = []
    waits = asyncio.Event()

    async def write(request: str, context: Any) -> None:
        try:
            waits.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    class Impatient(AsyncServerInterceptor):
        async def intercept(self, method: Any, request_or_iterator: Any, context: Any, method_name: str) -> Any:
            task = asyncio.create_task(method(request_or_iterator, context))
            await waits.wait()
            task.cancel()
            await asyncio.wait([task])
            await context.write("instead")

    handler = grpc.unary_stream_rpc_method_handler(write, bytes.decode, encode)
    async with aserved(handler, [Impatient()]) as channel:
        seen = await acall(channel, "unary_stream")

    assert seen["messages"] == ["instead"] and ended == ["cancelled"]


async def test_it_may_be_closed_in_the_middle() -> None:
    """As a coroutine can: its `finally` runs."""
    ended: list[str] = []

    async def write(request: str, context: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("closed")

    class Closing(AsyncServerInterceptor):
        async def intercept(self, method: Any, request_or_iterator: Any, context: Any, method_name: str) -> Any:
            written = method(request_or_iterator, context)
            written.send(None)
            written.close()

    handler = grpc.unary_stream_rpc_method_handler(write, bytes.decode, encode)
    async with aserved(handler, [Closing()]) as channel:
        seen = await acall(channel, "unary_stream")

    assert seen["code"] is grpc.StatusCode.OK and ended == ["closed"]


def test_a_broken_interceptor_is_an_ordinary_bug() -> None:
    """What it raises itself ends the RPC with UNKNOWN; the status of one outside of it counts."""

    class Broken(ServerInterceptor):
        def intercept(self, method: Any, request_or_iterator: Any, context: Any, method_name: str) -> Any:
            raise NotFound("broken")

    handler = grpc.unary_unary_rpc_method_handler(echo)
    with served(handler, [Broken()]) as channel:
        bare = call(channel, "unary_unary")
    with served(handler, [ExceptionToStatusInterceptor(), Broken()]) as channel:
        told = call(channel, "unary_unary")

    assert bare["code"] is grpc.StatusCode.UNKNOWN
    assert (told["code"], told["details"]) == (grpc.StatusCode.NOT_FOUND, "broken")
    assert request_of("unary_unary") == "a"
