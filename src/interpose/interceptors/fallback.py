"""An answer when all has failed: better an old price list than an empty page."""

from __future__ import annotations

import copy as copying
import logging
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

from grpc import StatusCode

from interpose import errors
from interpose._call import Call
from interpose._flow import Flow, wait
from interpose._method import Method
from interpose._outcome import Outcome
from interpose.mechanisms.options import insist, is_function_or_none

_log = logging.getLogger("interpose")

FALLBACK = "x-fallback"
PASSING = frozenset({StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED, StatusCode.RESOURCE_EXHAUSTED})
# Who was refused gets no answer by another door, and who has cancelled waits for none.
NEVER = frozenset({StatusCode.OK, StatusCode.CANCELLED, StatusCode.UNAUTHENTICATED, StatusCode.PERMISSION_DENIED})

NAMES_OF_NEVER = ", ".join(sorted(code.name for code in NEVER))


@dataclass(frozen=True, kw_only=True)
class FallbackDetails:
    """An RPC that was answered by `Fallback`, and the outcome that it would have had."""

    call: Call
    outcome: Outcome


class Fallback:
    """Answer an RPC that has failed, with an answer of yours. Put it outside of `Retry`, so that all attempts come first.

    It answers only where the caller has got no response message yet: a stream that breaks later fails as it is. Its
    answers say so: the trailing metadata has `x-fallback` with the name of the code that they stand for.

    It keeps no answer of any RPC, so it can hand none to somebody else; and an RPC that was refused for who asked
    (UNAUTHENTICATED, PERMISSION_DENIED) is never answered.

    answer: the response message, of which every caller gets a copy; on a response stream a list of messages. Or a
            function of the call and its outcome, where the answer depends on who asks: it gives the message or
            messages, an `Outcome`, an awaitable of one of these (asyncio), or None to let the failure stand. If it
            raises, the failure stands and the log has the reason; a `StatusError` takes its place.
    codes:  the status codes that are answered.
    copy:   makes each caller an answer of its own; what a function gives is not copied. None: they all get the same
            object; for messages that nobody can change.
    on_fallback: called with `FallbackDetails` for each RPC that is answered, to count them; what it raises is logged.

    An answer of another type than the method's, where protobuf knows both, ends calls with INTERNAL that names them: a
    message given here ends the first call of the method, whether it fails or not. ValueError for bad options.
    """

    def __init__(
        self,
        answer: Any,
        *,
        codes: Collection[StatusCode] = PASSING,
        copy: Callable[[Any], Any] | None = copying.deepcopy,
        on_fallback: Callable[[FallbackDetails], object] | None = None,
    ) -> None:
        insist(
            "Fallback",
            (answer is not None, "answer must be a message, a list of messages, or a function of (call, outcome)"),
            (
                not isinstance(answer, Iterator),
                f"answer must be a list of messages, not {answer!r}: an iterator would answer one RPC",
            ),
            (
                not isinstance(answer, type),
                f"answer must be a message or a function of (call, outcome), not the class {answer!r}",
            ),
            (
                _may_be_answered(codes),
                f"codes must be a set like {{StatusCode.UNAVAILABLE}}, without {NAMES_OF_NEVER}, not {codes!r}",
            ),
            (
                is_function_or_none(copy) and (copy is None or _can_be_copied(answer, copy)),
                f"copy must be a function that copies the answer, or None for one that nobody can change, not {copy!r}",
            ),
            (
                is_function_or_none(on_fallback),
                f"on_fallback must be a function of FallbackDetails, not {on_fallback!r}",
            ),
        )
        self._answer = answer
        self._codes = frozenset(codes)
        self._copy = copy
        self._on_fallback = on_fallback

    def __call__(self, call: Call) -> Flow:
        answer = self._answer
        if not callable(answer):
            _insist_on_type(call.method, answer)
        outcome = yield call
        if outcome.code not in self._codes or (call.kind.response_streaming and outcome.responses):
            return None
        if callable(answer):
            answer = yield from wait(answer(call, outcome))
            if answer is None:
                return None
            _insist_on_type(call.method, answer)
        elif self._copy is not None:
            answer = self._copied(answer)
        answered = answer if isinstance(answer, Outcome) else Outcome.success(_response(call, answer))
        if answered.ok:
            answered = answered.with_trailing_metadata((FALLBACK, outcome.code.name))
            self._tell(call, outcome)
        return answered

    def _copied(self, answer: Any) -> Any:
        assert self._copy is not None
        if isinstance(answer, Outcome):
            return answer.with_response(self._copy(answer.response))
        return self._copy(answer)

    def _tell(self, call: Call, outcome: Outcome) -> None:
        if self._on_fallback is not None:
            try:
                self._on_fallback(FallbackDetails(call=call, outcome=outcome))
            except Exception:
                _log.exception("on_fallback failed; the RPC is answered all the same")


def _response(call: Call, answer: Any) -> Any:
    """The answer as an outcome has it: of a response stream always several messages, though it be several of one."""
    several = isinstance(answer, (list, tuple, Iterator))
    return [answer] if call.kind.response_streaming and not several else answer


def _insist_on_type(method: Method, answer: Any) -> None:
    """INTERNAL for a message that the method does not return, where protobuf knows both types."""
    for message in answer if isinstance(answer, (list, tuple)) else (answer,):
        given = getattr(getattr(message, "DESCRIPTOR", None), "full_name", None)
        if given is not None and (expected := method.response_type) is not None and given != expected.full_name:
            raise errors.Internal(
                f"Fallback answers {method} with a {given}, which returns a {expected.full_name}: "
                "give it an answer of that type, or keep the method out with when(…)",
                local=True,
            )


def _can_be_copied(answer: Any, copy: Callable[[Any], Any]) -> bool:
    """Is there a copy of it? A function's answers are not copied, nor is what else was wrong already."""
    if callable(answer) or isinstance(answer, Iterator):
        return True
    try:
        copy(answer.response if isinstance(answer, Outcome) else answer)
    except Exception:
        return False
    return True


def _may_be_answered(codes: object) -> bool:
    return (
        isinstance(codes, Collection)
        and len(codes) > 0
        and all(isinstance(code, StatusCode) and code not in NEVER for code in codes)
    )
