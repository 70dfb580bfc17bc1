"""Watches a station while it records readings there. Its one argument is where the server is."""

import asyncio
import sys

import grpc
import weather_pb2
import weather_pb2_grpc

from interpose import errors, intercept_channel
from interpose.interceptors import Deadline, RequestId, Retry


async def main(target: str) -> None:
    stack = [RequestId(), Deadline(30), Retry()]
    async with intercept_channel(grpc.aio.insecure_channel(target, Retry.channel_options()), *stack) as channel:
        weather = weather_pb2_grpc.WeatherStub(channel)
        watching = weather.Watch(weather_pb2.WatchRequest(station="Oslo"))
        await watching.initial_metadata()
        summary = await weather.Record(readings(("Oslo", -3.5), ("Bergen", 6.0), ("Oslo", -1.0)))
        print(summary.readings, "readings, highest", summary.highest)
        for _ in range(2):
            print("Oslo", (await watching.read()).celsius)
        watching.cancel()
        try:
            await weather.Record(readings())
        except errors.InvalidArgument as error:
            print(error.details())


async def readings(*pairs: tuple[str, float]):
    for station, celsius in pairs:
        yield weather_pb2.Reading(station=station, celsius=celsius)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
