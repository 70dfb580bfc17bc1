"""The two servers: both serve the whole of both services as long as the block runs, and not after it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import grpc.aio
import pytest

pytest.importorskip("grpc_tools")

from interpose.demo.load import shop_orders
from interpose.demo.messages import Name, OrderManagementStub, RouteGuideStub, StringValue
from interpose.demo.orders import OrderBook
from interpose.demo.servers import asyncio_server, sync_server
from interpose.demo.stack import Stack, faultless_server_stack

Server = Callable[[OrderBook, Stack], AbstractAsyncContextManager[str]]


def connects(target: str) -> bool:
    """Whether somebody listens there."""
    host, port = target.split(":")
    try:
        socket.create_connection((host, int(port))).close()
    except ConnectionRefusedError:
        return False
    return True


@pytest.mark.parametrize("server", [sync_server, asyncio_server], ids=["sync", "asyncio"])
def test_a_server_serves_as_long_as_the_block_runs(server: Server, tmp_path: Path) -> None:
    """It answers for the shop and for the people; behind the block nobody listens any more."""
    book = OrderBook(tmp_path / "orders.sqlite", shop_orders())

    async def visited() -> tuple[str, str, bool]:
        async with server(book, faultless_server_stack()) as target, grpc.aio.insecure_channel(target) as channel:
            order = await OrderManagementStub(channel).getOrder(StringValue(value="7"))
            person = await RouteGuideStub(channel).GetPerson(Name(value="Ada"))
            assert connects(target)
        return order.id, person.name, connects(target)

    try:
        order_id, name, still = asyncio.run(visited())
    finally:
        book.close()

    assert (order_id, name, still) == ("7", "Ada", False)
