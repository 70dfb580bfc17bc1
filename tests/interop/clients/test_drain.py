"""What clients of other makes read when the runner stops: of calls that it ends, and of a new one."""

import logging
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from interpose.serving.drain import NO_NEW_CALLS
from tests.interop.clients.jobs import MAKES, Foreign, Maker, pairs, running
from tests.serving.driving import STARTING, Client, serve
from tests.serving.waiting import Waiting

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

UNDER_WAY: dict[str, Any] = {"Unary": {}, "Down": {}, "Up": {"open": True}}
ENDED = dict.fromkeys(UNDER_WAY, ("UNAVAILABLE", "the server is stopping"))
# Clients that drop all of their calls when the server says GOAWAY, though that lets calls under way go on.
LEAVING = {"grpclib": "StreamTerminatedError"}


class Refusing(logging.Handler):
    """Says when the server takes no new calls."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if NO_NEW_CALLS in record.getMessage():
            self.seen.set()


@pytest.fixture
def refusing() -> Iterator[threading.Event]:
    handler = Refusing()
    log = logging.getLogger("interpose")
    log.addHandler(handler)
    yield handler.seen
    log.removeHandler(handler)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@pytest.mark.parametrize(("make", "on_loop"), list(pairs(MAKES)))
def test_every_client_reads_unavailable(
    make: Maker, on_loop: bool, command: Any, refusing: threading.Event, tmp_path: Path
) -> None:
    """Of a unary call, a response stream and an upload that are under way, and of a new call during the drain."""
    program = command(make)
    fresh: list[Any] = []

    def stop(client: Client, foreign: Foreign) -> None:
        client.signal()
        assert refusing.wait(STARTING)
        if make.name in LEAVING:
            return
        fresh.append(foreign.call("Unary"))
        # For a round trip the old connection is still used, and grpc cancels what comes there before any handler sees it.
        while fresh[-1]["code"] in {"CANCELLED", "CANCELED"}:  # connect has one L
            fresh.append(foreign.call("Unary"))
        client.signal()

    endings = under_way(program, on_loop, stop, tmp_path)

    if make.name in LEAVING:
        assert {one["code"] for one in endings.values()} == {LEAVING[make.name]}
        return
    assert {method: (one["code"], one["details"]) for method, one in endings.items()} == ENDED
    assert endings["Down"]["messages"] == ["hello"]
    assert fresh[-1]["code"] == "UNAVAILABLE"


def under_way(program: list[str], on_loop: bool, stop: Callable[[Client, Foreign], None], path: Path) -> dict[str, Any]:
    """How calls end that are under way while the server is stopped, by method."""
    waiting, port = Waiting(), free_port()
    ready = Client(f"127.0.0.1:{port}")

    def script(client: Client) -> Any:
        ready.health()
        with running(program, f"127.0.0.1:{port}") as foreign:
            asked = {foreign.begin(method, **options): method for method, options in UNDER_WAY.items()}
            for _ in asked:
                assert waiting.entered.acquire(timeout=STARTING)
            stop(client, foreign)
            endings = [foreign.ended() for _ in asked]
        return {asked[ending.pop("id")]: ending for ending in endings}

    app = waiting.async_app if on_loop else waiting.app
    try:
        return serve(app, script, path, uds=None, port=port, timeout_graceful_shutdown=STARTING)
    finally:
        ready.channel.close()
