"""The schema for editors: it is what the code says, and takes every example of the docs."""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings

from interpose.contrib import jwks, jwt, opentelemetry, prometheus, redis, structlog, validate
from interpose.policy import dump
from interpose.policy.registry import MAKERS, OF_EXTRAS, SECONDS, batteries, is_battery, maker
from interpose.policy.schema import text
from tests.policy.drawing import stacks
from tests.support.examples import examples

DOCS = Path(__file__).parents[2] / "docs"
SCHEMA = json.loads((DOCS / "policy.schema.json").read_text("utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
CONTRIB = [jwks, jwt, opentelemetry, prometheus, redis, structlog, validate]


def test_the_file_is_what_the_code_says() -> None:
    """`python -m interpose.policy.schema > docs/policy.schema.json` writes it."""
    assert (DOCS / "policy.schema.json").read_text("utf-8") == text()


@pytest.mark.slow
def test_it_is_a_schema() -> None:
    """By the rules of its own dialect."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def shown(page: Path) -> Iterator[Any]:
    """The policies that stand on a page, in blocks of JSON and TOML, but for the one that is wrong."""
    for language, block in re.findall(
        r"^```(json|toml)(?: \w+\.\w+)?\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL
    ):
        if "atempts" in block:
            continue
        yield json.loads(block) if language == "json" else tomllib.loads(block)


def test_every_example_is_valid() -> None:
    """Those of docs/policy.md."""
    found = list(shown(DOCS / "policy.md"))

    assert len(found) == 3
    for policy in found:
        VALIDATOR.validate(policy)


@settings(max_examples=examples(15))
@given(stacks())
def test_what_dump_writes_is_valid(stack: list[Any]) -> None:
    """Any stack."""
    VALIDATOR.validate({"client": dump(stack)})


@pytest.mark.parametrize(
    "policy",
    [
        {},
        {"sever": []},
        {"client": {}},
        {"client": ["Deadline"]},
        {"client": [{"Deadline": "5 parsecs"}]},
        {"client": [{"Retry": {"attempts": "many"}}]},
        {"client": [{"Retry": {"atempts": 3}}]},
        {"client": [{"Retry": {"codes": ["UNAVAILBLE"]}}]},
        {"client": [{"CircuitBreaker": {"window": {"cals": 1}}}]},
        {"client": [{"methods": {"*": "RequestId"}}]},
        {"client": [{"RequestId": {}, "Retry": {}}]},
    ],
    ids=json.dumps,
)
def test_what_is_wrong_is_not(policy: Any) -> None:
    """What `check` would say of it, an editor says as well."""
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate(policy)


# --- what it is made of -----------------------------------------------------------------------------------------------


def test_every_battery_has_a_name() -> None:
    """Those of the extras too: one that is added there has to be in the registry."""
    names = ((module, name) for module in CONTRIB for name in vars(module).get("__all__", dir(module)))
    extras = {name for module, name in names if is_battery(getattr(module, name))}

    assert extras == OF_EXTRAS.keys()
    assert {"Retry", "RequestId", "Authorize"} <= batteries().keys()


def numbers() -> Iterator[tuple[str, str, str]]:
    """Maker, option and description of each option that the annotation says is a number, or may be one."""
    parts = {name: module for makers in MAKERS.values() for name, module in makers.items()}
    for one in [*batteries().values(), *(maker(name, module) for name, module in parts.items())]:
        said = SCHEMA["$defs"][one.name]
        table = said["anyOf"][0] if "anyOf" in said else said
        for name, option in one.options.items():
            if '"number"' in json.dumps(option.form.schema()) and "object" not in json.dumps(option.form.schema()):
                yield one.name, name, table["properties"][name].get("description", "")


# Of these numbers the docstring of the maker says what they count in another place than in a line of their own.
ELSEWHERE = {
    ("seconds", "length"): True,
    ("Deadline", "seconds"): True,
    ("Deadline", "per_attempt"): True,
    ("FaultInjection", "delay_percent"): False,
    ("full_jitter", "initial"): True,
    ("full_jitter", "cap"): True,
    ("decorrelated", "initial"): True,
    ("decorrelated", "cap"): True,
    ("full_jitter", "multiplier"): False,
    ("exponential", "multiplier"): False,
    ("RatioBudget", "ratio"): False,
    ("quantile", "initial"): True,
    ("RateLimit", "wait"): True,
    ("PrometheusMetrics", "histogram"): False,  # bounds, in numbers of seconds as Prometheus has them
}


def test_options_in_seconds_are_known_by_their_docstrings() -> None:
    """An option that is a length of time takes "250ms", and no other number does."""
    for owner, name, said in numbers():
        expected = ELSEWHERE.get((owner, name), bool(re.search(r"\bseconds\b", said.partition(".")[0])))
        assert (name in SECONDS) == expected, (owner, name, said)
