"""Workers in processes of their own: killed, replaced, and stopped, while a client calls."""

import json
import os
import re
import signal
import socket
import sys
import threading
from dataclasses import asdict
from io import FileIO
from pathlib import Path
from typing import Any

import pytest

import interpose
from interpose.serving import CannotServe, Options, worker
from interpose.serving.metrics import VARIABLE
from tests.serving.driving import STARTING, Client, Shop, serve
from tests.serving.test_command import FOLDER, LEAN, line_of, started

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def pids(line: str) -> list[int]:
    """The processes that a line of the log names."""
    return list(map(int, re.findall(r"\d+", re.split(r"pids |workers are ", line)[-1])))


def test_workers_are_started_anew_and_replaced_without_losing_a_call() -> None:
    """One is killed and another one comes; on SIGHUP a call under way is answered by the worker that is replaced."""
    with started("command_app:slow", *LEAN, "--workers", "1") as process:
        line = line_of(process, "serving on")
        found = re.search(r"serving on (\S+) \(no TLS\), 32 threads, 1 worker, no interceptors, no health", line)
        assert found is not None
        (first,) = pids(line)
        client = Client(found[1])
        before = client.call(timeout=STARTING)
        metrics = Path(client.call("metrics"))
        shared = metrics.is_dir()

        os.kill(first, signal.SIGKILL)
        died = line_of(process, f"worker {first} has ended")
        client.channel.close()  # it may not have noticed yet that its connection has gone
        client = Client(found[1], options=[("grpc.use_local_subchannel_pool", 1)])
        second = client.call(timeout=STARTING)

        pending = client.start("unary_unary", timeout=STARTING)
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGHUP)
        line_of(process, "no new calls are taken")  # by the one that stops: the successor serves
        fresh = Client(found[1], options=[("grpc.use_local_subchannel_pool", 1)])
        third = fresh.call(timeout=STARTING)
        os.kill(int(second), signal.SIGUSR1)  # lets the call go on
        under_way = pending.result(STARTING)
        replaced = pids(line_of(process, "replaced; workers are"))

        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=STARTING)
        client.channel.close()
        fresh.channel.close()

    assert "(SIGKILL); another one starts in 0.0 s" in died
    assert before == str(first)
    assert under_way == second
    assert [int(third)] == replaced
    assert len({before, second, third}) == 3
    assert process.returncode == 0
    assert shared and not metrics.exists()


def test_a_worker_that_cannot_start_ends_the_command() -> None:
    """With its own error, its status, and no start line; the others are stopped."""
    with started("no_such_module:app", "--port", "0", "--workers", "2") as process:
        _, err = process.communicate(timeout=STARTING)

    assert process.returncode == 2
    assert err.count("interpose serve: there is no module 'no_such_module'") == 1
    assert "serving on" not in err


