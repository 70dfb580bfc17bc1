"""haproxy with docs/deployment/haproxy.cfg: its time-outs, and the health check that it is given in bytes."""

from __future__ import annotations

import re
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from interpose.testing import ok
from interpose.testing.acts import Act
from interpose.testing.codec import decode, encode
from interpose.testing.echo import Echo
from tests.deployment.proxies import FILES, behind, channel, failure, haproxy
from tests.interop.wire import DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, _frame, _literal
from tests.support import tls
from tests.support.patience import PATIENCE

pytestmark = [pytest.mark.needs("haproxy"), pytest.mark.slow]

UNAVAILABLE, UNKNOWN = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN
Status = health_pb2.HealthCheckResponse


@pytest.mark.parametrize("more", ["", "timeout tunnel 1h"])
def test_a_silent_server(more: str, tmp_path: Path) -> None:
    """`timeout server` ends a call that has not begun to answer with 504, and a stream that has with UNKNOWN."""
    echo = Echo([Act(hang=True), Act(hang=True, initial=(("x-a", "1"),))])
    changes = {"timeout server 1h": f"timeout server 1s\n    {more}\n#"}  # enough to answer in, on a busy machine too
    with echo.serve(unix=True) as server, behind(haproxy, tmp_path, server, changes=changes) as stub:
        silent = failure(lambda: stub.unary_unary("a", timeout=PATIENCE))
        fell_silent = failure(lambda: list(stub.unary_stream("a", timeout=PATIENCE)))
        echo.wait_ended(2)

    assert silent == (UNAVAILABLE, "Received http2 header with status: 504")
    assert fell_silent[0] is UNKNOWN
    assert [attempt.cancelled for attempt in echo.attempts] == [True, True]


def test_metadata_of_an_answer(tmp_path: Path) -> None:
    """What does not fit into its buffer is UNAVAILABLE, or left without an answer, though the call was executed."""
    echo = Echo([ok("stored", initial=(("x-long", "l" * 16_000),))])
    with echo.serve(unix=True) as server, behind(haproxy, tmp_path, server) as stub:
        code, _ = failure(lambda: stub.unary_unary("a", timeout=3))  # at times to the end of that

    assert code in {UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
    assert len(echo.attempts) == 1


@contextmanager
def served(register: Callable[[grpc.Server], None]) -> Iterator[str]:
    """A bare server on a unix socket."""
    with tls.pool() as threads, tempfile.TemporaryDirectory() as folder:
        server = grpc.server(threads)
        register(server)
        server.add_insecure_port(f"unix:{folder}/s")
        server.start()
        try:
            yield f"unix:{folder}/s"
        finally:
            server.stop(None).wait()


@pytest.mark.slow
@pytest.mark.parametrize(("messages", "code"), [(1, UNKNOWN), (7, grpc.StatusCode.OK)])
def test_what_keeps_a_stream_alive(messages: int, code: grpc.StatusCode, tmp_path: Path) -> None:
    """Messages that come in time do; pings of the connection do not."""
    gone = threading.Event()

    def watch(_: str, context: Any) -> Iterator[str]:
        context.add_callback(gone.set)
        for _ in range(messages):
            yield "news"
            gone.wait(0.6)  # seven of them are longer than the time-out; one is not, on a busy machine either
        gone.wait(PATIENCE if messages == 1 else 0)

    def register(server: grpc.Server) -> None:
        handler = grpc.unary_stream_rpc_method_handler(watch, decode, encode)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Shop", {"Watch": handler}),))

    pings = [("grpc.keepalive_time_ms", 100), ("grpc.http2.max_pings_without_data", 0)]
    changes = {"timeout server 1h": "timeout server 4s"}
    with (
        served(register) as server,
        haproxy(tmp_path, [server], changes) as target,
        channel(target, *pings) as made,
    ):
        call = made.unary_stream("/test.Shop/Watch", encode, decode)("a", timeout=PATIENCE)
        with suppress(grpc.RpcError):
            list(call)
        ended = call.code()

    assert ended is code


def test_the_check_follows_health(tmp_path: Path) -> None:
    """A server that drains gets no new calls, while those under way go on."""
    healths = [health.HealthServicer(), health.HealthServicer()]
    for each in healths:
        each.set("", Status.SERVING)

    def register(number: int, server: grpc.Server) -> None:
        health_pb2_grpc.add_HealthServicer_to_server(healths[number], server)
        handler = grpc.unary_unary_rpc_method_handler(lambda *_: str(number), decode, encode)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Shop", {"Name": handler}),))

    changes = {
        "inter 2s fall 2 rise 2": "inter 50ms fall 1 rise 1",
        "timeout server 1h": "timeout server 1h\n    timeout check 1s\n#",  # by itself 50 ms: too short on a busy machine
    }
    with (
        served(partial(register, 0)) as one,
        served(partial(register, 1)) as two,
        haproxy(tmp_path, [one, two], changes, checked=True) as target,
        channel(target) as made,
    ):
        ask = made.unary_unary("/test.Shop/Name", encode, decode)
        both = {ask("a", timeout=PATIENCE) for _ in range(10)}
        healths[0].set("", Status.NOT_SERVING)
        log = tmp_path / "haproxy.log"
        wait_for(lambda: "Server shop/a is DOWN" in log.read_text())
        names = [ask("a", timeout=PATIENCE) for _ in range(10)]
        healths[0].set("", Status.SERVING)
        wait_for(lambda: "Server shop/a is UP" in log.read_text())
        again = {ask("a", timeout=PATIENCE) for _ in range(10)}

    assert (both, set(names), again) == ({"0", "1"}, {"1"}, {"0", "1"})


def wait_for(there: Callable[[], bool]) -> None:
    """Look until it is there: what another program does cannot be waited for."""
    end = monotonic() + PATIENCE
    while not there():
        assert monotonic() < end
        sleep(0.01)


def test_what_the_check_sends() -> None:
    """The bytes of the file are a call of `grpc.health.v1.Health/Check` without a service, and SERVING."""
    headers = (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", b"/grpc.health.v1.Health/Check"),
        (b":authority", b"haproxy"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
    )
    request = _message(health_pb2.HealthCheckRequest())
    sent = [
        PREFACE + _frame(SETTINGS, 0, 0),
        _frame(HEADERS, END_HEADERS, 1, b"".join(_literal(*field) for field in headers)),
        _frame(DATA, END_STREAM, 1, request),
    ]
    expected = _message(Status(status=Status.SERVING))

    text = (FILES / "haproxy.cfg").read_text("utf-8")
    assert re.findall(r"send-binary (\w+)", text) == [part.hex() for part in sent]
    assert re.findall(r"expect binary (\w+)", text) == [expected.hex()]


def _message(message: Any) -> bytes:
    """A message with the five bytes that gRPC puts in front: not compressed, and its length."""
    data: bytes = message.SerializeToString()
    return b"\0" + len(data).to_bytes(4) + data
