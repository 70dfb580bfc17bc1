"""The demo as its user starts it: `python -m interpose.demo`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

pytest.importorskip("grpc_tools")

pytestmark = pytest.mark.slow  # each run is a process of some seconds

KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")

SERVICES = ("shop", "warehouse", "carrier")


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it as a user does, with the interpreter's warnings made visible."""
    command = [sys.executable, "-W", "always", "-m", "interpose.demo", *arguments]
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "COLUMNS": "100"}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)


@pytest.fixture(scope="module")
def ran() -> subprocess.CompletedProcess[str]:
    return demo("--calls", "8", "--json")


@pytest.fixture(scope="module")
def document(ran: subprocess.CompletedProcess[str]) -> Any:
    return json.loads(ran.stdout)


def test_it_ends_well_and_leaves_nothing_behind(ran: subprocess.CompletedProcess[str]) -> None:
    """Exit status 0, and not a word on stderr: no warning, no lost task, no thread that hangs."""
    assert (ran.returncode, ran.stderr) == (0, "")


def test_it_shows_all_sixteen_places(document: Any) -> None:
    """Two stacks, two sides, four kinds; each was passed by the calls of two legs."""
    places = [(row["stack"], row["side"], row["kind"]) for row in document["places"]]

    assert places == [(s, side, k) for s in ("sync", "asyncio") for side in ("client", "server") for k in KINDS]
    assert {row["calls"] for row in document["places"]} == {16}


def test_every_claim_holds(document: Any) -> None:
    """What the seed foretold is what was observed; `holds` is what the exit status tells."""
    assert [claim for claim in document["claims"] if not claim["holds"]] == []
    assert document["holds"]


def test_the_stack_makes_the_difference(document: Any) -> None:
    """Without it calls fail in both worlds; with it none does."""
    clients = [row for row in document["places"] if row["side"] == "client"]

    assert all(sum(row["failures_without"] for row in clients if row["stack"] == s) > 0 for s in ("sync", "asyncio"))
    assert sum(row["failures_with"] for row in clients) == 0
    assert sum(row["attempts"] for row in clients) > sum(row["calls"] for row in clients)


def test_the_access_log_ties_both_sides_by_the_request_id(document: Any) -> None:
    """A call in the excerpt was logged by its client and by its server, under one id."""
    lines = document["access_log"]["excerpt"]

    for request_id in {line["request_id"] for line in lines}:
        sides = {line["place"].split()[1] for line in lines if line["request_id"] == request_id}
        assert sides == {"client", "server"}


def test_orders_pass_three_services(document: Any) -> None:
    """Two clients, three services: one id per order, less time at each hop, and a cancel that reached them all."""
    hops = document["hops"]

    assert [(hop["client"], hop["service"]) for hop in hops] == [(c, s) for c in ("sync", "asyncio") for s in SERVICES]
    assert [hop["request_id"] for hop in hops] == ["sync-delivered"] * 3 + ["asyncio-delivered"] * 3
    assert all(hop["stopped_ms"] is not None for hop in hops)
    for first in (0, 3):
        left = [hop["left"] for hop in hops[first : first + 3]]
        assert left == sorted(left, reverse=True) and len(set(left)) == 3


def test_a_refused_order_is_described(document: Any) -> None:
    """The messages of each leg's `error_details`, with their types."""
    assert [refusal["code"] for refusal in document["refusals"]] == ["INVALID_ARGUMENT"] * 4
    for refusal in document["refusals"]:
        bad, info = refusal["error_details"]
        assert (bad["type"], info["type"]) == ("google.rpc.BadRequest", "google.rpc.ErrorInfo")
        assert [violation["field"] for violation in bad["fieldViolations"]] == ["id", "items", "price", "destination"]


def test_three_clients_meet_an_outage(document: Any) -> None:
    """Retry hides the small faults, hedging the slow answers, and the breaker keeps the load away; in percent and ms."""
    bare, retry, whole = document["outage"]

    assert [row["answered"]["before"] for row in (bare, retry, whole)] == [95.0, 100.0, 100.0]
    assert bare["load"] == 1.0
    assert retry["load"] < 1.2
    assert whole["attempts"] < 0.1 * retry["attempts"]


@pytest.fixture(scope="module")
def piped() -> subprocess.CompletedProcess[str]:
    """Once more, with the same seed, as text."""
    return demo("--calls", "8")


def test_the_same_seed_gives_the_same_numbers(document: Any, piped: subprocess.CompletedProcess[str]) -> None:
    """All but times is decided by the seed, however threads and tasks interleave."""
    numbers = ("calls", "failures_without", "failures_with", "attempts", "messages")
    rows = [
        [row["stack"], row["side"], row["kind"].replace("_", "-"), *(str(row[number]) for number in numbers)]
        for row in document["places"]
    ]
    words = [line.split() for line in piped.stdout.splitlines()]

    assert [line[:8] for line in words if line[2:3] and line[2] in {kind.replace("_", "-") for kind in KINDS}] == rows


def test_piped_output_is_plain_lines(piped: subprocess.CompletedProcess[str]) -> None:
    """No colour, no carriage return, nothing wider than a terminal but the last line, which sums it up."""
    ran = piped
    *lines, last = ran.stdout.splitlines()
    words = [line.split() for line in lines]

    assert (ran.returncode, ran.stderr) == (0, "")
    assert not set("\x1b\r") & set(ran.stdout)
    assert max(map(len, lines)) <= 100
    assert last.startswith("Shown")
    assert [row[1] for row in words if {"sync-delivered", "asyncio-delivered"} & set(row)] == [*SERVICES, *SERVICES]
    assert ["BadRequest", "destination", "missing"] in words


@pytest.mark.parametrize(
    ("module", "distribution"), [("google", "protobuf"), ("google.rpc", "googleapis-common-protos")]
)
def test_what_is_missing_is_told_with_the_line_to_install_it(module: str, distribution: str) -> None:
    """On a plain install, or without the package for rich errors: exit status 1, one line, no traceback."""
    program = (
        f"import sys; sys.modules[{module!r}] = None\n"
        "from interpose.demo.__main__ import main; sys.exit(main(['--calls', '1']))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)

    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == f'interpose.demo: the demo needs {distribution}: pip install "interpose[demo]"\n'


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--calls", "0"), "0 is not between 1 and 500"),
        (("--calls", "many"), "'many' is not a whole number"),
        (("--seed", "-1"), "-1 is not between"),
    ],
)
def test_a_wrong_option_is_refused(arguments: tuple[str, ...], complaint: str) -> None:
    """Exit status 2, and the reason."""
    ran = demo(*arguments)

    assert ran.returncode == 2
    assert complaint in ran.stderr
