"""Serving, in this process or in several."""

from __future__ import annotations

from typing import Any

from interpose.serving.options import Options
from interpose.serving.run import prepare, run, site


def start(app: Any, stack: Any, options: Options) -> int:
    """Serve until a signal comes; gives the exit status: not 0 if workers could not start."""
    prepare(options)
    if options.workers or options.reload:
        from interpose.serving.several import supervise  # a single server starts sooner without it

        return supervise(app, stack, options)
    served = site(app, options, stack)
    served.warn()
    run(served, served.announce)
    return 0
