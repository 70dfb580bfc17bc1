"""`interpose describe`: services, methods, messages and enums, as a proto has them."""

from __future__ import annotations

from typing import Any

import click
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    MethodDescriptorProto,
    ServiceDescriptorProto,
)
from google.protobuf.json_format import MessageToDict

from interpose.cli.connection import Connection, connected
from interpose.cli.output import write, write_json
from interpose.cli.proto_text import text_of
from interpose.cli.schema import Source, with_protos

_PROTOS = (
    ("methods", ServiceDescriptorProto),
    ("containing_service", MethodDescriptorProto),
    ("fields", DescriptorProto),
    ("values", EnumDescriptorProto),
)


@click.command("describe", epilog="Exit status: 0, 64 + the number of the code, or 2 for what makes no sense.")
@connected
@click.argument("name", metavar="[NAME]", required=False)
@with_protos
@click.option("--json", "as_json", is_flag=True, help="The descriptor, as JSON.")
def command(connection: Connection, name: str | None, source: Source, as_json: bool) -> None:
    """Show what NAME is: a service, a method, a message or an enum of TARGET. Without it, all services."""
    with connection.channel() as channel:
        schema = source.schema(connection, channel)
        found = [schema.symbol(each) for each in ([name] if name else schema.services)]
    if as_json:
        described = [_described(each) for each in found]
        write_json(described[0] if name else described)
        return
    write("\n\n".join(map(text_of, found)))


def _described(descriptor: Any) -> dict[str, Any]:
    """google.protobuf's own descriptor as JSON."""
    kind = next(kind for mark, kind in _PROTOS if hasattr(descriptor, mark))
    proto = kind()
    descriptor.CopyToProto(proto)
    return {"fullName": descriptor.full_name, **MessageToDict(proto)}
