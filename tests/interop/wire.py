"""A server that answers every call with the header fields it is told to, byte by byte, whatever gRPC thinks of them.

It speaks as much of HTTP/2 (RFC 9113) as that takes: one response of trailers, no flow control, literal HPACK fields.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from hpack import Decoder

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING, CONTINUATION = 0x0, 0x1, 0x4, 0x6, 0x9
END_STREAM, ACK, END_HEADERS, PRIORITY = 0x1, 0x1, 0x4, 0x20
MOST = 16_384  # bytes of a frame's payload

Field = tuple[bytes, bytes]
Heard = Callable[[dict[str, str]], None]


@contextmanager
def saying(status: int, *fields: Field, heard: Heard | None = None) -> Iterator[str]:
    """Serve that status with those fields behind it; gives the target. heard: called with the header of each request."""
    listener = socket.create_server(("127.0.0.1", 0))
    block = b"".join(
        _literal(*field)
        for field in (
            (b":status", b"200"),
            (b"content-type", b"application/grpc"),
            (b"grpc-status", b"%d" % status),
            *fields,
        )
    )
    connections: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def accept() -> None:
        with suppress(OSError):  # closed
            while True:
                connection, _ = listener.accept()
                connections.append(connection)
                thread = threading.Thread(target=_serve, args=(connection, block, heard))
                threads.append(thread)
                thread.start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        accepting.join()
        for connection in connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()


def _serve(connection: socket.socket, block: bytes, heard: Heard | None) -> None:
    decoder = Decoder()
    with connection, suppress(OSError), connection.makefile("rb") as incoming:
        incoming.read(len(PREFACE))
        connection.sendall(_frame(SETTINGS, 0, 0))
        while head := incoming.read(9):
            length, kind, flags = int.from_bytes(head[:3]), head[3], head[4]
            stream = int.from_bytes(head[5:9])
            payload = incoming.read(length)
            if kind == HEADERS and heard is not None:
                heard(
                    {str(name): str(value) for name, value in decoder.decode(payload[5 if flags & PRIORITY else 0 :])}
                )
            if kind == SETTINGS and not flags & ACK:
                connection.sendall(_frame(SETTINGS, ACK, 0))
            elif kind == PING and not flags & ACK:
                connection.sendall(_frame(PING, ACK, 0, payload))
            elif kind in (DATA, HEADERS) and flags & END_STREAM:
                connection.sendall(_trailers(stream, block))


def _trailers(stream: int, block: bytes) -> bytes:
    parts = [block[start : start + MOST] for start in range(0, len(block), MOST)]
    frames = [_frame(HEADERS if number == 0 else CONTINUATION, 0, stream, part) for number, part in enumerate(parts)]
    frames[0] = _frame(HEADERS, END_STREAM | (END_HEADERS if len(parts) == 1 else 0), stream, parts[0])
    if len(parts) > 1:
        frames[-1] = _frame(CONTINUATION, END_HEADERS, stream, parts[-1])
    return b"".join(frames)


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def _literal(name: bytes, value: bytes) -> bytes:
    """A field that is not indexed, nor Huffman-coded (RFC 7541, 6.2.2)."""
    return b"\x00" + _length(name) + name + _length(value) + value


def _length(text: bytes) -> bytes:
    """A number with a prefix of seven bits (RFC 7541, 5.1)."""
    number = len(text)
    if number < 127:
        return bytes([number])
    number -= 127
    out = bytearray([127])
    while number >= 128:
        out.append(number % 128 + 128)
        number //= 128
    return bytes([*out, number])
