"""The files of docs/deployment that no program here can run as they are: what they say is real, and adds up."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from interpose.__main__ import main
from interpose.serving.command import options_of, parser
from interpose.serving.options import CLEAN_UP, Options
from tests.deployment.proxies import FILES
from tests.serving.driving import STARTING, Client
from tests.serving.test_command import LEAN, line_of, started

PAGE = FILES.with_suffix(".md")
BIN = Path(sys.executable).parent
SHOP = "from tests.serving.command_app import slow as app\n"


def text_of(name: str) -> str:
    return (FILES / name).read_text("utf-8")


def options(arguments: list[str]) -> Options:
    """The options of these arguments of `interpose serve`; SystemExit for a flag that there is not."""
    return options_of(parser().parse_args(arguments))


def seconds_to_stop(of: Options) -> float:
    """The longest that a server takes from SIGTERM to its end."""
    return of.drain_delay + of.timeout_graceful_shutdown + CLEAN_UP


@pytest.mark.parametrize("file", sorted(FILES.iterdir()), ids=lambda file: file.name)
def test_the_page_shows_the_file(file: Path) -> None:
    """As it is, in a block of its own."""
    assert f"\n{file.read_text('utf-8')}```\n" in PAGE.read_text("utf-8")


# --- Kubernetes ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def pod() -> Any:
    [_, deployment] = yaml.safe_load_all(text_of("kubernetes.yaml"))
    return deployment["spec"]["template"]["spec"]


@pytest.fixture
def container(pod: Any) -> Any:
    [container] = pod["containers"]
    return container


def served_in(container: Any) -> Options:
    return options([*entry_point()[2:], *container["args"]])


def test_a_pod_has_the_time_to_drain(pod: Any, container: Any) -> None:
    """Kubernetes kills it later than it ends by itself, with 5 s to spare."""
    assert pod["terminationGracePeriodSeconds"] >= seconds_to_stop(served_in(container)) + 5


def test_a_pod_serves_until_it_is_known_to_drain(container: Any) -> None:
    """The drain delay is as long as readiness takes to fail."""
    probe = container["readinessProbe"]

    assert served_in(container).drain_delay >= probe["periodSeconds"] * probe["failureThreshold"]


def test_one_port(container: Any) -> None:
    """Of the service, the container, its probes and the server."""
    [service, _] = yaml.safe_load_all(text_of("kubernetes.yaml"))
    probes = [container[f"{what}Probe"] for what in ("startup", "readiness", "liveness")]
    asked = {next(probe[how]["port"] for how in ("grpc", "tcpSocket") if how in probe) for probe in probes}

    assert asked == {50051}
    assert [port["port"] for port in service["spec"]["ports"]] == [50051]
    assert [port["containerPort"] for port in container["ports"]] == [50051]
    assert served_in(container).port == 50051


def test_the_service_finds_its_pods() -> None:
    """By labels that the pods have."""
    [service, deployment] = yaml.safe_load_all(text_of("kubernetes.yaml"))
    labels = deployment["spec"]["template"]["metadata"]["labels"]

    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"] == labels


# --- systemd ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def service() -> Any:
    unit = ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(text_of("shop.service"))
    return unit["Service"]


def test_a_unit_has_the_time_to_drain(service: Any) -> None:
    """systemd kills it later than it ends by itself, with 5 s to spare."""
    served = options(shlex.split(service["ExecStart"])[2:])

    assert float(service["TimeoutStopSec"]) >= seconds_to_stop(served) + 5
    assert served.workers, "SIGHUP is for a supervisor"
    assert service["KillMode"] == "mixed"


@pytest.mark.needs("systemd")
def test_systemd_knows_each_line(tmp_path: Path) -> None:
    """It finds no fault, and little that a stranger in the process could use."""
    unit = tmp_path / "shop.service"
    unit.write_text(text_of("shop.service").replace("/opt/shop/bin/interpose", str(BIN / "interpose")), "utf-8")

    verified = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    exposed = ["systemd-analyze", "security", "--offline=yes", "--threshold=25", str(unit)]  # of 100
    secure = subprocess.run(exposed, capture_output=True, text=True, check=False)

    assert (verified.returncode, verified.stderr) == (0, "")
    assert secure.returncode == 0, secure.stdout


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_socket_is_for_a_group(service: Any, tmp_path: Path) -> None:
    """The command of the unit makes one that its group may connect to, and others may not."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "server.py").write_text(SHOP)
    with tempfile.TemporaryDirectory() as folder:
        _, _, *arguments = shlex.split(service["ExecStart"].replace("/run/shop", folder))
        before = os.umask(int(service["UMask"], 8))
        try:
            with started(
                *arguments, *LEAN[-2:], "--drain-delay", "0", "--app-dir", str(tmp_path), path=str(Path.cwd())
            ) as process:
                line_of(process, "serving on")
                mode = (Path(folder) / "grpc.sock").stat().st_mode & 0o777
                process.send_signal(signal.SIGTERM)
                process.communicate(timeout=STARTING)
        finally:
            os.umask(before)

    assert oct(mode) == "0o770"
    assert process.returncode == 0


# --- Docker -------------------------------------------------------------------------------------------------------------


def instruction(name: str) -> str:
    """What the last instruction of this name says."""
    found: str = re.findall(rf"^{name} (.*)$", text_of("Dockerfile"), re.MULTILINE)[-1]
    return found


def entry_point() -> list[str]:
    """ValueError if it is for a shell."""
    command: list[str] = json.loads(instruction("ENTRYPOINT"))
    return command


def test_an_image_runs_no_shell() -> None:
    """Neither to serve nor to look at health, and not as root; by a number, which Kubernetes can check."""
    check = json.loads(instruction("HEALTHCHECK").partition("CMD ")[2])

    assert entry_point()[:2] == ["interpose", "serve"]
    assert check[:2] == ["interpose", "health"]
    assert int(instruction("USER")) > 0
    assert check[2].rpartition(":")[2] == instruction("EXPOSE") == str(options(entry_point()[2:]).port)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_entry_point_drains(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A call that is under way at the signal to stop is answered, and the status is 0.

    The check of its health is passed while it serves, and not afterwards.
    """
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "server.py").write_text(SHOP)
    arguments = [*entry_point()[2:], "--port", "0", "--drain-delay", "0", "--app-dir", str(tmp_path)]
    with started(*arguments, path=str(Path.cwd())) as process:
        found = re.search(r"serving on 0\.0\.0\.0:(\d+)", line_of(process, "serving on"))
        assert found is not None
        target = f"127.0.0.1:{found[1]}"
        client = Client(target)
        pending = client.start("unary_unary", timeout=STARTING)
        assert process.stdout is not None and process.stdout.readline() == "begun\n"
        serving = main(["health", target, "--timeout", "30s"])

        process.send_signal(signal.Signals[instruction("STOPSIGNAL")])
        line_of(process, "no new calls are taken")
        process.send_signal(signal.SIGUSR1)  # lets the call go on
        answer = pending.result(STARTING)
        process.communicate(timeout=STARTING)
        stopped = main(["health", target])
        client.channel.close()

    assert answer == str(process.pid)
    assert process.returncode == 0
    assert (serving, capfd.readouterr().out) == (0, "SERVING\n")
    assert stopped != 0
