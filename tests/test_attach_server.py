"""`intercept_server`: a server like the native one, whose handlers have interceptors around them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import AsyncFlow, Call, Flow, Kind, errors, intercept_server, wait
from interpose.testing.echo import decode, encode
from tests.facts.serving import MAKE, Client, Watch, serving
from tests.support.patience import PATIENCE

SERVICE = "attached.Server"
SORTS = ["sync", "plain", "async"]

# Older versions of grpc.aio take registered methods and do nothing with them: seen in 1.66.2, not in 1.85.
REGISTERS = bool(grpc.aio._server.Server.add_registered_method_handlers.__code__.co_names)
registers = pytest.mark.skipif(not REGISTERS, reason="this grpc.aio has no registered methods")


def handler(kind: Kind, function: Any) -> Any:
    return MAKE[kind.value](function, decode, encode)


def plain(argument: Any, context: Any) -> str:
    return argument if isinstance(argument, str) else " ".join(argument)


def plain_stream(argument: Any, context: Any) -> Iterator[str]:
    yield from argument.split() if isinstance(argument, str) else argument


async def handled(argument: Any, context: Any) -> str:
    return argument if isinstance(argument, str) else " ".join([message async for message in argument])


async def streamed(argument: Any, context: Any) -> AsyncIterator[str]:
    if isinstance(argument, str):
        for message in argument.split():
            yield message
        return
    async for message in argument:
        yield message


def echoing(sort: str) -> dict[str, Any]:
    """Handlers that echo, by the name of their kind."""
    unary, stream = (handled, streamed) if sort == "async" else (plain, plain_stream)
    return {kind.value: handler(kind, stream if kind.response_streaming else unary) for kind in Kind}


def generically(server: Any, handlers: dict[str, Any]) -> None:
    """Register as code by hand does."""
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))


def by_method(server: Any, handlers: dict[str, Any]) -> None:
    """Register methods alone."""
    server.add_registered_method_handlers(SERVICE, handlers)


def as_generated(server: Any, handlers: dict[str, Any]) -> None:
    """Register as generated code does."""
    generically(server, handlers)
    by_method(server, handlers)


class Running:
    """A server that runs, and a native channel to it."""

    def __init__(self, client: Client) -> None:
        self.stop = client.stop
        self.channel = client.channel

    def start(self, name: str, argument: Any, registered: bool = False) -> Any:
        """Start an RPC; gives its native call, a future or a stream."""
        kind = Kind(name)
        stub = getattr(self.channel, name)(f"/{SERVICE}/{name}", encode, decode, _registered_method=registered)
        sent = iter(argument.split()) if kind.request_streaming else argument
        return (stub if kind.response_streaming else stub.future)(sent, timeout=PATIENCE)

    def call(self, name: str, argument: str = "a b") -> str:
        """What the RPC answers, as one text."""
        call = self.start(name, argument)
        return " ".join(call) if Kind(name).response_streaming else str(call.result())


@contextmanager
def running(sort: str, register: Callable[[Any], None], *flows: Any, interceptors: Any = ()) -> Iterator[Running]:
    """A server with these flows around what `register` adds to it."""
    # Its own service beside the empty one that `serving` adds.
    with serving(sort, {}, interceptors=interceptors, services=[register], around=flows) as client:
        yield Running(client)


# --- handlers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sort", "register"),
    [
        pytest.param(sort, register, marks=[registers] if (sort, register) == ("async", by_method) else [])
        for sort in SORTS
        for register in (generically, by_method, as_generated)
    ],
)
def test_every_handler_has_the_interceptors_around_it(sort: str, register: Any) -> None:
    """However it is registered, and however the client's stub was made; each RPC is seen once."""
    watch = Watch()

    with running(sort, lambda server: register(server, echoing(sort)), watch) as served:
        answers = {kind: served.call(kind.value) for kind in Kind}
        unary = served.start("unary_unary", "a b", registered=True).result()

    assert answers == dict.fromkeys(Kind, "a b")
    assert unary == "a b"
    assert [outcome.code for outcome in watch.outcomes] == [grpc.StatusCode.OK] * 5


