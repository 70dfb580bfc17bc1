"""The programs in examples/: each is started as its README says, and driven by its own client."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from tests.contrib.redis.server import RedisServer
from tests.protos.compiled import protoc
from tests.serving.driving import STARTING
from tests.serving.test_command import line_of, started

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

EXAMPLES = Path(__file__).parents[2] / "examples"
LINES = 150  # of Python; a program that shows something is read as a whole
EACH = sorted(folder.name for folder in EXAMPLES.iterdir() if folder.is_dir())


def made(name: str, folder: Path) -> Path:
    """A copy of an example, with its proto compiled."""
    home = folder / name
    shutil.copytree(EXAMPLES / name, home, ignore=shutil.ignore_patterns("__pycache__"))
    protoc(
        f"-I{home}", f"--python_out={home}", f"--grpc_python_out={home}", *(file.name for file in home.glob("*.proto"))
    )
    return home


def shown(name: str, start: str) -> list[str]:
    """The lines of its README's console behind the command that starts so."""
    text = (EXAMPLES / name / "README.md").read_text("utf-8")
    [(command, output)] = re.findall(rf"^\$ (.*{start}.*)\n([^$]*)```$", text, re.MULTILINE) or [("", "")]
    return [command, *output.splitlines()]


def arguments(name: str) -> list[str]:
    """Those of `interpose serve`, as its README has them."""
    text = (EXAMPLES / name / "README.md").read_text("utf-8")
    [found] = re.findall(r"interpose serve (.*) &$", text, re.MULTILINE)
    return found.split()


@contextmanager
def serving(home: Path, *more: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Serve an example; gives where, and the process."""
    with started(*arguments(home.name), "--app-dir", str(home), *more, path=str(home)) as process:
        found = re.search(r"serving on (\S+)", line_of(process, "serving on"))
        assert found is not None
        yield found[1], process


def client(home: Path, *given: str) -> subprocess.Popen[str]:
    """Its client."""
    command = [sys.executable, "client.py", *given]
    return subprocess.Popen(command, cwd=home, stdout=subprocess.PIPE, text=True)


def stopped(process: subprocess.Popen[str]) -> int:
    """The status of a server that is asked to stop."""
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=STARTING)
    return process.returncode


@pytest.mark.parametrize("name", EACH)
def test_it_can_be_read_as_a_whole(name: str) -> None:
    """All of its Python together."""
    assert sum(len(file.read_text("utf-8").splitlines()) for file in (EXAMPLES / name).glob("*.py")) <= LINES


@pytest.mark.parametrize("name", ["sync_service", "asyncio_service", "chat"])
def test_it_does_what_its_readme_shows(name: str, tmp_path: Path) -> None:
    """Line by line."""
    home = made(name, tmp_path)
    with serving(home, "--port", "0") as (target, process):
        output, _ = client(home, target).communicate(timeout=STARTING)
        status = stopped(process)

    assert output.splitlines() == shown(name, "client.py")[1:]
    assert status == 0


def test_an_upload_survives_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server is killed as soon as it has stored something, and started again."""
    home = made("upload", tmp_path)
    folder = tmp_path / "stored"
    folder.mkdir()
    monkeypatch.setenv("UPLOAD_FOLDER", str(folder))
    film = tmp_path / "film"
    film.write_bytes(os.urandom(1024) * 32 * 1024)
    stored = folder / "film"

    with serving(home, "--port", "0") as (target, process):
        sending = client(home, target, str(film), "film")
        while not (stored.exists() and stored.stat().st_size):
            with suppress(subprocess.TimeoutExpired):
                sending.wait(0.002)
        process.kill()
        assert sending.poll() is None, "all was sent before"
    with serving(home, "--port", target.rpartition(":")[2]) as (_, process):
        output, _ = sending.communicate(timeout=STARTING)
        status = stopped(process)

    assert output == f"{film.stat().st_size} bytes stored\n"
    assert stored.read_bytes() == film.read_bytes()
    assert status == 0


@pytest.mark.needs("redis")
def test_a_fleet_has_one_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten jobs are done, by whichever workers; two are enough here."""
    home = made("fleet", tmp_path)
    with RedisServer() as redis:
        monkeypatch.setenv("REDIS_URL", f"redis://127.0.0.1:{redis.port}")
        with serving(home, "--port", "0", "--workers", "2") as (target, process):
            output, _ = client(home, target).communicate(timeout=STARTING)
            status = stopped(process)

    assert output.startswith("10 done, 20 refused, by ")
    assert status == 0


def test_a_policy_file_is_read_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each client sees what the README shows: a limit, a permission that is missing, and the new limit after SIGHUP."""
    home = made("policy_file", tmp_path)
    monkeypatch.chdir(home)
    console = (home / "README.md").read_text("utf-8")
    [(office, guest)] = re.findall(r"OFFICE_TOKEN=(\S+) GUEST_TOKEN=(\S+)", console)
    monkeypatch.setenv("OFFICE_TOKEN", office)
    monkeypatch.setenv("GUEST_TOKEN", guest)
    runs = re.findall(r"^\$ python client.py \S+ (\S+)\n([^$`]*)", console, re.MULTILINE)
    policy = home / "policy.json"
    seen = []

    with serving(home, "--port", "0") as (target, process):
        for number, (token, _) in enumerate(runs):
            if number == len(runs) - 1:
                policy.write_text(policy.read_text("utf-8").replace("2/hour", "20/hour"), "utf-8")
                process.send_signal(signal.SIGHUP)
                line_of(process, "policy")
            output, _ = client(home, target, token).communicate(timeout=STARTING)
            seen.append((token, output))
        status = stopped(process)

    assert [token for token, _ in runs] == [office, guest, office]
    assert seen == runs
    assert status == 0


@contextmanager
def gateway(home: Path, orders: str) -> Iterator[http.client.HTTPConnection]:
    """The one in front of these orders; gives a connection to it."""
    command = [sys.executable, "-m", "uvicorn", "gateway:app", "--port", "0"]
    environment = {**os.environ, "ORDERS": orders, "PYTHONPATH": os.pathsep.join([str(home), *sys.path])}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            found = re.search(r"running on http://(\S+)", line_of(process, "running on"))
            assert found is not None
            with closing(http.client.HTTPConnection(found[1], timeout=STARTING)) as connection:
                yield connection
        finally:
            process.terminate()
            process.communicate(timeout=STARTING)


def test_a_gateway_joins_what_is_in_front_and_behind(tmp_path: Path) -> None:
    """One request id and one trace; a status of gRPC becomes one of HTTP, and a server that has gone 503."""
    home = made("gateway", tmp_path)
    trace = "0af7651916cd43dd8448eb211c80319c"
    headers = {"x-request-id": "order-17", "traceparent": f"00-{trace}-b7ad6b7169203331-01"}

    with serving(home, "--port", "0") as (target, process), gateway(home, target) as connection:

        def get(path: str) -> tuple[int, str | None, dict[str, str]]:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.getheader("x-request-id"), json.loads(answer.read())

        found = get("/orders/7")
        missing = get("/orders/8")
        status = stopped(process)
        gone, _, _ = get("/orders/7")

    assert found == (200, "order-17", {"item": "kite", "request_id": "order-17", "trace_id": trace})
    assert (missing[0], missing[2], gone, status) == (404, {"error": "there is no order 8"}, 503, 0)
