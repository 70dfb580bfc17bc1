"""The kinds of middleware that are compared, each told in the same six words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Protocol, cast

import grpc
import grpc.aio

from bench.places import Mode, Side, What

Dial = Callable[[Sequence[grpc.aio.ClientInterceptor]], grpc.aio.Channel]
"""Opens an asyncio channel with these native interceptors, as grpcio wants them: at its birth."""


class Family(Protocol):
    """A way to write interceptors; `count` layers of it that do `what` go where they are asked to."""

    def covers(self, mode: Mode, side: Side) -> bool:
        """Whether this family exists there at all."""

    def sync_client(self, channel: grpc.Channel, what: What, count: int) -> grpc.Channel:
        """The channel with the layers on it."""

    def aio_client(self, dial: Dial, what: What, count: int) -> grpc.aio.Channel:
        """A new channel with the layers on it."""

    def sync_server(self, what: What, count: int) -> list[grpc.ServerInterceptor]:
        """What to hand to `grpc.server(interceptors=)`."""

    def aio_server(self, what: What, count: int) -> list[grpc.aio.ServerInterceptor]:
        """What to hand to `grpc.aio.server(interceptors=)`."""


MODULES = {"native": "native", "grpc-interceptor": "packaged", "interpose": "ours"}
"""Name in the tables, and the module of this package that defines its `FAMILY`."""


def load() -> tuple[dict[str, Family], dict[str, str]]:
    """Every family that can be imported here, and for each of the others why it cannot."""
    found: dict[str, Family] = {}
    missing: dict[str, str] = {}
    for name, module in MODULES.items():
        try:
            found[name] = cast("Family", import_module(f"{__name__}.{module}").FAMILY)
        except ImportError as error:
            missing[name] = str(error)
    return found, missing