@pytest.mark.parametrize("sort", SORTS)
def test_a_flow_decides(sort: str) -> None:
    """It may refuse a call before the handler sees it, wait, and change what comes back."""

    def refuses(call: Call) -> Flow:
        if call.request == "refuse":
            raise errors.PermissionDenied("not you")
        suffix = yield from wait(" c")
        outcome = yield call.with_metadata(("x-flow", "1"))
        return outcome.with_response(outcome.response + suffix)

    with running(sort, lambda server: as_generated(server, echoing(sort)), refuses) as served:
        assert served.call("unary_unary") == "a b c"
        with pytest.raises(grpc.RpcError) as refusal:
            served.call("unary_unary", "refuse")

    assert refusal.value.code() is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize("sort", SORTS)
def test_a_method_that_nobody_knows(sort: str) -> None:
    """UNIMPLEMENTED, as ever; no interceptor is asked."""
    watch = Watch()

    with (
        running(sort, lambda server: as_generated(server, {}), watch) as served,
        pytest.raises(grpc.RpcError) as failure,
    ):
        served.call("unary_unary")

    assert failure.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert watch.begun == 0


@pytest.mark.parametrize("sort", ["plain", pytest.param("async", marks=registers)])
def test_a_registered_method_comes_before_a_generic_one(sort: str) -> None:
    """Also if it is a plain handler on an asyncio server, and was registered later."""

    def other(request: str, context: Any) -> str:
        return "generic"

    def register(server: Any) -> None:
        generically(server, {"unary_unary": handler(Kind.UNARY_UNARY, other)})
        by_method(server, echoing(sort))

    with running(sort, register, Watch()) as served:
        assert served.call("unary_unary") == "a b"


@pytest.mark.parametrize("sort", SORTS)
def test_native_interceptors_stand_outside(sort: str) -> None:
    """Those that the server was made with see a call before the flows, and the status that the client sees."""
    order: list[str] = []

    class Native(grpc.ServerInterceptor):  # type: ignore[misc]
        def intercept_service(self, continuation: Any, details: Any) -> Any:
            order.append("native")
            return continuation(details)

    class AioNative(grpc.aio.ServerInterceptor):
        async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
            order.append("native")
            return await continuation(handler_call_details)

    def noting(call: Call) -> Flow:
        order.append("flow")
        yield call

    native = Native() if sort == "sync" else AioNative()
    with running(sort, lambda server: as_generated(server, echoing(sort)), noting, interceptors=[native]) as served:
        served.call("unary_unary")

    assert order == ["native", "flow"]


def test_a_health_servicer_registers_itself() -> None:
    """Servicers of grpc's own packages add themselves to it as to any server."""
    health = pytest.importorskip("grpc_health.v1.health")
    health_pb2 = pytest.importorskip("grpc_health.v1.health_pb2")
    health_pb2_grpc = pytest.importorskip("grpc_health.v1.health_pb2_grpc")
    watch = Watch()

    def register(server: Any) -> None:
        health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), server)

    with running("sync", register, watch) as served:
        stub = health_pb2_grpc.HealthStub(served.channel)
        reply = stub.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE)

    assert reply.status == health_pb2.HealthCheckResponse.SERVING
    assert [outcome.ok for outcome in watch.outcomes] == [True]


# --- the server itself ------------------------------------------------------------------------------------------------


def test_a_sync_server_stays_one() -> None:
    """What comes back is a grpc.Server with all that it can do."""
    server = intercept_server(grpc.server(futures.ThreadPoolExecutor(1)), Watch())

    assert isinstance(server, grpc.Server)
    assert server.add_secure_port("127.0.0.1:0", grpc.local_server_credentials()) > 0
    server.start()
    assert server.wait_for_termination(0) is True  # it has not ended
    assert server.stop(None).wait(PATIENCE)
    assert server.wait_for_termination(PATIENCE) is False
    assert server._state is not None  # type: ignore[attr-defined]  # what grpc has beside its interface


