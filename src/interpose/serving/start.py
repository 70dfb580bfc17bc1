"""Serving, in this process or in several."""

from __future__ import annotations

from typing import Any

from interpose.serving.options import Options
from interpose.serving.run import prepare, run, site


def start(app: Any, stack: Any, options: Options) -> None:
    """Serve until a signal comes."""
    prepare(options)
    ready = site(app, options, stack)
    run(ready, ready.announce)
