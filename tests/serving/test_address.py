"""Where a server listens: a port that must be free, or a unix socket that passes from one server to the next."""

import socket
from pathlib import Path
from typing import Any

import grpc
import pytest

from interpose.serving import CannotServe
from interpose.serving.address import Port, Reserved, Unix
from tests.serving.driving import Client, Shop, serve


class Native:
    """A server that binds unix sockets, and removes at its stop what it has bound, as grpc's does."""

    def __init__(self) -> None:
        self.sockets: dict[str, socket.socket] = {}

    def add_insecure_port(self, address: str) -> int:
        path = address.removeprefix("unix:")
        self.sockets[path] = socket.socket(socket.AF_UNIX)
        self.sockets[path].bind(path)
        self.sockets[path].listen()
        return 1

    def stop(self) -> None:
        for path, bound in self.sockets.items():
            bound.close()
            Path(path).unlink(missing_ok=True)


def published(path: Path) -> tuple[Unix, Native]:
    address, native = Unix(str(path)), Native()
    address.bind(native, None)
    address.published()
    return address, native


def test_a_successor_takes_the_place_of_a_socket(path: Path) -> None:
    """A second server at the same path is found from then on, and the end of the first leaves its socket alone."""
    first, old = published(path)
    second, new = published(path)

    old.stop()
    first.close()
    there = path.is_socket()
    new.stop()
    second.close()

    assert there
    assert not list(path.parent.iterdir())


def test_a_socket_that_was_never_published_is_removed(path: Path) -> None:
    """A server that fails between binding and starting leaves nothing behind."""
    address, native = Unix(str(path)), Native()
    address.bind(native, None)

    native.sockets.popitem()[1].close()
    address.close()

    assert not list(path.parent.iterdir())


def test_two_servers_in_a_row(path: Path) -> None:
    """A server starts where the socket of one that was killed still lies."""
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))

    assert serve(Shop(asyncio=False).app, lambda client: client.call(), path) == "hello!"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("x" * 120, "too long for a unix socket"),
        ("no/folder/s", "make the folder"),
        ("file", "is a file and no socket"),
    ],
)
def test_where_no_socket_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str) -> None:
    """Too long a path, a folder that is not there, a file in the way: said before anything is bound."""
    (tmp_path / "file").write_text("mine")
    monkeypatch.chdir(tmp_path)

    with pytest.raises(CannotServe, match=said):
        Unix(name)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_port_in_use_is_refused() -> None:
    """Also one whose owner would share it: grpc alone would bind it in silence, and get half of the connections."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        for address in (Port, Reserved):
            with pytest.raises(CannotServe, match=rf"cannot listen on 127\.0\.0\.1:{port}: the port is in use"):
                address("127.0.0.1", port)


@pytest.mark.parametrize(
    ("host", "said"),
    [("192.0.2.1", "no address of this machine"), ("no.such.host.invalid", "there is no host")],
)
def test_a_host_that_is_not_here(host: str, said: str) -> None:
    """An address of another machine, and a name without one."""
    with pytest.raises(CannotServe, match=said):
        Port(host, 0)


def test_a_port_that_grpc_cannot_bind() -> None:
    """What slips through, since somebody took the port meanwhile, is refused as well."""

    class Refusing:
        def add_insecure_port(self, address: str) -> int:
            raise RuntimeError("Failed to bind")

    class Older:
        def add_insecure_port(self, address: str) -> int:
            return 0

    for server in (Refusing(), Older()):
        with pytest.raises(CannotServe, match=r"cannot listen on 127\.0\.0\.1:0"):
            Port("127.0.0.1", 0).bind(server, None)


def test_any_port_that_is_free() -> None:
    """Port 0: the address shows the one that was found."""
    address = Port("127.0.0.1", 0)

    class Binding:
        def add_secure_port(self, address: str, credentials: Any) -> int:
            return 4242

    address.bind(Binding(), grpc.ssl_server_credentials([(b"", b"")]))

    assert address.shown == "127.0.0.1:4242"


def test_ipv6_addresses_are_bracketed() -> None:
    """As grpc and people read them."""
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    address = Port.__new__(Port)
    address.host, address.port = "::1", 50051

    assert address.shown == "[::1]:50051"


def test_a_reserved_port_is_kept_and_silent() -> None:
    """It is known before any worker runs, and nobody can connect to it yet."""
    reserved = Reserved("127.0.0.1", 0)
    try:
        with socket.socket() as client:
            refused = client.connect_ex(("127.0.0.1", reserved.port))
        shared = Port("127.0.0.1", reserved.port, shared=True)
    finally:
        reserved.close()

    assert refused != 0
    assert shared.options == [("grpc.so_reuseport", 1)]
    assert Port("127.0.0.1", 0).options == [("grpc.so_reuseport", 0)]


def test_a_client_by_port() -> None:
    """Over TCP, with a port that the start line would name."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    client = Client(f"127.0.0.1:{port}")
    try:
        assert serve(Shop(asyncio=True).app, lambda _: client.call(), Path("unused"), uds=None, port=port) == "hello!"
    finally:
        client.channel.close()
