"""Completion in a shell: all commands as click's group, which the shell asks for words and options."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from interpose.__main__ import COMMANDS, PLAIN
from interpose.cli.running import command_of


class Words(click.Group):
    """The commands, each loaded when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All of them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name."""
        if cmd_name in PLAIN:
            return _of_argparse(cmd_name)
        return command_of(cmd_name) if cmd_name in COMMANDS else None


def _of_argparse(word: str) -> click.Command:
    """A command that does without click, with its options, as far as they are to be completed."""
    flags = [action for action in import_module(PLAIN[word]).parser()._actions if action.option_strings]
    return click.Command(word, params=[_option(flag) for flag in flags if flag.dest != "help"], help=COMMANDS[word][1])


def _option(flag: Any) -> click.Option:
    files = click.Path() if flag.metavar in {"FILE", "DIR", "PATH"} else None
    kind = click.Choice(flag.choices) if flag.choices else files
    return click.Option(flag.option_strings, is_flag=flag.nargs == 0, type=kind, multiple=True, help=flag.help)


command = Words("interpose")
