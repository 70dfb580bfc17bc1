"""Interceptors as one writes them with Interpose: one generator function for every place."""

from __future__ import annotations

from collections.abc import Callable

import grpc
import grpc.aio

from bench.families import Dial, Family
from bench.families.counting import see
from bench.places import Mode, Side, What
from interpose import Call, Flow, intercept_channel, server_interceptor


def noop(call: Call) -> Flow:
    """Passes every call on."""
    yield call


def observe(call: Call) -> Flow:
    """Looks at the status code, as a metric does."""
    outcome = yield call
    outcome.code  # noqa: B018 - reading it is the point


def requests(call: Call) -> Flow:
    """Sees each request of a stream."""
    yield call.tap(requests=see)


def responses(call: Call) -> Flow:
    """Sees each response of a stream."""
    yield call.tap(responses=see)


FLOWS: dict[What, Callable[[Call], Flow]] = {
    "noop": noop,
    "observe": observe,
    "requests": requests,
    "responses": responses,
}


class Ours:
    """The same flows in all places."""

    def covers(self, mode: Mode, side: Side) -> bool:
        return True

    def sync_client(self, channel: grpc.Channel, what: What, count: int) -> grpc.Channel:
        return intercept_channel(channel, *[FLOWS[what]] * count)

    def aio_client(self, dial: Dial, what: What, count: int) -> grpc.aio.Channel:
        return intercept_channel(dial([]), *[FLOWS[what]] * count)

    def sync_server(self, what: What, count: int) -> list[grpc.ServerInterceptor]:
        return [server_interceptor(*[FLOWS[what]] * count)]

    def aio_server(self, what: What, count: int) -> list[grpc.aio.ServerInterceptor]:
        return [server_interceptor(*[FLOWS[what]] * count)]


FAMILY: Family = Ours()
