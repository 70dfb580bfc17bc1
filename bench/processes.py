"""Fresh processes, and the core they share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


def command(module: str, *arguments: object) -> list[str]:
    """How to run a module of ours with this Python. Run it in `ROOT`, where `bench` is found."""
    return [sys.executable, "-m", module, *map(str, arguments)]


def printed_by(module: str, *arguments: object) -> Any:
    """What the module printed as JSON. A process each time: where memory happens to lie is part of the noise."""
    line = command(module, *arguments)
    done = subprocess.run(line, cwd=ROOT, check=True, stdout=subprocess.PIPE)  # noqa: S603 - our own
    return json.loads(done.stdout)


def can_pin() -> bool:
    """Whether the system lets us choose the core. Linux does."""
    return hasattr(os, "sched_setaffinity")


def pin() -> None:
    """Put this process, and those it starts, on the last core it may use."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
