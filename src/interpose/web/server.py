"""A small HTTP server for one page: a thread that accepts, and one for each connection, of which there are few."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any

from interpose.web.site import Site

PLACE = "/rpcz"
REQUEST_TIMEOUT = 5.0  # seconds that a connection has for its request, and for each part of the answer
CONNECTIONS = 16  # at once; one more is closed unread
BACKLOG = 16

_log = logging.getLogger("interpose")


class Served:
    """A page that is being served, until `close()` or the end of a `with` block. url: where it is."""

    def __init__(self, site: Site, host: str, port: int) -> None:
        self._site = site
        self._listener = _listening(host, port)
        self._connections: dict[socket.socket, threading.Thread] = {}
        self._closing = threading.Event()
        self.host, self.port = host, int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._accept, name=f"interpose-rpcz-{self.port}", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """The address of the page; its JSON twin is at "json" below it."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}{PLACE}/"

    def close(self) -> None:
        """Serve no more. When this returns, no thread and no socket is left. A second time it does nothing."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._wake()
        self._thread.join()
        self._listener.close()
        for connection, thread in list(self._connections.items()):
            with contextlib.suppress(OSError):  # it has ended by itself
                connection.shutdown(socket.SHUT_RDWR)
            thread.join()

    def _wake(self) -> None:
        """Let the thread that waits for a connection see that there will be none."""
        everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104  as an address to connect to
        with contextlib.suppress(OSError):
            socket.create_connection((everywhere.get(self.host, self.host), self.port), timeout=1).close()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                connection, address = self._listener.accept()
            except OSError:  # no file descriptors are left, say: that may pass
                self._closing.wait(0.1)
                continue
            if self._closing.is_set() or len(self._connections) >= CONNECTIONS:
                connection.close()
                continue
            thread = threading.Thread(
                target=self._handle, args=(connection, address), name=f"{self._thread.name}-connection", daemon=True
            )
            self._connections[connection] = thread
            thread.start()

    def _handle(self, connection: socket.socket, address: Any) -> None:
        try:
            _Handler(connection, address, self._site)
        except OSError:  # the browser has gone, or was too slow
            pass
        except Exception:
            _log.exception("a request for a page failed")
        finally:
            connection.close()
            del self._connections[connection]

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Served {self.url}{', closed' if self._closing.is_set() else ''}>"


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens there; OSError that says what to do if that cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        hint = "give another port, or port=0 for any that is free"
        raise type(error)(error.errno, f"Rpcz cannot listen on {host}:{port}: {error.strerror}; {hint}") from error


class _Handler(BaseHTTPRequestHandler):
    """One connection, with one request: HTTP/1.0, so that no connection outlives its answer."""

    timeout = REQUEST_TIMEOUT
    server_version, sys_version = "interpose", ""
    error_message_format, error_content_type = "%(code)d %(message)s\n", "text/plain; charset=utf-8"

    def __init__(self, connection: socket.socket, address: Any, site: Site) -> None:
        self._site = site
        super().__init__(connection, address, None)  # type: ignore[arg-type]  # it never looks at its server

    def _answer(self) -> None:
        path, _, query = self.path.partition("?")
        below = "" if path in {"", "/"} else path.removeprefix(PLACE)
        reply = self._site.answer(self.command, PLACE, below, query, self.headers.get_all("Host") or [])
        self.send_response(reply.status)
        for name, value in reply.headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body)

    def __getattr__(self, name: str) -> Callable[[], None]:
        """Each verb is answered the same way: the site says which it takes."""
        if name.startswith("do_"):
            return self._answer
        raise AttributeError(name)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: what unknown clients ask for is no news."""
