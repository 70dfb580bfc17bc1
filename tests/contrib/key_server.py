"""An endpoint that serves keys, on loopback: it counts who asks, and answers as a test says."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support import tls


class KeyServer:
    """What it answers may change at any time.

    body, status, headers: the answer. hold: if it is set to an event, answers wait for it. asked: requests so far.
    """

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.status = 200
        self.headers: dict[str, str] = {}
        self.hold: threading.Event | None = None
        self.asked: list[str] = []
        self.came = threading.Semaphore(0)
        self.url = ""


@contextmanager
def serving_keys(body: bytes, *, secure: bool = False) -> Iterator[KeyServer]:
    """Serve this body until the end."""
    keys = KeyServer(body)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = keys.body
            keys.asked.append(self.path)
            keys.came.release()
            if keys.hold is not None:
                keys.hold.wait(10)
            self.send_response(keys.status)
            for name, value in keys.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if secure:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.authority().issue_cert("localhost").configure_cert(context)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    scheme = "https" if secure else "http"
    keys.url = f"{scheme}://localhost:{server.server_port}/keys"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.005}, daemon=True)
    thread.start()
    try:
        yield keys
    finally:
        if keys.hold is not None:
            keys.hold.set()
        server.shutdown()
        thread.join()
        server.server_close()
