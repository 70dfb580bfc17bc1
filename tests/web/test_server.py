"""The page's own server: where it listens, whom it answers, and that it goes without a trace."""

import http.client
import json
import logging
import socket
import threading
from typing import Any

import pytest

from interpose.interceptors import Rpcz
from interpose.testing import no_thread_leaks, ok, play
from interpose.web import server
from interpose.web.server import CONNECTIONS


def get(port: int, path: str = "/rpcz/", *, verb: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(verb, path, headers=headers)
        reply = connection.getresponse()
        return reply.status, dict(reply.headers), reply.read()
    finally:
        connection.close()


def test_the_page_and_its_twin() -> None:
    """At the address that it says; on the loopback, at a free port."""
    rpcz = Rpcz(title="shop")
    play(rpcz, [ok()], method="/shop.v1.Orders/Place")
    with rpcz.serve() as served:
        assert served.url == f"http://127.0.0.1:{served.port}/rpcz/"
        status, headers, body = get(served.port)
        assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert b"<title>rpcz</title>" in body
        _, headers, body = get(served.port, "/rpcz/json?filter=place&limit=1&method=/shop.v1.Orders/Place&side=client")
        state = json.loads(body)
        assert state["title"] == "shop" and state["chosen"]["ended"] == 1
        assert "Python" not in headers["Server"]
        assert get(served.port, "/rpcz/json?limit=x")[0] == 400


def test_what_else_is_asked() -> None:
    """A slash that is missing, other places, other verbs, another host, and HEAD."""
    with Rpcz().serve() as served:
        for path in ("/", "/rpcz", ""):
            status, headers, _ = get(served.port, path or "/")
            assert (status, headers["Location"]) == (302, "/rpcz/")
        assert get(served.port, "/else")[0] == 404
        assert get(served.port, "/rpcz/else")[0] == 404
        assert get(served.port, verb="POST")[0] == 405
        assert get(served.port, verb="BREW")[0] == 405
        assert get(served.port, "/rpcz/json", Host="evil.example")[0] == 421
        status, headers, body = get(served.port, verb="HEAD")
        assert (status, body) == (200, b"") and int(headers["Content-Length"]) > 1000


def test_a_host_that_was_named() -> None:
    """Browsers may ask for the page by it."""
    with Rpcz().serve(hosts=["ops.example.com"]) as served:
        assert get(served.port, Host="ops.example.com:8081")[0] == 200


def test_close_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even with a connection that says nothing, whose time is not waited for; and a second time it does nothing."""
    monkeypatch.setattr(server._Handler, "timeout", 1000.0)
    with no_thread_leaks():
        served = Rpcz().serve()
        silent = socket.create_connection(("127.0.0.1", served.port), timeout=10)
        assert get(served.port)[0] == 200
        served.close()
        served.close()
        assert silent.recv(1) == b""
        silent.close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", served.port), timeout=10)
        assert repr(served).endswith("closed>")
        with Rpcz().serve(served.port) as again:  # the port is free
            assert again.port == served.port


def test_a_port_that_is_taken() -> None:
    """An OSError that says which, and what to do; no thread was started."""
    with Rpcz().serve() as served, no_thread_leaks():
        with pytest.raises(
            OSError, match=rf"Rpcz cannot listen on 127.0.0.1:{served.port}: .*give another port"
        ) as caught:
            Rpcz().serve(served.port)
        assert caught.value.errno
        with pytest.raises(OSError, match=r"Rpcz cannot listen on 192\.0\.2\.1:0: "):
            Rpcz().serve(host="192.0.2.1")


def test_connections_are_bounded() -> None:
    """So many that say nothing, and one more is closed unread; once they go, others are answered."""
    with Rpcz().serve() as served:
        silent = [socket.create_connection(("127.0.0.1", served.port), timeout=10) for _ in range(CONNECTIONS + 1)]
        assert silent[-1].recv(1) == b""
        for one in silent:
            one.close()
        while True:  # their threads see it one after the other
            try:
                assert get(served.port)[0] == 200
                break
            except (ConnectionError, http.client.HTTPException):
                continue


@pytest.mark.parametrize("line", [b"", b"GET", b"GET //[ HTTP/1.0", b"\xff\xfe\x00", b"GET / HTTP/9.9"])
def test_what_is_no_request_harms_nobody(line: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """The connection ends, nothing is logged, and the next one is answered."""
    with caplog.at_level(logging.DEBUG, "interpose"), Rpcz().serve() as served:
        with socket.create_connection(("127.0.0.1", served.port), timeout=10) as connection:
            connection.sendall(line + b"\r\n\r\n")
            while connection.recv(4096):
                pass
        assert get(served.port)[0] == 200

    assert not caplog.records


def test_an_accept_that_fails_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when no file descriptors are left for a while."""

    class Listener:
        def __init__(self, native: socket.socket) -> None:
            self.native, self.failures = native, [OSError(24, "too many open files")]

        def accept(self) -> Any:
            if self.failures:
                raise self.failures.pop()
            return self.native.accept()

        def __getattr__(self, name: str) -> Any:
            return getattr(self.native, name)

    listening = server._listening
    monkeypatch.setattr(server, "_listening", lambda *at: Listener(listening(*at)))
    with Rpcz().serve() as served:
        assert get(served.port)[0] == 200


def test_a_fault_of_the_page_is_told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """In the log, and the server goes on."""
    told = threading.Event()
    monkeypatch.setattr(server.Site, "answer", lambda *_: 1 / 0)
    monkeypatch.setattr(server._log, "exception", lambda *_: told.set())
    with Rpcz().serve() as served:
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            get(served.port)
        assert told.wait(10)


@pytest.mark.parametrize(
    "options",
    [{"port": -1}, {"port": 65_536}, {"port": "80"}, {"host": 3}, {"hosts": "a.b"}, {"hosts": ["http://a.b"]}],
    ids=str,
)
def test_bad_options(options: Any) -> None:
    """A ValueError that says what to write."""
    with pytest.raises(ValueError, match="must"):
        Rpcz().serve(**options)


def test_ipv6() -> None:
    """With brackets in the address, where this machine has it."""
    try:
        served = Rpcz().serve(host="::1")
    except OSError:
        pytest.skip("there is no IPv6 loopback here")
    with served:
        assert served.url == f"http://[::1]:{served.port}/rpcz/"
