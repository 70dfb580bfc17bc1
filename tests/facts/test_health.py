"""The health service through an interceptor, and other handlers that return at once and send later."""

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer as AsyncHealthServicer

from interpose import Call, Flow, errors
from tests.facts.handling import echoing, serve
from tests.facts.serving import Client, Watch
from tests.support.patience import PATIENCE

pytestmark = pytest.mark.usefixtures("hosts")

Code = grpc.StatusCode
Status = health_pb2.HealthCheckResponse


def service(servicer: Any) -> Callable[[Any], None]:
    return lambda server: health_pb2_grpc.add_HealthServicer_to_server(servicer, server)


def watching(rpc: Client, name: str = "", timeout: float = PATIENCE) -> Any:
    return health_pb2_grpc.HealthStub(rpc.channel).Watch(health_pb2.HealthCheckRequest(service=name), timeout=timeout)


@pytest.mark.fact("S-14", "R-57")
def test_watch_holds_no_worker() -> None:
    """The health service's Watch sends through our interceptor and leaves the only worker free."""
    watch, servicer = Watch(), health.HealthServicer()

    with serve("sync", echoing("sync"), watch, services=[service(servicer)], workers=1) as rpc:
        updates = [watching(rpc) for _ in range(3)]
        first = [next(update).status for update in updates]
        reply = rpc.call("beside")
        servicer.set("", Status.NOT_SERVING)
        second = [next(update).status for update in updates]
        beside = watch.next()
        for update in updates:
            update.cancel()
        outcomes = [watch.next() for _ in updates]

    assert first == [Status.SERVING] * 3 and second == [Status.NOT_SERVING] * 3
    assert reply.messages == ["beside"] and beside.ok
    assert [(outcome.code, outcome.responses) for outcome in outcomes] == [(Code.CANCELLED, 2)] * 3
    assert len(watch.outcomes) == watch.begun == 4


@pytest.mark.fact("S-11", "R-12")
def test_the_end_of_a_watch_does_not_run_on_the_serving_thread() -> None:
    """When the client of a Watch leaves, its flow resumes on another thread than the one that serves."""
    watch = Watch()

    with serve("sync", {}, watch, services=[service(health.HealthServicer())], own=True) as rpc:
        updates = watching(rpc)
        next(updates)
        updates.cancel()
        watch.next()

    assert "_serve" not in watch.threads[0]


@pytest.mark.fact("S-14", "R-45")
def test_a_watch_ends_with_the_server() -> None:
    """A Watch that is open when the server stops has one outcome, and it is not OK."""
    watch = Watch()

    with serve("sync", {}, watch, services=[service(health.HealthServicer())], own=True) as rpc:
        updates = watching(rpc)
        next(updates)
        rpc.stop(0)
        outcome = watch.only()

    assert not outcome.ok


@pytest.mark.fact("S-14")
def test_a_watch_may_be_refused_and_changed() -> None:
    """A flow may refuse a Watch, and see and change its messages and metadata."""
    seen: list[Any] = []

    def guard(call: Call) -> Flow:
        if call.request.service == "secret":
            raise errors.PermissionDenied("not you")
        yield call.tap(responses=seen.append).with_initial_metadata(("x-guard", "1"))

    with serve("sync", {}, guard, services=[service(health.HealthServicer())], own=True) as rpc:
        refused = watching(rpc, "secret")
        with pytest.raises(grpc.RpcError):
            next(refused)
        updates = watching(rpc)
        first = next(updates)
        initial = dict(updates.initial_metadata())
        updates.cancel()

    assert refused.code() is Code.PERMISSION_DENIED
    assert seen == [first] and initial["x-guard"] == "1"


@pytest.mark.fact("S-5", "R-18")
@pytest.mark.parametrize("sort", ["sync", "plain"])
def test_check_through_an_interceptor(sort: str) -> None:
    """Check, which sets a code and returns, is an outcome NOT_FOUND for an unknown service."""
    watch = Watch()

    with serve(sort, {}, watch, services=[service(health.HealthServicer())], own=True) as rpc:
        stub = health_pb2_grpc.HealthStub(rpc.channel)
        good = stub.Check(health_pb2.HealthCheckRequest(service=""), timeout=PATIENCE)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Check(health_pb2.HealthCheckRequest(service="other"), timeout=PATIENCE)

    assert good.status == Status.SERVING
    assert caught.value.code() is Code.NOT_FOUND
    assert [outcome.code for outcome in watch.outcomes] == [Code.OK, Code.NOT_FOUND]


@pytest.mark.fact("S-17")
def test_a_watch_of_the_async_servicer() -> None:
    """The async health service, which uses `context.write`, serves through our interceptor."""
    watch, seen = Watch(), list[Any]()

    def see(call: Call) -> Flow:
        yield call.tap(responses=seen.append)

    with serve("async", {}, watch, see, services=[service(AsyncHealthServicer())], own=True) as rpc:
        updates = watching(rpc)
        first = next(updates)
        updates.cancel()
        outcome = watch.only()

    assert first.status == Status.SERVICE_UNKNOWN or seen == [first]
    assert outcome.code is Code.CANCELLED and outcome.responses == 1


@pytest.mark.fact("S-14", "S-24")
def test_a_watch_of_the_plain_servicer_on_an_asyncio_server() -> None:
    """The plain health service's Watch sends its first status there, and ends with the client's deadline."""
    servicer, watch = health.HealthServicer(experimental_non_blocking=False), Watch()

    with serve("plain", {}, watch, services=[service(servicer)], own=True) as rpc:
        updates = watching(rpc, timeout=0.4)
        first = next(updates)
        with pytest.raises(grpc.RpcError):
            list(updates)

    assert first.status == Status.SERVING


ENDS = {"end": Code.OK, "raise": Code.UNKNOWN, "status": Code.NOT_FOUND, "abort": Code.NOT_FOUND}
ENDS |= {"exit": Code.UNKNOWN, "set_code": Code.NOT_FOUND}


@pytest.mark.fact("S-14", "R-25")
@pytest.mark.parametrize("how", ENDS)
def test_ends_of_a_handler_that_returns_at_once(how: str) -> None:
    """A non-blocking handler's end, its exception and its abort each give one outcome and a status."""
    watch = Watch()

    def behave(request: Any, context: Any, send: Callable[[Any], None]) -> None:
        send("a")
        if how == "raise":
            raise ValueError("x")
        if how == "status":
            raise errors.NotFound("x")
        if how == "abort":
            context.abort(Code.NOT_FOUND, "x")
        if how == "exit":
            raise SystemExit
        if how == "set_code":
            context.set_code(Code.NOT_FOUND)
        send(None)

    behave.experimental_non_blocking = True  # type: ignore[attr-defined]
    with serve("sync", {"unary_stream": behave}, watch) as rpc:
        reply = rpc.call(kind="unary_stream")
        outcome = watch.only()

    assert reply.code is outcome.code is ENDS[how]
    assert outcome.responses == 1
