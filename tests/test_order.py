"""An order that is known to be wrong is in the log, where a stack is put to use."""

import asyncio
import json
import logging
from collections.abc import Callable
from concurrent import futures
from pathlib import Path

import grpc
import grpc.aio
import pytest

from interpose import (
    Call,
    Flow,
    Interceptor,
    chain,
    describe,
    intercept_channel,
    intercept_server,
    native_interceptors,
    server_interceptor,
    when,
)
from interpose._order import RULES
from interpose.interceptors import AccessLog, ConcurrencyLimit, Deadline, RequestId, Retry
from interpose.policy import load

SAID = (
    "interceptors: Retry is outside of Deadline: each attempt gets the whole time again, in the stack Retry, Deadline"
)


def on_a_channel(*stack: Interceptor) -> None:
    intercept_channel(grpc.insecure_channel("localhost:1"), *stack).close()


def on_an_asyncio_channel(*stack: Interceptor) -> None:
    async def make() -> None:
        await intercept_channel(grpc.aio.insecure_channel("localhost:1"), *stack).close()

    asyncio.run(make())


def on_a_server(*stack: Interceptor) -> None:
    with futures.ThreadPoolExecutor(1) as pool:
        intercept_server(grpc.server(pool), *stack)


def on_an_asyncio_server(*stack: Interceptor) -> None:
    async def make() -> None:
        await intercept_server(grpc.aio.server(), *stack).stop(None)

    asyncio.run(make())


@pytest.mark.parametrize(
    "put",
    [on_a_channel, on_an_asyncio_channel, on_a_server, on_an_asyncio_server, server_interceptor, native_interceptors],
)
def test_it_is_said_once(put: Callable[..., object], caplog: pytest.LogCaptureFixture) -> None:
    """By each of the ways to put a stack to use, as `describe` says it; a client that makes many channels says it once."""
    put(Retry(), Deadline(5))
    put(Retry(), Deadline(5))

    assert [(record.levelname, record.getMessage()) for record in said(caplog)] == [("WARNING", SAID)]


def test_what_is_well_is_not_said(caplog: pytest.LogCaptureFixture) -> None:
    """Nor what never sees the same call."""
    on_a_channel(RequestId(), Deadline(5), Retry())
    on_a_channel(when("/a.B/*", Retry()), when("/c.D/*", Deadline(5)))

    assert said(caplog) == []


def test_two_stacks_on_one_channel_are_one(caplog: pytest.LogCaptureFixture) -> None:
    """The later one is outside of the one that was there."""
    inner = intercept_channel(grpc.insecure_channel("localhost:1"), Deadline(5))
    intercept_channel(inner, Retry()).close()

    assert [record.getMessage() for record in said(caplog)] == [SAID]


def test_what_is_further_out_makes_good() -> None:
    """A limit for each attempt is no mistake if the call has one as well; nor is a log of attempts, beside one of calls."""
    assert "!" not in describe(Deadline(30), Retry(), Deadline(5))
    assert "!" not in describe(AccessLog(), ConcurrencyLimit(), AccessLog())


def test_what_is_further_out_has_to_see_the_same_calls() -> None:
    """Else calls are left that it does not limit."""
    some = when("/a.B/*", Deadline(30))

    assert "! Retry is outside of Deadline" in describe(some, Retry(), Deadline(5))
    assert "!" not in describe(some, when("/c.D/*", Deadline(30)), chain(Deadline(30)), Retry(), Deadline(5))


def test_a_class_of_the_same_name_is_not_meant() -> None:
    """What a user calls `Deadline` is not known to be in the wrong place; a subclass of ours is."""
    mine = type("Deadline", (), {"__call__": pass_on})

    assert "!" not in describe(Retry(), mine())
    assert "! Retry is outside of Deadline" in describe(type("Patient", (Retry,), {})(), Deadline(5))


def test_a_policy_that_is_read_anew_is_looked_at(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is in use already, so that no channel will be made that could look."""
    path = tmp_path / "policy.json"
    path.write_text(json.dumps({"client": ["RequestId", {"Deadline": 5}, "Retry"]}), "utf-8")
    policy = load(path)
    on_a_channel(policy.client)
    assert said(caplog) == []

    path.write_text(json.dumps({"client": ["RequestId", "Retry", {"Deadline": 5}]}), "utf-8")
    policy.reload()

    assert [record.getMessage() for record in said(caplog)] == [SAID.replace("Retry, D", "RequestId, Retry, D")]


def test_each_pair_has_one_rule() -> None:
    """A second one would never be said."""
    assert len({(rule.outer, rule.inner) for rule in RULES}) == len(RULES)


def pass_on(self: object, call: Call) -> Flow:
    """Do nothing."""
    yield call


def said(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == "interpose"]
