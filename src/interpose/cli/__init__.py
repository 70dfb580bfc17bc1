"""The commands `interpose call`, `list`, `describe` and their like: what an operator asks of any gRPC server.

Each word is a file here with a `command`; what several share has a file of its own. They need the extra `cli`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from interpose.cli.exits import WRONG
from interpose.mechanisms.installed import is_installed

NEEDED = ("click", "rich", "google.protobuf", "google.rpc", "grpc_reflection", "grpc_health", "grpc_tools")


def main(word: str, arguments: Sequence[str]) -> int:
    """Run the command of this name; gives its exit status: docs/cli.md has them all."""
    if not all(map(is_installed, NEEDED)):
        print(f'interpose {word} needs packages more: pip install "interpose[cli]"', file=sys.stderr)  # noqa: T201
        return WRONG
    status: int = import_module("interpose.cli.running").run(word, arguments)
    return status
