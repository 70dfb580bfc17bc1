"""A policy file could not give a token its scopes: `Identity.scopes` is a frozenset, which was taken for a function."""

import json
from pathlib import Path
from typing import Any

import grpc
import pytest

from interpose import Side
from interpose.policy import check, load
from interpose.testing import ok, play


def server(scopes: list[str]) -> list[Any]:
    caller = {"Identity": {"subject": "ann", "scopes": scopes}}
    return [
        {"Authenticate": {"verifiers": [{"StaticTokens": {"tokens": {"s3cr3t": caller}}}]}},
        {"Authorize": {"policy": {"require": "print"}}},
    ]


@pytest.mark.parametrize(("scopes", "code"), [(["print"], "OK"), ([], "PERMISSION_DENIED")])
def test_a_token_has_the_scopes_of_the_file(scopes: list[str], code: str, tmp_path: Path) -> None:
    """Its caller may do what they allow; one without them may not."""
    file = tmp_path / "policy.json"
    file.write_text(json.dumps({"server": server(scopes)}))

    assert check(file) == []
    policy = load(file)
    played = play(policy.server, [ok(), ...], side=Side.SERVER, metadata=[("authorization", "Bearer s3cr3t")])
    assert played.outcome.code is grpc.StatusCode[code]
