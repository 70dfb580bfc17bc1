"""One line in the log for each RPC, with the field names and levels of go-grpc-middleware."""

from __future__ import annotations

import contextlib
import logging
import random as chance
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeAlias

from grpc import StatusCode

from interpose import context
from interpose._call import Call
from interpose._flow import Fitted, Flow
from interpose._metadata import Metadata
from interpose._method import SERVER, Kind, Method, Side
from interpose._outcome import OK, Outcome
from interpose.errors import StatusError
from interpose.mechanisms.json_lines import JsonFormatter, JsonLines, members_of, rfc3339, text_of
from interpose.mechanisms.log_records import Template
from interpose.mechanisms.lru import Registry
from interpose.mechanisms.options import FLAG, check_options, is_flag, is_number, must_be, option, optional
from interpose.mechanisms.redaction import Redactor, type_and_size
from interpose.mechanisms.text import one_line

__all__ = ["AccessLog", "JsonFormatter", "JsonLines", "Redactor", "Sink"]

LOGGER = "interpose.access"

# go-grpc-middleware, interceptors/logging: the messages of its reporter
STARTED, FINISHED = "started call", "finished call"
REQUEST = {Side.SERVER: "request received", Side.CLIENT: "request sent"}
RESPONSE = {Side.SERVER: "response sent", Side.CLIENT: "response received"}

SUBJECT = "auth.sub"  # go-grpc-middleware's examples of auth have this name for it

MAX_METHODS = 1024  # made ready for flows that call this one themselves
MAX_NAME = 256  # characters of a service, method or peer: far beyond any that is real
MAX_ERROR = 1024  # characters of the details of a failure
MAX_VALUE = 256  # characters of a metadata value
MAX_VALUES = 8  # of one metadata key
MAX_CONTENT = 4096  # characters of a message that a redactor gave as text

_KEY = re.compile(r"[0-9a-z_.\-]+")
_SECRET = ("authorization", "cookie")  # in any part of a key: gateways send "grpcgateway-authorization"

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

Show: TypeAlias = Callable[[Any], Any]


class Sink(Protocol):
    """What `AccessLog` writes to, beside a `logging.Logger`: `JsonLines`, and contrib has one for structlog."""

    def isEnabledFor(self, level: int, /) -> bool:
        """Would a record of this level (of `logging`) be written?"""
        ...

    def write(self, level: int, message: str, fields: dict[str, Any], /) -> None:
        """Write one record."""
        ...


# - what holds of its options -


def _is_sink(logger: object) -> bool:
    return isinstance(logger, logging.Logger) or all(
        callable(getattr(logger, name, None)) for name in ("isEnabledFor", "write")
    )


def _is_redactor(value: object) -> bool:
    return is_flag(value) or callable(value)


def _keys_faults(name: str, keys: object) -> Iterator[str]:
    if not isinstance(keys, tuple):
        yield f"{name} must be a list of keys, like ['x-tenant'], not {keys!r}"
        return
    for key in keys:
        text = key.lower() if isinstance(key, str) else ""
        if _KEY.fullmatch(text) is None:
            yield f"{name} must have keys like 'x-tenant', not {key!r}"
        if text.endswith("-bin"):
            yield f"{name} must not have {key!r}: values in -bin are never logged"
        if any(word in text for word in _SECRET):
            yield f"{name} must not have {key!r}: credentials and cookies are never logged"


def _sample_faults(name: str, sample: object) -> Iterator[str]:
    if not (sample is None or isinstance(sample, Mapping)):
        yield f"{name} must be a dict like {{StatusCode.OK: 0.01}}, not {sample!r}"
        return
    for code, rate in (sample or {}).items():
        if not isinstance(code, StatusCode):
            yield f"{name} must have keys like StatusCode.OK, not {code!r}"
        if not (is_number(rate) and 0 <= rate <= 1):
            yield f"{name} must have rates from 0 to 1, not {rate!r}"


