"""One line in the log for each RPC, with the field names and levels of go-grpc-middleware."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from grpc import StatusCode

from interpose import context
from interpose._call import Call
from interpose._clock import SYSTEM, Clock
from interpose._flow import Flow
from interpose._method import Kind, Side
from interpose._outcome import Outcome
from interpose.errors import StatusError
from interpose.mechanisms.options import insist, is_clock
from interpose.mechanisms.text import one_line

LOGGER = "interpose.access"
MESSAGE = "finished call"

MAX_NAME = 256  # characters of a service, method or peer: far beyond any that is real
MAX_ERROR = 1024  # characters of the details of a failure

TYPES = {
    Kind.UNARY_UNARY: "unary",
    Kind.STREAM_UNARY: "client_stream",
    Kind.UNARY_STREAM: "server_stream",
    Kind.STREAM_STREAM: "bidi_stream",
}

# go-grpc-middleware, interceptors/logging: DefaultServerCodeToLevel and DefaultClientCodeToLevel
DEBUG, INFO, WARNING, ERROR = logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR
SERVER_LEVELS = {
    **dict.fromkeys(StatusCode, ERROR),  # UNKNOWN, UNIMPLEMENTED, INTERNAL, DATA_LOSS, and what is yet to come
    **dict.fromkeys(
        (
            StatusCode.OK,
            StatusCode.CANCELLED,
            StatusCode.NOT_FOUND,
            StatusCode.ALREADY_EXISTS,
            StatusCode.INVALID_ARGUMENT,
            StatusCode.UNAUTHENTICATED,
        ),
        INFO,
    ),
    **dict.fromkeys(
        (
            StatusCode.RESOURCE_EXHAUSTED,
            StatusCode.FAILED_PRECONDITION,
            StatusCode.ABORTED,
            StatusCode.OUT_OF_RANGE,
            StatusCode.DEADLINE_EXCEEDED,
            StatusCode.PERMISSION_DENIED,
            StatusCode.UNAVAILABLE,
        ),
        WARNING,
    ),
}
CLIENT_LEVELS = {
    **dict.fromkeys(StatusCode, INFO),  # UNAUTHENTICATED, DEADLINE_EXCEEDED, PERMISSION_DENIED, UNKNOWN
    **dict.fromkeys(
        (
            StatusCode.OK,
            StatusCode.CANCELLED,
            StatusCode.NOT_FOUND,
            StatusCode.ALREADY_EXISTS,
            StatusCode.INVALID_ARGUMENT,
            StatusCode.RESOURCE_EXHAUSTED,
            StatusCode.FAILED_PRECONDITION,
            StatusCode.ABORTED,
            StatusCode.OUT_OF_RANGE,
        ),
        DEBUG,
    ),
    **dict.fromkeys(
        (StatusCode.UNAVAILABLE, StatusCode.UNIMPLEMENTED, StatusCode.INTERNAL, StatusCode.DATA_LOSS), WARNING
    ),
}

_log = logging.getLogger("interpose")


class AccessLog:
    """Write one record for each RPC when it has ended, however it ended; for a stream that is its end.

    The message is "finished call". All else is in fields of the record (`extra`), named as go-grpc-middleware does:
    `protocol`, `grpc.component`, `grpc.service`, `grpc.method`, `grpc.method_type`, `grpc.start_time`,
    `grpc.request.deadline`, `peer.address`, `grpc.code`, `grpc.error`, `grpc.time_ms`; and `request_id` if there is
    one, `grpc.attempts` if there were several. The level depends on code and side: a NOT_FOUND is INFO on a server and
    DEBUG on a client. Messages and metadata of the RPC are never logged.

    Inside of `Retry` it writes one record per attempt, outside of it one per RPC.

    logger: `logging.getLogger("interpose.access")` unless given. Where it is off, an RPC pays for one question.
    clock:  how long an RPC took; the one that was given to the channel or server.
    wall:   seconds since 1970, for the fields that hold a date.
    """

    def __init__(
        self,
        logger: logging.Logger | None = None,
        *,
        clock: Clock = SYSTEM,
        wall: Callable[[], float] = time.time,
    ) -> None:
        logger = logging.getLogger(LOGGER) if logger is None else logger
        insist(
            "AccessLog",
            (isinstance(logger, logging.Logger), f"logger must be like logging.getLogger({LOGGER!r}), not {logger!r}"),
            (is_clock(clock), f"clock must have a method now(), not be {clock!r}"),
            (callable(wall), f"wall must be a function like time.time, not {wall!r}"),
        )
        self._logger = logger
        self._clock = clock
        self._wall = wall
        self._complained = False

    def __call__(self, call: Call) -> Flow:
        if not self._logger.isEnabledFor(ERROR):  # the highest level that is used
            yield call
            return
        # What a server knows of its client is asked for now: once the RPC has ended, it may be gone.
        started, deadline, peer, request_id = self._clock.now(), call.deadline, call.peer, context.request_id()
        outcome = yield call
        try:
            level = (SERVER_LEVELS if call.side is Side.SERVER else CLIENT_LEVELS)[outcome.code]
            if self._logger.isEnabledFor(level):
                fields = self._fields(call, outcome, started, deadline)
                if peer is not None:
                    fields["peer.address"] = one_line(peer, MAX_NAME)
                if (known := context.request_id() or request_id) is not None:
                    fields["request_id"] = known
                self._write(level, fields)
        except Exception:  # of a handler or filter of the logger: the RPC is not to blame
            self._complain()

    def _fields(self, call: Call, outcome: Outcome, started: float, deadline: float | None) -> dict[str, Any]:
        now, wall = self._clock.now(), self._wall()
        method = call.method
        fields = {
            "protocol": "grpc",
            "grpc.component": call.side.value,
            "grpc.service": one_line(method.service, MAX_NAME),
            "grpc.method": one_line(method.name, MAX_NAME),
            "grpc.method_type": TYPES[method.kind],
            "grpc.start_time": _date(wall - now + started),
            "grpc.code": outcome.code.name,
            "grpc.time_ms": round((now - started) * 1e3, 3),
        }
        if deadline is not None:
            fields["grpc.request.deadline"] = _date(wall - now + deadline)
        if not outcome.ok:
            fields["grpc.error"] = one_line(_reason(outcome), MAX_ERROR)
        if outcome.attempts > 1:
            fields["grpc.attempts"] = outcome.attempts
        return fields

    def _write(self, level: int, fields: dict[str, Any]) -> None:
        # Not `log(…, extra=fields)`: it raises where the application's record factory sets a `request_id` of its own,
        # and it searches the stack for a caller, which here is always grpc.
        logger = self._logger
        record = logger.makeRecord(logger.name, level, __file__, 0, MESSAGE, (), None)
        record.__dict__.update(fields)
        logger.handle(record)

    def _complain(self) -> None:
        if not self._complained:
            self._complained = True
            with contextlib.suppress(Exception):  # the same handler may stand behind this logger, too
                _log.exception("AccessLog could not write to %r; its later failures are not told", self._logger)


def _reason(outcome: Outcome) -> str:
    """Why it failed: the details; for a handler's own exception its class, as its text is not meant for this log."""
    error = outcome.error
    if outcome.details or error is None or isinstance(error, StatusError):
        return outcome.details
    return type(error).__name__


def _date(seconds: float) -> str:
    """A date as RFC 3339 has it, in UTC."""
    date = datetime.fromtimestamp(seconds, UTC)
    return f"{date.replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"
