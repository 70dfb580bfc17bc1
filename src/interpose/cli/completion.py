"""Completion in a shell: all commands as click's group, which the shell asks for words and options."""

from __future__ import annotations

import click

from interpose.__main__ import COMMANDS, PLAIN
from interpose.cli.running import command_of


class Words(click.Group):
    """The commands, each loaded when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All of them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name. Those that do without click have no options here."""
        if cmd_name in PLAIN:
            return click.Command(cmd_name, help=COMMANDS[cmd_name][1])
        return command_of(cmd_name) if cmd_name in COMMANDS else None


command = Words("interpose")
