"""How commands connect: TLS, client certificates, deadlines, and a server that asks who calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from types import ModuleType

import grpc
import pytest
from cryptography import x509

from interpose import intercept_server
from interpose.cli.durations import duration, shown
from interpose.interceptors import Authenticate, StaticTokens
from tests.cli.conftest import Ended, Served
from tests.cli.till import SERVICE, Sync, Till, serving
from tests.support.tls import client_certificate, ports, root

Run = Callable[..., Ended]

RING = f"{SERVICE}/Ring"


@pytest.fixture(params=[False, True], ids=["tls", "mutual tls"])
def secure(request: pytest.FixtureRequest, protos: tuple[ModuleType, ModuleType]) -> Iterator[tuple[bool, str]]:
    """A server with TLS: does it ask for a certificate, and its target."""
    pool = futures.ThreadPoolExecutor(4)
    server = intercept_server(grpc.server(pool))
    protos[1].add_TillServicer_to_server(Sync(Till(protos[0])), server)
    with ports(server, ask=request.param) as (target, _):
        yield request.param, target
    pool.shutdown()


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """The flags of TLS, each with a file."""
    key, certificate = client_certificate([x509.DNSName("caller")])
    made = {"--ca": root(), "--cert": certificate, "--key": key}
    for flag, content in made.items():
        (tmp_path / flag).write_bytes(content)
    return {flag: tmp_path / flag for flag in made}


HERE = Path(__file__).parent


def test_tls(secure: tuple[bool, str], run: Run, files: dict[str, Path]) -> None:
    """A CA asks for TLS by itself; a server that wants to know its clients needs certificate and key too."""
    asks, target = secure
    flags = list(files.items()) if asks else [("--ca", files["--ca"])]
    given = [part for pair in flags for part in pair]

    ended = run("call", target, RING, '{"name": "tea"}', "--proto", HERE / "till.proto", *given)
    named = run("call", target.replace("localhost", "127.0.0.1"), RING, "--authority", "localhost", *given,
                "--proto", HERE / "till.proto")  # fmt: skip

    assert (ended.status, ended.err) == (0, "")
    assert (named.status, named.err) == (0, "")


def test_plain_text_at_a_door_with_tls(secure: tuple[bool, str], run: Run) -> None:
    """It cannot be reached so; the line names the flag."""
    ended = run("call", secure[1], RING, "--proto", HERE / "till.proto")

    assert ended.status == 78
    assert "One with TLS needs --tls, " in ended.err


def test_files_that_are_no_certificates(run: Run, files: dict[str, Path]) -> None:
    """One line; nothing is tried. Neither is a certificate with the key of another one."""
    other = files["--ca"].with_name("other")
    other.write_bytes(client_certificate([x509.DNSName("other")])[0])

    no_ca = run("call", "localhost:1", RING, "--ca", __file__)
    no_pair = run("call", "localhost:1", RING, "--cert", files["--cert"], "--key", other)

    assert (no_ca.status, no_ca.err.count("\n")) == (2, 1)
    assert f"--ca {__file__} holds no certificate in PEM" in no_ca.err
    assert (no_pair.status, no_pair.err.count("\n")) == (2, 1)
    assert "KEY_VALUES_MISMATCH" in no_pair.err


def test_a_deadline(shop: Served, run: Run) -> None:
    """The call ends with DEADLINE_EXCEEDED, which is 68."""
    flags = ["--deadline", "100ms", "--json", "--proto", HERE / "till.proto"]

    ended = run("call", shop.target, f"{SERVICE}/Watch", '{"count": 2147483647}', *flags)

    assert ended.status == 68
    assert '{"code": "DEADLINE_EXCEEDED"' in ended.err


def test_metadata_goes_with_the_questions_of_reflection(
    protos: tuple[ModuleType, ModuleType], run: Run, loop: None
) -> None:
    """A server that lets in those it knows only lets the command in with the same header."""
    guard = Authenticate(StaticTokens({"t0ps3cret": "me"}), public=())
    with serving("sync", Till(protos[0]), protos[1], guard) as target:
        stranger = run("list", target)
        known = run("call", target, RING, "-H", "authorization: Bearer t0ps3cret")

    assert stranger.status == 64 + 16
    assert "server reflection ended with UNAUTHENTICATED" in stranger.err
    assert known.status == 0


def test_large_messages_on_demand(shop: Served, run: Run) -> None:
    """The line names the flag that lets them in."""
    data = '{"name": "%s"}' % ("x" * 500)

    refused = run("call", shop.target, RING, data, "--max-msg-sz", 300)
    allowed = run("call", shop.target, RING, data, "--max-msg-sz", 300_000)

    assert refused.status == 64 + 8
    assert "--max-msg-sz BYTES lets larger messages in" in refused.err
    assert allowed.status == 0


@pytest.mark.parametrize(
    ("text", "seconds"), [("5", 5), ("1.5s", 1.5), ("250ms", 0.25), ("10us", 1e-5), (".5m", 30), ("2h", 7200)]
)
def test_times(text: str, seconds: float) -> None:
    """With a unit or without."""
    assert duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0000012, "1.20 us"), (0.00099949, "999 us"), (0.0009996, "1.00 ms"), (0.0125, "12.5 ms"), (61.0, "61.0 s")],
)
def test_times_for_people(seconds: float, text: str) -> None:
    """Three digits that mean something."""
    assert shown(seconds) == text


@pytest.mark.parametrize("text", ["", "s", "-1", "1d", "1e3", "nan", "inf", "9" * 400, "0ms"])
def test_times_that_are_none(text: str) -> None:
    """Each is refused with what to write."""
    import click

    with pytest.raises(click.BadParameter, match="write 5, 5s, 250ms or 1m"):
        duration(text)
