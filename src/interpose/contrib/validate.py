"""Messages that keep the rules in their proto, as protovalidate judges them. Needs the extra `validate`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import grpc

from interpose import errors
from interpose._call import Call
from interpose._flow import Flow
from interpose._method import Method, Side
from interpose._outcome import Outcome
from interpose._served import Served
from interpose.mechanisms import rich
from interpose.mechanisms.options import FLAG, check_options, hook, option, optional, whole
from interpose.mechanisms.runtimes import readable, size, unwrapped
from interpose.mechanisms.seldom import Seldom
from interpose.mechanisms.shown import shown
from interpose.mechanisms.tally import Tally
from interpose.mechanisms.text import one_line
from interpose.mechanisms.violations import BAD_REQUEST, bad_request, logged, told

try:
    from protovalidate import CompilationError, ValidationError
    from protovalidate import Validator as _Validator
except ImportError as missing:
    raise ImportError('validation needs a package more: pip install "interpose[validate]"') from missing

__all__ = ["InvalidDetails", "Validate", "ValidateState", "Validator"]

# bytes. protovalidate 2.1 takes some 3 KB and 25 µs for each violation that it lists, and an item of a list may take one
# byte on the wire: a message of this size costs 3 MB and 25 ms at most where it has one rule for each item.
FULL_REPORT = 1024
MOST_REPORTED = 1 << 20
MAX_FAULT = 1000  # characters of a fault in the log
BETWEEN = 60.0  # seconds between two lines in the log about the same type

_log = logging.getLogger("interpose")


class Validator(Protocol):
    """What judges messages: `protovalidate.Validator`."""

    def validate(self, message: Any, /, *, fail_fast: bool = False) -> None:
        """Raise `protovalidate.ValidationError` for a message that breaks its rules."""
        ...

    def collect_violations(self, message: Any, /, *, fail_fast: bool = False) -> list[Any]:
        """All that it breaks."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class InvalidDetails:
    """What `on_invalid` is given of a message that was refused.

    direction: "request" or "response". message_type: its full name. number: which of its direction in the RPC, from 1; of
    a client's stream that is sent several times, all attempts counted together.
    violations: `protovalidate.Violation`s; only the first one of a message larger than `full_report`.
    """

    method: Method
    side: Side
    direction: str
    message_type: str
    number: int
    violations: tuple[Any, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidateState:
    """What a `Validate` has refused so far, in messages.

    faults: those that could not be judged, since a rule is wrong or the type is not known here.
    """

    requests: int
    responses: int
    faults: int


def _is_validator(value: object) -> bool:
    judges = (getattr(value, name, None) for name in ("validate", "collect_violations"))
    return not isinstance(value, type) and all(map(callable, judges))


@dataclass(eq=False, repr=False, kw_only=True)
class Validate:
    """Refuse messages that break the rules in their proto, before a handler sees them or they are sent.

    The rules are those of protovalidate, `(buf.validate.field)` and its like. A request that breaks them ends the RPC with
    INVALID_ARGUMENT, and a google.rpc.BadRequest says which fields are wrong and why, by paths as protovalidate writes
    them. Of a request stream each message is looked at when its turn comes. A response that breaks them is a fault of the
    server: INTERNAL, without a word of why for the client.

    A rule that is wrong itself, or fails, and a message that is not of google's runtime, proto-plus or protobuf-py, end the
    RPC with INTERNAL and are logged. Nothing passes unjudged: leave methods out by `when`. At its start a server that looks
    at its interceptors refuses rules that do not compile, where google's runtime knows the method.

    requests:    judge requests?
    responses:   judge responses? On a client a response that breaks its rules ends the RPC with INTERNAL, `error.local`.
    full_report: bytes, from 0 to 1 MiB. Of a message that is not larger all violations are reported, as many as have room; of
                 a larger one only the first, since each that is looked for takes time and memory.
    validator:   `protovalidate.Validator(registry)`, if some rules are in files that the messages do not import.
    on_invalid:  called with `InvalidDetails` for each message that is refused; what it raises is logged.

    The validator and `on_invalid` run where the message passes: on the thread of its RPC, or in the event loop. What the
    validator raises refuses the message with INTERNAL. Default of full_report: 1024 bytes, of which all violations take 3 MB
    and 25 ms at most.

    The log has a line at most once a minute for each type of message that is at fault; keys and values are not in it.

    ValueError listing every fault of the options.
    """

    requests: bool = option(True, FLAG)
    responses: bool = option(False, FLAG)
    full_report: int = option(FULL_REPORT, whole(0, MOST_REPORTED, " of bytes"))
    validator: Validator | None = option(None, optional("a protovalidate.Validator()", _is_validator))
    on_invalid: Callable[[InvalidDetails], object] | None = option(None, hook("InvalidDetails"))

    def __post_init__(self) -> None:
        judges = bool(self.requests or self.responses)
        check_options(self, (judges, "one of requests and responses must be True: it would judge nothing"))
        self._validator: Validator = _Validator() if self.validator is None else self.validator
        self._validate = self._validator.validate
        self._tally = Tally("request", "response", "faults")
        self._said: dict[str, Seldom] = {}  # by the names of types, which are the application's

    def __call__(self, call: Call) -> Flow:
        if self.responses or call.kind.request_streaming or call._asks.requests:
            return (yield from self._as_they_pass(call))
        # What most calls are: one request, which nothing further out changes on its way.
        if (refusal := self.refusal(call, "request", call._request)) is not None:
            raise refusal
        yield call
        return None

    def _as_they_pass(self, call: Call) -> Flow:
        judged, requests = call, _Passing(self, call, "request")
        if self.requests:
            judged = call.tap(requests=requests, responses=requests.stop if call.side is Side.SERVER else None)
        if self.responses:
            judged = judged.tap(responses=_Passing(self, call, "response"))
        outcome = yield judged
        refusal = requests.refusal
        if refusal is None or call.side is Side.CLIENT or outcome.error is refusal:
            return None
        return Outcome.failure(refusal)  # a handler has caught it, and went on

    def snapshot(self) -> ValidateState:
        """What it has refused so far."""
        tally = self._tally
        return ValidateState(requests=tally["request"], responses=tally["response"], faults=tally["faults"])

    def check_served(self, served: Served) -> Iterator[str]:
        """Rules that do not compile, of the methods that google's runtime knows; for a server that starts."""
        for kind in dict.fromkeys(self._types(served.methods)):
            try:
                self._validate(kind._concrete_class())
            except CompilationError as error:
                yield f"Validate: the rules of {kind.full_name} are wrong: {error}"
            except Exception as error:  # what is wrong with an empty message is for those who send one
                _log.debug("an empty %s: %s", kind.full_name, error)

    def _types(self, methods: Iterable[Method]) -> Iterator[Any]:
        for method in methods:
            if self.requests and method.request_type is not None:
                yield method.request_type
            if self.responses and method.response_type is not None:
                yield method.response_type

    # - judging -

    def refusal(self, call: Call, direction: str, message: Any, number: int = 1) -> errors.StatusError | None:
        """What the RPC has to end with because of this message; None if it keeps its rules."""
        try:
            self._validate(message, fail_fast=True)
        except ValidationError as error:
            return self._invalid(_Seen(call, direction, message, number), error.violations)
        except Exception as error:
            inner = unwrapped(message)
            if inner is not None and inner is not message:
                return self.refusal(call, direction, inner, number)
            return self._unjudged(_Seen(call, direction, message, number), None if inner is None else error)
        return None

    def _invalid(self, seen: _Seen, first: Sequence[Any]) -> errors.StatusError:
        """A message breaks its rules. first: some that it breaks."""
        more, violations = size(seen.message) > self.full_report, first
        if not more:
            try:
                violations = self._validator.collect_violations(seen.message) or first
            except Exception as error:
                return self._unjudged(seen, error)
        self._tally.add(seen.direction)
        self._tell(seen, violations)
        if seen.direction == "request":
            return _bad_request(f"invalid {seen}: {told(violations, more)}", violations)
        if seen.call.side is Side.CLIENT:
            return errors.Internal(f"invalid {seen}: {told(violations, more)}", local=True)
        self._say(seen, f"the {seen} of {seen.call.method} breaks its rules: {logged(violations)}")
        return errors.Internal("the answer of the server breaks its own rules", local=True)

    def _unjudged(self, seen: _Seen, error: Exception | None) -> errors.StatusError:
        """A message cannot be judged. error: why; None: it is of a runtime that is not known here."""
        self._tally.add("faults")
        why = _UNKNOWN if error is None else f"its rules are wrong, or failed: {error}"
        fault = f"Validate cannot judge {seen.type}, the {seen} of {seen.call.method}: {why}"
        self._say(seen, fault)
        told_here = seen.call.side is Side.CLIENT
        return errors.Internal(fault if told_here else f"the {seen.direction} cannot be validated", local=True)

    def _tell(self, seen: _Seen, violations: Sequence[Any]) -> None:
        if self.on_invalid is None:
            return
        try:
            self.on_invalid(
                InvalidDetails(
                    method=seen.call.method,
                    side=seen.call.side,
                    direction=seen.direction,
                    message_type=seen.type,
                    number=seen.number,
                    violations=tuple(violations),
                )
            )
        except Exception:
            _log.exception("on_invalid failed; the message is refused all the same")

    def _say(self, seen: _Seen, fault: str) -> None:
        """Write a fault to the log, if none of this type was written lately."""
        count = self._said.setdefault(seen.type, Seldom(BETWEEN)).happened(seen.call.clock.now())
        if count:
            _log.error("%s (%d since the last line)", one_line(fault, MAX_FAULT), count)


_UNKNOWN = (
    "only messages of google's protobuf, proto-plus and protobuf-py have rules; leave the method out, "
    'like when(lambda method: method.service != "shop.v1.Files", Validate())'
)


shown(Validate)


class _Passing:
    """The messages of one direction of an RPC, judged one after the other as they pass."""

    __slots__ = ("_call", "_direction", "_number", "_validate", "refusal")

    def __init__(self, validate: Validate, call: Call, direction: str) -> None:
        self._validate = validate
        self._call = call
        self._direction = direction
        self._number = 0
        self.refusal: errors.StatusError | None = None

    def __call__(self, message: Any) -> None:
        self._number += 1
        if self.refusal is None:
            self.refusal = self._validate.refusal(self._call, self._direction, message, self._number)
        self.stop()

    def stop(self, _: object = None) -> None:
        """End the RPC if one of them was refused; a handler may read in one thread and answer in another."""
        if self.refusal is not None:
            raise self.refusal


class _Seen(NamedTuple):
    """A message that was judged: which one of what RPC."""

    call: Call
    direction: str
    message: Any
    number: int

    @property
    def type(self) -> str:
        """The full name of its type."""
        known = readable(self.message)
        return type(self.message).__qualname__ if known is None else str(known.DESCRIPTOR.full_name)

    def __str__(self) -> str:
        kind = self.call.kind
        streams = kind.request_streaming if self.direction == "request" else kind.response_streaming
        if not streams or self.call.side is Side.CLIENT:  # where a stream may be sent again, and its numbers go on
            return self.direction
        return f"{self.direction}, message {self.number} of the stream"


def _bad_request(details: str, violations: Sequence[Any]) -> errors.InvalidArgument:
    """What a client gets about a request."""
    packed = rich.status(grpc.StatusCode.INVALID_ARGUMENT.value[0], details, BAD_REQUEST, bad_request(violations))
    return errors.InvalidArgument(details, trailing_metadata=((errors.RICH_KEY, packed),), local=True)
