"""A client in Go, `buf curl`, whose call the server ends: it reads a status, and not that a connection broke."""

import json
import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import wrappers_pb2

from interpose import Kind
from tests.interop.calling import NAMES, SERVICE
from tests.interop.test_buf import BUF, SCHEMA
from tests.serving.driving import STARTING, Client, serve
from tests.serving.waiting import Waiting

pytestmark = [
    pytest.mark.skipif(BUF is None, reason="buf is not installed: it comes with the package buf-bin"),
    pytest.mark.slow,
    pytest.mark.timeout(180),
]

KINDS = (Kind.UNARY_UNARY, Kind.UNARY_STREAM)
Text = wrappers_pb2.StringValue


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
