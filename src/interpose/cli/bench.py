"""`interpose bench`: how many calls a server can take, and how long they take."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any

import click
import grpc.aio

from interpose._method import Kind
from interpose.cli import exits
from interpose.cli.bench_report import Plan, as_json, as_text
from interpose.cli.connection import Connection, connected
from interpose.cli.durations import duration
from interpose.cli.failures import Unreachable
from interpose.cli.load import End, Tally, caller, closed, connect, opened
from interpose.cli.output import write, write_json
from interpose.cli.requests import EMPTY, Requests
from interpose.cli.schema import Source, with_protos

CALLS = 200  # where neither a number nor a time is given; this, and the callers, as ghz has it
CALLERS = 50
PATIENCE = 20.0  # seconds for one call: no bench is to hang
MOST_IN_FLIGHT = 10_000  # a bound on memory: each is a task here, and a stream at the server


@click.command("bench", epilog="Exit status: 0, 1 if a call did not end with OK or was not sent, 78, or 2.")
@connected
@click.argument("name", metavar="SERVICE/METHOD")
@click.argument("data", required=False, metavar="[JSON]")
@click.option("-d", "--data", "data_option", metavar="JSON", help="The same as the argument.")
@with_protos
@click.option("-n", "--total", type=click.IntRange(1), metavar="N", help=f"The number of calls. Default: {CALLS}.")
@click.option("-z", "--duration", "seconds", type=duration, metavar="TIME", help="Begin calls for so long.")
@click.option(
    "-c",
    "--concurrency",
    type=click.IntRange(1, MOST_IN_FLIGHT),
    default=CALLERS,
    show_default=True,
    metavar="N",
    help="Closed loop: the number of callers, each of which waits for its answer.",
)
@click.option(
    "-r",
    "--rate",
    "--rps",
    "rate",
    type=click.FloatRange(0, min_open=True),
    metavar="N",
    help="Open loop: begin this number of calls per second, whether earlier ones have ended or not.",
)
@click.option(
    "--max-in-flight",
    type=click.IntRange(1, MOST_IN_FLIGHT),
    default=MOST_IN_FLIGHT,
    show_default=True,
    metavar="N",
    help="Open loop: what is due beyond that is not sent, and counted as unsent.",
)
@click.option("--connections", type=click.IntRange(1, 1000), default=1, show_default=True, metavar="N")
@click.option("--json", "lines", is_flag=True, help="All numbers as JSON; times in seconds.")  # fmt: skip
def command(
    connection: Connection, name: str, data: str | None, data_option: str | None, source: Source,
    total: int | None, seconds: float | None, concurrency: int, rate: float | None, max_in_flight: int,
    connections: int, lines: bool,
) -> int:  # fmt: skip
    """Call a method of TARGET again and again, and show rate, latencies and codes.

    With --rate the time of a call is counted from the moment when it was to be sent, so it shows what users feel. Without
    it each caller waits for its answer, and a server that is slow is asked less: that shows what a server can take.
    """
    if data is not None and data_option is not None:
        raise click.UsageError("give the message once: as an argument or with -d")
    with connection.channel() as channel:
        schema = source.schema(connection, channel)
        method = schema.method(name)
        requests = _packed(method, schema.pool, data if data_option is None else data_option)
    end = End(total or (math.inf if seconds else CALLS), seconds or math.inf)
    what = f"{method.containing_service.full_name}/{method.name}"
    plan = Plan(what, connection.target, end, rate, concurrency, connections, max_in_flight)
    tally = Tally()
    interrupted = _interrupted(_measure(plan, connection, method, requests, tally))
    if lines:
        write_json(as_json(plan, tally))
    else:
        write(as_text(plan, tally))
    if interrupted:
        return exits.INTERRUPTED
    return exits.NO if tally.unsent or tally.calls > tally.ok.count else exits.OK


def _packed(method: Any, pool: Any, data: str | None) -> list[bytes]:
    """What each call sends, packed once."""
    requests = Requests(method, pool, [EMPTY if data is None else data], ready=True)
    messages = requests.stream() if method.client_streaming else [requests.one()]
    return [message.SerializeToString() for message in messages]


def _interrupted(measuring: Coroutine[Any, Any, None]) -> bool:
    """Run it to its end, or until Ctrl-C: what was measured by then is shown all the same."""
    try:
        asyncio.run(measuring)
    except KeyboardInterrupt:
        return True
    return False


async def _measure(plan: Plan, connection: Connection, method: Any, requests: list[bytes], tally: Tally) -> None:
    own = [("grpc.use_local_subchannel_pool", 1)]  # or else channels of one process share a connection
    kind = Kind.of(method.client_streaming, method.server_streaming)
    async with AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(connection.channel(grpc.aio, *own)) for _ in range(plan.connections)
        ]
        if not all([await connect(channel) for channel in channels]):
            raise Unreachable.of(plan.target)
        options = {"timeout": connection.timeout or PATIENCE, "metadata": connection.metadata}
        call = caller(channels, f"/{plan.method}", kind, requests, **options)
        if plan.rate is None:
            await closed(call, plan.concurrency, plan.end, tally)
        else:
            await opened(call, plan.rate, plan.max_in_flight, plan.end, tally)
