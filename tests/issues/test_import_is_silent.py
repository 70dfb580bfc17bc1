"""Importing the package and its testing kit says nothing, whatever the interpreter warns of."""

import os
import subprocess
import sys


def test_imports_are_silent() -> None:
    """Nothing on stderr with all warnings on (Python 3.13 tells of a step of an async generator that nobody awaited)."""
    ended = subprocess.run(
        [
            sys.executable,
            "-X",
            "dev",
            "-W",
            "always",
            "-c",
            "import interpose, interpose.testing, interpose.interceptors",
        ],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )

    assert (ended.returncode, ended.stderr) == (0, "")
