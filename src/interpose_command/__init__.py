"""The command `interpose`, as it is installed.

A package of its own: importing Interpose imports grpc, and grpc's core reads only then how much it is to say.
"""

from __future__ import annotations

import os
import sys


def main() -> int:
    """Run the command; gives its exit status."""
    if sys.argv[1:2] != ["serve"]:  # its log is for those who run it
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what goes wrong is one line, and ours
    from interpose.__main__ import main as run  # noqa: PLC0415  after that

    return run()
