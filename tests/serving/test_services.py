"""What a server of ours serves beside the application: health, reflection, channelz; and the interceptors around it."""

import threading
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from interpose import Call, Flow, errors, intercept_channel
from interpose.interceptors import AccessLog, ConcurrencyLimit, Retry
from interpose.serving.app import App
from interpose.serving.options import Options
from interpose.serving.site import Site
from tests.serving.driving import Client, Shop, Status, ended, serve
from tests.support.patience import PATIENCE

Code = grpc.StatusCode
both = pytest.mark.parametrize("on_loop", [False, True], ids=["sync", "asyncio"])

OURS = ["grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"]


def services(client: Client) -> list[str]:
    return sorted(ProtoReflectionDescriptorDatabase(client.channel).get_services())


@both
def test_health_and_reflection_are_on(path: Path, on_loop: bool) -> None:
    """Each service is known by name, and serves; another is not known. Channelz is off."""
    shop = Shop(asyncio=on_loop)

    def script(client: Client) -> Any:
        healthy = client.health(), client.health("test.Shop")
        with pytest.raises(grpc.RpcError) as unknown:
            client.health("other")
        return healthy, unknown.value.code(), services(client)

    healthy, unknown, known = serve(shop.app, script, path)

    assert healthy == (Status.SERVING, Status.SERVING)
    assert unknown is Code.NOT_FOUND
    assert known == [*OURS, "test.Shop"]


@both
def test_channelz_by_choice(path: Path, on_loop: bool) -> None:
    """Asked for, channelz answers, and reflection shows it."""

    def script(client: Client) -> Any:
        client.health()
        stub = channelz_pb2_grpc.ChannelzStub(client.channel)
        return stub.GetServers(channelz_pb2.GetServersRequest(), timeout=PATIENCE).server, services(client)

    servers, known = serve(Shop(asyncio=on_loop).app, script, path, channelz=True)

    assert servers
    assert "grpc.channelz.v1.Channelz" in known


@both
def test_without_any(path: Path, on_loop: bool) -> None:
    """Without health and reflection there is the application alone."""

    def script(client: Client) -> Any:
        assert client.call() == "hello!"
        with pytest.raises(grpc.RpcError) as caught:
            client.health()
        return caught.value.code()

    assert serve(Shop(asyncio=on_loop).app, script, path, health=False, reflection=False) is Code.UNIMPLEMENTED


@both
def test_interceptors_stand_around_all_of_it(path: Path, on_loop: bool) -> None:
    """A guard refuses health checks too, unless they are named as bare; the application is always inside."""

    def guard(call: Call) -> Flow:
        raise errors.PermissionDenied("not you")
        yield call

    def script(client: Client) -> Any:
        client.channel.unary_unary("/a.B/C")  # warm
        codes = []
        for work in (client.call, client.health, lambda: services(client)):
            try:
                work()
                codes.append(Code.OK)
            except grpc.RpcError as error:
                codes.append(error.code())
        return codes

    app = Shop(asyncio=on_loop).app
    inside = serve(app, script, path, stack=[guard])
    outside = serve(app, script, path, stack=[guard], bare=["health", "reflection"])

    assert inside == [Code.PERMISSION_DENIED] * 3
    assert outside == [Code.PERMISSION_DENIED, Code.OK, Code.OK]


def test_health_is_answered_while_every_thread_is_busy(path: Path) -> None:
    """On a sync server health checks have threads of their own: a full pool is no reason to be restarted."""
    shop = Shop(asyncio=False)

    def script(client: Client) -> Any:
        pending = client.start("unary_unary")
        assert shop.entered.acquire(timeout=PATIENCE)
        status = client.health()
        shop.release.set()
        return status, pending.result(PATIENCE)

    assert serve(shop.app, script, path, threads=1) == (Status.SERVING, "wait!")


def test_a_health_service_of_the_applications_own_stays(path: Path) -> None:
    """What the application registers itself is not registered twice."""
    servicer = health.HealthServicer()
    servicer.set("mine", Status.NOT_SERVING)

    def app(server: Any) -> None:
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)

    def script(client: Client) -> Any:
        return client.health("mine"), services(client)

    assert serve(app, script, path) == (Status.NOT_SERVING, OURS)


def test_what_grpcs_own_server_is_made_with() -> None:
    """A port that is not shared, connections of limited age, and what was asked for."""
    options = Options(port=0, max_connection_age=1.5, timeout_graceful_shutdown=3, options=(("a", 1),))

    assert Site(App(lambda server: None), options, ()).channel_options == [
        ("grpc.so_reuseport", 0),
        ("grpc.max_connection_age_ms", 1500),
        ("grpc.max_connection_age_grace_ms", 3000),
        ("a", 1),
    ]


@both
def test_an_old_connection_ends_streams_and_loses_no_unary_call(path: Path, on_loop: bool) -> None:
    """What `max_connection_age` asks grpc for, in seconds; here it is asked for in milliseconds.

    A call that begins as its connection ends may be UNAVAILABLE, without gRPC's own retries: `Retry` sends it again.
    """
    shop = Shop(asyncio=on_loop)
    # A call that stands still for longer than the grace, as on a busy machine, would be lost as the stream is.
    age = (("grpc.max_connection_age_ms", 100), ("grpc.max_connection_age_grace_ms", 1500))
    over = threading.Event()

    def script(client: Client) -> Any:
        stream = client.start("unary_stream")
        client.channel = intercept_channel(client.channel, Retry(safe=True))
        stream.add_callback(over.set)
        first, answers = next(stream), []
        while not over.wait(0.02):
            answers.append(client.call())
        return first, set(answers), ended(stream, "unary_stream")[:2]

    outcome = serve(shop.app, script, path, options=age)

    assert outcome == ("first", {"hello!"}, (Code.UNAVAILABLE, "max connection age"))


def test_an_order_that_is_known_to_be_wrong_is_said(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """At the start, as `describe` says it."""
    wrong = [ConcurrencyLimit(), AccessLog()]

    serve(Shop(asyncio=False).app, lambda client: client.call(), path, stack=wrong)

    assert "interceptors: ConcurrencyLimit is outside of AccessLog" in caplog.text


@both
def test_calls_beyond_the_limit_are_refused(path: Path, on_loop: bool) -> None:
    """With a limit of one, a second call is UNAVAILABLE at once; a health check is answered."""
    shop = Shop(asyncio=on_loop)

    def script(client: Client) -> Any:
        pending = client.start("unary_unary")
        assert shop.entered.acquire(timeout=PATIENCE)
        with pytest.raises(grpc.RpcError) as caught:
            client.call()
        status = client.health()
        shop.release.set()
        return caught.value.code(), status, pending.result(PATIENCE)

    assert serve(shop.app, script, path, limit_concurrency=1) == (Code.UNAVAILABLE, Status.SERVING, "wait!")
