"""Types from `.proto` files, compiled in memory by protoc's own code, which grpcio-tools brings."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from interpose.cli.failures import Refused

MINUTE = 60  # seconds: for a compiler that takes milliseconds


def compiled(files: Sequence[str], paths: Sequence[Path]) -> tuple[Any, list[str]]:
    """A pool with all that these files define and import, and the names of their services.

    paths: where files and imports are looked for; by default where each file is.
    Refused with protoc's own words if they cannot be read.
    """
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "made"
        _protoc([f"--descriptor_set_out={made}", "--include_imports", *_includes(files, paths), *files])
        described = FileDescriptorSet.FromString(made.read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in described.file:  # imports come first
        pool.AddSerializedFile(file.SerializeToString())
    names = [f"{file.package}.{service.name}".removeprefix(".") for file in described.file for service in file.service]
    return pool, sorted(names)


def _includes(files: Sequence[str], paths: Sequence[Path]) -> list[str]:
    known = resources.files("grpc_tools") / "_proto"  # google/protobuf/*.proto
    folders = paths or dict.fromkeys(Path(file).parent for file in files)
    return [f"-I{folder}" for folder in (*folders, known)]


def _protoc(arguments: Sequence[str]) -> None:
    """Run protoc in a process of its own: it writes what is wrong to the standard error of its process."""
    done = subprocess.run(  # noqa: S603  our own interpreter; what was given are names of files
        [sys.executable, "-m", "grpc_tools.protoc", *arguments],
        capture_output=True, text=True, timeout=MINUTE, check=False,
    )  # fmt: skip
    if done.returncode:
        said = "; ".join(line for line in done.stderr.splitlines() if line.strip())
        raise Refused(f"the protos cannot be read: {said or 'protoc says nothing'}")
