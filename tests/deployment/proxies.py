"""nginx and haproxy as the files beside docs/deployment.md configure them, in front of servers of the tests."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TypeAlias

import grpc

from interpose.testing.echo import Stub
from tests.support import tls

FILES = Path(__file__).parents[2] / "docs" / "deployment"
A, B = "127.0.0.1:50051", "127.0.0.1:50052"  # the servers in the files
NOWHERE = "127.0.0.1:1"  # the port tcpmux: it is as good as never served
NAMED = ("grpc.ssl_target_name_override", "localhost")

Changes: TypeAlias = dict[str, str]
Proxy: TypeAlias = Callable[[Path, list[str], Changes], AbstractContextManager[str]]


def configured(name: str, changes: Changes) -> str:
    """A file of docs/deployment with these changes."""
    text = (FILES / name).read_text("utf-8")
    for old, new in changes.items():
        text = text.replace(old, new)
    return text


@contextmanager
def nginx(folder: Path, servers: list[str], changes: Changes) -> Iterator[str]:
    """Run nginx in front of these servers; gives where it listens."""
    port = free_port()
    certificate(folder)
    own = {
        "worker_processes auto;": f"worker_processes 1; pid {folder}/pid; {AS_ROOT}",
        "http {": "http {\n" + "".join(f"{what}_temp_path {folder};\n" for what in TEMPORARY),
        "/var/log/nginx/grpc.log": f"{folder}/access.log",
        "listen 443": f"listen 127.0.0.1:{port}",
        "/etc/nginx/shop.crt": f"{folder}/shop.pem",
        "/etc/nginx/shop.key": f"{folder}/shop.pem",
    }
    config = folder / "nginx.conf"
    config.write_text(configured("nginx.conf", {**changes, **own, **_servers(servers)}), "utf-8")
    command = ["nginx", "-p", str(folder), "-e", "stderr", "-c", str(config), "-g", "daemon off;"]
    with running(command, port, folder / "nginx.log"):
        yield f"127.0.0.1:{port}"


AS_ROOT = "user root;" if os.geteuid() == 0 else ""  # the workers of a master that is not root are its user's anyway
TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


@contextmanager
def haproxy(folder: Path, servers: list[str], changes: Changes, *, checked: bool = False) -> Iterator[str]:
    """Run haproxy in front of these servers; gives where it listens.

    checked: do the servers have a health service, for haproxy to ask?
    """
    port = free_port()
    certificate(folder)
    at = [server.replace("unix:", "unix@") for server in servers]
    own = {"bind :443": f"bind 127.0.0.1:{port}", "/etc/haproxy/shop.pem": f"{folder}/shop.pem"}
    if not checked:
        own |= {"default-server proto h2 check": "default-server proto h2 no-check"}
    config = folder / "haproxy.cfg"
    config.write_text(configured("haproxy.cfg", {**changes, **own, **_servers(at)}), "utf-8")
    with running(["haproxy", "-db", "-f", str(config)], port, folder / "haproxy.log"):
        yield f"127.0.0.1:{port}"


def _servers(servers: list[str]) -> Changes:
    """The addresses of the servers; without a second one, its line is left out."""
    one, *more = servers
    return {A: one, **({B: more[0]} if more else {f"server {B};": "", f"server b {B}": ""})}


@contextmanager
def running(command: list[str], port: int, log: Path) -> Iterator[None]:
    """Run a proxy that listens on this port; AssertionError with its log if it does not start."""
    with log.open("w") as output, subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT) as process:
        try:
            while not _listens(port):
                with suppress(subprocess.TimeoutExpired):
                    process.wait(0.01)
                    raise AssertionError(log.read_text())
            yield
        finally:
            process.terminate()


def _listens(port: int) -> bool:
    with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def certificate(folder: Path) -> None:
    """Key and certificate of localhost, in one file."""
    issued = tls.authority().issue_cert("localhost")
    (folder / "shop.pem").write_bytes(issued.private_key_and_cert_chain_pem.bytes())


@contextmanager
def channel(target: str, *options: tuple[str, object]) -> Iterator[grpc.Channel]:
    """A client's channel to a proxy. grpc's own retries are off."""
    given = [NAMED, ("grpc.enable_retries", 0), *options]
    with grpc.secure_channel(target, tls.channel_credentials(), given) as made:
        yield made


@contextmanager
def behind(proxy: Proxy, folder: Path, *servers: str, changes: Changes | None = None) -> Iterator[Stub]:
    """A client's stub of the echo service, through a proxy in front of these servers."""
    with proxy(folder, list(servers), changes or {}) as target, channel(target) as made:
        yield Stub(made)


def failure(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    """How a call fails: its code and details."""
    try:
        answered = call()
    except grpc.RpcError as error:
        return error.code(), error.details()
    raise AssertionError(f"no failure, but {answered!r}")