def test_workers_end_with_their_supervisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is killed leaves no worker behind: they drain when they notice, at once."""
    monkeypatch.setenv(VARIABLE, str(tmp_path))  # or its folder for metrics would be left behind
    with started("command_app:slow", *LEAN, "--workers", "1") as process:
        line = line_of(process, "serving on")
        process.kill()
        _, err = process.communicate(timeout=STARTING)  # to the end of what the worker writes, which is its own end

    assert f"INFO {pids(line)[0]} interpose: stopped" in err


def test_a_change_of_a_file_starts_anew(tmp_path: Path) -> None:
    """A file that is broken leaves the old application in place; the next change is served."""
    file = tmp_path / "shop_app.py"

    def write(answer: str) -> None:
        file.write_text(f"from command_app import answering\napp = answering({answer})\n")

    write("'one'")
    environment = f"{tmp_path}{os.pathsep}{FOLDER}"
    arguments = ["shop_app:app", *LEAN, "--app-dir", str(tmp_path), "--reload", "--reload-dir", str(tmp_path)]
    with started(*arguments, path=environment) as process:
        found = re.search(r"serving on (\S+)", line_of(process, "serving on"))
        assert found is not None
        answers = []
        for answer in ("'two", "'three'"):
            client = Client(found[1], options=[("grpc.use_local_subchannel_pool", 1)])
            answers.append(client.call(timeout=STARTING))
            client.channel.close()
            write(answer)
            line_of(process, "replaced; workers are" if answer.endswith("'") else "could not start (status 1)")
        client = Client(found[1], options=[("grpc.use_local_subchannel_pool", 1)])
        answers.append(client.call(timeout=STARTING))
        client.channel.close()
        process.send_signal(signal.SIGHUP)  # the terminal is closed: there is no one to change a file any more
        process.communicate(timeout=STARTING)

    assert answers == ["one", "one", "three"]
    assert process.returncode == 0


def test_a_supervisor_in_this_process(path: Path, tmp_path: Path) -> None:
    """A program may call the function: it returns when its worker has ended; a unix socket serves as well."""

    def script(client: Client) -> str:
        return client.call(timeout=STARTING)

    options: dict[str, Any] = {
        "stack": "tests.serving.command_app:stack",
        "reload": True,
        "reload_dirs": [str(tmp_path)],
    }

    assert serve("tests.serving.command_app:async_app", script, path, **options) == ", hello"
    with pytest.raises(SystemExit) as caught:
        serve("tests.serving.command_app:nothing", lambda _: None, path, workers=1)
    assert caught.value.code == 2


def test_a_worker_in_this_process(path: Path) -> None:
    """It does what its supervisor writes, says when it serves, and drains when the supervisor has gone."""
    told, work = os.pipe()
    ready, says = os.pipe()
    options = asdict(Options(uds=str(path), options=(("grpc.primary_user_agent", "me"),)))
    line = {"app": "tests.serving.command_app:app", "stack": (), "options": options, "path": sys.path, "ready": says}
    os.write(work, json.dumps(line).encode() + b"\n")
    client = Client(f"unix:{path}")
    answers: list[Any] = []

    def supervise() -> None:
        with open(ready, encoding="utf-8") as said:  # noqa: PTH123  a descriptor, not a path
            answers.extend([json.loads(said.readline()), client.call()])
        os.close(work)

    thread = threading.Thread(target=supervise)
    thread.start()
    with FileIO(told) as stdin:
        status = worker.main(stdin)
    thread.join(STARTING)
    client.channel.close()

    assert status == 0
    assert answers == [
        {"where": f"unix:{path} (no TLS), 32 threads", "what": "no interceptors, health and reflection"},
        ", hello",
    ]


def test_a_worker_that_cannot_serve(capsys: pytest.CaptureFixture[str]) -> None:
    """It says why, and has status 2."""
    told, work = os.pipe()
    line = {"app": "no_such_module:app", "stack": (), "options": asdict(Options()), "path": sys.path, "ready": -1}
    os.write(work, json.dumps(line).encode() + b"\n")
    os.close(work)

    with FileIO(told) as stdin:
        status = worker.main(stdin)

    assert status == 2
    assert "there is no module" in capsys.readouterr().err


def test_workers_need_names() -> None:
    """They import the application for themselves."""
    shop: Any = Shop(asyncio=False)
    for given in (
        {"app": shop.app, "workers": 2},
        {"app": "a:b", "stack": [lambda call: (yield call)], "workers": 1},
        {"app": shop.app, "reload": True},
    ):
        with pytest.raises(CannotServe, match="workers and reload need names"):
            interpose.serve(**given)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"workers": 0}, "workers must be a whole number from 1 to 1000: leave it out to serve in this process"),
        ({"workers": 2, "reload": True}, "reload serves from one process: leave workers out, or reload"),
        ({"workers": 2, "uds": "/tmp/s"}, "workers share a port, but no unix socket"),
    ],
)
def test_what_workers_cannot_do(options: Any, said: str) -> None:
    """Said at once, with what to do."""
    with pytest.raises(ValueError, match=said):
        interpose.serve("a:b", **options)


def test_a_port_in_use_is_said_before_any_worker_starts() -> None:
    """As for a single process."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(CannotServe, match="the port is in use"):
            interpose.serve("a:b", workers=2, port=taken.getsockname()[1])
