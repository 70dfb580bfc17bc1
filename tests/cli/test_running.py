"""What all commands have in common: help, a missing extra, a pipe that is closed, Ctrl-C."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import click
import pytest

import interpose_command
from interpose.__main__ import COMMANDS, PLAIN
from interpose.cli import running
from tests.cli.conftest import Ended, Served
from tests.cli.till import SERVICE

Run = Callable[..., Ended]

WORDS = [word for word in COMMANDS if word not in PLAIN]


@pytest.mark.parametrize("word", WORDS)
def test_help(run: Run, word: str) -> None:
    """Each command explains itself, with its exit status."""
    ended = run(word, "--help")

    assert (ended.status, ended.err) == (0, "")
    assert ended.out.startswith(f"Usage: interpose {word} [OPTIONS]")
    assert "Exit status: 0" in ended.out


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("package", ["click", "grpc_reflection"])
def test_without_the_extra(run: Run, monkeypatch: pytest.MonkeyPatch, word: str, package: str) -> None:
    """One line to install it, and status 2."""
    monkeypatch.setitem(sys.modules, package, None)

    ended = run(word, "localhost:1")

    assert (ended.status, ended.out) == (2, "")
    assert ended.err == f'interpose {word} needs packages more: pip install "interpose[cli]"\n'


def test_serve_does_without_the_extra(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its options are argparse's."""
    monkeypatch.setitem(sys.modules, "click", None)

    with pytest.raises(SystemExit) as ended:
        run("serve", "--help")

    assert ended.value.code == 0
    assert "interpose serve" in capsys.readouterr().out


@pytest.mark.parametrize(("word", "level"), [("serve", None), ("list", "NONE")])
def test_who_hears_what_grpc_says(monkeypatch: pytest.MonkeyPatch, word: str, level: str | None) -> None:
    """Those who run a server; a command says itself what goes wrong, and grpc reads the variable at its import."""
    monkeypatch.setenv("GRPC_VERBOSITY", "")  # so that it is put back
    monkeypatch.delenv("GRPC_VERBOSITY")
    monkeypatch.setattr(sys, "argv", ["interpose", word])
    monkeypatch.setattr("interpose.__main__.main", lambda: 7)

    assert interpose_command.main() == 7
    assert os.environ.get("GRPC_VERBOSITY") == level


def test_interrupted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends a command with 130, as shells have it, and without a traceback."""

    @click.command
    def command() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "command_of", lambda word: command)

    ended = run("list")

    assert (ended.status, ended.err.strip()) == (130, "")


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_pipe_that_is_closed(shop: Served) -> None:
    """`| head` has seen enough: the command ends, and says nothing."""
    process = subprocess.Popen(
        [sys.executable, "-m", "interpose", "call", shop.target, f"{SERVICE}/Watch", '{"count": 1000000}'],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()

    assert (process.wait(60), err) == (0, b"")


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_an_input_that_never_ends(shop: Served) -> None:
    """The server ends the call while requests could still come: the command ends with it, and does not wait for them."""
    process = subprocess.Popen(
        [sys.executable, "-m", "interpose", "call", shop.target, f"{SERVICE}/Trade"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    with process:
        process.stdin.write('{"name": "tea"}\n')
        process.stdin.flush()
        first = process.stdout.readline()  # answered before the next is there
        process.stdin.write('{"name": "fail"}\n')
        process.stdin.flush()
        status, err = process.wait(60), process.stderr.read()

    assert '"names": ["tea"]' in first
    assert (status, err.count("Traceback"), "NOT_FOUND" in err) == (69, 0, True)
