"""`AsyncClientInterceptor`, which the published package does not have: one method for the four kinds of RPC."""

from __future__ import annotations

import gc
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose.compat.grpc_interceptor import AsyncClientInterceptor, ClientCallDetails
from tests.compat.apis import OURS
from tests.compat.observing import PATH, acall, aserved, request_of
from tests.compat.services import KINDS, AsyncService, Book


class Watch(AsyncClientInterceptor):
    """Writes down what it is told, and how the RPC ends."""

    def __init__(self, name: str = "watch", seen: list[Any] | None = None) -> None:
        self.name = name
        self.seen = [] if seen is None else seen

    async def intercept(self, method: Any, request_or_iterator: Any, call_details: ClientCallDetails) -> Any:
        self.seen.append((self.name, call_details.method, call_details.timeout, call_details.metadata))
        call = await method(request_or_iterator, call_details)
        call.add_done_callback(lambda _: self.seen.append((self.name, "done")))
        return call


class Sign(AsyncClientInterceptor):
    """Changes metadata, as sync code does."""

    async def intercept(self, method: Any, request_or_iterator: Any, call_details: ClientCallDetails) -> Any:
        metadata = [*(call_details.metadata or ()), ("x-signed", "yes")]
        return await method(request_or_iterator, call_details._replace(metadata=metadata))


class Heard(AsyncService):
    def begin(self, requests: Any, context: Any) -> Any:
        self._book.add(context, [pair for pair in context.invocation_metadata() if pair[0].startswith("x-")])
        self._book.add(context, (context.time_remaining() or 99) < 31)
        return super().begin(requests, context)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("act", "code"), [("answer", "OK"), ("bug", "UNKNOWN"), ("late abort", "FAILED_PRECONDITION")])
async def test_it_serves_every_kind(kind: str, act: str, code: str) -> None:
    """Unpacked into a channel, one object is asked for all four kinds, and the application sees the same as without it."""
    watch = Watch()
    handler = AsyncService(OURS, Book()).handler(kind)
    async with aserved(handler) as channel:
        plain = await acall(channel, kind, (("act", act),))
    async with aserved(handler, client=[*watch]) as channel:
        intercepted = await acall(channel, kind, (("act", act),))

    assert intercepted == plain and intercepted["code"].name == code
    assert watch.seen == [("watch", PATH, None, (("act", act),)), ("watch", "done")]


@pytest.mark.parametrize("kind", KINDS)
async def test_the_first_is_outermost(kind: str) -> None:
    """They are asked in the order in which they are unpacked, and what one changes the next one sees."""
    seen: list[Any] = []
    book = Book()
    client = [*Watch("outer", seen), *Sign(), *Watch("inner", seen)]
    async with aserved(Heard(OURS, book).handler(kind), client=client) as channel:
        await acall(channel, kind, (("act", "answer"),))

    sent = ("act", "answer")
    assert seen[:2] == [("outer", PATH, None, (sent,)), ("inner", PATH, None, (sent, ("x-signed", "yes")))]
    assert book.calls["answer"][0] == ([("x-signed", "yes")],)


@pytest.mark.parametrize("kind", KINDS)
async def test_every_detail_is_sent(kind: str) -> None:
    """Timeout, metadata, readiness and compression, as the sync package's details have them; any class of details will do."""

    class Hurry(AsyncClientInterceptor):
        async def intercept(self, method: Any, request_or_iterator: Any, call_details: ClientCallDetails) -> Any:
            metadata = (*(call_details.metadata or ()), ("x-compression", str(call_details.compression)))
            details = ClientCallDetails(call_details.method, 30.0, metadata, None, True, grpc.Compression.Gzip)
            return await method(request_or_iterator, details)

    class Native(AsyncClientInterceptor):
        async def intercept(self, method: Any, request_or_iterator: Any, call_details: ClientCallDetails) -> Any:
            metadata = grpc.aio.Metadata(*(call_details.metadata or ()), ("x-native", str(call_details.compression)))
            details = grpc.aio.ClientCallDetails(PATH.encode(), call_details.timeout, metadata, None, None)
            return await method(request_or_iterator, details)

    book = Book()
    async with aserved(Heard(OURS, book).handler(kind), client=[*Hurry(), *Native()]) as channel:
        seen = await acall(channel, kind, (("act", "answer"),))

    assert seen["code"] is grpc.StatusCode.OK
    metadata, in_time = book.calls["answer"][:2]
    assert metadata == ([("x-compression", "None"), ("x-native", str(grpc.Compression.Gzip))],)
    assert in_time == (True,)


