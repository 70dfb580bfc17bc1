"""Serving in this process: from the options to the end of the process."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from interpose._flow import Interceptor, check
from interpose.serving import env_file, logs
from interpose.serving.app import App, load
from interpose.serving.following import following, policy_of
from interpose.serving.loops import OnLoop
from interpose.serving.options import CannotServe, Options
from interpose.serving.site import Site
from interpose.serving.threads import Threads


def prepare(options: Options) -> None:
    """What comes before the application is imported: its environment, and the log."""
    if options.env_file is not None:
        env_file.load(options.env_file)
    logs.configure(options.log_level, options.log_config)


def site(app: Any, options: Options, stack: Any, *, shared: bool = False) -> Site:
    """All that is to be served, checked. app, stack: themselves, or their names, "module:attribute"."""
    given = load(app) if isinstance(app, str) else app
    checked = App(given, loop=options.loop, factory=options.factory)
    return Site(checked, options, interceptors(stack), policy_of(options), shared=shared)


def interceptors(stack: Any) -> Sequence[Interceptor]:
    """The interceptors that were given, or whose name was."""
    found: Any = load(stack) if isinstance(stack, str) else stack
    try:
        given: tuple[Any, ...] = (found,) if callable(found) else tuple(found)
        for interceptor in given:
            check(interceptor)
    except TypeError as error:
        raise CannotServe(f"the stack must be interceptors: {error}") from None
    return given


def run(site: Site, ready: Callable[[], None]) -> None:
    """Serve until a signal comes. Does not return if handlers are left behind that do not end."""
    host = OnLoop(site) if site.app.asyncio else Threads(site)
    with following(site.policy):
        ended = host.run(ready)
    if not ended:
        leave()


def leave() -> None:
    """End the process here and now: Python itself would wait for the threads of handlers that do not end."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
