"""The same two services behind a sync and an asyncio server, on free ports of the loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio

from interpose import server_interceptor
from interpose.demo import aio_services, sync_services
from interpose.demo.messages import add_OrderManagementServicer_to_server, add_RouteGuideServicer_to_server
from interpose.demo.orders import OrderBook
from interpose.demo.people import People
from interpose.demo.stack import Stack

WORKERS = 16  # threads of the sync server; each open call holds one
GRACE = 5.0  # seconds for calls that still run; none should


@asynccontextmanager
async def sync_server(book: OrderBook, stack: Stack) -> AsyncGenerator[str]:
    """The sync server as long as the block runs; gives its address."""
    with ThreadPoolExecutor(WORKERS, thread_name_prefix="demo-server") as pool:
        server = grpc.server(pool, interceptors=[server_interceptor(*stack)])
        target = _serve(server, sync_services.OrderManagement(book), sync_services.RouteGuide(People()))
        server.start()
        try:
            yield target
        finally:
            await asyncio.to_thread(server.stop(GRACE).wait)


@asynccontextmanager
async def asyncio_server(book: OrderBook, stack: Stack) -> AsyncGenerator[str]:
    """The asyncio server as long as the block runs; gives its address."""
    server = grpc.aio.server(interceptors=[server_interceptor(*stack)])
    target = _serve(server, aio_services.OrderManagement(book), aio_services.RouteGuide(People()))
    await server.start()
    try:
        yield target
    finally:
        await server.stop(GRACE)


def _serve(server: Any, shop: Any, route: Any) -> str:
    add_OrderManagementServicer_to_server(shop, server)
    add_RouteGuideServicer_to_server(route, server)
    return f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
