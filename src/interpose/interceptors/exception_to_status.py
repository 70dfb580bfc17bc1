"""What handlers raise, as statuses that a caller may see."""

from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias, TypeVar, cast

import grpc

from interpose._call import Call
from interpose._clock import DEADLINE_TOLERANCE
from interpose._executed import is_downstream
from interpose._flow import Fitted, Flow
from interpose._kind import kind_of
from interpose._metadata import Metadata
from interpose._method import CLIENT, Method
from interpose._outcome import Outcome
from interpose.errors import Internal, StatusError, of
from interpose.mechanisms.options import insist
from interpose.mechanisms.text import one_line, within

LOGGER = "interpose.errors"
MAX_DETAILS = 1024  # bytes; some 8 KiB of details and trailers turn any code into RESOURCE_EXHAUSTED at the client

E = TypeVar("E", bound=BaseException)  # so that a dict of any kind of exceptions will do: keys are invariant

Answer: TypeAlias = StatusError | grpc.StatusCode | None
Rule: TypeAlias = grpc.StatusCode | type[StatusError] | Callable[[Any], Answer]


class ExceptionToStatus:
    """Answer the exceptions of handlers with statuses (server): `ExceptionToStatus({KeyError: StatusCode.NOT_FOUND})`.

    mapping: exception class → what to answer. The class nearest to that of the exception counts, as with `except`.
        A status code: the text of the exception becomes the details, cut to 1 KiB.
        A function of the exception: gives a `StatusError`, a status code, or None for "ask the next class".
    downstream: the same by status code, for the failures of calls that the handler made itself and did not catch:
        `{StatusCode.UNAVAILABLE: StatusCode.UNAVAILABLE}`. A code has a fixed text for details; a function may give more.
    unknown: the code for an exception that has no rule, the failure of a call included (https://google.aip.dev/193:
        what a dependency says is not for unknown callers). Its text stays here: the peer is sent "internal error, id …", and
        one record at level ERROR holds that id (field `error_id`) and the traceback.
    logger:  where that record goes; `logging.getLogger("interpose.errors")` unless given.

    Exceptions of interceptors further in are mapped too; one without a rule stays what the driver made of it, INTERNAL
    with the name of the interceptor.

    A status that the handler chose itself is kept as it is: raised, aborted with, or set with `set_code`; so does the
    end of an RPC whose client has gone. On a client nothing is changed: its failures are the server's to report.

    ValueError for bad options, listing every fault.
    """

    def __init__(
        self,
        mapping: Mapping[type[E], Rule] | None = None,
        *,
        downstream: Mapping[grpc.StatusCode, Rule] | None = None,
        unknown: grpc.StatusCode = grpc.StatusCode.INTERNAL,
        logger: logging.Logger | None = None,
    ) -> None:
        logger = logging.getLogger(LOGGER) if logger is None else logger
        insist(
            "ExceptionToStatus",
            *_mapping_requirements({} if mapping is None else mapping),
            *_downstream_requirements({} if downstream is None else downstream),
            (_is_failure(unknown), f"unknown must be a grpc.StatusCode other than OK, not {unknown!r}"),
            (isinstance(logger, logging.Logger), f"logger must be like logging.getLogger({LOGGER!r}), not {logger!r}"),
        )
        self._rules: dict[type[BaseException], Rule] = dict(cast(Mapping[type[BaseException], Rule], mapping or {}))
        self._downstream: dict[Any, Rule] = dict(downstream or {})
        self._unknown = unknown
        self._logger = logger

    def fitted(self, method: Method) -> Fitted:
        """What it does to a method: nothing, where a client calls it."""
        return Fitted(self if method.target is None else None)

    def __call__(self, call: Call) -> Flow:
        outcome = yield call
        error = outcome._error
        if error is None or call._side is CLIENT:
            return None
        if isinstance(error, StatusError):
            return self._of_status(call, error, outcome)
        # Chosen by the handler, or because the client has gone.
        chosen = outcome.code if outcome.code is not grpc.StatusCode.UNKNOWN else None
        if chosen and outcome.details and _says_the_end(error, chosen):
            return _failed(of(chosen)(outcome.details, local=True), error, outcome.trailing_metadata)
        status = self._mapped(error) or self._unexpected(call, error, chosen, outcome.details)
        if chosen:
            # grpc would send the text of the exception in the place of these details.
            status = of(chosen)(outcome.details or status.details())
        return _failed(status, error, outcome.trailing_metadata)

    def _of_status(self, call: Call, error: StatusError, outcome: Outcome) -> Outcome | None:
        """What becomes of a status: None if it was meant for the caller."""
        trailing = outcome.trailing_metadata
        if is_downstream(error):
            if error.code() in _ENDS and _is_over(call):  # that call ended with this one
                return None
            own = Metadata.trusted(trailing[: len(trailing) - len(error.trailing_metadata())])
            return _failed(self._mapped(error) or self._unexpected(call, error), error, own)
        # An interceptor raised: see `_fault` in _flow.py.
        raised = error.__cause__ if error.local and isinstance(error, Internal) else None
        status = self._mapped(raised) if raised is not None else None
        return None if status is None else _failed(status, error, trailing)

    def _mapped(self, error: BaseException) -> StatusError | None:
        """The status that the rules have for an exception, or None."""
        rules = [self._downstream.get(_code_of(error))] if is_downstream(error) else []
        for rule in (*rules, *map(self._rules.get, type(error).__mro__)):
            if rule is not None and (status := self._ruled(rule, error)) is not None:
                return status
        return None

    def _ruled(self, rule: Rule, error: BaseException) -> StatusError | None:
        answer: Any = rule
        if isinstance(rule, type):
            answer = cast(type[StatusError], rule).status_code
        elif not isinstance(rule, grpc.StatusCode):
            try:
                answer = rule(error)
            except StatusError as raised:
                return raised
            except Exception:
                self._report("%s failed to map %s", rule, type(error).__name__, exc_info=True)
                return None
        if isinstance(answer, StatusError) or answer is None:
            return answer
        if _is_failure(answer):
            return of(answer)(within(_text(error), MAX_DETAILS))
        self._report("%s mapped %s to %s, which is no status", rule, type(error).__name__, kind_of(answer))
        return None

    def _unexpected(
        self, call: Call, error: BaseException, chosen: grpc.StatusCode | None = None, details: str = ""
    ) -> StatusError:
        """What the peer is sent for a bug: nothing but an id, under which the log has the rest."""
        if chosen is grpc.StatusCode.UNIMPLEMENTED and isinstance(error, NotImplementedError):
            return of(chosen)(details)  # a method that protoc has generated, and that is not written: no bug
        error_id = f"{random.getrandbits(64):016x}"
        if chosen and details:
            answer = f"had chosen {chosen.name}, which the caller was sent; error id"
        else:
            answer = "the caller was sent the error id"
        self._report(
            "%s raised %s; %s %s",
            one_line(call.method.full_name, MAX_DETAILS),
            type(error).__name__,
            answer,
            error_id,
            exc_info=error,
            extra={"error_id": error_id},
        )
        return of(self._unknown)(f"internal error, id {error_id}")

    def _report(self, message: str, *values: object, **options: Any) -> None:
        with contextlib.suppress(Exception):  # a broken log must not cost the caller the answer
            self._logger.error(message, *values, **options)


