"""Completion in a shell: all commands as click's group, which the shell asks for words and options."""

from __future__ import annotations

import click

from interpose.__main__ import COMMANDS
from interpose.cli.running import command_of


class Words(click.Group):
    """The commands, each loaded when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All of them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name. That of `serve`, which does without click, has no options here."""
        if cmd_name not in COMMANDS:
            return None
        return click.Command("serve", help=COMMANDS["serve"][1]) if cmd_name == "serve" else command_of(cmd_name)


command = Words("interpose")
