"""`interpose list`: which services a server has, or which methods a service has."""

from __future__ import annotations

import click

from interpose.cli.connection import Connection, connected
from interpose.cli.failures import MOST
from interpose.cli.output import write, write_json
from interpose.cli.schema import Source, with_protos
from interpose.mechanisms.text import one_line


@click.command("list", epilog="Exit status: 0, 64 + the number of the code, or 2 for what makes no sense.")
@connected
@click.argument("service", required=False)
@with_protos
@click.option("--json", "as_json", is_flag=True, help="A JSON list.")
def command(connection: Connection, service: str | None, source: Source, as_json: bool) -> None:
    """List the services of TARGET, or the methods of SERVICE, one in a line."""
    with connection.channel() as channel:
        schema = source.schema(connection, channel)
        names = schema.services if service is None else [method.name for method in schema.service(service).methods]
    full = names if service is None else [f"{service}/{name}" for name in names]
    if as_json:
        write_json(full)
        return
    for name in full:
        write(one_line(name, MOST))
