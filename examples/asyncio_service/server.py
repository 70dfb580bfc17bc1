"""Readings of weather stations on an asyncio server, which refuses calls rather than to answer late."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import grpc
import weather_pb2
import weather_pb2_grpc

from interpose import errors
from interpose.interceptors import AccessLog, ConcurrencyLimit, Deadline, ExceptionToStatus, RequestId

WAITING = 100  # readings that a watcher may be behind

limit = ConcurrencyLimit()
ready = [limit]  # health follows it: `--ready server:limit`
stack = [RequestId(), AccessLog(), ExceptionToStatus(), Deadline(3600), limit]


class Weather(weather_pb2_grpc.WeatherServicer):
    """Hands each reading to those who watch its station."""

    def __init__(self) -> None:
        self._watchers: dict[str, set[asyncio.Queue[weather_pb2.Reading]]] = {}

    async def Record(
        self, requests: AsyncIterator[weather_pb2.Reading], context: grpc.aio.ServicerContext
    ) -> weather_pb2.Summary:
        celsius = []
        async for reading in requests:
            celsius.append(reading.celsius)
            for watcher in self._watchers.get(reading.station, ()):
                with suppress(asyncio.QueueFull):  # one that is too slow misses readings
                    watcher.put_nowait(reading)
        if not celsius:
            raise errors.InvalidArgument("send at least one reading")
        return weather_pb2.Summary(readings=len(celsius), highest=max(celsius))

    async def Watch(
        self, request: weather_pb2.WatchRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[weather_pb2.Reading]:
        queue: asyncio.Queue[weather_pb2.Reading] = asyncio.Queue(WAITING)
        watchers = self._watchers.setdefault(request.station, set())
        watchers.add(queue)
        try:
            await context.send_initial_metadata(())  # so that the client knows that it watches
            while True:
                yield await queue.get()
        finally:  # also when the client has gone, or the server stops
            watchers.discard(queue)


app = [Weather()]
