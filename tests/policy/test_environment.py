"""Variables of the environment: only those that are allowed, and never shown."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from interpose import describe
from interpose.interceptors import Authenticate, Deadline, Retry
from interpose.policy import PolicyError, dump
from tests.policy.files import faults, loaded, written

SECRET = "s3cr\"et'\n of-ours"


@pytest.fixture(autouse=True)
def _variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TOKEN": SECRET, "ATTEMPTS": "7", "RATIO": "0.5", "ON": "true", "WAIT": "2s"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NOTHING", raising=False)


def test_values_are_filled_in(tmp_path: Path) -> None:
    """Texts, durations, numbers and flags; a default where the variable is not set."""
    rows = [
        {"Deadline": "${WAIT}"},
        {"Retry": {"attempts": "${ATTEMPTS}", "safe": "${ON}", "per_attempt": "${NOTHING:-250ms}"}},
        {"FaultInjection": {"abort_percent": "${RATIO}", "abort": "${NOTHING:-ABORTED}"}},
        {"RequestId": {"header": "x-${ATTEMPTS}-$${ATTEMPTS}"}},
    ]

    with pytest.raises(PolicyError, match="header"):  # the text that is left is no name of a header
        loaded(tmp_path, {"client": rows}, env=["WAIT", "ATTEMPTS", "ON", "RATIO", "NOTHING"])
    rows.pop()
    policy = loaded(tmp_path, {"client": rows}, env=["WAIT", "ATTEMPTS", "ON", "RATIO", "NOTHING"])

    assert dump(policy.client) == [
        {"Deadline": "2s"},
        {"Retry": {"attempts": 7, "safe": True, "per_attempt": "0.25s"}},
        {"FaultInjection": {"abort_percent": 0.5, "abort": "ABORTED"}},
    ]
    assert isinstance(policy.client.interceptors[0], Deadline)
    assert isinstance(policy.client.interceptors[1], Retry)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("${ATTEMPTS}", "the variable ATTEMPTS may not be read here; allow it: env=['ATTEMPTS'], or --env ATTEMPTS"),
        ("${NOTHING}", "the variable NOTHING is not set; set it, or write ${NOTHING:-default}"),
        ("${a b}", "'${a b}' names no variable; write ${NAME} or ${NAME:-default}, and $${ for the text ${ itself"),
        ("${WAIT", "'${WAIT' names no variable; write ${NAME} or ${NAME:-default}, and $${ for the text ${ itself"),
    ],
)
def test_a_variable_that_cannot_be_had_is_a_fault_with_its_line(text: str, told: str, tmp_path: Path) -> None:
    """One fault, and not another one for the value that is not there."""
    assert faults(tmp_path, f'{{"client": [\n{{"Deadline": "{text}"}}]}}', env=["NOTHING", "WAIT"]) == [
        f"policy.json:2: client[0].Deadline: {told}"
    ]


# places where a secret is refused, each by somebody else: a form, a constructor, a name, a pattern, an import
WRONG: list[Any] = [
    {"Deadline": "${TOKEN}"},
    {"Retry": {"codes": ["${TOKEN}"]}},
    {"Retry": {"${TOKEN}": 1}},
    {"RequestId": {"header": "${TOKEN}"}},
    {"RateLimit": "${TOKEN}"},
    {"RealIp": ["${TOKEN}"]},
    {"methods": {"${TOKEN}": []}},
    {"methods": {"/a.B/*": ["${TOKEN}"]}},
    {"Authenticate": {"verifiers": [{"StaticTokens": {"tokens": {"${TOKEN}": "ann"}}}]}},
    {"RateLimit": {"limits": "1/s", "store": {"RedisStore": "${TOKEN}"}}},
    {"ExceptionToStatus": {"mapping": {"${TOKEN}": "NOT_FOUND"}}},
    "${TOKEN}",
    "a:${TOKEN}",
]


def test_a_fault_of_one_option_does_not_show_the_value_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a constructor says of two together; what it says of one alone is shown."""
    monkeypatch.setenv("LONG", "4321s")
    backoff = {"initial": "${LONG}", "cap": "2s", "jitter": 7}

    told = faults(tmp_path, {"client": [{"Retry": {"backoff": {"exponential": backoff}}}]}, env=["LONG"])

    assert [line.partition("exponential.")[2] for line in told] == [
        "cap: is not accepted; the reason is not shown, since a value of the environment is in it",
        "jitter: must be from 0 to 1, not 7",
    ]


@pytest.mark.parametrize("entry", WRONG, ids=json.dumps)
def test_no_fault_shows_a_value(entry: Any, tmp_path: Path) -> None:
    """Of all who may refuse it; the name of the variable is shown in its place, or the reason is left out."""
    for section in ("client", "server"):
        told = faults(tmp_path, {section: [entry]}, env=["TOKEN"])

        assert told
        assert not any(part in line for line in told for part in ("s3cr", "et'", "of-ours"))


def test_a_service_config_with_a_secret_shows_none(tmp_path: Path) -> None:
    """Its faults quote values."""
    told = faults(
        tmp_path, {"client": [{"service_config": {"methodConfig": [{"timeout": "${TOKEN}"}]}}]}, env=["TOKEN"]
    )

    assert told
    assert not any("s3cr" in line for line in told)


def test_what_a_stack_says_of_itself_shows_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither describe nor repr, nor the log."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("TOKEN", "a-good-token")
    tokens = {"Authenticate": {"verifiers": [{"StaticTokens": {"tokens": {"${TOKEN}": "ann"}}}]}}
    policy = loaded(tmp_path, {"server": [tokens]}, env=["TOKEN"])

    assert isinstance(policy.server.interceptors[0], Authenticate)
    for text in (
        describe(policy.server),
        repr(policy),
        repr(policy.server),
        repr(policy.server.interceptors),
        caplog.text,
    ):
        assert "a-good-token" not in text
    with pytest.raises(ValueError, match=r"^dump: no file can hold Authenticate: its verifiers$"):
        dump(policy.server)


def test_another_value_is_another_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compared when a file is read anew is what it says with its variables."""
    policy = loaded(tmp_path, {"client": [{"Deadline": "${WAIT}"}]}, env=["WAIT"])
    (before,) = policy.client.interceptors

    assert not policy.reload()
    monkeypatch.setenv("WAIT", "3s")
    assert policy.reload()
    assert policy.client.interceptors != (before,)
    written(tmp_path, {"client": []})
    assert policy.reload()
