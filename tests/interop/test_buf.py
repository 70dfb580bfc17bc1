"""A foreign client: `buf curl` (Go, connect's implementation of gRPC) calls our servers and reads their errors."""

import base64
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.rpc import error_details_pb2

from interpose import Kind, errors
from interpose.interceptors import ExceptionToStatus
from tests.interop.calling import KINDS, NAMES, SERVICE, STACKS, pass_on
from tests.interop.serving import serving

BUF = shutil.which("buf", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
SCHEMA = Path(__file__).with_name("peer.proto")

pytestmark = pytest.mark.skipif(BUF is None, reason="buf is not installed: it comes with the package buf-bin")

BAD = error_details_pb2.BadRequest(field_violations=[{"field": "title", "description": "is empty"}])
RETRY = error_details_pb2.RetryInfo(retry_delay={"seconds": 3})


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """An environment in which it finds nobody's settings, and writes nowhere else."""
    folder = str(tmp_path)
    return {"HOME": folder, "BUF_CACHE_DIR": folder, "XDG_CACHE_HOME": folder, "PATH": os.environ.get("PATH", "")}


def curl(target: str, kind: Kind, home: dict[str, str]) -> dict[str, Any]:
    """What it says of a call that fails: an object with code, message and details."""
    assert BUF is not None
    command = [BUF, "curl", "--http2-prior-knowledge", "--protocol", "grpc", "--schema", str(SCHEMA), "-d", '"hello"']
    done = subprocess.run(
        [*command, f"http://{target}/{SERVICE}/{NAMES[kind]}"],
        capture_output=True,
        cwd=SCHEMA.parent,
        env=home,
        timeout=50,
        check=False,
    )
    assert done.returncode != 0, done.stdout.decode()
    told: dict[str, Any] = json.loads(done.stderr)
    return told


def opened(detail: dict[str, Any]) -> Any:
    """One of the details, as the message that it is."""
    kind = getattr(error_details_pb2, detail["type"].removeprefix("google.rpc."))
    value = detail["value"]
    return kind.FromString(base64.b64decode(value + "=" * (-len(value) % 4)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stack", STACKS)
def test_a_rich_error(stack: str, kind: Kind, home: dict[str, str]) -> None:
    """Code, text and messages arrive, whatever the kind of RPC."""

    def refuse(context: Any) -> None:
        raise errors.InvalidArgument("no title: \0 größer 😀", BAD, RETRY)

    with serving(stack, refuse, pass_on) as target:
        told = curl(target, kind, home)

    assert told["code"] == "invalid_argument"
    assert told["message"] == "no title: \0 größer 😀"
    assert [opened(detail) for detail in told["details"]] == [BAD, RETRY]


@pytest.mark.parametrize("stack", STACKS)
def test_a_large_error(stack: str, home: dict[str, str]) -> None:
    """What is left out for the sake of the status leaves the rest as it was."""

    def refuse(context: Any) -> None:
        raise errors.Internal("größer " * 3000, error_details_pb2.DebugInfo(detail="x" * 20_000), RETRY)

    with serving(stack, refuse, pass_on) as target:
        told = curl(target, Kind.UNARY_UNARY, home)

    assert told["code"] == "internal"
    assert told["message"].startswith("größer ") and told["message"].endswith(" bytes)")
    assert [opened(detail) for detail in told["details"]] == [RETRY]


@pytest.mark.parametrize("stack", STACKS)
def test_a_bug(stack: str, home: dict[str, str]) -> None:
    """It is told an id, and nothing of the text."""

    def fail(context: Any) -> None:
        raise RuntimeError("password is hunter2")

    with serving(stack, fail, ExceptionToStatus()) as target:
        told = curl(target, Kind.UNARY_UNARY, home)

    assert told["code"] == "internal"
    assert told["message"].startswith("internal error, id ")
    assert "hunter2" not in str(told)
