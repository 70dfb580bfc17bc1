"""Readiness: what the health service says follows checks of the application's, and does not flap.

A check is asked every second. The service is NOT_SERVING after three looks in a row that failed, and SERVING again after
three that passed: so it changes at most once in three seconds, however a check wavers, and clients hear of changes
only (grpc's sync health service sends every `set`, also one that changes nothing).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

from interpose._flow import name_of

_log = logging.getLogger("interpose")

EVERY = 1.0  # seconds between two looks
IN_A_ROW = 3  # looks of another opinion that change what is said; Kubernetes' failureThreshold
CHECK_TIMEOUT = 5.0  # seconds; a check that takes longer has failed: what hangs is not ready


class Readiness:
    """Looks whether all checks pass. call: asks one, wherever it has to run. tell: called at each change."""

    def __init__(
        self,
        checks: Sequence[Any],
        call: Callable[[Callable[[], Any]], Any],
        tell: Callable[[bool], object],
        patience: float = CHECK_TIMEOUT,
    ) -> None:
        self._checks = [(name_of(check), following(check)) for check in checks]
        self._call = call
        self._tell = tell
        self._patience = patience
        self._asked: dict[Any, threading.Thread] = {}  # those that have not answered yet
        self._ready: bool | None = None  # what was reported
        self._others = 0  # looks in a row of another opinion

    def look(self) -> None:
        """Ask every check; report it if that changes something. The first look counts at once."""
        failed = [name for name, check in self._checks if not self._passes(name, check)]
        ready = not failed
        self._others = 0 if ready is self._ready else self._others + 1
        if self._ready is None or self._others >= IN_A_ROW:
            self._ready, self._others = ready, 0
            _log.log(*_said(failed))
            self._tell(ready)

    def run(self, over: threading.Event) -> None:
        """Look again and again, until it is over."""
        while not over.wait(EVERY):
            self.look()

    def _passes(self, name: str, check: Callable[[], Any]) -> bool:
        """Ask a check, on a thread of its own: it may hang, and is not asked again before it has answered."""
        before = self._asked.get(check)
        if before is not None and before.is_alive():
            return False
        answers: list[Any] = []

        def ask() -> None:
            try:
                answers.append(self._call(check))
            except Exception:
                _log.debug("the check %s has failed", name, exc_info=True)

        self._asked[check] = thread = threading.Thread(target=ask, name=f"interpose-check-{name}", daemon=True)
        thread.start()
        thread.join(self._patience)
        return bool(answers and answers[0])


def following(check: Any) -> Callable[[], Any]:
    """The check as a function. A ConcurrencyLimit passes unless it is full and has refused calls since the last look."""
    if not hasattr(check, "snapshot"):
        function: Callable[[], Any] = check
        return function
    refused = check.snapshot().shed

    def has_room() -> bool:
        nonlocal refused
        state, before = check.snapshot(), refused
        refused = state.shed
        return bool(state.shed == before or state.in_flight < state.limit)

    return has_room


def _said(failed: list[str]) -> tuple[int, str]:
    """Level and text for the log."""
    if failed:
        return logging.WARNING, f"not ready, by {', '.join(failed)}"
    return logging.INFO, "ready"