async def test_an_asyncio_server_stays_one() -> None:
    """What comes back is a grpc.aio.Server with all that it can do."""
    server = intercept_server(grpc.aio.server(), Watch())

    assert isinstance(server, grpc.aio.Server)
    assert server.add_secure_port("127.0.0.1:0", grpc.local_server_credentials()) > 0
    await server.start()
    assert await server.wait_for_termination(0.001) is True
    await server.stop(None)
    assert await server.wait_for_termination(PATIENCE) is False
    assert server._loop is asyncio.get_running_loop()  # type: ignore[attr-defined]


def noting(order: list[str], name: str) -> Any:
    def note(call: Call) -> Flow:
        order.append(name)
        yield call

    return note


def test_two_stacks_become_one() -> None:
    """Put on a server that has interceptors already, the new ones are outermost, as on a channel."""
    order: list[str] = []
    with futures.ThreadPoolExecutor(1) as pool:
        server = intercept_server(intercept_server(grpc.server(pool), noting(order, "inner")), noting(order, "outer"))
        as_generated(server, echoing("sync"))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            channel.unary_unary(f"/{SERVICE}/unary_unary", encode, decode)("a", timeout=PATIENCE)
        server.stop(None).wait()

    assert order == ["outer", "inner"]
    assert repr(server) == "<intercepted server: noting.note, noting.note>"


async def test_two_stacks_become_one_on_asyncio() -> None:
    """There too."""
    order: list[str] = []
    server = intercept_server(intercept_server(grpc.aio.server(), noting(order, "inner")), noting(order, "outer"))
    as_generated(server, echoing("async"))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        await channel.unary_unary(f"/{SERVICE}/unary_unary", encode, decode)("a", timeout=PATIENCE)
    await server.stop(None)

    assert order == ["outer", "inner"]
    assert repr(server) == "<intercepted server: noting.note, noting.note>"


@pytest.mark.parametrize("register", [generically, by_method])
def test_a_sync_server_that_has_handlers(register: Any) -> None:
    """They would run without the interceptors, and a guard must not fail open: ValueError, which says what to do."""
    server = grpc.server(futures.ThreadPoolExecutor(1))
    register(server, echoing("sync"))

    with pytest.raises(ValueError, match=r"has handlers already.*call intercept_server first"):
        intercept_server(server, Watch())

    wrapped = intercept_server(grpc.server(futures.ThreadPoolExecutor(1)), Watch())
    register(wrapped, echoing("sync"))

    with pytest.raises(ValueError, match="has handlers already"):
        intercept_server(wrapped, Watch())


@pytest.mark.parametrize("register", [generically, pytest.param(by_method, marks=registers)])
async def test_an_asyncio_server_that_has_handlers(register: Any) -> None:
    """The same, though it hides them in C."""
    server = grpc.aio.server()
    register(server, echoing("async"))

    with pytest.raises(ValueError, match="has handlers already"):
        intercept_server(server, Watch())

    wrapped = intercept_server(grpc.aio.server(), Watch())
    register(wrapped, echoing("plain"))

    with pytest.raises(ValueError, match="has handlers already"):
        intercept_server(wrapped, Watch())


@pytest.mark.parametrize("server", [None, 5, object(), grpc.server, "localhost:1"])
def test_what_is_no_server(server: Any) -> None:
    """TypeError at once, which says what was given and what a server is."""
    with pytest.raises(TypeError, match=r"is no server: intercept_server\(server, ") as refusal:
        intercept_server(server, Watch())
    assert repr(server) in str(refusal.value)


def test_what_is_no_interceptor_here() -> None:
    """Also an `async def` generator on a sync server, which could never run it."""

    async def needs_a_loop(call: Call) -> AsyncFlow:
        yield call

    server = grpc.server(futures.ThreadPoolExecutor(1))
    with pytest.raises(TypeError, match="`async def` generator"):
        intercept_server(server, needs_a_loop)
    with pytest.raises(TypeError, match="is no function"):
        intercept_server(server, 5)  # type: ignore[arg-type]


def test_what_is_no_generic_handler() -> None:
    """grpc refuses it, in its own words."""
    server = intercept_server(grpc.server(futures.ThreadPoolExecutor(1)), Watch())

    with pytest.raises(AttributeError, match="GenericRpcHandler"):
        server.add_generic_rpc_handlers((object(),))
