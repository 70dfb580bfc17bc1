"""The access log: kept while the demo runs, and an excerpt of it that is worth reading."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Line:
    """One RPC in the access log."""

    time: float
    place: str
    request_id: str
    method: str
    code: str
    milliseconds: float

    def __str__(self) -> str:
        clock = f"{time.strftime('%H:%M:%S', time.localtime(self.time))}.{int(self.time % 1 * 1000):03}"
        method = self.method.rpartition(".")[2]
        end = f"{self.code:<11} {self.milliseconds:6.1f}"
        return f"{clock} {self.place:<14}  {self.request_id:<20}  {method:<29}  {end}"

    def as_json(self) -> dict[str, object]:
        """The line as fields."""
        return asdict(self)


class LogBook(logging.Handler):
    """Keeps the records of `AccessLog`; `logger` gives a logger whose records end here and nowhere else."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[Line] = []

    def logger(self, place: str) -> logging.Logger:
        """A logger for one place, such as "asyncio server"."""
        # Not getLogger: that would keep it, and this handler with it, when the demo has ended.
        logger = logging.Logger(place, logging.DEBUG)  # noqa: LOG001
        logger.addHandler(self)
        return logger

    def emit(self, record: logging.LogRecord) -> None:
        fields = record.__dict__
        self.lines.append(
            Line(
                time=record.created,
                place=record.name,
                request_id=str(fields.get("request_id")),
                method=f"{fields.get('grpc.service')}/{fields.get('grpc.method')}",
                code=str(fields.get("grpc.code")),
                milliseconds=float(fields.get("grpc.time_ms", 0.0)),
            )
        )

    def excerpt(self, request_ids: Iterable[str]) -> list[Line]:
        """The lines of these requests, each request's together, as they were written."""
        of_request: dict[str, list[Line]] = defaultdict(list)
        for line in self.lines:
            of_request[line.request_id].append(line)
        return [line for request_id in request_ids for line in of_request[request_id]]
