"""What may be served: functions, lists of servicers, ready servers, and their names."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_channelz.v1 import channelz_pb2_grpc
from grpc_health.v1 import health

import interpose
from interpose.serving import CannotServe
from interpose.serving.app import App, load
from interpose.testing.codec import decode, encode
from tests.serving.driving import KINDS, Client, Shop, Status, ended, serve
from tests.support.patience import PATIENCE


def plain(server: Any) -> None: ...


async def async_(server: Any) -> None: ...


def generator(server: Any) -> Iterator[None]:
    yield


async def async_generator(server: Any) -> AsyncIterator[None]:
    yield


class Channelz(channelz_pb2_grpc.ChannelzServicer):
    async def GetServers(self, request: Any, context: Any) -> Any: ...


@pytest.mark.parametrize(
    ("given", "on_loop"),
    [
        (plain, False),
        (generator, False),
        (async_, True),
        (async_generator, True),
        ([channelz_pb2_grpc.ChannelzServicer()], False),
        ([channelz_pb2_grpc.ChannelzServicer(), Channelz()], True),
    ],
)
def test_an_application_that_is_async_wants_a_loop(given: Any, on_loop: bool) -> None:
    """Async functions, and servicers with an async method, run on asyncio; all others on threads."""
    assert App(given).asyncio is on_loop


@pytest.mark.parametrize(
    ("given", "options", "said"),
    [
        (42, {}, "42 is no application: it must be a function that registers servicers"),
        (lambda: plain, {}, "add --factory"),
        (channelz_pb2_grpc.ChannelzServicer, {}, "is no application"),
        ([], {}, "an empty list"),
        ([object()], {}, "is no servicer: it must be of a class that grpcio-tools generated"),
        ([Channelz], {}, "it must be an instance and not the class"),
        ("shop", {"factory": True}, "'shop' is no factory"),
        (async_, {"loop": "none"}, "async_ is async and needs an event loop"),
        ([Channelz()], {"loop": "none"}, None),
    ],
)
def test_what_is_no_application_is_refused(given: Any, options: Any, said: str | None) -> None:
    """One line that says what it must be."""
    if said is None:
        assert App(given, **options).asyncio is False
        return
    with pytest.raises(CannotServe) as caught:
        App(given, **options)

    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_factory_makes_the_application() -> None:
    """With `factory`, what the function returns is served."""
    assert App(lambda: async_, factory=True).given is async_


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("shop", '"module:attribute"'),
        (":app", '"module:attribute"'),
        ("no_such_module:app", "there is no module 'no_such_module'"),
        ("interpose.no_such:app", "there is no module 'interpose.no_such'"),
        ("interpose:no_such.thing", "the module 'interpose' has no 'no_such.thing'"),
    ],
)
def test_a_name_of_nothing(name: str, said: str) -> None:
    """A name that leads nowhere is refused with what to write instead."""
    with pytest.raises(CannotServe, match=said):
        load(name)


def test_a_module_that_misses_another_raises_as_it_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The traceback of the application's own import is what helps."""
    (tmp_path / "broken_app.py").write_text("import no_such_module_either")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(ModuleNotFoundError, match="no_such_module_either"):
        load("broken_app:app")


def test_a_list_of_servicers(path: Path) -> None:
    """Each of them is registered by its generated function."""
    servicer = health.HealthServicer()
    servicer.set("mine", Status.NOT_SERVING)

    assert serve([servicer], lambda client: client.health("mine"), path) == Status.NOT_SERVING


@pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "with interceptors"])
def test_a_ready_server(path: Path, wrapped: bool) -> None:
    """It is given health and reflection, bound, started and drained."""

    def script(client: Client) -> Any:
        answers = client.call(), client.health("test.Shop")
        calls = [client.start(kind) for kind in KINDS]
        for _ in range(5):
            assert shop.entered.acquire(timeout=PATIENCE)
        client.signal()
        return answers, [ended(call, kind)[:2] for call, kind in zip(calls, KINDS, strict=True)]

    shop = Shop(asyncio=False)
    with ThreadPoolExecutor(4) as pool:
        server = grpc.server(pool)
        if wrapped:
            server = interpose.intercept_server(server, lambda call: (yield call))
        shop.register(server)
        answers, ends = serve(server, script, path, timeout_graceful_shutdown=0)

    assert answers == ("hello!", Status.SERVING)
    assert ends == [(grpc.StatusCode.UNAVAILABLE, "the server is stopping")] * 4


@pytest.mark.parametrize("registered", [False, True])
def test_a_ready_server_of_asyncio(path: Path, registered: bool) -> None:
    """The same; it runs on the loop that it was made for."""
    shop = Shop(asyncio=True)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    server = grpc.aio.server()
    shop.register(server)
    if registered:
        handler = grpc.unary_unary_rpc_method_handler(shop._async_behavior("unary_unary"), decode, encode)
        server.add_registered_method_handlers("test.Shop", {"unary_unary": handler})

    def script(client: Client) -> Any:
        answers = client.call(), client.health("test.Shop")
        calls = [client.start(kind) for kind in KINDS]
        for _ in range(5):
            assert shop.entered.acquire(timeout=PATIENCE)
        client.signal()
        return answers, [ended(call, kind)[:2] for call, kind in zip(calls, KINDS, strict=True)]

    try:
        answers, ends = serve(server, script, path, timeout_graceful_shutdown=0)
    finally:
        asyncio.set_event_loop(None)

    assert answers == ("hello!", Status.SERVING)
    assert ends == [(grpc.StatusCode.UNAVAILABLE, "the server is stopping")] * 4
    assert loop.is_closed()


def test_a_ready_server_takes_no_interceptors() -> None:
    """They would stand around nothing: its handlers are there already."""
    server = grpc.server(ThreadPoolExecutor(1))
    Shop(asyncio=False).register(server)

    with pytest.raises(CannotServe, match="make it with intercept_server"):
        interpose.serve(server, stack=[lambda call: (yield call)], port=0)
    with pytest.raises(CannotServe, match="leave out --loop asyncio"):
        interpose.serve(server, loop="asyncio", port=0)
    with pytest.raises(CannotServe, match="give max_connection_age, threads where it is made"):
        interpose.serve(server, threads=4, max_connection_age=60, port=0)


def test_async_handlers_on_a_sync_server_are_refused(path: Path) -> None:
    """They would answer nothing but errors."""
    shop = Shop(asyncio=True)

    with pytest.raises(CannotServe, match="answer is async, but the server is a sync one"):
        interpose.serve(shop.register, uds=str(path))
    assert not path.exists()
