"""What options become: functions and objects of the application, gRPC's own service config, and what cannot be written."""

import json
import logging
from pathlib import Path
from typing import Any

import grpc
import pytest

from interpose import Kind, Side
from interpose.interceptors import AccessLog, ExceptionToStatus, Fallback, Retry
from interpose.policy import dump
from interpose.policy.forms import (
    CODES,
    Duration,
    ErrorClass,
    Flag,
    Form,
    Imported,
    ListOf,
    Logger,
    Null,
    OneOf,
    Real,
    TableOf,
    Text,
    Unwritable,
    Whole,
)
from interpose.policy.registry import maker
from interpose.testing import Place, failed, ok
from tests.facts.serving import serving
from tests.policy import interceptors
from tests.policy.files import loaded, written

CLIENT = Place(asyncio=False, side=Side.CLIENT, kind=Kind.UNARY_UNARY)
COUNT, ANSWER, LOST = (f"tests.policy.interceptors:{name}" for name in ("count", "answer", "Lost"))

CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 3,
                "initialBackoff": "0.001s",
                "maxBackoff": "0.001s",
                "backoffMultiplier": 1,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
}


def test_a_service_config_stands_in_a_stack(tmp_path: Path) -> None:
    """It retries, and leaves to the channel what is gRPC's core's to do."""
    policy = loaded(tmp_path, {"client": ["RequestId", {"service_config": CONFIG}]})
    down = failed(grpc.StatusCode.UNAVAILABLE)

    with CLIENT.open(policy.client, script=[down, down, ok()]) as rpc:
        assert rpc.call("a").ok and len(rpc.attempts) == 3
    options = dict(policy.channel_options)
    assert json.loads(options["grpc.service_config"]) == {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [{"name": [{}]}],
    }
    assert options["grpc.enable_retries"] == 0


def test_a_service_config_that_says_the_same_is_kept(tmp_path: Path) -> None:
    """With its budget."""
    policy = loaded(tmp_path, {"client": [{"service_config": CONFIG}]})
    before = policy.client.interceptors
    written(tmp_path, {"client": ["RequestId", {"service_config": CONFIG}]})

    assert policy.reload()
    assert policy.client.interceptors[1:] == before
    assert "grpc.service_config" in dict(policy.channel_options)


def test_functions_and_objects_are_the_applications_own(tmp_path: Path) -> None:
    """By their names: a hook, an answer, a class of exceptions, a logger."""
    rows = [
        {"Retry": {"on_retry": COUNT}},
        {"Fallback": {"answer": ANSWER}},
        {"ExceptionToStatus": {"mapping": {"KeyError": "NOT_FOUND", LOST: "INTERNAL"}}},
        {"AccessLog": {"logger": "shop.calls"}},
    ]
    policy = loaded(tmp_path, {"server": rows}, allow=[COUNT, ANSWER, LOST])
    retry, fallback, exceptions, log = map(vars, policy.server.interceptors)

    assert retry["on_retry"] is interceptors.count
    assert fallback["_given"]["answer"] is interceptors.answer
    assert list(exceptions["_given"]["mapping"]) == [KeyError, interceptors.Lost]
    assert log["_given"]["logger"] is logging.getLogger("shop.calls")
    assert dump(policy.server) == [
        rows[0],
        {"Fallback": ANSWER},
        rows[2],
        rows[3],
    ]
    assert [type(one) for one in policy.server.interceptors] == [Retry, Fallback, ExceptionToStatus, AccessLog]


@pytest.mark.parametrize("side", list(Side))
def test_what_runs_once_per_attempt_runs_there_alone(side: Side, tmp_path: Path) -> None:
    """Inside of all others on a client, and not at all on a server, as in a stack of code."""
    name = "tests.policy.interceptors:attempts"
    policy = loaded(tmp_path, {side.value: [name, {"Retry": {"safe": True}}]}, allow=[name])
    ran = interceptors.attempts.ran
    ran.clear()

    with Place(asyncio=False, side=side, kind=Kind.UNARY_UNARY).open(getattr(policy, side.value), script=[ok()]) as rpc:
        assert rpc.call("a").ok

    assert ran == (["call", "attempt"] if side is Side.CLIENT else ["call"])


def missing(request: Any, context: Any) -> Any:
    raise KeyError(request)


def test_a_mapping_of_a_file_speaks_of_handlers(tmp_path: Path) -> None:
    """From a handler's exception to the status that the file says."""
    policy = loaded(tmp_path, {"server": [{"ExceptionToStatus": {"mapping": {"KeyError": "NOT_FOUND"}}}]})

    with serving("sync", {"unary_unary": missing}, around=[policy.server]) as client:
        assert client.call().code is grpc.StatusCode.NOT_FOUND


FORMS: list[Form] = [
    Null(),
    Flag(),
    Whole(),
    Real(),
    Duration(),
    Text(),
    Logger(),
    CODES,
    ErrorClass(),
    Imported(),
    ListOf(Flag()),
    TableOf(Text(), Flag()),
    OneOf([Flag(), Whole()]),
]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: type(form).__name__)
def test_a_form_writes_nothing_but_its_own(form: Form) -> None:
    """An object that is none of it is left for another form."""
    with pytest.raises(Unwritable):
        form.write(object())


def test_a_maker_whose_extra_is_missing_has_made_nothing() -> None:
    """Neither an interceptor nor a part of one."""
    assert not maker("Nothing", "interpose.no_such_module").owns(object())
