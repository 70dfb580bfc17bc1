"""Interceptors as users write them: checked by mypy --strict and pyright, never run."""

import functools
import logging
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any, assert_type

import grpc

from interpose import (
    AsyncFlow,
    Call,
    Flow,
    Idempotency,
    Interceptor,
    Kind,
    Metadata,
    Method,
    Outcome,
    Side,
    StatusError,
    chain,
    errors,
    wait,
    when,
)

log = logging.getLogger(__name__)


def timed(call: Call) -> Flow:
    """Without a return: the outcome stands."""
    started = monotonic()
    outcome = yield call
    log.info("%s %s in %.1f ms", call.method, outcome.code.name, 1e3 * (monotonic() - started))


def retried(call: Call) -> Flow:
    """With a return: this outcome replaces the last one."""
    outcome = yield call.buffered()
    for pause in (0.1, 0.2, 0.4):
        if outcome.ok or not outcome.replayable:
            return outcome
        outcome = yield call.after(pause)
    return outcome


def cached(call: Call) -> Flow:
    """With a return before any yield, and without one after it."""
    if call.request == "known":
        return Outcome.success("answer", trailing_metadata=[("x-cache", "hit")])
    yield call


def guarded(call: Call) -> Flow:
    """Raises a status."""
    if "authorization" not in call.metadata:
        raise errors.Unauthenticated("no token")
    yield call


def mapped(call: Call) -> Flow:
    """Passes on another outcome."""
    outcome = yield call
    if isinstance(outcome.error, KeyError):
        return Outcome.failure(errors.NotFound(str(outcome.error)))
    return outcome.with_trailing_metadata(("x-seen", "yes"))


async def logged(call: Call) -> AsyncFlow:
    """An async one."""
    await store("before")
    outcome = yield call
    await store(outcome.details)


async def store(text: str) -> str:
    return text


def fetch() -> str:
    return "plain"


class Tenant:
    """A class with options."""

    def __init__(self, name: str, *, get: Callable[[], Awaitable[str] | str] = fetch) -> None:
        self.name = name
        self.get = get

    def __call__(self, call: Call) -> Flow:
        token = yield from wait(self.get())
        assert_type(token, str)
        yield call.with_metadata(("x-tenant", self.name), ("x-token-bin", token.encode()))

    def method(self, call: Call) -> Flow:
        yield call


class AsyncTenant:
    """An async class."""

    async def __call__(self, call: Call) -> AsyncFlow:
        yield call


def waits(call: Call) -> Flow:
    """What is waited for keeps its type."""
    token = yield from wait(store("a"))
    assert_type(token, str)
    number = yield from wait(5)
    assert_type(number, int)
    outcome = yield call
    assert_type(outcome, Outcome)


def with_option(option: int, call: Call) -> Flow:
    yield call.with_timeout(option)


one: Interceptor = timed
two: Interceptor = Tenant("a")
three: Interceptor = logged
four: Interceptor = chain(timed, retried)
five: Interceptor = when("/shop.v1.*/*", Tenant("a"))

stack = chain(
    timed,
    retried,
    cached,
    guarded,
    mapped,
    logged,
    Tenant("a"),
    Tenant("b", get=lambda: store("b")).method,
    AsyncTenant(),
    functools.partial(with_option, 3),
    chain(),
    when("*", timed, logged),
    when(lambda method: method.kind is Kind.UNARY_UNARY, timed),
    when(lambda method: method.service.startswith("shop."), chain(timed)),
)


def calls_a_chain(call: Call) -> Flow:
    """Another chain, called inside a flow."""
    outcome = yield from chain(timed, retried)(call)
    assert_type(outcome, Any)
    return outcome


def sees_all(call: Call) -> Flow:
    """Every part of a call and of an outcome."""
    assert_type(call.method, Method)
    assert_type(call.method.name, str)
    assert_type(call.method.package, str)
    assert_type(call.method.idempotency_level, Idempotency)
    assert_type(call.kind, Kind)
    assert_type(call.kind.request_streaming, bool)
    assert_type(call.side, Side)
    assert_type(call.metadata, Metadata)
    assert_type(call.metadata["a"], str | bytes)
    assert_type(call.metadata[0], tuple[str, str | bytes])
    assert_type(call.metadata.get("a"), str | bytes | None)
    assert_type(call.metadata.get("a", "default"), str | bytes)
    assert_type(call.metadata.get_all("a"), list[str | bytes])
    assert_type(call.timeout, float | None)
    assert_type(call.deadline, float | None)
    assert_type(call.peer, str | None)
    assert_type(call.delay, float)
    asked = (
        call.with_metadata(("a", "1"), ("b-bin", b"2"))
        .without_metadata("c", "d")
        .with_timeout(None)
        .with_timeout(3)
        .after(0.5)
        .hedged(copies=2, delay=0.1)
        .tap(requests=log.info, responses=log.info, initial_metadata=log.info)
        .map(requests=str, responses=lambda message: message)
        .buffered(1024)
    )
    assert_type(asked, Call)
    outcome = yield asked.with_request("another")
    assert_type(outcome.ok, bool)
    assert_type(outcome.code, grpc.StatusCode)
    assert_type(outcome.details, str)
    assert_type(outcome.error, BaseException | None)
    assert_type(outcome.local, bool)
    assert_type(outcome.initial_metadata, Metadata)
    assert_type(outcome.trailing_metadata, Metadata)
    assert_type(outcome.requests, int)
    assert_type(outcome.responses, int)
    assert_type(outcome.attempts, int)
    assert_type(outcome.elapsed, float)
    assert_type(outcome.replayable, bool)
    assert_type(outcome.error_details, tuple[Any, ...])
    if isinstance(outcome.error, StatusError):
        assert_type(outcome.error.code(), grpc.StatusCode)
    return outcome.with_response("another")
