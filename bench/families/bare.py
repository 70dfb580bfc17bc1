"""No middleware at all: the raw arm, in the words of a family."""

from __future__ import annotations

import grpc
import grpc.aio

from bench.families import Dial, Family
from bench.places import Mode, Side, What


class Bare:
    """Leaves everything as it is, whatever it is asked for."""

    def covers(self, mode: Mode, side: Side) -> bool:
        return True

    def sync_client(self, channel: grpc.Channel, what: What, count: int) -> grpc.Channel:
        return channel

    def aio_client(self, dial: Dial, what: What, count: int) -> grpc.aio.Channel:
        return dial([])

    def sync_server(self, what: What, count: int) -> list[grpc.ServerInterceptor]:
        return []

    def aio_server(self, what: What, count: int) -> list[grpc.aio.ServerInterceptor]:
        return []


FAMILY: Family = Bare()
