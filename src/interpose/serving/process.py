"""A worker as its supervisor sees it: a process, and what it has said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

from interpose.serving.options import Options
from interpose.serving.supervisor import ENDED, READY, Notes


class Process:
    """A process that runs interpose.serving.worker. A thread watches it, and leaves notes for the supervisor."""

    def __init__(self, app: str, stack: Any, options: Options, environment: Mapping[str, str], notes: Notes) -> None:
        self.status: int | None = None
        self.line: dict[str, str] = {}
        self._notes = notes
        reading, writing = os.pipe()
        plain = asdict(replace(options, workers=None, reload=False, reload_dirs=()))
        work = {"app": app, "stack": stack, "options": plain, "path": sys.path, "ready": writing}
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "interpose.serving.worker"],
                stdin=subprocess.PIPE,
                pass_fds=[writing],
                env={**os.environ, **environment},
                process_group=0,  # Ctrl-C in a terminal is for the supervisor alone, which passes it on
            )
        finally:
            os.close(writing)
        self.pid = self._process.pid
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended already, which is noticed
            self._process.stdin.write(json.dumps(work).encode() + b"\n")
            self._process.stdin.flush()
        thread = threading.Thread(target=self._watch, args=(reading,), name=f"interpose-worker-{self.pid}", daemon=True)
        thread.start()

    def _watch(self, reading: int) -> None:
        with open(reading, encoding="utf-8") as ready:
            if line := ready.readline():
                self.line = json.loads(line)
                self._notes.put((READY, self))
        self.status = self._process.wait()
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._notes.put((ENDED, self))

    def signal(self, number: int) -> None:
        """Send it a signal, if it runs."""
        self._process.send_signal(number)