@pytest.mark.parametrize("kind", ["unary_unary", "stream_unary"])
async def test_a_response_will_do(kind: str) -> None:
    """An interceptor may await the call and return its response, or one of its own, which looks like a call's."""

    class Quote(AsyncClientInterceptor):
        async def intercept(self, method: Any, request_or_iterator: Any, call_details: ClientCallDetails) -> Any:
            return f"<{await (await method(request_or_iterator, call_details))}>"

    class Cached(AsyncClientInterceptor):
        async def intercept(self, method: Any, request_or_iterator: Any, call_details: ClientCallDetails) -> Any:
            return "cached"

    handler = AsyncService(OURS, Book()).handler(kind)
    async with aserved(handler, client=[*Quote()]) as channel:
        quoted = await acall(channel, kind, (("act", "answer"),))
    async with aserved(handler, client=[*Cached()]) as channel:
        cached = await acall(channel, kind, (("act", "answer"),))

    assert quoted["messages"] == ["<a!>" if kind == "unary_unary" else "<a!b!c!>"]
    assert cached["messages"] == ["cached"]
    assert quoted["code"] is cached["code"] is grpc.StatusCode.OK


async def test_an_answered_call_is_a_call() -> None:
    """Everything that an application can ask of a call whose request was a stream has an answer."""

    class Cached(AsyncClientInterceptor):
        async def intercept(self, method: Any, request_or_iterator: Any, call_details: ClientCallDetails) -> Any:
            return "cached"

    called: list[Any] = []
    inner: list[Any] = []

    class Look(AsyncClientInterceptor):
        async def intercept(self, method: Any, request_or_iterator: Any, call_details: ClientCallDetails) -> Any:
            inner.append(await method(request_or_iterator, call_details))
            return inner[0]

    async with aserved(AsyncService(OURS, Book()).handler("stream_unary"), client=[*Look(), *Cached()]) as channel:
        await acall(channel, "stream_unary", (("act", "answer"),))
    (call,) = inner
    call.add_done_callback(called.append)
    await call.wait_for_connection()
    await call.done_writing()

    assert (await call, call.done(), call.cancelled(), call.cancel(), call.time_remaining()) == (
        "cached",
        True,
        False,
        False,
        None,
    )
    assert (list(await call.initial_metadata()), list(await call.trailing_metadata()), await call.details()) == (
        [],
        [],
        "",
    )
    assert called == [call]
    with pytest.raises(grpc.aio.UsageError):
        await call.write("more")


@pytest.mark.parametrize("kind", ["unary_stream", "stream_stream"])
async def test_a_stream_may_be_made_of_the_call(kind: str) -> None:
    """An async generator over the call, and over the requests."""

    class Quote(AsyncClientInterceptor):
        async def intercept(self, method: Any, request_or_iterator: Any, call_details: ClientCallDetails) -> Any:
            call = await method(request_or_iterator, call_details)
            return (f"<{message}>" async for message in call)

    async with aserved(AsyncService(OURS, Book()).handler(kind), client=[*Quote()]) as channel:
        seen = await acall(channel, kind, (("act", "answer"),))

    assert seen["messages"] == ["<a!>", "<b!>", "<c!>"] and seen["code"] is grpc.StatusCode.OK


@pytest.mark.parametrize("kind", ["unary_unary", "stream_unary"])
async def test_a_failed_call_may_be_sent_again(kind: str) -> None:
    """Awaiting the call raises what it failed with, and `method` may be called again."""

    class Again(AsyncClientInterceptor):
        sent = 0

        async def intercept(self, method: Any, request_or_iterator: Any, call_details: ClientCallDetails) -> Any:
            for _ in range(3):
                self.sent += 1
                call = await method(request_of(kind), call_details)
                try:
                    return await call
                except grpc.aio.AioRpcError:
                    pass
            return call

    again = Again()
    async with aserved(AsyncService(OURS, Book()).handler(kind), client=[*again]) as channel:
        seen = await acall(channel, kind, (("act", "abort"),))

    assert again.sent == 3 and seen["code"] is grpc.StatusCode.FAILED_PRECONDITION


# grpcio 1.66 looks at the failure once more when it drops the call.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_what_an_interceptor_raises_reaches_the_application() -> None:
    """Its own exception, not a status."""

    class Broken(AsyncClientInterceptor):
        async def intercept(self, method: Any, request_or_iterator: Any, call_details: ClientCallDetails) -> Any:
            raise KeyError("a bug")

    async with aserved(AsyncService(OURS, Book()).handler("unary_unary"), client=[*Broken()]) as channel:
        stub = channel.unary_unary(PATH, str.encode, bytes.decode)

        with pytest.raises(KeyError, match="a bug"):
            await stub("a")
    gc.collect()


def test_one_that_is_not_unpacked_is_refused() -> None:
    """grpc.aio itself says so, when the channel is made: nothing is skipped without a word."""
    with pytest.raises(ValueError, match="must be UnaryUnaryClientInterceptor"):
        grpc.aio.insecure_channel("localhost:1", interceptors=[Sign()])


def test_it_gives_one_object_per_kind() -> None:
    """Each of the four says to whom it belongs."""
    natives = list(Sign())

    assert [type(native).__mro__[2].__name__ for native in natives] == [
        "UnaryUnaryClientInterceptor",
        "UnaryStreamClientInterceptor",
        "StreamUnaryClientInterceptor",
        "StreamStreamClientInterceptor",
    ]
    assert all("Sign" in repr(native) for native in natives)
