"""Where a server listens: a port of a host, or a unix socket."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from typing import Any

from interpose.serving.options import CannotServe

LONGEST_PATH = 107  # bytes of a unix socket's path on Linux (unix(7)), less the zero behind it


class Port:
    """A TCP port. shared: other processes of ours listen on it too."""

    def __init__(self, host: str, port: int, *, shared: bool = False) -> None:
        self.host = host
        self.port = port
        self._shared = shared
        if not shared:
            _insist_free(host, port)

    @property
    def shown(self) -> str:
        return f"{_bracketed(self.host)}:{self.port}"

    @property
    def options(self) -> list[tuple[str, Any]]:
        """Without the option, a second server binds a port that is in use, in silence."""
        return [("grpc.so_reuseport", int(self._shared))]

    def bind(self, server: Any, credentials: Any) -> None:
        """Have the server listen here; CannotServe if it cannot."""
        self.port = _bound(server, self.shown, credentials)

    def published(self) -> None:
        """The server has started."""

    def close(self) -> None:
        """The server has stopped."""


class Reserved:
    """A port that is kept for workers, which share it. It is bound but does not listen, so it gets no connections."""

    def __init__(self, host: str, port: int) -> None:
        _insist_free(host, port)
        family, _, _, _, address = _resolved(host, port)[0]
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._socket.bind(address)
        self.port: int = self._socket.getsockname()[1]
        self.shown = f"{_bracketed(host)}:{self.port}"

    def close(self) -> None:
        self._socket.close()


class Unix:
    """A unix socket. It is bound under another name and renamed, so that a successor takes its place at once.

    grpc removes the name that it has bound, at its stop: never that of a successor, then.
    """

    options: list[tuple[str, Any]] = []  # noqa: RUF012  read only

    def __init__(self, path: str) -> None:
        self.path = Path(path).absolute()
        self._bound_as = self.path.with_name(f".{os.urandom(4).hex()}")
        self._own: tuple[int, int] | None = None
        folder = self.path.parent
        if max(len(os.fsencode(name)) for name in (self.path, self._bound_as)) > LONGEST_PATH:
            raise CannotServe(f"{self.path} is too long for a unix socket: at most {LONGEST_PATH} bytes")
        if not os.access(folder, os.W_OK):
            raise CannotServe(f"there can be no socket in {folder}: make the folder, and let this user write to it")
        if self.path.exists() and not self.path.is_socket():
            raise CannotServe(f"{self.path} is a file and no socket: remove it, or choose another path")

    @property
    def shown(self) -> str:
        return f"unix:{self.path}"

    def bind(self, server: Any, credentials: Any) -> None:
        """Have the server listen here; CannotServe if it cannot."""
        _bound(server, f"unix:{self._bound_as}", credentials)
        self._own = _identity(self._bound_as)

    def published(self) -> None:
        """The server has started: from now on clients find it, and no longer its predecessor."""
        self._bound_as.rename(self.path)

    def close(self) -> None:
        """The server has stopped: remove the socket, unless it is a successor's."""
        if self._own is not None and _identity(self.path) == self._own:
            self.path.unlink()
        self._bound_as.unlink(missing_ok=True)  # it was bound, and never published


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and inode of what a path names."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _bound(server: Any, address: str, credentials: Any) -> int:
    try:
        port = (
            server.add_insecure_port(address) if credentials is None else server.add_secure_port(address, credentials)
        )
    except RuntimeError:
        port = 0
    if not port:  # older versions of grpcio do not raise
        raise CannotServe(f"cannot listen on {address}: is it in use, or not an address of this machine?")
    return int(port)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _resolved(host: str, port: int) -> list[Any]:
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        raise CannotServe(f"there is no host {host!r}: give an address of this machine, or 0.0.0.0 for all") from None


def _insist_free(host: str, port: int) -> None:
    """CannotServe if the port is in use, or the host is not of this machine."""
    for family, _, _, _, address in _resolved(host, port):
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(address)
                probe.listen(1)  # a port that others share by SO_REUSEADDR can be bound, but not listened on
            except OSError as error:
                raise CannotServe(f"cannot listen on {_bracketed(host)}:{port}: {_why(error, port)}") from None


def _why(error: OSError, port: int) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return "the port is in use; stop what uses it, or choose another with --port"
        case errno.EACCES:
            return f"this user may not; choose a port above 1023 and not {port}"
        case errno.EADDRNOTAVAIL:
            return "it is no address of this machine; use --host 0.0.0.0 for all that it has"
        case _:
            return str(error.strerror or error)
