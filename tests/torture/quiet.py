"""What a long run says: silence about thousands of planned failures, and a few lines about each defect."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Iterator, Sequence
from concurrent import futures
from contextlib import contextmanager

SHOWN = 10  # defects of one part that are told in full


def tell(what: str, defects: Sequence[str]) -> None:
    """Write the first defects of a part to the standard error."""
    for defect in defects[:SHOWN]:
        sys.stderr.write(f"{what}: {defect}\n")
    if len(defects) > SHOWN:
        sys.stderr.write(f"{what}: and {len(defects) - SHOWN} more\n")


class Planned(Exception):
    """What a handler raises because it was planned: it may be logged."""


class Complaints(logging.Handler):
    """What the library and asyncio said: each line is a defect, but for what handlers raise by plan."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        error = record.exc_info[1] if record.exc_info else None
        # Cancelled: grpc.aio's own threads of plain generators whose client left, which the field lets go (see there).
        if not isinstance(error, (Planned, asyncio.CancelledError, futures.CancelledError)):
            self.lines.append(f"{record.name}: {text} ({error!r})")


@contextmanager
def quiet() -> Iterator[Complaints]:
    """Nothing of grpc's is logged: the exceptions of handlers are planned. Gives what others complain of."""
    grpc, listened = logging.getLogger("grpc"), [logging.getLogger(name) for name in ("interpose", "asyncio")]
    level, complaints = grpc.level, Complaints()
    grpc.setLevel(logging.CRITICAL + 1)
    for logger in listened:
        logger.addHandler(complaints)
        logger.propagate = False
    try:
        yield complaints
    finally:
        grpc.setLevel(level)
        for logger in listened:
            logger.removeHandler(complaints)
            logger.propagate = True
