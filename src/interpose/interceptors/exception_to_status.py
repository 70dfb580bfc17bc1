"""What handlers raise, as statuses that a caller may see."""

from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias, TypeVar, cast

import grpc

from interpose._call import Call
from interpose._flow import Flow
from interpose._metadata import Metadata
from interpose._method import Side
from interpose._outcome import Outcome
from interpose.errors import StatusError, of
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
    unknown: the code for an exception that is in no class of the mapping. Its text stays here: the peer is told
        "internal error, id …", and one record at level ERROR holds that id (field `error_id`) and the traceback.
    logger:  where that record goes; `logging.getLogger("interpose.errors")` unless given.

    A status that the handler chose itself stands as it is: raised, aborted with, or set with `set_code`; so does the
    end of an RPC whose client has gone. On a client nothing is changed: its failures are the server's to tell.
    """

    def __init__(
        self,
        mapping: Mapping[type[E], Rule] | None = None,
        *,
        unknown: grpc.StatusCode = grpc.StatusCode.INTERNAL,
        logger: logging.Logger | None = None,
    ) -> None:
        logger = logging.getLogger(LOGGER) if logger is None else logger
        insist(
            "ExceptionToStatus",
            *_mapping_requirements({} if mapping is None else mapping),
            (_is_failure(unknown), f"unknown must be a grpc.StatusCode other than OK, not {unknown!r}"),
            (isinstance(logger, logging.Logger), f"logger must be like logging.getLogger({LOGGER!r}), not {logger!r}"),
        )
        self._rules: dict[type[BaseException], Rule] = dict(cast(Mapping[type[BaseException], Rule], mapping or {}))
        self._unknown = unknown
        self._logger = logger

    def __call__(self, call: Call) -> Flow:
        outcome = yield call
        error = outcome.error
        if error is None or isinstance(error, StatusError) or call.side is Side.CLIENT:
            return None
        chosen = outcome.code is not grpc.StatusCode.UNKNOWN  # by the handler, or because the client has gone
        if chosen and outcome.details and _tells_the_end(error):
            status = of(outcome.code)(outcome.details, local=True)
        else:
            status = self._mapped(error) or self._unexpected(call, error)
            if chosen:
                # grpc would send the text of the exception in the place of these details.
                status = of(outcome.code)(outcome.details or status.details())
        status.__cause__ = error
        return _failed(status, outcome)

    def _mapped(self, error: BaseException) -> StatusError | None:
        """The status that the mapping has for an exception, or None."""
        for kind in type(error).__mro__:
            rule = self._rules.get(kind)
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
        self._report("%s mapped %s to %r, which is no status", rule, type(error).__name__, answer)
        return None

    def _unexpected(self, call: Call, error: BaseException) -> StatusError:
        """What the peer is told of a bug: nothing but an id, under which the log has the rest."""
        error_id = f"{random.getrandbits(64):016x}"
        self._report(
            "%s raised %s; the caller was given the error id %s",
            one_line(call.method.full_name, MAX_DETAILS),
            type(error).__name__,
            error_id,
            exc_info=error,
            extra={"error_id": error_id},
        )
        return of(self._unknown)(f"internal error, id {error_id}")

    def _report(self, message: str, *values: object, **options: Any) -> None:
        with contextlib.suppress(Exception):  # a broken log must not cost the caller the answer
            self._logger.error(message, *values, **options)


def _tells_the_end(error: BaseException) -> bool:
    """Is it how a handler learns that its client has gone or its time is up?

    A request stream raises grpc's bare RpcError, an await asyncio's CancelledError or TimeoutError. With a text it is
    somebody else's, and the log shall have it.
    """
    if isinstance(error, Exception):
        return type(error) in (grpc.RpcError, TimeoutError) and not error.args
    return not isinstance(error, (SystemExit, KeyboardInterrupt))


def _failed(status: StatusError, told: Outcome) -> Outcome:
    """The failure, behind the trailing metadata that the handler had set before it raised."""
    trailing = Metadata.trusted((*told.trailing_metadata, *status.trailing_metadata()))
    return Outcome(status.code(), None, status.details(), status, trailing_metadata=trailing)


def _text(error: BaseException) -> str:
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


def _is_exception(kind: object) -> bool:
    # A StatusError is answered as it is, so a rule for one would never be asked.
    return isinstance(kind, type) and issubclass(kind, BaseException) and not issubclass(kind, StatusError)


def _is_rule(rule: object) -> bool:
    if isinstance(rule, type):
        return issubclass(rule, StatusError) and rule._coded
    return _is_failure(rule) or callable(rule)