@dataclass(eq=False, repr=False)
class AccessLog:
    """Write one record for each RPC when it has ended, however it ended; for a stream that is its end.

    As text a record reads "finished call: /shop.v1.Orders/Place OK in 3.2 ms"; in JSON and structlog its message is
    "finished call". Everything is in fields of the record (`extra`), named as go-grpc-middleware does:
    `protocol`, `grpc.component`, `grpc.service`, `grpc.method`, `grpc.method_type`, `grpc.start_time`,
    `grpc.request.deadline`, `peer.address`, `grpc.code`, `grpc.error`, `grpc.time_ms`; and `request_id` if there is
    one, `auth.sub` if a server knows the caller, `grpc.attempts` if there were several, `trace_id` and `span_id` where
    OpenTelemetry has a span. The level depends on code and side: a NOT_FOUND is INFO on a server and DEBUG on a client.
    Messages and metadata of the RPC are logged only if asked for.

    Inside of `Retry` it writes one record per attempt, outside of it one per RPC.

    logger:   `logging.getLogger("interpose.access")` unless given, or `JsonLines`, which writes by itself. Where it is
        off, an RPC pays for one question.
    start:    write "started call" as well, before the RPC is sent or handled.
    payloads: write a record for each message, with what a redactor leaves of it: True for `Redactor()`, or one of your
        own, a function that gives what may be shown of a message. Fields `grpc.request.content` and
        `grpc.response.content`; level as for OK.
    metadata: the keys of the request's metadata to be shown, each as field `grpc.request.metadata.KEY`, a list of texts.
        Keys that hold "authorization" or "cookie", and those in -bin, are refused.
    sample:   how many of the "finished call" records are written, by code, from 0 to 1: `{StatusCode.OK: 0.01}`. Codes
        that are not named are always written. The rate is in the field `grpc.sample_rate`.
    random:   gives numbers from 0 to below 1, for `sample`.
    wall:     seconds since 1970, for the fields that hold a date.

    The logger, the redactor, `random` and `wall` are called where the RPC runs: on its thread, or in its event loop. What
    they raise never fails the RPC; the first such failure is logged.

    ValueError listing every fault of the options.
    """

    logger: logging.Logger | Sink | None = option(None, optional(f"like logging.getLogger({LOGGER!r})", _is_sink))
    _: KW_ONLY
    start: bool = option(False, FLAG)
    payloads: bool | Show = option(
        False, must_be("True, False, or a redactor like Redactor('card.number')", _is_redactor)
    )
    metadata: Iterable[str] = option((), _keys_faults)
    sample: Mapping[StatusCode, float] | None = option(None, _sample_faults)
    random: Callable[[], float] = option(chance.random, must_be("a function like random.random", callable))
    wall: Callable[[], float] = option(time.time, must_be("a function like time.time", callable))

    def __post_init__(self) -> None:
        several = isinstance(self.metadata, Iterable) and not isinstance(self.metadata, str)
        self.metadata = tuple(self.metadata) if several else self.metadata
        check_options(self)
        logger = logging.getLogger(LOGGER) if self.logger is None else self.logger
        self._logger = logger
        self._enabled = logger.isEnabledFor
        payloads = self.payloads
        self._show: Show | None = (Redactor() if payloads else None) if isinstance(payloads, bool) else payloads
        self._keys = tuple(dict.fromkeys(key.lower() for key in self.metadata))
        self._sample = dict(self.sample or {})
        self._complaints: set[str] = set()
        self._known: Registry[Method, _Logged] = Registry(MAX_METHODS, partial(_Logged, self))

    def __call__(self, call: Call) -> Flow:
        """For flows that call it; channels and servers use what is `fitted`."""
        return (yield from self._known[call.method].flow(call))

    def fitted(self, method: Method) -> Fitted:
        """What it does to a method, with all that its records have in common."""
        return Fitted(_Logged(self, method).flow)

    # Whatever a logger, its handlers and filters, a redactor or a clock may raise: the RPC is not to blame. The driver
    # would make INTERNAL of all that leaves a flow, so nothing is gained by letting any of it through.

    def _begin(self, call: Call, lines: _Lines) -> _Rpc | None:
        """What has to be noted at the start; None if nothing will be written."""
        try:
            if not self._enabled(ERROR):  # the highest level that is used
                return None
            rpc = _Rpc(call, lines, self._keys)
        except BaseException:
            self._complain()
            return None
        if self.start:
            self._told(rpc, STARTED, {})
        return rpc

    def _watched(self, call: Call, rpc: _Rpc) -> Call:
        """The call, with its messages written as they pass, if anybody reads them."""
        try:
            if not self._enabled(rpc.lines.ok.level):
                return call
        except BaseException:
            self._complain()
            return call
        side = rpc.lines.side

        def request(message: Any) -> None:
            self._told(rpc, REQUEST[side], {"grpc.request.content": message})

        def response(message: Any) -> None:
            self._told(rpc, RESPONSE[side], {"grpc.response.content": message})

        return call.tap(requests=request, responses=response)

    def _told(self, rpc: _Rpc, message: str, content: dict[str, Any]) -> None:
        """Write what happens before the end."""
        try:
            line = rpc.lines.early(message)
            if self._enabled(line.level):
                known = rpc.request_id or context.request_id()
                line.write({**rpc.fields(self.wall, None, known), **rpc.metadata, **self._shown(content)})
        except BaseException:
            self._complain()

    def _shown(self, content: dict[str, Any]) -> dict[str, Any]:
        """What the redactor leaves of a message."""
        shown: dict[str, Any] = {}
        for name, message in content.items():
            try:
                left = self._show(message) if self._show is not None else None
                shown[name] = one_line(left, MAX_CONTENT) if isinstance(left, str) else left
            except BaseException as error:
                # Without traceback and text: they may hold what should have been hidden.
                shown[name] = f"<{type(message).__qualname__}, not shown: {type(error).__name__}>"
                self._complain(f"its redactor raised {type(error).__name__}")
        return shown

    def _finish(self, rpc: _Rpc, outcome: Outcome) -> None:
        try:
            code, lines = outcome._code, rpc.lines
            line = lines.ok if code is OK else lines.finished(code)
            if not self._enabled(line.level):
                return
            rate = self._sample.get(code, 1.0) if self._sample else 1.0
            if rate < 1 and self._left_out(rate):
                return
            milliseconds = int((rpc.now() - rpc.started) * 1e6 + 0.5) / 1e3
            rare: dict[str, Any] = {**rpc.metadata}
            if code is not OK:
                rare["grpc.error"] = one_line(_reason(outcome), MAX_ERROR)
            if outcome._attempts > 1:
                rare["grpc.attempts"] = outcome._attempts
            if rate < 1:
                rare["grpc.sample_rate"] = rate
            if lines.side is SERVER and (identity := context.identity()) is not None:
                rare[SUBJECT] = one_line(identity.subject, MAX_NAME)
            known = context.request_id() or rpc.request_id
            if line.put is None:
                line.write({**rpc.fields(self.wall, milliseconds, known), **rare}, milliseconds)
            else:
                line.put(rpc.members(self.wall, milliseconds, known) + (members_of(rare) if rare else ""))
        except BaseException:
            self._complain()

    def _left_out(self, rate: float) -> bool:
        try:
            return self.random() >= rate
        except BaseException:  # rather a line too many than one lost
            self._complain()
            return False

    def _complain(self, why: str = "") -> None:
        """Log the first failure of a kind; for one of the logger with its traceback."""
        if why not in self._complaints:
            self._complaints.add(why)
            with contextlib.suppress(BaseException):  # the same handler may be behind this logger, too
                did = f"show a message: {why}" if why else f"write to {self._logger!r}"
                _log.error("AccessLog could not %s; its later failures are not logged", did, exc_info=not why)


