"""A worker: a process of its own that serves on a shared port. Started with `python -m interpose.serving.worker`.

The supervisor writes one line of JSON to its standard input and leaves that open: its end means that the supervisor has
gone, and the worker drains. The worker writes one line of JSON to the file `ready` when it serves.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from io import FileIO

from interpose.serving.options import CannotServe, Options, refusal
from interpose.serving.run import prepare, run, site

_log = logging.getLogger("interpose")


def main(stdin: FileIO) -> int:
    """Serve as the supervisor asks; gives the exit status."""
    work = json.loads(stdin.readline())
    sys.path[:] = work["path"]
    work["options"]["options"] = [(name, value) for name, value in work["options"]["options"]]  # JSON has no pairs
    options = Options(**work["options"])
    try:
        prepare(options)
        served = site(work["app"], options, work["stack"], shared=options.uds is None)

        def ready() -> None:
            _log.debug("serving on %s", served.where)
            with open(work["ready"], "w", encoding="utf-8") as file:  # noqa: PTH123  a descriptor, not a path
                json.dump({"where": served.where, "what": served.what}, file)
            threading.Thread(target=_end_with, args=(stdin,), name="interpose-supervisor", daemon=True).start()

        run(served, ready)
    except CannotServe as error:
        print(refusal(error), file=sys.stderr)  # noqa: T201  it is a command
        return 2
    return 0


def _end_with(stdin: FileIO) -> None:
    """Drain when the supervisor has gone."""
    stdin.readall()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    # Without a buffer: a thread that waits for one keeps Python from ending.
    sys.exit(main(FileIO(0)))
