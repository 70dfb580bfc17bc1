"""`interpose health`: the exit status is the answer of a probe."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.cli.conftest import Ended, Served
from tests.cli.till import SERVICE
from tests.facts import hosting

Run = Callable[..., Ended]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ([], 0, "SERVING"),
        (["--service", SERVICE], 0, "SERVING"),
        (["--service", "resting"], 1, "NOT_SERVING"),
        (["--service", "unheard"], 1, "SERVICE_UNKNOWN"),
    ],
)
def test_each_answer_has_a_status(shop: Served, run: Run, arguments: list[str], status: int, said: str) -> None:
    """0 if the service is SERVING, and 1 if the server says anything else."""
    ended = run("health", shop.target, *arguments)

    assert (ended.status, ended.out, ended.err) == (status, f"{said}\n", "")


def test_an_asyncio_server(served: Served, run: Run) -> None:
    """It makes no difference; as JSON too."""
    ended = run("health", served.target, "--service", SERVICE, "--json")

    assert json.loads(ended.out) == {"service": SERVICE, "status": "SERVING"}


def test_watching_to_the_deadline(shop: Served, run: Run) -> None:
    """Each answer is shown as it comes."""
    ended = run("health", shop.target, "--watch", "--timeout", "100ms", "--service", "unheard")

    assert (ended.status, ended.out) == (68, "SERVICE_UNKNOWN\n")


def test_a_server_without_the_service(run: Run, loop: None) -> None:
    """One line, and status 2: the probe is set up wrongly."""
    with hosting.served("sync", []) as (_, target, _):
        ended = run("health", target)

    assert ended.status == 2
    assert ended.err == f"interpose health: {target} has no health service (grpc.health.v1.Health)\n"


def test_a_server_that_is_not_there(run: Run) -> None:
    """64 + 14, for UNAVAILABLE."""
    assert run("health", "127.0.0.1:1").status == 78


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_the_status_of_a_process(shop: Served) -> None:
    """What Kubernetes sees."""
    command = [sys.executable, "-m", "interpose", "health", shop.target, "--timeout", "30s"]

    well = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    resting = subprocess.run([*command, "--service", "resting"], capture_output=True, timeout=60, check=False)

    assert (well.returncode, well.stdout, well.stderr) == (0, "SERVING\n", "")
    assert resting.returncode == 1
