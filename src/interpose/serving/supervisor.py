"""Several workers behind one port: started, watched, started anew when they die, and replaced one after the other."""

from __future__ import annotations

import logging
import signal
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any, Protocol, TypeAlias

from interpose.serving.signals import renewing, stop_signals

_log = logging.getLogger("interpose")

STOP, RENEW, READY, ENDED = "stop", "renew", "ready", "ended"
LISTEN = 1.0  # seconds; a signal that the system gives to another thread is noticed after so long at most
QUICK = 10.0  # seconds; a worker that dies sooner is likely to do so again
# Seconds before a worker that died so quickly is started anew; doubled each time.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0


class Worker(Protocol):
    """A process that serves. It puts (READY, itself) into the notes when it does, and (ENDED, itself) at its end."""

    pid: int
    status: int | None  # its exit status, once it has ended; negative: the signal that killed it
    line: dict[str, str]  # what it said of itself when it was ready

    def signal(self, number: int) -> None:
        """Send it a signal, if it runs."""


Note: TypeAlias = tuple[str, Any]
Notes: TypeAlias = "SimpleQueue[Note]"


class Supervisor:
    """Keeps `count` workers running until a signal comes. spawn: starts one. ended: called with each that has ended.

    renews: SIGHUP replaces the workers; without it, it stops them, as a terminal that is closed means.

    It is its main thread alone that acts; signal handlers and the threads that watch workers leave it a note.
    """

    def __init__(
        self,
        spawn: Callable[[Notes], Worker],
        count: int,
        ended: Callable[[int], object] = lambda _: None,
        clock: Callable[[], float] = monotonic,
        *,
        renews: bool = True,
    ) -> None:
        self.notes: Notes = SimpleQueue()
        self._spawn = spawn
        self._count = count
        self._ended = ended
        self._clock = clock
        self._renews = renews
        self._born: dict[Worker, float] = {}  # all that run
        self._ready: set[Worker] = set()
        self._due: list[float] = []  # when those are to be started that died
        self._quick = 0  # deaths in a row that came soon
        self._old: deque[Worker] = deque()  # still to be replaced
        self._successor: Worker | None = None  # has been started in the place of the first of the old ones
        self._leaving: Worker | None = None  # the old one that drains
        self._again = False  # replace all once more when this is done

    def run(self, announce: Callable[[list[Worker]], object]) -> int:
        """Serve; gives the exit status: 0 after a signal, that of a worker that could not start."""
        tell = {STOP: lambda: self.notes.put((STOP, None)), RENEW: lambda: self.notes.put((RENEW, None))}
        renewed = renewing(tell[RENEW]) if self._renews else nullcontext()
        with renewed, stop_signals(tell[STOP]):
            failed = self._start()
            if failed is None:
                announce(list(self._born))
                self._watch()
            self._stop()
        return failed or 0

    def _start(self) -> int | None:
        """Start the first worker, and when it serves the others; gives the status of one that fails."""
        for wanted in (1, self._count):
            while len(self._born) < wanted:
                self._begin()
            while len(self._ready) < wanted:
                what, worker = self._next(None)
                if what == STOP:
                    return 0
                if what == READY:
                    self._ready.add(worker)
                if what == ENDED:
                    self._forget(worker)
                    return _status(worker)
        return None

    def _watch(self) -> None:
        """Until the signal to stop."""
        while (note := self._next(self._pause())) != (STOP, None):
            self.act(note)

    def act(self, note: Note | None) -> None:
        """Do what a note asks for, and what is due."""
        match note:
            case (what, _) if what == RENEW:
                self._renew()
            case (what, worker) if what == READY:
                self._is_ready(worker)
            case (what, worker) if what == ENDED:
                self._has_ended(worker)
            case _:
                pass
        self._start_due()

    def _begin(self) -> Worker:
        worker = self._spawn(self.notes)
        self._born[worker] = self._clock()
        return worker

    def _forget(self, worker: Worker) -> float:
        """It has ended; gives how long it has lived."""
        self._ready.discard(worker)
        self._ended(worker.pid)
        return self._clock() - self._born.pop(worker)

    # - workers that die -

    def _has_ended(self, worker: Worker) -> None:
        lived = self._forget(worker)
        if worker is self._leaving:
            self._leaving = None
            self._replace()
        elif worker is self._successor:
            _log.error("worker %d could not start (%s): the others serve on as they are", worker.pid, _how(worker))
            self._successor, self._again = None, False
            self._old.clear()
        else:
            if worker in self._old:
                self._old.remove(worker)
            self._revive(worker, lived)

    def _revive(self, worker: Worker, lived: float) -> None:
        """Have another one started in its place: at once, or after a pause if that would be in vain."""
        self._quick = 0 if lived >= QUICK else self._quick + 1
        pause = 0.0 if self._quick <= 1 else min(FIRST_PAUSE * 2 ** (self._quick - 2), LONGEST_PAUSE)
        _log.error("worker %d has ended (%s); another one starts in %.1f s", worker.pid, _how(worker), pause)
        self._due.append(self._clock() + pause)

    def _start_due(self) -> None:
        now = self._clock()
        for _ in [when for when in self._due if when <= now]:
            self._begin()
        self._due = [when for when in self._due if when > now]

    def _pause(self) -> float | None:
        """Seconds until something is due; None if nothing is."""
        return max(min(self._due) - self._clock(), 0.0) if self._due else None

    # - workers that are replaced -

    def _renew(self) -> None:
        """Replace all workers, one after the other: the new one serves before the old one drains."""
        if self._old or self._successor or self._leaving:
            self._again = True
            return
        _log.info("replacing %d workers, one after the other", len(self._born))
        self._old = deque(self._born)
        self._replace()

    def _replace(self) -> None:
        if self._old:
            self._successor = self._begin()
        elif self._again:
            self._again = False
            self._renew()
        else:
            _log.info("replaced; workers are %s", ", ".join(str(worker.pid) for worker in self._born))

    def _is_ready(self, worker: Worker) -> None:
        self._ready.add(worker)
        if worker is self._successor:
            self._successor = None
            if self._old:
                self._leaving = self._old.popleft()
                self._leaving.signal(signal.SIGTERM)
            else:  # the one that it was to replace has died meanwhile
                self._replace()

    # - the end -

    def _stop(self) -> None:
        """Let all drain; another signal is passed on, and shortens it."""
        self._tell(worker for worker in self._born if worker is not self._leaving)  # which has the signal already
        while self._born:
            what, worker = self._next(None)
            if what == STOP:
                self._tell(self._born)
            elif what == ENDED:
                self._forget(worker)

    def _tell(self, workers: Iterable[Worker]) -> None:
        for worker in workers:
            worker.signal(signal.SIGTERM)

    def _next(self, seconds: float | None) -> Note:
        """The next note; (None, None) if none comes in time."""
        until = None if seconds is None else self._clock() + seconds
        while True:
            left = LISTEN if until is None else min(LISTEN, max(until - self._clock(), 0.0))
            try:
                return self.notes.get(timeout=left)
            except Empty:
                if until is not None and self._clock() >= until:
                    return "", None


def _status(worker: Worker) -> int:
    """The exit status that stands for that of a worker that should not have ended; as a shell's, if it was killed."""
    status = worker.status or 1
    return status if status > 0 else 128 - status


def _how(worker: Worker) -> str:
    """How a worker has ended, in words."""
    status = worker.status or 0
    if status >= 0:
        return f"status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"
