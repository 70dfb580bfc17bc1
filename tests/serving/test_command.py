"""`interpose serve`: its flags, its refusals, and a process that it runs in."""

import inspect
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import interpose
from interpose.__main__ import main
from interpose.serving import Options
from interpose.serving.command import options_of, parser
from tests.serving.driving import STARTING, Client, Shop
from tests.support.patience import PATIENCE

FOLDER = str(Path(__file__).parent)
LEAN = ("--app-dir", FOLDER, "--port", "0", "--no-health", "--no-reflection")  # a process that starts sooner


def test_every_option_has_a_flag() -> None:
    """The command takes what the function takes, with the same defaults."""
    assert options_of(parser().parse_args(["shop:app"])) == Options()
    names = set(inspect.signature(interpose.serve).parameters) - {"app", "stack"}
    assert names == set(Options.__dataclass_fields__)
    assert all(
        parameter.default == getattr(Options(), name)
        for name, parameter in inspect.signature(interpose.serve).parameters.items()
        if name in names
    )


def test_flags_have_uvicorns_words() -> None:
    """Dashes for underscores, and a pair for grpc's own server."""
    given = parser().parse_args(
        [
            "shop:app",
            *("--host", "::", "--port", "80", "--timeout-graceful-shutdown", "3", "--drain-delay", "0.5"),
            *("--limit-concurrency", "9", "--no-health", "--channelz", "--bare", "health, reflection"),
            *("--option", "grpc.max_receive_message_length=8388608", "--option", "grpc.primary_user_agent=me"),
        ]
    )

    assert (given.host, given.port, given.timeout_graceful_shutdown, given.drain_delay) == ("::", 80, 3.0, 0.5)
    assert (given.limit_concurrency, given.health, given.channelz, given.bare) == (
        9,
        False,
        True,
        ["health", "reflection"],
    )
    assert given.options == (("grpc.max_receive_message_length", 8388608), ("grpc.primary_user_agent", "me"))


