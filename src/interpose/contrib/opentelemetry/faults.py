"""A tracer or meter that fails is no reason for an RPC to fail: it is said once, and the RPC goes on."""

from __future__ import annotations

import contextlib
import logging

_log = logging.getLogger("interpose")


class Faults:
    """Called while an exception is handled: says the first one in the log, with its traceback."""

    __slots__ = ("_owner", "_said")

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._said = False

    def __call__(self) -> None:
        if not self._said:
            self._said = True
            with contextlib.suppress(BaseException):  # the same exporter may be behind this logger, too
                _log.exception("%s failed; RPCs go on, and its later failures are not logged", self._owner)
