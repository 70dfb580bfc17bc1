"""`interpose health`: the exit status is the answer of a probe."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from grpc_health.v1 import health_pb2_grpc

from tests.cli.conftest import Ended, Served
from tests.cli.till import HEALTH, SERVICE
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


class Changing(health_pb2_grpc.HealthServicer):
    """A server that is well, and then stops."""

    def Watch(self, request: Any, context: Any) -> Iterator[Any]:
        """Both, and then the end of the stream."""
        yield HEALTH(status=HEALTH.SERVING)
        yield HEALTH(status=HEALTH.NOT_SERVING)


def test_watching(run: Run, loop: None) -> None:
    """Each answer is shown as it comes, and the last one is the status."""
    register = partial(health_pb2_grpc.add_HealthServicer_to_server, Changing())
    with hosting.served("sync", [register]) as (_, target, _):
        ended = run("health", target, "--watch")

    assert (ended.status, ended.out) == (1, "SERVING\nNOT_SERVING\n")


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
    """What Kubernetes sees. Where grpc's core would say more of a failure, in lines of its own, there is one line."""
    program = "import sys, interpose_command; sys.exit(interpose_command.main())"  # as the installed command
    command = [sys.executable, "-c", program, "health", shop.target, "--timeout", "30s"]
    environment = {name: value for name, value in os.environ.items() if name != "GRPC_VERBOSITY"}

    well, lost = (
        subprocess.run([*command, *flags], capture_output=True, text=True, timeout=60, check=False, env=environment)
        for flags in ([], ["--tls"])
    )

    assert (well.returncode, well.stdout, well.stderr) == (0, "SERVING\n", "")
    assert (lost.returncode, lost.stdout, lost.stderr.count("\n")) == (78, "", 1)
