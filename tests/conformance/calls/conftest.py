"""The two stacks, each with a server of its own and one channel for every way to wrap it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import grpc
import grpc.aio
import pytest

from tests.conformance.calls import aio_caller, sync_caller
from tests.conformance.calls.comparing import Side
from tests.conformance.calls.remote import serving, stubs
from tests.conformance.calls.scenario import Scenario
from tests.conformance.calls.seeing import Sight
from tests.conformance.calls.ways import AIO_WAYS, SYNC_WAYS

OPTIONS = [("grpc.enable_retries", 0)]


@pytest.fixture(scope="module")
def sync_side() -> Iterator[Side]:
    """Scenarios on the sync stack."""
    with serving() as (target, puppet):
        channels = {way: wrap(grpc.insecure_channel(target, OPTIONS)) for way, wrap in SYNC_WAYS.items()}
        methods = {way: stubs(channel) for way, channel in channels.items()}

        def run(way: str, scenario: Scenario) -> list[Sight]:
            return sync_caller.Caller(methods[way][scenario.kind], puppet.remote(), scenario).run()

        yield Side(False, SYNC_WAYS, run)
        for channel in channels.values():
            channel.close()


@pytest.fixture(scope="module")
def aio_side() -> Iterator[Side]:
    """Scenarios on the asyncio stack, in a loop that lives as long as its channels."""
    with serving() as (target, puppet), asyncio.Runner() as runner:
        channels = runner.run(_opened(target))
        methods = {way: stubs(channel) for way, channel in channels.items()}

        def run(way: str, scenario: Scenario) -> list[Sight]:
            return runner.run(aio_caller.Caller(methods[way][scenario.kind], puppet.remote(), scenario).run())

        yield Side(True, AIO_WAYS, run)
        runner.run(_closed(channels))


async def _opened(target: str) -> dict[str, Any]:
    return {way: wrap(grpc.aio.insecure_channel(target, OPTIONS)) for way, wrap in AIO_WAYS.items()}


async def _closed(channels: dict[str, Any]) -> None:
    for channel in channels.values():
        await channel.close()
