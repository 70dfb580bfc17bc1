"""Pushback: what a server asks of those who would try again."""

from collections.abc import Iterable
from typing import Any

import pytest
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2
from hypothesis import given
from hypothesis import strategies as st

from interpose.mechanisms.pushback import KEY, NO_MORE, parse


def retry_info(seconds: int = 0, nanos: int = 0) -> Any:
    return error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=seconds, nanos=nanos))


def test_a_server_that_says_nothing() -> None:
    """Neither of other keys nor of other messages is anything read."""
    others = [error_details_pb2.ErrorInfo(reason="x"), any_pb2.Any(), "text", None]

    assert parse(()) is None
    assert parse((("x-retry", "5"), ("grpc-status-details-bin", b"")), lambda: others) is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("1", 0.001),
        ("302", 0.302),
        ("007", 0.007),  # grpc's core takes this and the next two as well
        (" 5", 0.005),
        ("+5", 0.005),
        (b"250", 0.25),
        ("-0", 0.0),
        ("2147483647", 2147483.647),
        ("2147483648", NO_MORE),
        ("99999999999", NO_MORE),
        ("9" * 5000, NO_MORE),
        ("-1", NO_MORE),
        ("-9223372036854775808", NO_MORE),
        ("", NO_MORE),
        ("soon", NO_MORE),
        ("1.5", NO_MORE),
        ("1e3", NO_MORE),
        ("0x10", NO_MORE),
        ("1_000", NO_MORE),
        ("٥", NO_MORE),
        (b"\xff", NO_MORE),
        (None, NO_MORE),
        (5, NO_MORE),
    ],
)
def test_milliseconds_in_the_trailers(value: Any, seconds: float) -> None:
    """An int32 that is not negative is a pause; everything else means: do not try again."""
    assert parse(((KEY, value),)) == seconds


def test_the_last_of_several_counts() -> None:
    """As in gRPC's core, which keeps no other; and keys are blind to case."""
    assert parse((("a", "b"), (KEY, "-1"), ("Grpc-Retry-Pushback-Ms", "10"), ("c", "d"))) == 0.01
    assert parse(((KEY, "10"), (KEY, "-1"))) == NO_MORE


def test_the_trailer_wins() -> None:
    """With one there, details are not even looked at."""

    def details() -> Iterable[Any]:
        raise AssertionError("they were looked at")

    assert parse(((KEY, "10"),), details) == 0.01
    assert parse(((KEY, "x"),), details) == NO_MORE


@pytest.mark.parametrize(
    ("info", "seconds"),
    [
        (retry_info(2, 500_000_000), 2.5),
        (retry_info(0, 1_000_000), 0.001),
        (retry_info(), 0.0),
        (error_details_pb2.RetryInfo(), None),  # it has no delay in it
        (retry_info(-1), NO_MORE),
        (retry_info(2_147_484), NO_MORE),
        (retry_info(315_576_000_000), NO_MORE),
    ],
)
def test_a_retry_info_counts_likewise(info: Any, seconds: float | None) -> None:
    """Its delay is a pause; one that is negative or beyond all reason means: do not try again."""
    assert parse((), lambda: (error_details_pb2.ErrorInfo(), info)) == seconds


class _Treacherous:
    """A message that is one by its name only."""

    class DESCRIPTOR:
        full_name = "google.rpc.RetryInfo"


@pytest.mark.parametrize("details", [lambda: [_Treacherous()], lambda: 1 // 0, lambda: None])
def test_details_that_cannot_be_read_say_nothing(details: Any) -> None:
    """They are a server's, or need a package that is not here: no reason to fail."""
    assert parse((), details) is None


@given(st.lists(st.tuples(st.sampled_from([KEY, "x"]), st.one_of(st.text(), st.binary(), st.integers(), st.none()))))
def test_nothing_that_a_peer_sends_makes_it_fail(trailing: list[tuple[str, Any]]) -> None:
    """It is silence, a pause that can be made, or a refusal."""
    seconds = parse(trailing)

    assert (seconds is None) == all(key != KEY for key, _ in trailing)
    assert seconds is None or seconds == NO_MORE or 0 <= seconds <= 2147483.647
