"""The command line against servers in other languages: grpc-js, whose reflection is v1, and grpc-go, whose is v1alpha."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Ended
from tests.interop.servers.foreign import SERVICE, built, go, node

Run = Callable[..., Ended]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The server on grpc-go, compiled."""
    return built(tmp_path_factory.mktemp("go"))


@pytest.fixture(
    params=[pytest.param("node", marks=pytest.mark.needs("node")), pytest.param("go", marks=pytest.mark.needs("go"))]
)
def target(request: pytest.FixtureRequest) -> Iterator[str]:
    """A server of each."""
    served = node() if request.param == "node" else go(request.getfixturevalue("program"))
    with served as target:
        yield target


CALLS = {
    "Get": ('{"id": 7, "labels": {"a": "b"}}', [{"id": 7, "labels": {"a": "b"}}]),
    "Watch": ('{"id": 2}', [{"id": 1}, {"id": 2}]),
    "Upload": ('{"id": 7} {"id": 8}', [{"orders": 2}]),
    "Trade": ('{"id": 7} {"id": 8}', [{"id": 7}, {"id": 8}]),
}


def test_a_foreign_server(target: str, run: Run) -> None:
    """It is listed, described, called in all four ways, refuses with its details, is well, and is measured."""
    listed = run("list", target)
    assert SERVICE in listed.out.splitlines()
    assert f"service {SERVICE} {{" in run("describe", target, SERVICE).out

    for method, (sent, expected) in CALLS.items():
        ended = run("call", target, f"{SERVICE}/{method}", sent)
        assert (ended.status, [json.loads(line) for line in ended.out.splitlines()]) == (0, expected)

    refused = run("call", target, f"{SERVICE}/Get")
    assert refused.status == 69
    assert refused.err.splitlines() == [
        f"interpose call: {SERVICE}/Get ended with NOT_FOUND: no such order",
        '  google.rpc.ErrorInfo {"reason": "SOLD_OUT"}',
    ]

    assert run("health", target, "--service", SERVICE).out == "SERVING\n"
    measured = run("bench", target, f"{SERVICE}/Get", '{"id": 7}', "-n", 20, "-c", 2, "--json")
    assert json.loads(measured.out)["codes"]["OK"]["calls"] == 20
