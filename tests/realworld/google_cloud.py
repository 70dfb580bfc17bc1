"""Google's clients for Pub/Sub and Firestore, on channels of ours, against a fake server."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio

from interpose import intercept_channel
from interpose.interceptors import CircuitBreaker, Deadline, RequestId, Retry
from tests.realworld.scenarios import Failing, Scenario, Watch, serving

TOPIC = "projects/shop/topics/orders"
ORDER = "projects/shop/databases/(default)/documents/orders/7"


def stack(watch: Watch) -> list[Any]:
    return [RequestId(), watch, Deadline(20), Retry(safe=True), CircuitBreaker()]


def pubsub_handlers(failing: Failing) -> grpc.GenericRpcHandler:
    from google.pubsub_v1 import types

    def publish(request: Any, context: Any) -> Any:
        failing.check("Publish", context)
        return types.PublishResponse(message_ids=[message.data.decode() for message in request.messages])

    def topics(request: Any, context: Any) -> Any:
        return types.ListTopicsResponse(topics=[types.Topic(name=TOPIC)])

    methods = {
        "Publish": unary(publish, types.PublishRequest, types.PublishResponse),
        "ListTopics": unary(topics, types.ListTopicsRequest, types.ListTopicsResponse),
    }
    return grpc.method_handlers_generic_handler("google.pubsub.v1.Publisher", methods)


def firestore_handlers(failing: Failing) -> grpc.GenericRpcHandler:
    from google.cloud.firestore_v1 import types

    def get(request: Any, context: Any) -> Any:
        failing.check("BatchGetDocuments", context)
        for name in request.documents:
            document = types.Document(name=name, fields={"item": types.Value(string_value="kite")})
            yield types.BatchGetDocumentsResponse(found=document)

    def commit(request: Any, context: Any) -> Any:
        failing.check("Commit", context)
        return types.CommitResponse(write_results=[types.WriteResult() for _ in request.writes])

    methods = {
        "BatchGetDocuments": grpc.unary_stream_rpc_method_handler(
            get, types.BatchGetDocumentsRequest.deserialize, types.BatchGetDocumentsResponse.serialize
        ),
        "Commit": unary(commit, types.CommitRequest, types.CommitResponse),
    }
    return grpc.method_handlers_generic_handler("google.firestore.v1.Firestore", methods)


def unary(function: Any, request: Any, response: Any) -> grpc.RpcMethodHandler:
    return grpc.unary_unary_rpc_method_handler(function, request.deserialize, response.serialize)


def pubsub() -> None:
    from google.pubsub_v1 import PublisherClient
    from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport

    failing, watch = Failing(2), Watch()
    with (
        serving(pubsub_handlers(failing)) as target,
        intercept_channel(grpc.insecure_channel(target), *stack(watch)) as channel,
    ):
        client = PublisherClient(transport=PublisherGrpcTransport(channel=channel))
        answer = client.publish(topic=TOPIC, messages=[{"data": b"1"}], retry=None)
        assert list(answer.message_ids) == ["1"]
        assert [topic.name for topic in client.list_topics(project="projects/shop")] == [TOPIC]
    assert failing.calls == {"Publish": 3}
    assert watch.seen == [("Publish", "OK"), ("ListTopics", "OK")]


def pubsub_asyncio() -> None:
    asyncio.run(_pubsub_asyncio())


async def _pubsub_asyncio() -> None:
    from google.pubsub_v1 import PublisherAsyncClient
    from google.pubsub_v1.services.publisher.transports import PublisherGrpcAsyncIOTransport

    failing, watch = Failing(2), Watch()
    with serving(pubsub_handlers(failing)) as target:
        async with intercept_channel(grpc.aio.insecure_channel(target), *stack(watch)) as channel:
            client = PublisherAsyncClient(transport=PublisherGrpcAsyncIOTransport(channel=channel))
            answer = await client.publish(topic=TOPIC, messages=[{"data": b"1"}], retry=None)
            assert list(answer.message_ids) == ["1"]
            assert [topic.name async for topic in await client.list_topics(project="projects/shop")] == [TOPIC]
    assert failing.calls == {"Publish": 3}
    assert watch.seen == [("Publish", "OK"), ("ListTopics", "OK")]


def firestore() -> None:
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import firestore as public
    from google.cloud.firestore_v1.services.firestore import FirestoreClient
    from google.cloud.firestore_v1.services.firestore.transports import FirestoreGrpcTransport

    failing, watch = Failing(1), Watch()
    with (
        serving(firestore_handlers(failing)) as target,
        intercept_channel(grpc.insecure_channel(target), *stack(watch)) as channel,
    ):
        client = public.Client("shop", credentials=AnonymousCredentials())
        client._firestore_api_internal = FirestoreClient(transport=FirestoreGrpcTransport(channel=channel))
        assert client.document("orders/7").get().to_dict() == {"item": "kite"}
        client.document("orders/8").set({"item": "ball"}, retry=None)
    assert failing.calls == {"BatchGetDocuments": 2, "Commit": 2}
    # `get` leaves the stream behind its one document, before or after the status has come.
    assert watch.seen in ([("BatchGetDocuments", code), ("Commit", "OK")] for code in ("OK", "CANCELLED"))


def firestore_asyncio() -> None:
    asyncio.run(_firestore_asyncio())


async def _firestore_asyncio() -> None:
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import firestore as public
    from google.cloud.firestore_v1.services.firestore import FirestoreAsyncClient
    from google.cloud.firestore_v1.services.firestore.transports import FirestoreGrpcAsyncIOTransport

    failing, watch = Failing(1), Watch()
    with serving(firestore_handlers(failing)) as target:
        async with intercept_channel(grpc.aio.insecure_channel(target), *stack(watch)) as channel:
            client = public.AsyncClient("shop", credentials=AnonymousCredentials())
            client._firestore_api_internal = FirestoreAsyncClient(
                transport=FirestoreGrpcAsyncIOTransport(channel=channel)
            )
            assert (await client.document("orders/7").get()).to_dict() == {"item": "kite"}
            await client.document("orders/8").set({"item": "ball"}, retry=None)
    assert failing.calls == {"BatchGetDocuments": 2, "Commit": 2}
    assert watch.seen == [("BatchGetDocuments", "OK"), ("Commit", "OK")]


STACK = "`RequestId`, `Deadline`, `Retry`, `CircuitBreaker` on the `channel` of its transport"
PUBLISHED = "A publish that fails twice arrives at the third attempt, and is one RPC outside of `Retry`."
STORED = "A read, which is a response stream, and a write survive one failure each."
SCENARIOS = [
    Scenario("Pub/Sub, sync", ("google-cloud-pubsub", "google-api-core"), STACK, PUBLISHED, pubsub),
    Scenario("Pub/Sub, asyncio", ("google-cloud-pubsub", "google-api-core"), STACK, PUBLISHED, pubsub_asyncio),
    Scenario("Firestore, sync", ("google-cloud-firestore", "google-api-core"), STACK, STORED, firestore),
    Scenario("Firestore, asyncio", ("google-cloud-firestore", "google-api-core"), STACK, STORED, firestore_asyncio),
]
