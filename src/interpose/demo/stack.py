"""The stacks of the demo: the interceptors between the callers and the handlers, on sync and on asyncio."""

from __future__ import annotations

import logging
from typing import Any

import grpc

from interpose import Interceptor, errors
from interpose.demo.interceptors import Faults, Meter
from interpose.demo.messages import BadRequest, ErrorInfo, Message
from interpose.demo.orders import MalformedOrder, UnknownOrder
from interpose.demo.people import UnknownPerson
from interpose.interceptors import AccessLog, ExceptionToStatus, RequestId, Retry
from interpose.mechanisms.backoff import exponential
from interpose.mechanisms.budget import Unlimited

Stack = tuple[Interceptor, ...]

SHARE = 0.3  # of the attempts is refused
ATTEMPTS = 6  # leave 0.3 ** 6, seven calls in ten thousand, to fail in spite of the retries


def described(malformed: MalformedOrder) -> errors.InvalidArgument:
    """INVALID_ARGUMENT, with a text for people and messages for programs."""
    return errors.InvalidArgument(str(malformed), *rich_details(malformed))


def rich_details(malformed: MalformedOrder) -> tuple[Message, ...]:
    """Which fields are wrong and why, and a name for what happened."""
    violations = [BadRequest.FieldViolation(field=field, description=why) for field, why in malformed.violations]
    return BadRequest(field_violations=violations), ErrorInfo(reason="MALFORMED_ORDER", domain="shop.example")


STATUS_OF: dict[type[Exception], Any] = {
    UnknownOrder: grpc.StatusCode.NOT_FOUND,
    UnknownPerson: grpc.StatusCode.NOT_FOUND,
    MalformedOrder: described,
}

# When a server refuses a stream before it has read it, grpc.aio's client now and then reports INTERNAL,
# "Internal error from Core", instead of the server's UNAVAILABLE. Each method here may be repeated on either.
RETRIED = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL}


def client_stack(log: logging.Logger, meter: Meter) -> Stack:
    """What a client gets, with pauses that are short, as three attempts in ten do fail here.

    Failures of that number would use up a budget, which takes them for an outage: that is another part of the demo.
    """
    retry = Retry(attempts=ATTEMPTS, codes=RETRIED, backoff=exponential(0.01, cap=0.1), budget=Unlimited(), safe=True)
    return RequestId(), meter, AccessLog(logger=log), retry


def server_stack(log: logging.Logger, meter: Meter, faults: Faults) -> Stack:
    """What a server gets; the faults come last, right before the handler."""
    return RequestId(), meter, AccessLog(logger=log), *bare_server_stack(faults)


def bare_server_stack(faults: Faults) -> Stack:
    """What a server gets for comparison: its errors have their codes, and the same faults are injected."""
    return *faultless_server_stack(), faults


def faultless_server_stack() -> Stack:
    """What a server gets where nothing should fail but what deserves it."""
    return (ExceptionToStatus(STATUS_OF),)
