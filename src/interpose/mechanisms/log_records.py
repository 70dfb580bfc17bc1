"""Log records that have most of their attributes in common, made by copying these: `logging` makes each from nothing.

    fields = {"grpc.method": "Get"}
    finished = Template(logger, logging.INFO, "finished call", ": %s in %s ms", ("grpc.method",), __file__, fields)
    finished.write({"grpc.time_ms": 1.5}, 1.5)  # "finished call: Get in 1.5 ms", and two fields

A record is an ordinary one: every handler, filter and formatter gets it as it would get one that `logging` made. Where the
application has a record factory, or a logger whose class makes records in a way of its own, that makes it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
from collections.abc import Mapping
from logging import LogRecord
from typing import Any

from interpose.mechanisms.json_lines import MACHINE_READABLE, STANDARD, Said

_make = LogRecord.__new__
_process = [object()]  # stands for this process: to ask for its id takes a system call


def _forked() -> None:
    _process[0] = object()


os.register_at_fork(after_in_child=_forked)


class Template:
    """Records of one logger that have level, message and some fields in common.

    message: for machines. text: what follows it for people, with `%s` for these fields, and for what `write` is given.
    path:    the file that logs. fields: those that all records have.
    """

    __slots__ = ("_attributes", "_fields", "_level", "_logger", "_message", "_path", "_process", "_shown", "_text")

    def __init__(
        self,
        logger: logging.Logger,
        level: int,
        message: str,
        text: str,
        shown: tuple[str, ...],
        path: str,
        fields: Mapping[str, Any],
    ) -> None:
        self._logger = logger
        self._level = level
        self._message = message
        self._text = message + text
        self._shown = tuple(map(fields.get, shown))
        self._path = path
        self._fields = dict(fields)
        self._process: object = None  # whose attributes are known
        self._attributes: dict[str, Any] = {}

    def write(self, fields: Mapping[str, Any], *shown: Any) -> None:
        """Write a record. fields: what it has more. shown: what its text has more."""
        record = self._copy(shown) or self._made(shown)
        record.__dict__.update(fields)
        self._logger.handle(record)

    def _copy(self, shown: tuple[Any, ...]) -> LogRecord | None:
        """A record made of what is known; None where `logging` has to make it."""
        if logging.getLogRecordFactory() is not LogRecord:
            return None
        if self._process is not _process[0] and not self._learn():
            return None
        record = _make(LogRecord)
        known = self._attributes
        attributes = record.__dict__ = known.copy()
        attributes["args"] = (*self._shown, *shown)
        attributes["created"] = now = time.time()
        attributes["msecs"] = int(now % 1 * 1000) + 0.0
        attributes["relativeCreated"] = known["relativeCreated"] + (now - known["created"]) * 1000
        attributes["levelname"] = logging.getLevelName(self._level)
        _say_where(attributes)
        return record

    def _learn(self) -> bool:
        """Note what a record has that `logging` makes; False where others add to it."""
        record = self._made(())
        attributes = record.__dict__
        if type(record) is not LogRecord or [*attributes] != [*STANDARD, *self._fields, MACHINE_READABLE]:
            return False
        attributes[MACHINE_READABLE] = Said(self._message, self._fields)
        attributes["thread"] = attributes["threadName"] = None  # of each record its own, if at all
        self._attributes = attributes
        self._process = _process[0]
        return True

    def _made(self, shown: tuple[Any, ...]) -> LogRecord:
        """A record as `logging` and the application make it."""
        # Not `log(…, extra=fields)`: it raises where the application's record factory sets a field of ours, and it searches
        # the stack for a caller, which here is always grpc.
        logger, shown = self._logger, (*self._shown, *shown)
        record = logger.makeRecord(logger.name, self._level, self._path, 0, self._text, shown, None)
        record.__dict__.update(self._fields)
        record.__dict__[MACHINE_READABLE] = self._message
        return record


def _say_where(attributes: dict[str, Any]) -> None:
    """Thread, task and process, as far as `logging` is to say them."""
    if logging.logThreads:
        thread = threading.current_thread()
        attributes["thread"] = thread.ident
        attributes["threadName"] = thread.name
    if logging.logMultiprocessing and (processes := sys.modules.get("multiprocessing")) is not None:
        attributes["processName"] = processes.current_process().name
    if getattr(logging, "logAsyncioTasks", False):  # since Python 3.12
        attributes["taskName"] = _task()


def _task() -> str | None:
    """The name of the task that runs here."""
    running = asyncio._get_running_loop() is not None  # without a loop, `current_task` raises, which takes long
    task = asyncio.current_task() if running else None
    return None if task is None else task.get_name()
