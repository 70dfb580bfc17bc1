"""Programs that begin with what they all import: each is a fork of one process that has imported it.

A fresh interpreter needs 0.2 s of CPU before it comes to a program's first line, and pages have a hundred of them.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[2]
LONGEST = 50  # whole seconds, as `alarm` takes them; a program that needs longer is ended

# None of these starts a thread or opens a channel when it is imported: that would not survive a fork.
IMPORTED = ("asyncio", "grpc.aio", "google.protobuf.message", "interpose.interceptors", "interpose.testing")


class Forks:
    """A process that has imported these, with every warning an error, and forks itself for each program."""

    def __init__(self) -> None:
        python = [sys.executable, "-W", "error", "-m", __name__]
        self._process = subprocess.Popen(python, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True)

    def run(self, source: str, path: Path, folder: Path) -> tuple[int, str]:
        """Run a program as if it stood in `path`, in this folder. Its exit status, and what it wrote to stderr."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        errors = folder / "stderr"
        program = {"source": source, "path": str(path), "folder": str(folder), "errors": str(errors)}
        self._process.stdin.write(f"{json.dumps(program)}\n")
        self._process.stdin.flush()
        status = int(self._process.stdout.readline())
        return status, errors.read_text("utf-8")

    def close(self) -> None:
        """End the process; its programs have ended."""
        self._process.communicate()


def _serve() -> dict[str, Any] | None:
    """Fork for each line that comes. In the fork: the program; None when no more come."""
    for line in sys.stdin:
        child = os.fork()
        if not child:
            program: dict[str, Any] = json.loads(line)
            return program
        sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
        sys.stdout.flush()
    return None


def _become(program: dict[str, Any]) -> None:
    """Be an interpreter that was started with this program: as `__main__`, in its folder, with nothing to read."""
    signal.alarm(LONGEST)
    os.chdir(program["folder"])
    sys.path[0] = program["folder"]
    for stream, path in ((0, os.devnull), (1, os.devnull), (2, program["errors"])):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC), stream)
    sys.modules["__main__"] = main = ModuleType("__main__")
    exec(compile(program["source"], program["path"], "exec"), vars(main))


if __name__ == "__main__":
    for module in IMPORTED:
        importlib.import_module(module)
    task = _serve()
    if task is not None:
        _become(task)