class _Logged:
    """The log of one method."""

    __slots__ = ("_arriving", "_leaving", "_log")

    def __init__(self, log: AccessLog, method: Method) -> None:
        self._log = log
        self._arriving = _Lines(log._logger, method, Side.SERVER)
        self._leaving = _Lines(log._logger, method, Side.CLIENT)

    def flow(self, call: Call) -> Flow:
        log = self._log
        rpc = log._begin(call, self._arriving if call._side is SERVER else self._leaving)
        if rpc is None:
            yield call
            return
        outcome = yield call if log._show is None else log._watched(call, rpc)
        log._finish(rpc, outcome)


class _Line(NamedTuple):
    """Records that differ in what only the RPC knows: their level, and what writes one.

    write: is given what the RPC knows, and what of it is shown where records are text.
    put: is given what the RPC knows as JSON, which is what the lines of `JsonLines` are made of; None for other loggers.
    """

    level: int
    write: Callable[..., None]
    put: Callable[[str], None] | None = None


class _Lines:
    """The records of one method on one side, each kind made ready when it is first written."""

    __slots__ = ("_early", "_ends", "_fields", "_logger", "levels", "ok", "side")

    def __init__(self, logger: logging.Logger | Sink, method: Method, side: Side) -> None:
        self.side = side
        self.levels = SERVER_LEVELS if side is Side.SERVER else CLIENT_LEVELS
        self._logger = logger
        self._fields = {
            "protocol": "grpc",
            "grpc.component": side.value,
            "grpc.service": one_line(method.service, MAX_NAME),
            "grpc.method": one_line(method.name, MAX_NAME),
            "grpc.method_type": TYPES[method.kind],
        }
        self._early: dict[str, _Line] = {}
        self._ends: dict[StatusCode, _Line] = {}
        self.ok = self.finished(OK)  # nearly every RPC ends so, and to look up a code is dear: its hash is a method's

    def early(self, message: str) -> _Line:
        """What is written before the end."""
        line = self._early.get(message)
        if line is None:
            line = self._early[message] = self._line(self.levels[OK], message, ": /%s/%s", PATH, self._fields)
        return line

    def finished(self, code: StatusCode) -> _Line:
        """What is written at the end."""
        line = self._ends.get(code)
        if line is None:
            fields = {**self._fields, "grpc.code": code.name}
            text = ": /%s/%s %s in %s ms"
            line = self._ends[code] = self._line(self.levels[code], FINISHED, text, (*PATH, "grpc.code"), fields)
        return line

    def _line(self, level: int, message: str, text: str, shown: tuple[str, ...], fields: dict[str, str]) -> _Line:
        """text, shown: what follows the message where records are shown as text, and the fields that it is made of."""
        logger = self._logger
        if isinstance(logger, logging.Logger):
            return _Line(level, Template(logger, level, message, text, shown, __file__, fields).write)

        if isinstance(logger, JsonLines):
            put = logger._prepared(level, message, fields)
            return _Line(level, lambda more: put(members_of(more)), put)

        def write(more: dict[str, Any], *_: Any) -> None:
            logger.write(level, message, {**fields, **more})

        return _Line(level, write)


