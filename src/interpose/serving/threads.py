"""A sync server that runs: `grpc.server` on a pool of threads."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from queue import Empty, SimpleQueue
from time import monotonic

import grpc

from interpose.mechanisms.text import counted
from interpose.serving import standard
from interpose.serving.drain import NO_NEW_CALLS, drain, play
from interpose.serving.ending import end
from interpose.serving.options import CLEAN_UP
from interpose.serving.signals import stop_signals
from interpose.serving.site import Opened, Site

_log = logging.getLogger("interpose")

SIGNAL, STOPPED, BROKEN = "signal", "stopped", "broken"
LISTEN = 1.0  # seconds; a signal that the system gives to another thread is noticed by this one after so long at most
GLANCE = 0.01  # seconds between two looks at handlers that outlive their RPCs


class Threads:
    """A sync server from its start to its end. It is its main thread alone that acts; others leave it a note."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._notes: SimpleQueue[str] = SimpleQueue()  # the one queue that a signal handler may put something in
        self._opened: Opened
        self._native: grpc.Server
        self._life = ExitStack()  # of the application: what it opened is closed at the end
        self._refuses = False  # has its stop been called?

    def run(self, ready: Callable[[], None]) -> bool:
        """Serve until a signal comes, and drain. False if handlers are left whose RPCs were ended, in threads."""
        options = self._site.options
        with stop_signals(self.signal), self._life:
            self._start()
            ready()
            if self._first() == BROKEN:
                raise RuntimeError("the server has ended by itself: grpc's log says why")
            _log.info("stopping: %s under way", counted(len(self._site.running), "call"))
            play(drain(self, options.drain_delay, options.timeout_graceful_shutdown))
        _log.info("stopped")
        return not self._site.running

    def signal(self) -> None:
        """Stop, or hurry."""
        self._notes.put(SIGNAL)

    def _start(self) -> None:
        site = self._site
        pool = ThreadPoolExecutor(site.options.pool_size, "interpose-serve")
        self._native = site.app.given if site.app.ready else grpc.server(pool, options=site.channel_options)
        self._life.callback(pool.shutdown, wait=False)
        self._opened = site.open(self._native)
        self._life.callback(self._opened.close)
        self._life.enter_context(site.app.on(self._opened.app))
        self._opened.add_standard()
        self._set_health(True)
        self._life.callback(site.readiness(lambda check: check(), self._set_health))
        site.bind(self._native)
        self._life.callback(site.address.close)
        self._native.start()
        site.address.published()
        threading.Thread(target=self._watch, name="interpose-watch", daemon=True).start()

    def _set_health(self, serving: bool) -> None:
        for service in self._opened.healthy:
            self._site.health.set(service, standard.status(serving))

    def _watch(self) -> None:
        self._native.wait_for_termination()
        self._notes.put(STOPPED if self._refuses else BROKEN)

    def _first(self) -> str:
        while (note := self._noted(LISTEN)) is None:
            pass
        return note

    def _noted(self, seconds: float) -> str | None:
        """Wait for a note, for so long at most."""
        try:
            return self._notes.get(timeout=seconds)
        except Empty:
            return None

    # - the steps of the drain -

    def not_serving(self) -> None:
        if self._site.health is not None:
            self._site.health.enter_graceful_shutdown()
            self._opened.flush(CLEAN_UP)  # before those who watch it are ended

    def pause(self, seconds: float) -> bool:
        return seconds > 0 and self._noted(seconds) == SIGNAL

    def refuse(self) -> None:
        # Longer than we will take: grpc itself must not cut a call off before we have ended it.
        self._refuses = True
        self._native.stop(self._site.options.timeout_graceful_shutdown + 2 * CLEAN_UP)
        _log.info(NO_NEW_CALLS)
        for context in list(self._site.ours):
            end(context)

    def finished(self, seconds: float) -> bool:
        return self._noted(seconds) == STOPPED

    def end(self) -> None:
        self._opened.stopping()
        cut = [context for context in list(self._site.running) if end(context)]
        if cut:
            _log.warning("ended %s, still running", counted(len(cut), "call"))

    def left(self, seconds: float) -> None:
        until = monotonic() + seconds
        while self._site.running and monotonic() < until and self._noted(GLANCE) != SIGNAL:
            pass
        if self._site.running:
            _log.warning("left %s behind, still running", counted(len(self._site.running), "handler"))

    def stop(self) -> None:
        self._native.stop(0).wait(CLEAN_UP)

    def clean_up(self) -> None:
        self._life.close()
