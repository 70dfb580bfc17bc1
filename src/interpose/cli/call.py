"""`interpose call`: call a method, with JSON in and JSON out."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import click
import grpc
from google.protobuf import message_factory

from interpose._method import Kind
from interpose.cli import headers
from interpose.cli.connection import Connection, connected
from interpose.cli.failures import failing
from interpose.cli.input import lines_of
from interpose.cli.messages import as_json, values
from interpose.cli.output import write_json
from interpose.cli.repeating import Repeating, with_repeating
from interpose.cli.requests import EMPTY, Requests
from interpose.cli.schema import Source, with_protos

STDIN = {"-", "@"}  # the second is grpcurl's


@click.command("call", epilog="Exit status: 0, 64 + the number of the code, or 2 for what makes no sense.")
@connected
@click.argument("name", metavar="SERVICE/METHOD")
@click.argument("data", required=False, metavar="[JSON]")
@click.option("-d", "--data", "data_option", metavar="JSON", help="The same as the argument.")
@with_protos
@with_repeating
@click.option("--emit-defaults", is_flag=True, help="Show fields too that have their default.")
@click.option("--json", "as_lines", is_flag=True, help="A line of JSON for each message and for an error.")
@click.option("-v", "--verbose", is_flag=True, help="Show metadata and retries, on the standard error.")
def command(
    connection: Connection,
    name: str,
    data: str | None,
    data_option: str | None,
    source: Source,
    repeating: Repeating,
    emit_defaults: bool,
    as_lines: bool,
    verbose: bool,
) -> None:
    """Call a method of the server TARGET.

    JSON is the request; of a stream of requests it is all, one behind the other. "-" reads the standard input, where a
    stream goes out as it comes. Without JSON a single request is empty, and a stream is read from the standard input.
    """
    if data is not None and data_option is not None:
        raise click.UsageError("give the message once: as an argument or with -d")
    data = data if data_option is None else data_option
    if data is not None and data not in STDIN:
        deque(values([data]), 0)  # what is no JSON need not wait for a server
    tell = _tell if verbose else _silent
    with connection.channel() as channel:
        schema = source.schema(connection, channel)
        method = schema.method(name)
        requests = _requests(method, schema.pool, data)
        tell(f"method: {method.full_name}", *_named("> ", connection.metadata))
        call, responses = _begin(repeating.around(channel, method, tell), method, requests, connection)
        what = f"{method.containing_service.full_name}/{method.name}"
        with failing(what, connection.target, schema.pool, as_json=as_lines):
            try:
                for response in _heard(responses, requests):
                    write_json(as_json(response, schema.pool, defaults=emit_defaults), lines=as_lines)
            finally:
                if verbose and call.done():  # not if it was interrupted: metadata would be waited for
                    tell(*_answered(call))


def _requests(method: Any, pool: Any, data: str | None) -> Requests:
    if data in STDIN or (data is None and method.client_streaming):
        return Requests(method, pool, lines_of(sys.stdin), ready=not method.client_streaming)
    return Requests(method, pool, [EMPTY if data is None else data], ready=True)


def _begin(channel: grpc.Channel, method: Any, requests: Requests, connection: Connection) -> tuple[Any, Iterable[Any]]:
    """Send it; gives the call, and its responses as they come."""
    kind = Kind.of(method.client_streaming, method.server_streaming)
    request, response = map(message_factory.GetMessageClass, (method.input_type, method.output_type))
    path = f"/{method.containing_service.full_name}/{method.name}"
    stub = getattr(channel, kind.value)(path, request.SerializeToString, response.FromString)
    send = stub if kind.response_streaming else stub.future
    argument = requests.stream() if kind.request_streaming else requests.one()
    call = send(argument, timeout=connection.timeout, metadata=connection.metadata)
    requests.begun(call.cancel)
    return call, call if kind.response_streaming else _single(call)


def _single(call: Any) -> Iterator[Any]:
    yield call.result()


def _heard(responses: Iterable[Any], requests: Requests) -> Iterator[Any]:
    """The responses. If a request was bad, that is what has ended the call."""
    try:
        yield from responses
    except (grpc.RpcError, grpc.FutureCancelledError):
        if requests.fault is not None:
            raise requests.fault from None
        raise


def _answered(call: Any) -> Iterator[str]:
    """What came beside the responses of a call that has ended."""
    yield from _named("< ", call.initial_metadata() or ())
    yield from _named("< (trailing) ", call.trailing_metadata() or ())


def _named(mark: str, metadata: Iterable[tuple[str, str | bytes]]) -> list[str]:
    return [f"{mark}{line}" for line in headers.shown(metadata)]


def _tell(*lines: str) -> None:
    for line in lines:
        click.echo(line, err=True)


def _silent(*lines: str) -> None:
    """Say nothing."""
