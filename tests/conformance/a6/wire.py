"""A server made of HTTP/2 frames: for attempts that end as no server of grpcio lets them end.

with answering(refused, answer(b"yes")) as server:
    channel = grpc.insecure_channel(server.target)

Each stream, over all connections, is given what stands for it; when that has run out, the last one again.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeAlias

from tests.interop import wire
from tests.interop.wire import ACK, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PREFACE, SETTINGS, Field

RST_STREAM, GOAWAY = 0x3, 0x7
NO_ERROR, REFUSED_STREAM = 0x0, 0x7  # RFC 9113, 7

Reply: TypeAlias = Callable[[int], tuple[bytes, bool]]  # number of the stream → frames; is the connection closed then?

GRPC: tuple[Field, ...] = ((b":status", b"200"), (b"content-type", b"application/grpc"))


class Server:
    """The server, and how many streams it has answered."""

    def __init__(self, replies: tuple[Reply, ...]) -> None:
        self._replies = replies
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._lock = threading.Lock()
        self.target = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.streams = 0

    def start(self) -> None:
        self._threads[0].start()

    def stop(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join()
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                connection, _ = self._listener.accept()
                self._connections.append(connection)
                self._threads.append(threading.Thread(target=self._serve, args=(connection,)))
                self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError), connection.makefile("rb") as incoming:
            incoming.read(len(PREFACE))
            connection.sendall(frame(SETTINGS, 0, 0))
            while head := incoming.read(9):
                length, kind, flags = int.from_bytes(head[:3]), head[3], head[4]
                stream, payload = int.from_bytes(head[5:9]), incoming.read(length)
                if kind == SETTINGS and not flags & ACK:
                    connection.sendall(frame(SETTINGS, ACK, 0))
                elif kind == PING and not flags & ACK:
                    connection.sendall(frame(PING, ACK, 0, payload))
                elif kind in (DATA, HEADERS) and flags & END_STREAM:
                    frames, over = self._next()(stream)
                    connection.sendall(frames)
                    if over:
                        return

    def _next(self) -> Reply:
        with self._lock:
            self.streams += 1
            return self._replies[min(self.streams, len(self._replies)) - 1]


@contextmanager
def answering(*replies: Reply) -> Iterator[Server]:
    """Serve these."""
    server = Server(replies)
    server.start()
    try:
        yield server
    finally:
        server.stop()


# --- frames -----------------------------------------------------------------------------------------------------------

frame = wire._frame


def fields(stream: int, flags: int, *pairs: Field) -> bytes:
    """Headers or trailers."""
    return frame(HEADERS, flags | END_HEADERS, stream, b"".join(wire._literal(*pair) for pair in pairs))


# --- replies ----------------------------------------------------------------------------------------------------------


def refused(stream: int) -> tuple[bytes, bool]:
    """The stream is said not to have been looked at (RFC 9113, 8.7)."""
    return frame(RST_STREAM, 0, stream, REFUSED_STREAM.to_bytes(4)), False


def http(status: int) -> Reply:
    """An HTTP status that no gRPC server sends, with a page for browsers."""

    def reply(stream: int) -> tuple[bytes, bool]:
        head = fields(stream, 0, (b":status", b"%d" % status), (b"content-type", b"text/html"))
        return head + frame(DATA, END_STREAM, stream, b"<html>"), False

    return reply


def without_status(stream: int) -> tuple[bytes, bool]:
    """The response ends, and there was no status."""
    return fields(stream, 0, *GRPC) + frame(DATA, END_STREAM, stream), False


def gone_away(stream: int) -> tuple[bytes, bool]:
    """The connection shall end, and none of its streams was looked at.

    It is left to the client to end it: where both come at once, it may take the call for one that was under way.
    """
    return frame(GOAWAY, 0, 0, (0).to_bytes(4) + NO_ERROR.to_bytes(4)), False


def gone_away_behind(stream: int) -> tuple[bytes, bool]:
    """The connection will end once this stream has been answered; and it ends at once."""
    return frame(GOAWAY, 0, 0, stream.to_bytes(4) + NO_ERROR.to_bytes(4)), True


def cut_off(stream: int) -> tuple[bytes, bool]:
    """The connection ends without a word."""
    return b"", True


def answer(message: bytes, *headers: Field) -> Reply:
    """One message, and OK."""
    return message_and_status(message, 0, *headers)


def message_and_status(message: bytes, status: int, *headers: Field) -> Reply:
    """One message, and a status whatever it is."""

    def reply(stream: int) -> tuple[bytes, bool]:
        data = b"\0" + len(message).to_bytes(4) + message
        return (
            fields(stream, 0, *GRPC, *headers)
            + frame(DATA, 0, stream, data)
            + fields(stream, END_STREAM, (b"grpc-status", b"%d" % status))
        ), False

    return reply


def cut_off_behind(*headers: Field) -> Reply:
    """Response metadata, and then the connection ends."""
    return lambda stream: (fields(stream, 0, *GRPC, *headers), True)


def status_behind(status: int, *headers: Field) -> Reply:
    """Response metadata, and a status in trailers of their own."""

    def reply(stream: int) -> tuple[bytes, bool]:
        return fields(stream, 0, *GRPC, *headers) + fields(stream, END_STREAM, (b"grpc-status", b"%d" % status)), False

    return reply


def only(*headers: Field) -> Reply:
    """Nothing but these, which need not be gRPC."""
    return lambda stream: (fields(stream, END_STREAM, *headers), False)
