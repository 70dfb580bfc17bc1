"""Classes of this API and flows of ours in one server and on one channel: each in its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest

from interpose import Call, Flow, errors, intercept_channel, server_interceptor
from interpose.compat.grpc_interceptor import (
    AsyncClientInterceptor,
    AsyncExceptionToStatusInterceptor,
    AsyncServerInterceptor,
    ClientInterceptor,
    ExceptionToStatusInterceptor,
    ServerInterceptor,
)
from interpose.compat.grpc_interceptor.exceptions import NotFound
from interpose.compat.grpc_interceptor.testing import DummyRequest, dummy_client, raises
from interpose.interceptors import ExceptionToStatus
from tests.compat.apis import OURS
from tests.compat.observing import acall, aserved, call, served
from tests.compat.services import KINDS, AsyncService, Book, Service, act_of

SHAPES = (*KINDS, "stream_unary_written", "unary_stream_written", "stream_stream_written")
ORDERS = ["class flow class", "flow class flow", "class class flow", "flow flow class"]


class Marks:
    """What goes through: the name of each interceptor on the way in, and the code that flows see on the way out."""

    def __init__(self) -> None:
        self.on_the_way: list[str] = []
        self.codes: list[str] = []

    def flow(self, name: str) -> Callable[[Call], Flow]:
        def marked(call: Call) -> Flow:
            self.on_the_way.append(name)
            outcome = yield call.with_metadata(("x-mark", name))
            self.codes.append(outcome.code.name)

        return marked

    def sync(self, name: str) -> ServerInterceptor:
        marks = self.on_the_way

        class Marked(ServerInterceptor):
            def intercept(self, method: Any, request_or_iterator: Any, context: Any, method_name: str) -> Any:
                marks.append(name)
                return method(request_or_iterator, context)

        return Marked()

    def aio(self, name: str) -> AsyncServerInterceptor:
        marks = self.on_the_way

        class Marked(AsyncServerInterceptor):
            async def intercept(self, method: Any, request_or_iterator: Any, context: Any, method_name: str) -> Any:
                marks.append(name)
                answer = method(request_or_iterator, context)
                return answer if hasattr(answer, "__aiter__") else await answer

        return Marked()

    def client(self, name: str) -> ClientInterceptor:
        marks = self.on_the_way

        class Marked(ClientInterceptor):
            def intercept(self, method: Any, request_or_iterator: Any, call_details: Any) -> Any:
                marks.append(name)
                return method(request_or_iterator, call_details)

        return Marked()

    def aclient(self, name: str) -> AsyncClientInterceptor:
        marks = self.on_the_way

        class Marked(AsyncClientInterceptor):
            async def intercept(self, method: Any, request_or_iterator: Any, call_details: Any) -> Any:
                marks.append(name)
                return await method(request_or_iterator, call_details)

        return Marked()


ENDS = {"answer": "OK", "abort": "FAILED_PRECONDITION", "late bug": "UNKNOWN", "code": "DATA_LOSS"}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", KINDS)
def test_they_mix_on_a_sync_server(kind: str, order: str) -> None:
    """In the order in which they were handed to the server; flows see how the handler ended, whatever is inside of them."""
    for act, code in ENDS.items():
        marks = Marks()
        names = [f"{index} {word}" for index, word in enumerate(order.split())]
        stack = [server_interceptor(marks.flow(n)) if "flow" in n else marks.sync(n) for n in names]
        with served(Service(OURS, Book()).handler(kind), stack) as channel:
            seen = call(channel, kind, (("act", act),))

        assert marks.on_the_way == names
        assert seen["code"].name == code and set(marks.codes) == {code}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("shape", SHAPES)
async def test_they_mix_on_an_asyncio_server(shape: str, order: str) -> None:
    """The same on asyncio, with generators and with read and write."""
    kind = shape.removesuffix("_written")
    for act, code in ENDS.items():
        marks = Marks()
        names = [f"{index} {word}" for index, word in enumerate(order.split())]
        stack = [server_interceptor(marks.flow(n)) if "flow" in n else marks.aio(n) for n in names]
        async with aserved(AsyncService(OURS, Book()).handler(shape), stack) as channel:
            seen = await acall(channel, kind, (("act", act),))

        assert marks.on_the_way == names
        assert seen["code"].name == code and set(marks.codes) == {code}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", KINDS)
async def test_they_mix_over_a_plain_handler(kind: str, order: str) -> None:
    """A plain handler on an asyncio server may stand behind both."""
    marks = Marks()
    names = [f"{index} {word}" for index, word in enumerate(order.split())]
    stack = [server_interceptor(marks.flow(n)) if "flow" in n else marks.aio(n) for n in names]
    async with aserved(Service(OURS, Book()).handler(kind), stack) as channel:
        seen = await acall(channel, kind, (("act", "abort"),))

    assert marks.on_the_way == names
    assert seen["code"].name == "FAILED_PRECONDITION" and set(marks.codes) == {"FAILED_PRECONDITION"}


@pytest.mark.parametrize("kind", KINDS)
def test_they_mix_on_a_sync_channel(kind: str) -> None:
    """Either may be outside: what is put on a channel last is asked first."""
    orders = []
    with served(Service(OURS, Book()).handler(kind), ()) as channel:
        for _ in range(2):
            marks = Marks()
            if not orders:
                inner = grpc.intercept_channel(channel, marks.client("class"))
                mixed = grpc.intercept_channel(
                    intercept_channel(inner, marks.flow("flow")), marks.client("outer class")
                )
            else:
                inner = intercept_channel(channel, marks.flow("flow"))
                mixed = intercept_channel(
                    grpc.intercept_channel(inner, marks.client("class")), marks.flow("outer flow")
                )
            codes = [call(mixed, kind, (("act", act),))["code"].name for act in ENDS]
            assert codes == list(ENDS.values()) and list(dict.fromkeys(marks.codes)) == list(ENDS.values())
            orders.append(marks.on_the_way[:3])

    assert orders == [["outer class", "flow", "class"], ["outer flow", "class", "flow"]]


@pytest.mark.parametrize("kind", KINDS)
async def test_they_mix_on_an_asyncio_channel(kind: str) -> None:
    """A channel is made with its classes; flows stand around it, in the order in which they were put there."""
    marks = Marks()
    client = [*marks.aclient("class"), *marks.aclient("inner class")]
    async with aserved(AsyncService(OURS, Book()).handler(kind), client=client) as channel:
        mixed = intercept_channel(channel, marks.flow("outer flow"), marks.flow("flow"))
        codes = [(await acall(mixed, kind, (("act", act),)))["code"].name for act in ENDS]

    assert codes == list(ENDS.values())
    assert marks.on_the_way == ["outer flow", "flow", "class", "inner class"] * len(ENDS)
    assert marks.codes[::2] == list(ENDS.values())


class Typed(Service):
    """Raises what the flows' world raises."""

    def problem(self, act: str) -> Exception | None:
        return errors.AlreadyExists("there") if act == "grpc" else super().problem(act)


