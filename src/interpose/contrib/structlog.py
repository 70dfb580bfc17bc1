"""AccessLog through structlog. Needs the extra `structlog`."""

from __future__ import annotations

import logging
from typing import Any

try:
    import structlog
except ImportError as missing:
    raise ImportError('a log through structlog needs a package more: pip install "interpose[structlog]"') from missing

from interpose.interceptors.access_log import LOGGER

NAMES = {logging.DEBUG: "debug", logging.INFO: "info", logging.WARNING: "warning", logging.ERROR: "error"}


class Structlog:
    """Let `AccessLog` write events of structlog: `AccessLog(Structlog())`.

    The event is "finished call", the rest its key-value pairs, with the names and levels that the records would have.
    Processors, context variables and output are those that the application configured.

    logger: `structlog.get_logger("interpose.access")` unless given, bound to what you like. Not an async one: an event
        is written at once, or not at all.

    ValueError for what is no logger of structlog.
    """

    def __init__(self, logger: Any = None) -> None:
        logger = structlog.get_logger(LOGGER) if logger is None else logger
        if not callable(getattr(logger, "bind", None)):
            raise ValueError(f"Structlog: logger must be like structlog.get_logger(), not {logger!r}")
        self._logger = logger

    def isEnabledFor(self, level: int) -> bool:
        """Does the application's configuration let this level through? True if it does not say."""
        bound = self._logger.bind()
        # Asked of the class: structlog's generic logger takes any other name for a level, and would log the question.
        kind = type(bound)
        ask = getattr(kind, "is_enabled_for", None) or getattr(kind, "isEnabledFor", None)  # the latter before 25.1
        try:
            return ask is None or bool(ask(bound, level))
        except AttributeError:  # the standard library's logger was expected behind it, and is not there
            return True

    def write(self, level: int, message: str, fields: dict[str, Any]) -> None:
        """Write one event."""
        getattr(self._logger, NAMES[level])(message, **fields)

    def __repr__(self) -> str:
        return "<Structlog>"
