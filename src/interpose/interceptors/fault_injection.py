"""Faults on purpose: what a client or a server makes of a bad day, tried on a good one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import Any

from grpc import StatusCode

from interpose import errors
from interpose._call import Call
from interpose._clock import FOREVER
from interpose._flow import Flow
from interpose._outcome import Outcome
from interpose.mechanisms.options import (
    FLAG,
    check_options,
    hook,
    is_flag,
    is_number,
    is_seconds,
    is_whole,
    must_be,
    option,
    optional,
)

_log = logging.getLogger("interpose")

NEVER = FOREVER / 2  # seconds; more than a year, and with the pause of a Retry still less than FOREVER
LONGEST = 60.0  # seconds; what a header asks for is no more: on a plain server each delay holds a thread
MOST_ACTIVE = 10_000
MOST_MESSAGES = 2**31

# gRFC A33
ABORT_HTTP = "x-envoy-fault-abort-request"
ABORT_GRPC = "x-envoy-fault-abort-grpc-request"
ABORT_PERCENT = "x-envoy-fault-abort-request-percentage"
DELAY = "x-envoy-fault-delay-request"  # milliseconds
DELAY_PERCENT = "x-envoy-fault-delay-request-percentage"

# https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md; every other status is UNKNOWN, 200 too
OF_HTTP = {
    400: StatusCode.INTERNAL,
    401: StatusCode.UNAUTHENTICATED,
    403: StatusCode.PERMISSION_DENIED,
    404: StatusCode.UNIMPLEMENTED,
    429: StatusCode.UNAVAILABLE,
    502: StatusCode.UNAVAILABLE,
    503: StatusCode.UNAVAILABLE,
    504: StatusCode.UNAVAILABLE,
}
OF_GRPC: dict[int, StatusCode] = {code.value[0]: code for code in StatusCode if code is not StatusCode.OK}


@dataclass(frozen=True, kw_only=True)
class InjectedFault:
    """What `FaultInjection` does to one RPC.

    delay: seconds before anything else. abort: the status it ends with, unsent. dropped: it is lost on its way.
    break_after: its stream breaks behind that number of messages.
    """

    call: Call
    delay: float = 0.0
    abort: StatusCode | None = None
    dropped: bool = False
    break_after: int | None = None


# - what holds of its options -

PERCENT = must_be("a number from 0 to 100", lambda percent: is_number(percent) and 0 <= percent <= 100)


def _is_delay(value: object) -> bool:
    return is_seconds(value, NEVER)


def _is_failure(value: object) -> bool:
    return isinstance(value, StatusCode) and value is not StatusCode.OK


def _is_count(value: object) -> bool:
    return is_whole(value, 0, MOST_MESSAGES)


def _is_most(value: object) -> bool:
    return is_whole(value, 1, MOST_ACTIVE)


@dataclass(eq=False, repr=False, kw_only=True)
class FaultInjection:
    """Delay, abort or lose RPCs, and break streams, by percentage; for tests and rehearsals, on a client or a server.

    It does nothing until `enabled` says so, and the first time that it does, one line at level WARNING says so.
    For some methods only: `when("/pay.v1.*/*", FaultInjection(…))`. Each kind of fault has its own dice, as in gRFC A33.
    Several may meet in one RPC: it is delayed first; then it is lost, else aborted, else its stream breaks.
    An abort and a break say "fault injected" in their details, and their error is `local`.

    What is inside of it lives through the fault; what is outside sees how it ends. On a client it belongs inside of
    `Retry`, where each attempt has its own fate. On a server it belongs outside of all that must not run.

    enabled: True or False, or a function that is asked for each RPC: a switch.
    delay, delay_percent: hold the RPC back for this number of seconds, in this share of the RPCs (per cent).
    abort, abort_percent: end it with this code, before anything is sent or handled.
    drop_percent: lose the request. Nothing is sent or handled; the RPC ends when its deadline passes, or when it is
        cancelled. Without a deadline it hangs: that is the fault.
    break_after, break_percent: let the response stream break with UNAVAILABLE instead of a message more than this number;
        of a request stream with a unary response the requests count. An RPC without a stream is spared.
    headers: let each call choose its delay and its abort itself, by A33's metadata `x-envoy-fault-…`. The percentages
        above are the most that it can ask for, and no delay is longer than a minute. Not for unknown callers.
    match: a function of the call; where it gives False nothing happens.
    max_active: how many RPCs may suffer at the same time, each until it has ended; others are spared. None: any number.
    seed: a whole number; the n-th RPC that matches then has the same faults in every run. None: chance.
    on_fault: called with `InjectedFault` before each; what it raises is logged.

    The functions run where the RPC runs: on its thread, or in its event loop. What `enabled` and `match` raise ends the RPC
    with INTERNAL. Defaults: off; a fault that you name hits 100 per cent of the RPCs.

    ValueError listing every fault of the options.
    """

    enabled: bool | Callable[[], bool] = option(
        False, must_be("True, False or a function", lambda on: is_flag(on) or callable(on))
    )
    delay: float | None = option(None, optional(f"a number of seconds above 0 and below {NEVER:g}", _is_delay))
    delay_percent: float = option(100, PERCENT)
    abort: StatusCode | None = option(None, optional("a code like StatusCode.UNAVAILABLE, without OK", _is_failure))
    abort_percent: float = option(100, PERCENT)
    drop_percent: float = option(0, PERCENT)
    break_after: int | None = option(None, optional("a number of messages, 0 or more", _is_count))
    break_percent: float = option(100, PERCENT)
    headers: bool = option(False, FLAG)
    match: Callable[[Call], bool] | None = option(None, hook("the call"))
    max_active: int | None = option(None, optional(f"a whole number from 1 to {MOST_ACTIVE}", _is_most))
    seed: int | None = option(
        None, optional("a whole number", lambda seed: isinstance(seed, int) and not is_flag(seed))
    )
    on_fault: Callable[[InjectedFault], object] | None = option(None, hook("InjectedFault"))

    def __post_init__(self) -> None:
        alone = self.headers is not True or (self.delay is None and self.abort is None)
        check_options(
            self, (alone, "with headers=True each call says its own delay and abort: leave these options out")
        )
        # Permits are taken and given back by one operation each, which threads cannot tear: no lock is needed.
        self._permits = None if self.max_active is None else [None] * self.max_active
        self._chance = Random(self.seed)
        self._unsaid = [True]
        if self.enabled is True:
            self._say_so()

    @property
    def _percentages(self) -> dict[str, float]:
        return {
            "delay_percent": self.delay_percent,
            "abort_percent": self.abort_percent,
            "drop_percent": self.drop_percent,
            "break_percent": self.break_percent,
        }

    def __call__(self, call: Call) -> Flow:
        fault = self._fault(call) if self._applies(call) else None
        if fault is None or not self._admitted():
            yield call
            return
        try:
            self._tell(fault)
            yield from self._inflict(fault)
        finally:
            if self._permits is not None:
                self._permits.append(None)

    # - whether -

    def _applies(self, call: Call) -> bool:
        if self.enabled is False or (callable(self.enabled) and not self.enabled()):
            return False
        self._say_so()
        return self.match is None or self.match(call)

    def _say_so(self) -> None:
        """Say that faults are on; once."""
        if not self._unsaid:
            return
        with suppress(IndexError):  # another thread says so
            self._unsaid.pop()
            _log.warning("FaultInjection is ON: RPCs of this process are delayed, lost or failed on purpose")

    def _admitted(self) -> bool:
        """Take a permit, if their number is limited."""
        if self._permits is not None:
            try:
                self._permits.pop()
            except IndexError:
                return False
        return True

    # - what -

    def _fault(self, call: Call) -> InjectedFault | None:
        """What happens to this RPC, or None."""
        # One draw per RPC, and the dice from that: threads cannot mix the dice of two RPCs, and the n-th has the n-th.
        dice = Random(self._chance.getrandbits(64))
        delay, abort, limits = self.delay, self.abort, self._percentages
        if self.headers:
            delay, abort, limits = _asked_delay(call), _asked_abort(call), limits | _asked_percentages(call, limits)
        # All four are thrown always, so that one option more or less does not change the fate of the others.
        delayed, aborted, dropped, broken = (dice.random() * 100 < limits[name] for name in limits)
        fault = InjectedFault(
            call=call,
            delay=delay if delayed and delay is not None else 0.0,
            abort=abort if aborted else None,
            dropped=dropped,
            break_after=self.break_after if broken and _streams(call) else None,
        )
        return None if fault == InjectedFault(call=call) else fault

    def _inflict(self, fault: InjectedFault) -> Flow:
        call = fault.call
        pause = call.delay + fault.delay  # a Retry outside may have asked for one too
        if fault.dropped:
            yield call.after(NEVER)
        elif fault.abort is not None:
            if (yield from self._passed(call, pause)):
                raise errors.of(fault.abort)("fault injected: abort", local=True)
        else:
            if fault.break_after is not None:
                call = _breaking(call, fault.break_after)
            yield call.after(pause) if fault.delay else call

    def _passed(self, call: Call, seconds: float) -> Generator[Call, Outcome, bool]:
        """Let so much time pass, and send nothing; False if the RPC ended meanwhile, by its deadline or its caller."""
        if not seconds:
            return True
        ends = call.clock.now() + seconds
        limit = call.deadline
        # A flow cannot sleep, but a call that would be sent at its deadline is not sent at all.
        outcome = yield call.after(seconds).with_deadline(ends)
        # OK: an interceptor inside of this one, a cache perhaps, has answered.
        return outcome.ok or (outcome.code is StatusCode.DEADLINE_EXCEEDED and (limit is None or limit > ends))

    def _tell(self, fault: InjectedFault) -> None:
        if self.on_fault is not None:
            try:
                self.on_fault(fault)
            except Exception:
                _log.exception("on_fault failed; the fault is injected all the same")


def _breaking(call: Call, messages: int) -> Call:
    """The call, with a stream that breaks in the place of a message more than these."""
    left = messages

    def count(_: Any) -> None:
        nonlocal left
        if not left:
            raise errors.Unavailable(f"fault injected: the stream breaks after {messages} messages", local=True)
        left -= 1

    return call.tap(responses=count) if call.kind.response_streaming else call.tap(requests=count)


def _streams(call: Call) -> bool:
    return call.kind.request_streaming or call.kind.response_streaming


# - what the metadata asks for; what is not well-formed is ignored, as A33 says -


def _asked_delay(call: Call) -> float | None:
    milliseconds = _number(call, DELAY)
    return None if not milliseconds else min(milliseconds / 1000, LONGEST)


def _asked_abort(call: Call) -> StatusCode | None:
    """Where both are given, the status of HTTP counts, as in Envoy."""
    status = _number(call, ABORT_HTTP)
    if status is not None and 200 <= status < 600:
        return OF_HTTP.get(status, StatusCode.UNKNOWN)
    code = _number(call, ABORT_GRPC)
    return None if code is None else OF_GRPC.get(code)


def _asked_percentages(call: Call, most: dict[str, float]) -> dict[str, float]:
    """A call can make faults rarer than the options say, never more frequent."""
    asked = {"delay_percent": _number(call, DELAY_PERCENT), "abort_percent": _number(call, ABORT_PERCENT)}
    return {name: min(percent, most[name]) for name, percent in asked.items() if percent is not None}


def _number(call: Call, key: str) -> int | None:
    """The whole number in this metadata, or None."""
    value = call.metadata.get(key)
    # No number that matters has more digits; int() of a thousand digits is work that an unknown caller would give us.
    well_formed = isinstance(value, str) and len(value) <= 10 and value.isascii() and value.isdigit()
    return int(value) if well_formed else None  # type: ignore[arg-type]  # it is text
