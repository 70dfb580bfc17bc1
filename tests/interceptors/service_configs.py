"""Service configs to test with, and what is said against those that are refused."""

import json
import re
from typing import Any

import pytest

from interpose.interceptors.service_config import parse

RETRY: dict[str, Any] = {
    "maxAttempts": 3,
    "initialBackoff": "0.001s",
    "maxBackoff": "0.002s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
HEDGING: dict[str, Any] = {"maxAttempts": 3, "hedgingDelay": "0s", "nonFatalStatusCodes": ["UNAVAILABLE"]}
THROTTLING: dict[str, Any] = {"maxTokens": 10, "tokenRatio": 0.1}
EVERY: list[Any] = [{}]


def entry(*names: Any, **fields: Any) -> dict[str, Any]:
    """An entry of `methodConfig`; for every method if no name is given."""
    return {"name": list(names) or EVERY, **fields}


def config(*entries: Any, **fields: Any) -> str:
    return json.dumps({"methodConfig": list(entries), **fields})


def retrying(**changes: Any) -> str:
    """A config that retries every method, with some fields changed; those that are `...` are left out."""
    policy = {name: value for name, value in (RETRY | changes).items() if value is not ...}
    return config(entry(retryPolicy=policy))


def hedging(**changes: Any) -> str:
    policy = {name: value for name, value in (HEDGING | changes).items() if value is not ...}
    return config(entry(hedgingPolicy=policy))


def throttling(**changes: Any) -> str:
    fields = {name: value for name, value in (THROTTLING | changes).items() if value is not ...}
    return json.dumps({"retryThrottling": fields})


def refused(text: str) -> str:
    """What `parse` says against it."""
    with pytest.raises(ValueError, match="service config") as told:
        parse(text)
    return str(told.value)


def paths(message: str) -> list[str]:
    """The fields that a message names."""
    return re.findall(r"field:(\S*) error:", message)