BAD = {
    "no-such-module": (["no_such_module:app"], "there is no module 'no_such_module'"),
    "no-such-thing": (["interpose:nothing"], "the module 'interpose' has no 'nothing'"),
    "no-application": (["interpose:__all__"], "is no servicer"),
    "no-stack": (["tests.serving.command_app:app", "--stack", "interpose:__name__"], "the stack must be interceptors"),
    "no-seconds": (["a:b", "--drain-delay", "-1"], "drain_delay must be seconds, 0 or more"),
    "two-faults": (["a:b", "--port", "70000", "--threads", "0"], "port must be a whole number up to 65535"),
    "tls-half": (["a:b", "--tls-key", "key.pem"], "tls_key and tls_cert go together"),
    "tls-missing": (
        ["tests.serving.command_app:app", "--tls-key", "/no/key", "--tls-cert", "/no/cert"],
        "cannot read /no/key and /no/cert",
    ),
    "no-env-file": (["a:b", "--env-file", "/no/env"], "cannot read the file of environment variables /no/env"),
    "no-log-config": (["a:b", "--log-config", "/no/log.json"], "cannot configure logging from /no/log.json"),
    "async-on-threads": (["tests.serving.command_app:async_app", "--loop", "none"], "leave out --loop none"),
    "no-workers": (["a:b", "--workers", "0"], "workers must be "),
    "reload-with-workers": (["a:b", "--workers", "2", "--reload"], "reload"),
    "no-host": (["tests.serving.command_app:app", "--host", "no.such.host.invalid"], "no.such.host.invalid"),
    "no-socket": (["tests.serving.command_app:app", "--uds", "/no/folder/s"], "make the folder"),
    "no-factory": (["tests.serving.command_app:app", "--factory"], "without arguments"),
    "a-stack-that-is-none": (["tests.serving.command_app:app", "--stack", "signal:SIGTERM"], "the stack must be"),
    "no-check": (["tests.serving.command_app:app", "--ready", "signal:SIGTERM"], "ready must be"),
    "no-folder-to-watch": (["a:b", "--reload", "--reload-dir", "/no/folder"], "there is no folder /no/folder"),
    "watched-without-reload": (["a:b", "--reload-dir", "."], "reload_dirs are for reload"),
    "no-number": (["a:b", "--workers", "two"], "invalid int value: 'two' (interpose serve --help)"),
    "no-flag": (["a:b", "--nonsense"], "unrecognized arguments: --nonsense"),
    "no-pair": (["a:b", "--option", "x"], "write NAME=VALUE"),
    "nothing": ([], "module:app"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_served_is_one_line_and_status_2(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It says what to do, and nothing was started."""
    arguments, said = BAD[case]

    try:
        status: Any = main(["serve", *arguments])
    except SystemExit as ended:  # argparse's way
        status = ended.code
    err = capsys.readouterr().err

    assert status == 2
    assert err.count("\n") == 1 and err.startswith("interpose serve: ")
    assert said in err


@pytest.mark.parametrize("workers", [(), ("--workers", "2"), ("--reload",)], ids=["one", "workers", "reload"])
def test_a_port_in_use_is_one_line_and_status_2(
    workers: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing has been started: neither a worker nor the application."""
    begun: list[Any] = []
    monkeypatch.setattr("tests.serving.command_app.app", begun.append)
    monkeypatch.setattr("interpose.serving.process.Process.__init__", begun.append)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status = main(["serve", "tests.serving.command_app:app", "--port", str(port), *workers])
    err = capsys.readouterr().err

    assert status == 2
    assert err.count("\n") == 1 and str(port) in err
    assert not begun


def test_the_command_knows_its_words(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a word it shows them, as with --help; for one that it does not know as well."""
    assert (main([]), main(["--help"]), main(["nonsense"])) == (2, 0, 2)
    out, err = capsys.readouterr()
    assert "serve module:app" in out
    assert "there is no command 'nonsense'" in err


def test_bad_options_are_told_all_at_once() -> None:
    """A program that calls the function is told the same by a ValueError."""
    with pytest.raises(ValueError, match=r"port must be .*; threads must be .*; bare must name"):
        interpose.serve(Shop(asyncio=False).app, port=-1, threads=0, bare=["metrics"])


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line to install it, or to do without."""
    for name in ("grpc_health.v1", "grpc_reflection.v1alpha"):
        monkeypatch.setitem(sys.modules, name, None)

    with pytest.raises(ValueError, match=re.escape('pip install "interpose[server]"')) as caught:
        interpose.serve(Shop(asyncio=False).app, port=0)
    assert "--no-health --no-reflection" in str(caught.value)


def test_it_wants_the_main_thread() -> None:
    """No other can hear signals, and without them it would never stop."""
    import threading

    caught: list[BaseException] = []

    def run() -> None:
        try:
            interpose.serve(Shop(asyncio=False).app, port=0)
        except RuntimeError as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(PATIENCE)

    assert "main thread" in str(caught[0])


# --- processes --------------------------------------------------------------------------------------------------------


@contextmanager
def started(*arguments: str, path: str = "") -> Iterator["subprocess.Popen[str]"]:
    """The command in a process of its own. path: where else it finds modules."""
    process = subprocess.Popen(
        [sys.executable, "-m", "interpose", "serve", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "GRPC_VERBOSITY": "NONE", "PYTHONPATH": os.pathsep.join(filter(None, [path, *sys.path]))},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=STARTING)


def line_of(process: "subprocess.Popen[str]", part: str) -> str:
    """The next line of its log that has this part."""
    assert process.stderr is not None
    for line in process.stderr:
        if part in line:
            return line
    raise AssertionError(f"the process ended without saying {part!r}")


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("app", ["app", "async_app"])
def test_a_process_from_its_start_line_to_status_0(app: str, tmp_path: Path) -> None:
    """The line names address, TLS, interceptors, health and pid; SIGTERM ends it, with the clean-up done."""
    env = tmp_path / "env"
    env.write_text("GREETING='good day'\n")

    arguments = [f"command_app:{app}", "--app-dir", FOLDER, "--stack", "command_app:stack", "--env-file", str(env)]
    with started(*arguments, "--port", "0") as process:
        line = line_of(process, "serving on")
        found = re.search(r"serving on (127\.0\.0\.1:\d+) \(no TLS\)", line)
        assert found is not None
        client = Client(found[1])
        answer = client.call(timeout=STARTING)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=STARTING)
        client.channel.close()

    assert f"interceptors passes, health and reflection, pid {process.pid}" in line
    assert answer == "good day, hello"
    assert process.returncode == 0
    assert out == "cleaned up\n"
    assert "stopping: 0 calls under way" in err and "stopped" in err


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_third_signal_kills() -> None:
    """A handler that does not end: the second signal ends its call, the third the process, with the signal's status."""
    with started("command_app:stubborn", *LEAN) as process:
        found = re.search(r"serving on (\S+)", line_of(process, "serving on"))
        assert found is not None
        client = Client(found[1])
        pending: Any = client.start("unary_unary", timeout=STARTING)
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGTERM)
        line_of(process, "stopping: 1 call under way")
        process.send_signal(signal.SIGINT)
        code = pending.code()
        process.send_signal(signal.SIGTERM)
        process.wait(STARTING)
        client.channel.close()

    assert code.name == "UNAVAILABLE"
    assert process.returncode == 128 + signal.SIGTERM


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_handlers_that_do_not_end_do_not_keep_the_process() -> None:
    """A thread cannot be stopped: once its call was ended and its time is over, the process leaves with status 0."""
    with started("command_app:left_behind", *LEAN, "--timeout-graceful-shutdown", "0") as process:
        found = re.search(r"serving on (\S+)", line_of(process, "serving on"))
        assert found is not None
        client = Client(found[1])
        pending: Any = client.start("unary_unary", timeout=STARTING)
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGTERM)
        code = pending.code()
        _, err = process.communicate(timeout=STARTING)
        client.channel.close()

    assert code.name == "UNAVAILABLE"
    assert process.returncode == 0
    assert "left 1 handler behind, still running" in err


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_an_application_that_fails_at_its_start() -> None:
    """Its own error is shown, and the status is 1."""
    with started("command_app:failing", *LEAN) as process:
        _, err = process.communicate(timeout=STARTING)

    assert process.returncode == 1
    assert "KeyError: 'no database'" in err


def test_the_page_has_every_flag() -> None:
    """And none that is not there; of a pair of flags, the one that changes something."""
    page = (Path(__file__).parents[2] / "docs" / "serve.md").read_text(encoding="utf-8")
    table = page[page.index("\n## Options\n") :]
    flags = {option for action in parser()._actions for option in action.option_strings if option.startswith("--")}

    on_the_page = set(re.findall(r"`(--[a-z-]+)", table))

    assert on_the_page <= flags
    assert flags - on_the_page <= {"--help", "--health", "--reflection", "--no-channelz"}
