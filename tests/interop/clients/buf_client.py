"""A client on `buf curl`, a process for each call. Each line of its input is a job, each of its output says how one ended."""

from __future__ import annotations

import base64
import json
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import run
from tempfile import TemporaryDirectory
from typing import Any

from google.protobuf import any_pb2
from google.rpc.status_pb2 import Status

SCHEMA = Path(__file__).parents[1] / "peer.proto"
BUF = Path(sys.executable).parent / "buf"
CODES = {"canceled": "CANCELLED"}  # all others are gRPC's, in small letters
AT_ONCE = 4  # processes
printing = threading.Lock()


def perform(target: str, job: Any) -> None:
    headers = [f"--header={key}: {value}" for key, value in job.get("metadata", {}).items()]
    limit = [f"--timeout={job['timeout']}s"] if job.get("timeout") else []
    url = f"http://{target}/interop.v1.Peer/{job['method']}"
    command = [
        BUF,
        "curl",
        "--http2-prior-knowledge",
        "--protocol=grpc",
        f"--schema={SCHEMA}",
        *headers,
        *limit,
        "-d@-",
        url,
    ]
    done = run(command, input=json.dumps(job["text"]), capture_output=True, text=True, check=False, cwd=SCHEMA.parent)
    ending: dict[str, Any] = {"id": job["id"], "code": "OK", "details": "", "word": None}
    ending["messages"] = [json.loads(line)[:40] for line in done.stdout.splitlines()]
    if done.returncode:
        ending.update(failure(done.stderr))
    with printing:
        print(json.dumps(ending), flush=True)  # noqa: T201  a program


def failure(text: str) -> dict[str, Any]:
    """What it says of a call that fails: an object with code, message and details; or of itself, a line."""
    try:
        error = json.loads(text)
    except ValueError:
        return {"code": "no status", "details": text.strip()}
    code = CODES.get(error["code"], error["code"].upper())
    rich = Status()
    for one in error.get("details", ()):
        value = base64.b64decode(one["value"] + "=" * (-len(one["value"]) % 4))
        rich.details.append(any_pb2.Any(type_url=f"type.googleapis.com/{one['type']}", value=value))
    return {"code": code, "details": error.get("message"), "rich": base64.b64encode(rich.SerializeToString()).decode()}


if __name__ == "__main__":
    with TemporaryDirectory() as home, ThreadPoolExecutor(AT_ONCE) as pool:
        os.environ["HOME"] = os.environ["BUF_CACHE_DIR"] = home  # it finds nobody's settings
        for line in sys.stdin:
            pool.submit(perform, sys.argv[1], json.loads(line))
