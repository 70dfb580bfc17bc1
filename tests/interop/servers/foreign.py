"""Servers in other languages, for what calls them: the service of shop.proto on grpc-js and on grpc-go."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from tests.protos.compiled import protoc
from tests.support.needs import GO_SOURCES

HERE = Path(__file__).parent
SERVICE = "interpose.shop.Shop"
BUILDING = 600  # seconds: Go compiles all of grpc the first time


@contextmanager
def node() -> Iterator[str]:
    """A server on grpc-js; gives its target."""
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason="SOLD_OUT"))
    status = status_pb2.Status(code=5, message="no such order", details=[detail])
    details = base64.b64encode(status.SerializeToString()).decode()
    with running(["node", str(HERE / "server.js")], DETAILS=details) as target:
        yield target


def built(home: Path) -> Path:
    """The program of the server on grpc-go, compiled in this folder."""
    sources = home / "src"
    for folder, name in (("shop", "shop.proto"), ("server", "server.go")):
        (sources / folder).mkdir(parents=True)
        shutil.copy(HERE / name, sources / folder)
    protoc(f"-I{sources / 'shop'}", f"--go_out=plugins=grpc:{sources / 'shop'}", "shop.proto")  # by protoc-gen-go
    environment = {**os.environ, "GO111MODULE": "off", "GOPATH": f"{home}:{GO_SOURCES.parent}", "GOFLAGS": ""}
    program = home / "server"
    build = ["go", "build", "-o", str(program), "server"]
    subprocess.run(build, cwd=sources, env=environment, check=True, timeout=BUILDING)
    return program


@contextmanager
def go(program: Path) -> Iterator[str]:
    """A server on grpc-go; gives its target."""
    with running([str(program)]) as target:
        yield target


@contextmanager
def running(command: Sequence[str], **environment: str) -> Iterator[str]:
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}
    )
    with process:
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        assert port.isdigit(), "it did not start"
        try:
            yield f"127.0.0.1:{port}"
        finally:
            process.kill()
