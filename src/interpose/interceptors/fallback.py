"""An answer when all has failed: better an old price list than an empty page."""

from __future__ import annotations

import copy as copying
import logging
from collections.abc import Callable, Collection, Iterator
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

from grpc import StatusCode

from interpose import errors
from interpose._call import Call
from interpose._flow import Flow, wait
from interpose._kind import kind_of
from interpose._method import Method
from interpose._outcome import Outcome
from interpose.mechanisms.options import check_options, hook, is_function_or_none, must_be, option, ruled

_log = logging.getLogger("interpose")

FALLBACK = "x-fallback"
PASSING = frozenset({StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED, StatusCode.RESOURCE_EXHAUSTED})
# A fallback must not bypass authorization, and a caller that has cancelled waits for no answer.
NEVER = frozenset({StatusCode.OK, StatusCode.CANCELLED, StatusCode.UNAUTHENTICATED, StatusCode.PERMISSION_DENIED})

NAMES_OF_NEVER = ", ".join(sorted(code.name for code in NEVER))


@dataclass(frozen=True, kw_only=True)
class FallbackDetails:
    """An RPC that was answered by `Fallback`, and the outcome that it would have had."""

    call: Call
    outcome: Outcome


# - what holds of its options -

CODES = f"a set like {{StatusCode.UNAVAILABLE}}, without {NAMES_OF_NEVER}"


def _answer_faults(name: str, answer: object) -> Iterator[str]:
    if answer is None:
        yield f"{name} must be a message, a list of messages, or a function of (call, outcome)"
    if isinstance(answer, Iterator):
        yield f"{name} must be a list of messages, not {kind_of(answer)}: an iterator would answer one RPC"
    if isinstance(answer, type):
        yield f"{name} must be a message or a function of (call, outcome), not the class {answer!r}"


def _may_be_answered(codes: object) -> bool:
    return (
        isinstance(codes, Collection)
        and len(codes) > 0
        and all(isinstance(code, StatusCode) and code not in NEVER for code in codes)
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


@dataclass(eq=False, repr=False)
class Fallback:
    """Answer an RPC that has failed, with an answer of yours. Put it outside of `Retry`, so that all attempts come first.

    It answers only where the caller has got no response message yet: a stream that breaks later fails as it is. Its
    answers say so: the trailing metadata has `x-fallback` with the name of the code that they stand for.

    It keeps no answer of any RPC, so it can hand none to another caller. An RPC that was refused because of its caller
    (UNAUTHENTICATED, PERMISSION_DENIED) is never answered.

    answer: the response message, of which every caller gets a copy; on a response stream a list of messages. Or a
            function of the call and its outcome, where the answer depends on the caller: it gives the message or
            messages, an `Outcome`, an awaitable of one of these (asyncio), or None to keep the failure. If it
            raises, the failure is kept and the log has the reason; a `StatusError` takes its place.
    codes:  the status codes that are answered.
    copy:   makes each caller an answer of its own; what a function gives is not copied. None: they all get the same
            object; for messages that cannot be changed.
    on_fallback: called with `FallbackDetails` for each RPC that is answered, to count them; what it raises is logged.

    An answer of another type than the method's, where protobuf knows both, ends calls with INTERNAL that names them.
    A message given here ends the first call of the method, whether it fails or not.

    The functions run where the RPC ends: on its thread, or in its event loop. If `copy` raises, the failure is kept.

    ValueError listing every fault of the options.
    """

    answer: Any = field(metadata=ruled(_answer_faults))
    _: KW_ONLY
    codes: Collection[StatusCode] = option(PASSING, must_be(CODES, _may_be_answered))
    copy: Callable[[Any], Any] | None = copying.deepcopy
    on_fallback: Callable[[FallbackDetails], object] | None = option(None, hook("FallbackDetails"))

    def __post_init__(self) -> None:
        copy = self.copy
        copies = is_function_or_none(copy) and (copy is None or _can_be_copied(self.answer, copy))
        check_options(
            self,
            (
                copies,
                f"copy must be a function that copies the answer, or None for one that cannot be changed, not {copy!r}",
            ),
        )
        self._codes = frozenset(self.codes)

    def __call__(self, call: Call) -> Flow:
        answer = self.answer
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
        elif self.copy is not None:
            answer = self._copied(answer)
        answered = answer if isinstance(answer, Outcome) else Outcome.success(_response(call, answer))
        if answered.ok:
            answered = answered.with_trailing_metadata((FALLBACK, outcome.code.name))
            self._tell(call, outcome)
        return answered

    def _copied(self, answer: Any) -> Any:
        assert self.copy is not None
        if isinstance(answer, Outcome):
            return answer.with_response(self.copy(answer.response))
        return self.copy(answer)

    def _tell(self, call: Call, outcome: Outcome) -> None:
        if self.on_fallback is not None:
            try:
                self.on_fallback(FallbackDetails(call=call, outcome=outcome))
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
