"""Pushback: what a server asks of those who would try again (gRFC A6)."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from typing import Any

from interpose.mechanisms.rich import delimited, number, status

KEY = "grpc-retry-pushback-ms"  # in trailing metadata
NO_MORE = math.inf  # seconds: do not try again

_LONGEST = 2**31 - 1  # milliseconds; an int32 on the wire (gRFC A6)
_WHOLE = re.compile(r"\s*[+-]?[0-9]{1,20}\s*", re.ASCII)
_RETRY_INFO = "google.rpc.RetryInfo"


def parse(trailing: Iterable[tuple[str, Any]], details: Callable[[], Iterable[Any]] = tuple) -> float | None:
    """Seconds after which the server wants the call again, or NO_MORE; None: it does not say.

    trailing: metadata behind the response. Of several `grpc-retry-pushback-ms` the last counts: gRPC's core keeps no
        other. One that is negative, too large or no number means NO_MORE.
    details:  gives the google.rpc messages of the failure, and is asked if there is no such key: a `RetryInfo` among
        them counts likewise. If it raises, they say nothing.
    """
    told = [value for key, value in trailing if key.lower() == KEY]
    if told:
        return _in_range(_whole(told[-1]))
    try:
        return next((_in_range(_delay(part)) for part in details() if _is_retry_info(part)), None)
    except Exception:  # details that are broken, or cannot be read here, are no reason to fail
        return None


def pair(seconds: float) -> tuple[str, str]:
    """The pair of trailing metadata with which a server asks for this pause; NO_MORE, or more than 24 days: do not retry.

    Rounded up to a millisecond, so that no client comes too early. ValueError for less than nothing.
    """
    if not seconds >= 0:
        raise ValueError(f"pushback must be 0 or more seconds, or NO_MORE, not {seconds!r}")
    return KEY, "-1" if seconds > _LONGEST / 1000 else str(math.ceil(round(seconds * 1000, 6)))


def _in_range(milliseconds: float) -> float:
    return milliseconds / 1000 if 0 <= milliseconds <= _LONGEST else NO_MORE


def _whole(value: Any) -> float:
    """The text as a whole number; infinity for any other."""
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    return int(text) if isinstance(text, str) and _WHOLE.fullmatch(text) else math.inf


def _is_retry_info(part: Any) -> bool:
    # By its name: protobuf need not be there, and a message of another runtime will do.
    descriptor = getattr(part, "DESCRIPTOR", None)
    return getattr(descriptor, "full_name", None) == _RETRY_INFO and bool(part.HasField("retry_delay"))


def _delay(info: Any) -> float:
    milliseconds: float = info.retry_delay.seconds * 1000 + info.retry_delay.nanos / 1e6
    return milliseconds


def retry_info(code: int, text: str, seconds: float) -> bytes:
    """A `google.rpc.Status` with a `RetryInfo`, serialized. code, text: the same as those of the RPC, or readers refuse it."""
    nanoseconds = math.ceil(min(seconds, _LONGEST) * 10**9)
    duration = number(1, nanoseconds // 10**9) + number(2, nanoseconds % 10**9)
    return status(code, text, _RETRY_INFO, delimited(1, duration))