def test_errors_of_both_become_statuses() -> None:
    """A `GrpcException` behind a flow, and a `StatusError` behind a class, reach the client as they were meant."""
    rules = server_interceptor(ExceptionToStatus({NotFound: lambda error: errors.NotFound(error.details)}))
    stack = [
        server_interceptor(lambda call: (yield call)),
        ExceptionToStatusInterceptor(),
        server_interceptor(Marks().flow("flow")),
    ]
    with served(Service(OURS, Book()).handler("unary_unary"), [rules]) as channel:
        mapped = call(channel, "unary_unary", (("act", "grpc"),))
    with served(Service(OURS, Book()).handler("unary_unary"), stack) as channel:
        theirs = call(channel, "unary_unary", (("act", "grpc"),))
    with served(Typed(OURS, Book()).handler("unary_unary"), stack) as channel:
        ours = call(channel, "unary_unary", (("act", "grpc"),))

    told = NotFound.details
    assert (mapped["code"].name, mapped["details"]) == (theirs["code"].name, theirs["details"]) == ("NOT_FOUND", told)
    assert (ours["code"].name, ours["details"]) == ("ALREADY_EXISTS", "there")


def test_flows_on_the_dummy_service() -> None:
    """The testing kit takes flows beside classes, on either kind of server."""
    for aio_server, status in ((False, ExceptionToStatusInterceptor()), (True, AsyncExceptionToStatusInterceptor())):
        marks = Marks()
        stack = [server_interceptor(marks.flow("flow")), status]
        with (
            dummy_client({"?": raises(NotFound("no"))}, stack, aio_server=aio_server) as client,
            pytest.raises(grpc.RpcError) as failed,
        ):
            client.Execute(DummyRequest(input="?"))

        assert failed.value.code() is grpc.StatusCode.NOT_FOUND
        assert marks.codes == ["NOT_FOUND"]


def test_what_a_flow_adds_is_seen_inside() -> None:
    """Metadata that an outer flow puts on the call are those that a class reads from the context."""
    read: list[Any] = []

    class Reads(ServerInterceptor):
        def intercept(self, method: Any, request_or_iterator: Any, context: Any, method_name: str) -> Any:
            read.append((act_of(context), dict(context.invocation_metadata()).get("x-mark"), method_name))
            return method(request_or_iterator, context)

    stack = [server_interceptor(Marks().flow("outside")), Reads()]
    with served(Service(OURS, Book()).handler("unary_unary"), stack) as channel:
        call(channel, "unary_unary", (("act", "answer"),))

    assert read == [("answer", "outside", "/shop.v1.Orders/Place")]
