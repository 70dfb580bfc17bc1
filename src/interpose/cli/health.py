"""`interpose health`: does a server say that it is well? Its exit status is a probe's answer."""

from __future__ import annotations

from typing import Any

import click
from grpc import Channel, RpcError, StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc

from interpose.cli import exits
from interpose.cli.connection import Connection, connected
from interpose.cli.failures import Refused, failing
from interpose.cli.output import write, write_json

PATIENCE = 1.0  # second, where no other time is given: as a probe of Kubernetes has it


@click.command("health", epilog="Exit status: 0 SERVING, 1 any other answer, 64 + the number of the code, or 2.")
@connected
@click.option("--service", default="", metavar="NAME", help="Ask for this service. Default: for the whole server.")
@click.option("--watch", is_flag=True, help="Show each change, until the server ends or you do.")
@click.option("--json", "as_json", is_flag=True, help="A line of JSON for each answer.")
def command(connection: Connection, service: str, watch: bool, as_json: bool) -> int:
    """Ask the health service of TARGET. Without --timeout it has one second to answer; --watch has no end."""
    status = ""
    with connection.channel() as channel, failing("the health check", connection.target):
        for answer in _answers(channel, connection, service, watch):
            status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
            if as_json:
                write_json({"service": service, "status": status}, lines=True)
            else:
                write(status)
    return exits.OK if status == "SERVING" else exits.NO


def _answers(channel: Channel, connection: Connection, service: str, watch: bool) -> Any:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    request = health_pb2.HealthCheckRequest(service=service)
    if watch:
        return stub.Watch(request, timeout=connection.timeout, metadata=connection.metadata)
    return [_check(stub, request, connection)]


def _check(stub: Any, request: Any, connection: Connection) -> Any:
    try:
        return stub.Check(request, timeout=connection.timeout or PATIENCE, metadata=connection.metadata)
    except RpcError as error:
        unknown: Any = error
        if unknown.code() is StatusCode.NOT_FOUND:  # what Check says of a service that it does not know
            return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)
        if unknown.code() is StatusCode.UNIMPLEMENTED:
            raise Refused(f"{connection.target} has no health service (grpc.health.v1.Health)") from None
        raise
