"""Run one command: what goes wrong is one line that says what to do, never a traceback."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

import click

from interpose.cli import exits
from interpose.cli.failures import MOST, Failed
from interpose.mechanisms.text import one_line

COMPLETION = "completion"  # no word to type: what a shell asks for others


def command_of(word: str) -> click.Command:
    """The command of this name."""
    command: click.Command = import_module(f"interpose.cli.{word}").command
    return command


def run(word: str, arguments: Sequence[str]) -> int:
    """Run it; gives the exit status."""
    name = "interpose" if word == COMPLETION else f"interpose {word}"
    try:
        status = command_of(word).main(list(arguments), prog_name=name, standalone_mode=False)
    except click.Abort:
        return exits.INTERRUPTED
    except click.ClickException as error:
        for line in lines_of(name, error):
            click.echo(line, err=True)
        return exits.of_code(error.code) if isinstance(error, Failed) else error.exit_code
    except SystemExit:  # click's: a shell has its words, or a pipe was closed, as by `| head`
        return exits.OK
    return status if isinstance(status, int) else exits.OK


def lines_of(name: str, error: click.ClickException) -> list[str]:
    """What is said of an error: one line, and of a failed RPC one more for each of its details."""
    if isinstance(error, Failed):
        return error.lines(name)
    hint = f" ({name} --help)" if isinstance(error, click.UsageError) else ""
    return [f"{name}: {one_line(' '.join(error.format_message().split()), MOST)}{hint}"]
