"""Arguments of a command that needs no extra: what is wrong with them is one line, and the exit status is 2."""

from __future__ import annotations

import argparse
from typing import NoReturn


class Arguments(argparse.ArgumentParser):
    """argparse's parser, which by itself says how to call it before it says what is wrong."""

    def error(self, message: str) -> NoReturn:
        """End the program with the line, and where to read more."""
        self.exit(2, f"{self.prog}: {message} ({self.prog} --help)\n")
