"""qdrant-client's own stubs on channels of ours, against a fake server; Qdrant itself is no Python package."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio

from interpose import errors, intercept_channel, when
from interpose.interceptors import Deadline, RequestId, Retry
from tests.realworld.scenarios import Failing, Scenario, Watch, refused, serving


def handlers(failing: Failing) -> grpc.GenericRpcHandler:
    from qdrant_client import grpc as pb

    def search(request: Any, context: Any) -> Any:
        failing.check("Search", context)
        return pb.SearchResponse(result=[pb.ScoredPoint(id=pb.PointId(num=7), score=0.5)])

    def upsert(request: Any, context: Any) -> Any:
        failing.check("Upsert", context)
        return pb.PointsOperationResponse()

    methods = {
        "Search": unary(search, pb.SearchPoints, pb.SearchResponse),
        "Upsert": unary(upsert, pb.UpsertPoints, pb.PointsOperationResponse),
    }
    return grpc.method_handlers_generic_handler("qdrant.Points", methods)


def unary(function: Any, request: Any, response: Any) -> grpc.RpcMethodHandler:
    return grpc.unary_unary_rpc_method_handler(function, request.FromString, response.SerializeToString)


def stack(watch: Watch) -> list[Any]:
    return [RequestId(), watch, Deadline(20), when("/qdrant.Points/Search*", Retry(safe=True))]


def in_sync() -> None:
    from qdrant_client import grpc as pb

    failing, watch = Failing(1), Watch()
    with (
        serving(handlers(failing)) as target,
        intercept_channel(grpc.insecure_channel(target), *stack(watch)) as channel,
    ):
        points = pb.PointsStub(channel)
        assert points.Search(pb.SearchPoints(collection_name="shop", vector=[0.1])).result[0].id.num == 7
        with refused(errors.Unavailable, "not yet"):
            points.Upsert(pb.UpsertPoints(collection_name="shop"))
    check(failing, watch)


def in_asyncio() -> None:
    asyncio.run(_in_asyncio())


async def _in_asyncio() -> None:
    from qdrant_client import grpc as pb

    failing, watch = Failing(1), Watch()
    with serving(handlers(failing)) as target:
        async with intercept_channel(grpc.aio.insecure_channel(target), *stack(watch)) as channel:
            points = pb.PointsStub(channel)
            assert (await points.Search(pb.SearchPoints(collection_name="shop", vector=[0.1]))).result[0].id.num == 7
            with refused(errors.Unavailable, "not yet"):
                await points.Upsert(pb.UpsertPoints(collection_name="shop"))
    check(failing, watch)


def check(failing: Failing, watch: Watch) -> None:
    assert failing.calls == {"Search": 2, "Upsert": 1}, failing.calls
    assert watch.seen == [("Search", "OK"), ("Upsert", "UNAVAILABLE")]


STACK = "`RequestId`, `Deadline`, `Retry(safe=True)` for reads, under the stubs of `qdrant_client.grpc`"
HOLDS = "A search that fails once is sent again, an upsert that fails is not."
SCENARIOS = [
    Scenario("Qdrant's stubs, sync", ("qdrant-client",), STACK, HOLDS, in_sync),
    Scenario("Qdrant's stubs, asyncio", ("qdrant-client",), STACK, HOLDS, in_asyncio),
]
