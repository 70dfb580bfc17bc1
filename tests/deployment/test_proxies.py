"""What holds behind each proxy, configured by its file in docs/deployment."""

from __future__ import annotations

import os
import re
import signal
import tempfile
from pathlib import Path
from typing import Any

import grpc
import pytest

from interpose import Call, Flow, context, intercept_channel
from interpose.interceptors import RealIp, Retry
from interpose.testing import died, failed
from interpose.testing.acts import Act
from interpose.testing.codec import decode, encode
from interpose.testing.echo import Echo, Stub
from tests.deployment.proxies import NOWHERE, Proxy, behind, channel, failure, haproxy, nginx
from tests.serving.driving import STARTING
from tests.serving.test_command import LEAN, line_of, started
from tests.support.patience import PATIENCE

pytestmark = pytest.mark.slow

PROXIES = [pytest.param(each, marks=pytest.mark.needs(each.__name__), id=each.__name__) for each in (nginx, haproxy)]
EACH = pytest.mark.parametrize("proxy", PROXIES)

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
MANY = 1_100  # messages of a thousand bytes: nginx by itself lets a MiB pass


@EACH
def test_all_kinds_pass(proxy: Proxy, tmp_path: Path) -> None:
    """Also a request stream of more than a MiB."""
    echo = Echo()
    with echo.serve(unix=True) as server, behind(proxy, tmp_path, server) as stub:
        assert stub.unary_unary("a", timeout=PATIENCE) == "a"
        assert list(stub.unary_stream("a", timeout=PATIENCE)) == ["a"] * 3
        assert list(stub.stream_stream(iter("ab"), timeout=PATIENCE)) == ["a", "b"]
        stub.stream_unary(("x" * 1_000 for _ in range(MANY)), timeout=PATIENCE)

    assert len(echo.attempts[-1].requests) == MANY


@EACH
def test_metadata_passes(proxy: Proxy, tmp_path: Path) -> None:
    """Keys with `_` and `.`, bytes, a key that comes twice, and 8,000 characters."""
    echo = Echo()
    pairs = (
        ("x_b", "1"),
        ("x.c", "2"),
        ("k-bin", b"\x00\xff"),
        ("x-dup", "3"),
        ("x-dup", "4"),
        ("x-long", "l" * 7_000),
    )
    with echo.serve(unix=True) as server, behind(proxy, tmp_path, server) as stub:
        stub.unary_unary("a", metadata=pairs, timeout=PATIENCE)

    assert [pair for pair in echo.attempts[0].metadata if pair in pairs] == list(pairs)


@EACH
def test_a_status_passes(proxy: Proxy, tmp_path: Path) -> None:
    """With its details and trailing metadata, in front of any answer and behind one."""
    broken = failed(grpc.StatusCode.NOT_FOUND, "no such order", after=1, trailing=[("x-a", "1")])
    with Echo([broken, ...]).serve(unix=True) as server, behind(proxy, tmp_path, server) as stub:
        calls = [stub.unary_unary.with_call, lambda text, **given: list(stub.unary_stream(text, **given))]
        failures = [failure(lambda call=call: call("a", timeout=PATIENCE)) for call in calls]  # type: ignore[misc]

    assert failures == [(grpc.StatusCode.NOT_FOUND, "no such order")] * 2


@EACH
def test_a_deadline_reaches_the_server(proxy: Proxy, tmp_path: Path) -> None:
    """And so does its end: the handler is cancelled."""
    echo = Echo([Act(hang=True)])
    with echo.serve(unix=True) as server, behind(proxy, tmp_path, server) as stub:
        code, _ = failure(lambda: stub.unary_unary("a", timeout=1.0))
        echo.wait_ended()

    [attempt] = echo.attempts
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert attempt.cancelled and attempt.time_remaining is not None and attempt.time_remaining <= 1.0


@EACH
def test_the_client_s_own_address(proxy: Proxy, tmp_path: Path) -> None:
    """RealIp finds it behind the proxy, and does not believe what the client writes itself."""
    seen: list[str | None] = []

    def note(call: Call) -> Flow:
        seen.append(context.real_ip())
        yield call

    forged = (("x-forwarded-for", "198.51.100.1"),)
    with (
        Echo().serve(RealIp(["unix"]), note, unix=True) as server,
        behind(proxy, tmp_path, server) as stub,
    ):
        stub.unary_unary("a", timeout=PATIENCE)
        stub.unary_unary("a", metadata=forged, timeout=PATIENCE)

    assert seen == ["127.0.0.1", "127.0.0.1"]


@EACH
def test_no_server(proxy: Proxy, tmp_path: Path) -> None:
    """UNAVAILABLE, with an HTTP status in the details."""
    with behind(proxy, tmp_path, NOWHERE) as stub:
        code, details = failure(lambda: stub.unary_unary("a", timeout=PATIENCE))

    assert code is UNAVAILABLE
    assert details in {"Received http2 header with status: 502", "Received http2 header with status: 503"}


@EACH
@pytest.mark.parametrize(("safe", "attempts"), [(None, 1), (True, 2)])
def test_a_server_lost_under_a_call(proxy: Proxy, tmp_path: Path, safe: Any, attempts: int) -> None:
    """It had executed the call, so a write is not sent again, whatever the proxy makes of it."""
    echo = Echo([died()])
    retry = Retry(safe=safe, backoff=lambda _: 0.0)
    with (
        echo.serve(unix=True) as server,
        proxy(tmp_path, [server], {}) as target,
        channel(target) as bare,
        intercept_channel(bare, retry) as made,
    ):
        answered = Stub(made).unary_unary.future("a", timeout=PATIENCE)
        code = answered.code()

    assert len(echo.attempts) == attempts
    assert code is (grpc.StatusCode.OK if safe else UNAVAILABLE)


@EACH
@pytest.mark.timeout(180)
def test_workers_that_are_replaced(proxy: Proxy, tmp_path: Path) -> None:
    """What comes meanwhile is answered by the new worker, and a call under way by the old one.

    On TCP for haproxy: on a unix socket 2.6.12 at times loses the trailers of the last call of a connection.
    """
    with tempfile.TemporaryDirectory() as folder:
        where = ["--uds", f"{folder}/s"] if proxy is nginx else []
        with started("command_app:slow", *LEAN, "--workers", "1", *where) as server:
            found = re.search(r"serving on (\S+)", line_of(server, "serving on"))
            assert found is not None and server.stdout is not None
            with proxy(tmp_path, [found[1]], {}) as target, channel(target) as made:
                call = made.unary_unary("/test.Shop/unary_unary", encode, decode)
                old = call("a", timeout=STARTING)
                under_way = call.future("wait", timeout=STARTING)
                assert server.stdout.readline() == "begun\n"

                server.send_signal(signal.SIGHUP)
                line_of(server, "no new calls are taken")
                fresh = {call("a", timeout=STARTING) for _ in range(20)}
                os.kill(int(old), signal.SIGUSR1)  # lets the call go on
                answer = under_way.result(STARTING)
            line_of(server, "replaced; workers are")
            server.send_signal(signal.SIGTERM)
            server.communicate(timeout=STARTING)

    assert answer == old
    assert len(fresh) == 1 and old not in fresh