PATH = ("grpc.service", "grpc.method")


class _Rpc:
    """What is known of an RPC from its start on."""

    __slots__ = ("_deadline", "_epoch", "_peer", "lines", "metadata", "now", "request_id", "started")

    def __init__(self, call: Call, lines: _Lines, keys: tuple[str, ...]) -> None:
        # What a server knows of its client is asked for now: once the RPC has ended, it may be gone.
        self.lines = lines
        self.now = call._method.clock.now
        self.started = self.now()
        self.request_id = context.request_id()
        self.metadata = _chosen(call.metadata, keys) if keys else _NONE
        self._deadline = call.deadline
        self._peer = call.peer
        self._epoch: float | None = None  # what the wall clock showed when the other one showed 0

    # Nearly every record has these fields and no more: which are at hand, and which of them JSON need not look at, is
    # known. So there are two ways to have them; `JsonLines` and `JsonFormatter` are held to the same in the tests.

    def fields(self, wall: Callable[[], float], milliseconds: float | None, request_id: str | None) -> dict[str, Any]:
        """What all its records have, beside what is known of the method. milliseconds: how long it took, once it has ended."""
        epoch, ids = self._epoch_of(wall), context.trace_ids()
        fields: dict[str, Any] = {"grpc.start_time": rfc3339(epoch + self.started)}
        if self._deadline is not None:
            fields["grpc.request.deadline"] = rfc3339(epoch + self._deadline)
        if self._peer is not None:
            fields["peer.address"] = one_line(self._peer, MAX_NAME)
        if milliseconds is not None:
            fields["grpc.time_ms"] = milliseconds
        if request_id is not None:
            fields["request_id"] = request_id
        if ids is not None:
            fields["trace_id"], fields["span_id"] = ids
        return fields

    def members(self, wall: Callable[[], float], milliseconds: float, request_id: str | None) -> str:
        """The same as JSON; half as dear as `members_of`, which has to look at each value."""
        epoch, ids = self._epoch_of(wall), context.trace_ids()
        members = f', "grpc.start_time": "{rfc3339(epoch + self.started)}"'
        if self._deadline is not None:
            members += f', "grpc.request.deadline": "{rfc3339(epoch + self._deadline)}"'
        if self._peer is not None:
            members += f', "peer.address": {text_of(one_line(self._peer, MAX_NAME))}'
        members += f', "grpc.time_ms": {milliseconds!r}'
        if request_id is not None:
            members += f', "request_id": {text_of(request_id)}'
        return members if ids is None else f'{members}, "trace_id": "{ids[0]}", "span_id": "{ids[1]}"'

    def _epoch_of(self, wall: Callable[[], float]) -> float:
        if self._epoch is None:
            self._epoch = wall() - self.now()
        return self._epoch


_NONE: dict[str, list[str]] = {}


def _reason(outcome: Outcome) -> str:
    """Why it failed: the details; for a handler's own exception its class, as its text is not meant for this log."""
    error = outcome.error
    if outcome.details or error is None or isinstance(error, StatusError):
        return outcome.details
    return type(error).__name__


def _chosen(metadata: Metadata, keys: tuple[str, ...]) -> dict[str, list[str]]:
    """The fields for these keys, of those that were sent. Values are cut here, since an unknown caller may send long ones."""
    found = {key: metadata.get_all(key)[:MAX_VALUES] for key in keys}
    return {
        f"grpc.request.metadata.{key}": [
            one_line(value, MAX_VALUE) if isinstance(value, str) else type_and_size(value) for value in values
        ]
        for key, values in found.items()
        if values
    }
