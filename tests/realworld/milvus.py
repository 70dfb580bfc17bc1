"""pymilvus on a channel of ours, with milvus-lite behind it, which is a server of gRPC too."""

from __future__ import annotations

import tempfile
from pathlib import Path

import grpc

from interpose import intercept_channel
from interpose.interceptors import BY_CONVENTION, Deadline, RequestId, Retry
from tests.realworld.scenarios import Scenario, Watch, refused


def run() -> None:
    from milvus_lite.server_manager import server_manager_instance
    from pymilvus import CollectionSchema, DataType, FieldSchema, MilvusException
    from pymilvus.client.grpc_handler import GrpcHandler

    watch = Watch()
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder, "shop.db"))
        uri = server_manager_instance.start_and_get_uri(file)
        target = uri.removeprefix("http://")
        stack = [RequestId(), watch, Deadline(60), Retry(safe=BY_CONVENTION)]
        with intercept_channel(grpc.insecure_channel(target), *stack) as channel:
            client = GrpcHandler(uri=uri, channel=channel)
            fields = [
                FieldSchema("id", DataType.INT64, is_primary=True),
                FieldSchema("v", DataType.FLOAT_VECTOR, dim=2),
            ]
            client.create_collection("shop", CollectionSchema(fields))
            assert client.has_collection("shop")
            rows = [{"id": number, "v": [number, 1.0]} for number in range(10)]
            assert client.insert_rows("shop", rows).insert_count == 10
            with refused(MilvusException, "collection 'nothing' does not exist"):
                client.describe_collection("nothing")
        server_manager_instance.release_server(file)
    assert watch.codes("Insert") == ["OK"]
    assert {code for _, code in watch.seen} == {"OK"}


SCENARIOS = [
    Scenario(
        "Milvus Lite",
        ("pymilvus", "milvus-lite"),
        "`RequestId`, `Deadline`, `Retry(safe=BY_CONVENTION)` on the `channel` of its `GrpcHandler`",
        "A collection is made and filled. Milvus reports its own errors inside of responses that are OK, so no interceptor "
        "sees them as failures.",
        run,
    )
]