_ENDS = (grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED)


def _code_of(error: Any) -> object:
    try:
        return error.code()
    except Exception:  # an application's own call object
        return None


def _is_over(call: Call) -> bool:
    """Has the client gone, or its time passed, so that the calls made for it were ended?"""
    context: Any = call._context
    left = context.time_remaining() if hasattr(context, "time_remaining") else None
    # An asyncio server cancels the handler first, which then raises CancelledError.
    active = context.is_active() if hasattr(context, "is_active") else True
    return not active or (left is not None and left <= DEADLINE_TOLERANCE)


def _says_the_end(error: BaseException, code: grpc.StatusCode) -> bool:
    """Is it how a handler learns that its client has gone or its time is up?

    A request stream raises grpc's bare RpcError, an await asyncio's CancelledError or TimeoutError. With a text it is
    somebody else's, and belongs in the log. A call that was made for the client ends with it.
    """
    if is_downstream(error):
        return code in _ENDS and _code_of(error) in _ENDS
    if isinstance(error, Exception):
        return type(error) in (grpc.RpcError, TimeoutError) and not error.args
    return not isinstance(error, (SystemExit, KeyboardInterrupt))


def _failed(status: StatusError, error: BaseException, trailing: Metadata) -> Outcome:
    """The failure, behind the trailing metadata that the handler had set before it raised."""
    status.__cause__ = error
    trailing = Metadata.trusted((*trailing, *status.trailing_metadata()))
    return Outcome(status.code(), None, status.details(), status, trailing_metadata=trailing)


def _text(error: BaseException) -> str:
    if is_downstream(error):  # its own text names addresses, and says what was for us
        return f"a call to another service ended with {getattr(_code_of(error), 'name', 'no status')}"
    try:
        return str(error)
    except BaseException:
        return type(error).__name__


def _is_failure(code: object) -> bool:
    return isinstance(code, grpc.StatusCode) and code is not grpc.StatusCode.OK


def _mapping_requirements(mapping: object) -> Iterator[tuple[bool, str]]:
    if not isinstance(mapping, Mapping):
        yield False, f"mapping must be a dict like {{KeyError: StatusCode.NOT_FOUND}}, not {mapping!r}"
        return
    for kind, rule in mapping.items():
        name = getattr(kind, "__name__", repr(kind))
        yield _is_exception(kind), f"{name} in the mapping must be an exception class other than a StatusError"
        yield _is_rule(rule), f"{name} must lead to a grpc.StatusCode other than OK, or a function of it, not {rule!r}"


def _downstream_requirements(downstream: object) -> Iterator[tuple[bool, str]]:
    if not isinstance(downstream, Mapping):
        yield (
            False,
            f"downstream must be a dict like {{StatusCode.NOT_FOUND: StatusCode.NOT_FOUND}}, not {downstream!r}",
        )
        return
    for code, rule in downstream.items():
        name = getattr(code, "name", repr(code))
        yield _is_failure(code), f"{name} in downstream must be a grpc.StatusCode other than OK"
        yield _is_rule(rule), f"{name} must lead to a grpc.StatusCode other than OK, or a function of it, not {rule!r}"


def _is_exception(kind: object) -> bool:
    # A StatusError is answered as it is, so a rule for one would never be asked.
    return isinstance(kind, type) and issubclass(kind, BaseException) and not issubclass(kind, StatusError)


def _is_rule(rule: object) -> bool:
    if isinstance(rule, type):
        return issubclass(rule, StatusError) and rule._coded
    return _is_failure(rule) or callable(rule)
