"""nginx with docs/deployment/nginx.conf, and what becomes of calls without the lines that matter."""

from __future__ import annotations

import threading
from pathlib import Path

import grpc
import pytest

from interpose import Call, Flow
from interpose.testing import failed, ok
from interpose.testing.acts import Act
from interpose.testing.echo import Echo
from tests.deployment.proxies import behind, failure, nginx
from tests.support.patience import PATIENCE

pytestmark = [pytest.mark.needs("nginx"), pytest.mark.slow]

UNAVAILABLE, INTERNAL, UNKNOWN = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN


def test_without_a_size(tmp_path: Path) -> None:
    """A request stream ends at one MiB."""
    changes = {"client_max_body_size 0;": ""}
    with Echo().serve(unix=True) as server, behind(nginx, tmp_path, server, changes=changes) as stub:
        code, details = failure(lambda: stub.stream_unary(("x" * 1_000 for _ in range(1_100)), timeout=PATIENCE))

    assert (code, details) == (UNKNOWN, "Received http2 header with status: 413")


@pytest.mark.parametrize(
    ("line", "left"),
    [
        ("", {"x-a"}),
        ("underscores_in_headers on;", {"x-a", "x_b"}),
        ("ignore_invalid_headers off;", {"x-a", "x_b", "x.c"}),
    ],
)
def test_keys_that_are_dropped(line: str, left: set[str], tmp_path: Path) -> None:
    """By default those with `_` and `.`, and the call goes on without them."""
    echo = Echo()
    changes = {"ignore_invalid_headers off;": line}
    with echo.serve(unix=True) as server, behind(nginx, tmp_path, server, changes=changes) as stub:
        stub.unary_unary("a", metadata=(("x-a", "1"), ("x_b", "2"), ("x.c", "3")), timeout=PATIENCE)

    assert {key for key, _ in echo.attempts[0].metadata} & {"x-a", "x_b", "x.c"} == left


def test_a_silent_server(tmp_path: Path) -> None:
    """`grpc_read_timeout` ends a call that has not begun to answer with 504, and a stream that has with INTERNAL."""
    echo = Echo([Act(hang=True), Act(hang=True, initial=(("x-a", "1"),))])
    changes = {"grpc_read_timeout 1h": "grpc_read_timeout 1s"}
    with echo.serve(unix=True) as server, behind(nginx, tmp_path, server, changes=changes) as stub:
        silent = failure(lambda: stub.unary_unary("a", timeout=PATIENCE))
        fell_silent = failure(lambda: list(stub.unary_stream("a", timeout=PATIENCE)))
        echo.wait_ended(2)

    assert silent == (UNAVAILABLE, "Received http2 header with status: 504")
    assert fell_silent[0] is INTERNAL
    assert [attempt.cancelled for attempt in echo.attempts] == [True, True]


def test_a_silent_client(tmp_path: Path) -> None:
    """`client_body_timeout` ends a request stream in which nothing comes, though its call is at work."""
    over = threading.Event()

    def requests():  # type: ignore[no-untyped-def]
        yield "a"
        over.wait(PATIENCE)

    echo = Echo()
    changes = {"client_body_timeout 1h": "client_body_timeout 1s"}
    with echo.serve(unix=True) as server, behind(nginx, tmp_path, server, changes=changes) as stub:
        code, _ = failure(lambda: stub.stream_unary(requests(), timeout=PATIENCE))
        over.set()

    assert code is INTERNAL


def test_metadata_of_an_answer(tmp_path: Path) -> None:
    """What does not fit into `grpc_buffer_size` is 502, though the call was executed."""
    echo = Echo([ok("stored", initial=(("x-long", "l" * 5_000),)), ...])
    with echo.serve(unix=True) as server:
        with behind(nginx, tmp_path, server, changes={"grpc_buffer_size 16k;": ""}) as stub:
            by_default = failure(lambda: stub.unary_unary("a", timeout=PATIENCE))
        with behind(nginx, tmp_path, server) as stub:
            assert stub.unary_unary("a", timeout=PATIENCE) == "stored"

    assert by_default == (UNAVAILABLE, "Received http2 header with status: 502")
    assert len(echo.attempts) == 2


def test_metadata_of_a_request(tmp_path: Path) -> None:
    """A key with its value that is longer than a buffer ends the connection, and with it all calls on it."""
    echo = Echo([Act(hang=True)])
    changes = {"large_client_header_buffers 4 16k;": ""}
    with echo.serve(unix=True) as server, behind(nginx, tmp_path, server, changes=changes) as stub:
        other = stub.unary_unary.future("b", timeout=PATIENCE)
        echo.wait_begun()
        code, details = failure(lambda: stub.unary_unary("a", metadata=(("x-long", "l" * 9_000),), timeout=PATIENCE))

        assert (code, other.code()) == (UNAVAILABLE, UNAVAILABLE)
    assert "Socket closed" in details
    assert len(echo.attempts) == 1


def test_the_log_has_the_status(tmp_path: Path) -> None:
    """That of gRPC, beside the 200 of HTTP."""
    script = [failed(grpc.StatusCode.NOT_FOUND), ok("a")]
    with Echo(script).serve(unix=True) as server, behind(nginx, tmp_path, server) as stub:
        failure(lambda: stub.unary_unary("a", timeout=PATIENCE))
        stub.unary_unary("a", timeout=PATIENCE)

    lines = (tmp_path / "access.log").read_text().splitlines()
    assert [" 200 grpc=5 " in lines[0], " 200 grpc=0 " in lines[1]] == [True, True]


def test_each_call_has_a_connection(tmp_path: Path) -> None:
    """To a server, though the client's calls share one: nginx balances calls."""
    peers: list[str | None] = []

    def note(call: Call) -> Flow:
        peers.append(call.peer)
        yield call

    echo = Echo([Act(hang=True), Act(hang=True)])
    with echo.serve(note) as server, behind(nginx, tmp_path, server) as stub:
        calls = [stub.unary_unary.future("a", timeout=PATIENCE) for _ in range(2)]
        echo.wait_begun(2)
    del calls  # dropped before, they would be cancelled

    assert len(set(peers)) == 2
