"""An order that cannot be one: what its clients get beside INVALID_ARGUMENT, on both stacks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from interpose import StatusError, intercept_channel
from interpose.demo.load import TIMEOUT
from interpose.demo.messages import Message, Order, OrderManagementStub

MALFORMED = Order(id="my order", items=["lamp", " "], price=-3.0)


@dataclass(frozen=True)
class Refusal:
    """How an order ended for its client; `messages` are the `error_details` of what the stub raised."""

    client: str
    server: str
    code: grpc.StatusCode
    details: str
    messages: tuple[Message, ...]


def refusal_from_sync(target: str, server: str) -> Refusal:
    """Send the malformed order from a sync client."""
    with intercept_channel(grpc.insecure_channel(target)) as channel:
        try:
            OrderManagementStub(channel).updateOrders(iter([MALFORMED]), timeout=TIMEOUT)
        except StatusError as error:
            return _refused("sync", server, error)
    return _taken("sync", server)


async def refusal_from_asyncio(target: str, server: str) -> Refusal:
    """Send the malformed order from an asyncio client."""
    async with intercept_channel(grpc.aio.insecure_channel(target)) as channel:
        try:
            await OrderManagementStub(channel).updateOrders(iter([MALFORMED]), timeout=TIMEOUT)
        except StatusError as error:
            return _refused("asyncio", server, error)
    return _taken("asyncio", server)


def _refused(client: str, server: str, error: StatusError) -> Refusal:
    messages: tuple[Any, ...] = error.error_details
    return Refusal(client, server, error.code(), error.details(), messages)


def _taken(client: str, server: str) -> Refusal:
    return Refusal(client, server, grpc.StatusCode.OK, "", ())
