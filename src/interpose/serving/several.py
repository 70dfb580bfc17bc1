"""Serving in processes of their own: several that share a port, or one that is replaced when a file changes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from interpose.serving.address import Reserved, Unix
from interpose.serving.changes import watch
from interpose.serving.metrics import SharedMetrics
from interpose.serving.options import CannotServe, Options
from interpose.serving.process import Process
from interpose.serving.supervisor import RENEW, Notes, Supervisor, Worker

_log = logging.getLogger("interpose")


def supervise(app: Any, stack: Any, options: Options) -> int:
    """Have workers serve until a signal comes; gives the exit status: not 0 if they could not start."""
    if not (isinstance(app, str) and (isinstance(stack, str) or not stack) and _all_names(options.ready)):
        raise CannotServe(
            "workers and reload need names, since each process imports the application for itself: "
            'app="shop.server:app", stack="shop.server:stack"'
        )
    gone = [folder for folder in options.reload_dirs if not Path(folder).exists()]
    if gone:
        raise CannotServe(f"there is no folder {' and no folder '.join(gone)}, which reload_dirs names")
    with ExitStack() as life:
        shared = _kept(options, life)
        metrics = SharedMetrics()
        life.callback(metrics.close)

        def spawn(notes: Notes) -> Worker:
            return Process(app, stack, shared, metrics.environment, notes)

        supervisor = Supervisor(spawn, options.workers or 1, metrics.dead, renews=not options.reload)
        if options.reload:
            life.enter_context(_reloading(options, supervisor))
        return supervisor.run(_announce)


def _all_names(checks: Sequence[Any]) -> bool:
    return all(isinstance(check, str) for check in checks)


def _kept(options: Options, life: ExitStack) -> Options:
    """The options of the workers, with a port that is kept for them."""
    if options.uds is not None:
        Unix(options.uds)  # can it be there?
        return options
    reserved = Reserved(options.host, options.port)
    life.callback(reserved.close)
    return replace(options, port=reserved.port)


def _announce(workers: list[Worker]) -> None:
    line, count = workers[0].line, len(workers)
    pids = ", ".join(str(worker.pid) for worker in workers)
    _log.info(
        "serving on %s, %d worker%s, %s, pids %s", line["where"], count, "s" if count > 1 else "", line["what"], pids
    )


@contextmanager
def _reloading(options: Options, supervisor: Supervisor) -> Generator[None]:
    over = threading.Event()

    def tell(changed: list[str]) -> None:
        _log.info("%s changed: starting anew", ", ".join(changed[:3]) + (" and more" if len(changed) > 3 else ""))
        supervisor.notes.put((RENEW, None))

    thread = threading.Thread(target=watch, args=(options.watched, tell, over), name="interpose-reload", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
