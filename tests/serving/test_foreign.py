"""A client in Go, `buf curl`, whose call the server ends: it reads a status, and not that a connection broke."""

import asyncio
import json
import os
import socket
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import wrappers_pb2

from interpose import Kind
from tests.interop.calling import NAMES, SERVICE
from tests.interop.test_buf import BUF, SCHEMA
from tests.serving.driving import STARTING, Client, serve

pytestmark = [
    pytest.mark.skipif(BUF is None, reason="buf is not installed: it comes with the package buf-bin"),
    pytest.mark.slow,
    pytest.mark.timeout(180),
]

KINDS = (Kind.UNARY_UNARY, Kind.UNARY_STREAM)
Text = wrappers_pb2.StringValue


class Waiting:
    """Handlers that wait for the end of their RPC."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)

    def app(self, server: Any) -> None:
        def wait(request: Any, context: Any) -> Any:
            self.entered.release()
            over = threading.Event()
            if context.add_callback(over.set):
                over.wait(STARTING)
            return request

        def stream(request: Any, context: Any) -> Iterator[Any]:
            yield request
            yield wait(request, context)

        self._register(server, wait, stream)

    async def async_app(self, server: Any) -> None:
        async def wait(request: Any, context: Any) -> Any:
            self.entered.release()
            await asyncio.sleep(STARTING)  # cut short by the end of its RPC
            return request

        async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
            yield request
            yield await wait(request, context)

        self._register(server, wait, stream)

    def _register(self, server: Any, *behaviors: Any) -> None:
        handlers = {
            NAMES[kind]: getattr(grpc, f"{kind.value}_rpc_method_handler")(
                behavior, Text.FromString, Text.SerializeToString
            )
            for kind, behavior in zip(KINDS, behaviors, strict=True)
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))


@pytest.mark.parametrize("on_loop", [False, True], ids=["sync", "asyncio"])
def test_a_client_in_go_reads_unavailable(on_loop: bool, tmp_path: Path) -> None:
    """Of a unary call, and of a stream that has begun."""
    waiting = Waiting()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    home = {"HOME": str(tmp_path), "BUF_CACHE_DIR": str(tmp_path), "PATH": os.environ.get("PATH", "")}
    ready = Client(f"127.0.0.1:{port}")

    def started(kind: Kind) -> "subprocess.Popen[str]":
        command = [str(BUF), "curl", "--http2-prior-knowledge", "--protocol", "grpc", "--schema", str(SCHEMA)]
        url = f"http://127.0.0.1:{port}/{SERVICE}/{NAMES[kind]}"
        return subprocess.Popen(
            [*command, "-d", '"hello"', url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=home
        )

    def script(client: Client) -> Any:
        ready.health()
        calls = [started(kind) for kind in KINDS]
        for _ in calls:
            assert waiting.entered.acquire(timeout=STARTING)
        client.signal()
        return [call.communicate(timeout=STARTING) for call in calls]

    app = waiting.async_app if on_loop else waiting.app
    try:
        ends = serve(app, script, tmp_path, uds=None, port=port, timeout_graceful_shutdown=0)
    finally:
        ready.channel.close()

    told = [json.loads(err) for _, err in ends]
    assert [(one["code"], one["message"]) for one in told] == [("unavailable", "the server is stopping")] * 2
    assert json.loads(ends[1][0]) == "hello"
