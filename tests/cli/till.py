"""The service of till.proto, sync and asyncio, and a server of either with health and reflection."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from google.protobuf import any_pb2
from google.rpc import error_details_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from interpose import errors, server_interceptor
from tests.facts.hosting import served
from tests.protos.features import passes

SERVICE = "interpose.till.Till"
HEALTH = health_pb2.HealthCheckResponse
HOSTILE = "\x1b[2J\x9b31m"  # what would clear a terminal, and colour it


@dataclass
class Till:
    """A receipt for each item, or for all of them. An item "fail" ends the RPC with NOT_FOUND and rich details.

    One of the name "unknown" is answered with an `Any` of a type that is nowhere known. flaky: so many calls fail first.
    """

    messages: Any
    flaky: int = 0
    calls: int = 0
    seen: list[str] = field(default_factory=list)
    heard: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def receipt(self, items: Sequence[Any], context: Any) -> Any:
        self.calls += 1
        if self.calls <= self.flaky:
            raise errors.Unavailable("come again")
        for item in items:
            self.take(item)
        metadata = {key: str(value) for key, value in context.invocation_metadata() if not key.startswith("grpc-")}
        extra = any_pb2.Any(type_url="type.googleapis.com/nowhere.Thing", value=b"\x08\x01")
        return self.messages.Receipt(
            names=[item.name for item in items],
            metadata=metadata,
            total=sum(item.count for item in items),
            extra=extra if any(item.name == "unknown" for item in items) else None,
        )

    def take(self, item: Any) -> None:
        self.seen.append(item.name)
        self.heard.release()
        if item.name == "fail":
            raise errors.NotFound(
                f"no such item{HOSTILE}",
                error_details_pb2.ErrorInfo(reason="SOLD_OUT", domain="till"),
                self.messages.Item(name="fail"),
                any_pb2.Any(type_url="type.googleapis.com/nowhere.Thing", value=b"\x08\x01"),
            )


class Sync:
    """The handlers of a sync server."""

    def __init__(self, till: Till) -> None:
        self.till = till

    def Ring(self, item: Any, context: Any) -> Any:
        context.send_initial_metadata((("x-till", "7"), ("set-cookie", "session=s3cret")))
        context.set_trailing_metadata((("x-drawer-bin", b"\x00\x01"),))
        return self.till.receipt([item], context)

    Price = Ring

    def Watch(self, item: Any, context: Any) -> Iterator[Any]:
        for _ in range(item.count):
            yield self.till.receipt([item], context)

    def Sum(self, items: Any, context: Any) -> Any:
        return self.till.receipt(list(items), context)

    def Trade(self, items: Any, context: Any) -> Iterator[Any]:
        for item in items:
            yield self.till.receipt([item], context)


class Async:
    """The handlers of an asyncio server."""

    def __init__(self, till: Till) -> None:
        self.till = till

    async def Ring(self, item: Any, context: Any) -> Any:
        return self.till.receipt([item], context)

    Price = Ring

    async def Watch(self, item: Any, context: Any) -> AsyncIterator[Any]:
        for _ in range(item.count):
            yield self.till.receipt([item], context)

    async def Sum(self, items: Any, context: Any) -> Any:
        return self.till.receipt([item async for item in items], context)

    async def Trade(self, items: Any, context: Any) -> AsyncIterator[Any]:
        async for item in items:
            yield self.till.receipt([item], context)


@contextmanager
def serving(sort: str, till: Till, grpc_module: Any, *flows: Any, reflect: bool = True) -> Iterator[str]:
    """A running server of this sort, "sync" or "async", with health and, if asked for, reflection; gives its target."""
    servicer = Sync(till) if sort == "sync" else Async(till)
    checks: Any = health.HealthServicer()
    for name, status in (("", HEALTH.SERVING), (SERVICE, HEALTH.SERVING), ("resting", HEALTH.NOT_SERVING)):
        checks.set(name, status)

    def register(server: Any) -> None:
        grpc_module.add_TillServicer_to_server(servicer, server)
        health_pb2_grpc.add_HealthServicer_to_server(checks, server)
        if reflect:
            reflection.enable_server_reflection([SERVICE, reflection.SERVICE_NAME], server)

    with served(sort, [register], [server_interceptor(*(flows or (passes,)))]) as (_, target, _):
        yield target
