"""How batteries and channels print: with their options, and without secrets."""

import copy
import inspect
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc import StatusCode

from interpose import Call, Flow, intercept_channel, interceptors, when
from interpose.interceptors import Cache, CircuitBreaker, Deadline, ExceptionToStatus, Fallback, Retry, RetryBudget
from interpose.interceptors.keys import by_method
from interpose.mechanisms.shown import of
from interpose.mechanisms.window import seconds


@pytest.mark.parametrize(
    ("battery", "printed"),
    [
        (Retry(), "Retry()"),
        (
            Retry(5, codes={StatusCode.UNAVAILABLE, StatusCode.ABORTED}, safe=True),
            "Retry(attempts=5, codes={ABORTED, UN",
        ),
        (Retry(budget=RetryBudget()), "Retry(budget=<RetryBudget, 10 of 10 tokens>)"),
        (Cache(30, metadata=["x-tenant"]), "Cache(ttl=30, metadata=[…])"),
        (CircuitBreaker(window=seconds(3), key=by_method), "CircuitBreaker(window=seconds(3), key=by_method)"),
        (ExceptionToStatus({KeyError: StatusCode.NOT_FOUND}), "ExceptionToStatus(mapping={KeyError: NOT_FOUND})"),
        (Fallback("hunter2"), "Fallback(answer=…)"),
        (Fallback({"password": "hunter2"}), "Fallback(answer={…: …})"),
        (copy.copy(Deadline(5, per_attempt=None)), "Deadline(seconds=5, per_attempt=None)"),
    ],
)
def test_a_battery_prints_as_it_was_made(battery: object, printed: str) -> None:
    """Its options that were given, in words; text may be a secret, and is not shown."""
    assert repr(battery).startswith(printed)
    assert "hunter2" not in repr(battery)


def test_all_batteries_do() -> None:
    """Also those that are yet to come; help() shows their own signature."""
    for name in interceptors.__all__:
        kind = getattr(interceptors, name)
        if inspect.isgeneratorfunction(vars(kind).get("__call__") if isinstance(kind, type) else None):
            assert kind.__repr__ is not object.__repr__, name
            assert "args" not in inspect.signature(kind).parameters


def test_a_class_of_an_application_s_own() -> None:
    """One that inherits from a battery prints with what it gave to it."""

    class Patient(Retry):
        def __init__(self, secret: str) -> None:
            super().__init__(attempts=9)

    assert repr(Patient("hunter2")).endswith("Patient(attempts=9)")


def test_long_options_are_cut() -> None:
    """At eight parts."""
    assert of(range(100)) == "[0, 1, 2, 3, 4, 5, 6, 7, …]"


async def test_a_channel_says_where_it_goes_and_through_what() -> None:
    """On both stacks."""

    def passes(call: Call) -> Flow:
        yield call

    made: list[Any] = [grpc.insecure_channel("localhost:1"), grpc.aio.insecure_channel("localhost:1")]
    for native in made:
        text = repr(intercept_channel(native, Retry(), when("/a.B/*", passes)))
        where = "localhost:1" if hasattr(native._channel, "target") else "an unknown target"  # asyncio's, up to 1.66
        assert text.startswith("<intercepted channel to ") and where in text
        assert "Retry, when('/a.B/*', test_a_channel_says" in text
    made[0].close()
    await made[1].close()
