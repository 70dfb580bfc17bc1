"""The load: seeded calls of all four kinds, and a sync and an asyncio caller that make the very same ones."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from interpose import Kind
from interpose.demo.interceptors import REQUEST_ID
from interpose.demo.messages import Message, Name, Order, OrderManagementStub, RouteGuideStub, StringValue

IN_FLIGHT = 8  # calls that one caller makes at the same time
TIMEOUT = 20.0  # seconds; far beyond what a call takes, so that nothing can hang the demo

Tell = Callable[[], None]


@dataclass(frozen=True)
class Job:
    """One call to make, and the status that a right answer has."""

    method: str
    kind: Kind
    requests: tuple[Message, ...]
    expect: grpc.StatusCode = grpc.StatusCode.OK
    mention: str = ""  # what the details of a right refusal contain

    @property
    def payload(self) -> Any:
        """What a stub takes: the message, or a fresh iterator over the messages."""
        return iter(self.requests) if self.kind.request_streaming else self.requests[0]


@dataclass(frozen=True)
class Answer:
    """How a job ended for its caller."""

    job: Job
    request_id: str
    code: grpc.StatusCode
    details: str
    responses: tuple[bytes, ...]

    @property
    def right(self) -> bool:
        """Whether the caller got what a server without faults would have answered."""
        return self.code is self.job.expect and self.job.mention in self.details


def make_jobs(seed: int, calls: int) -> list[Job]:
    """`calls` jobs of each kind, in an order and with contents that the seed decides."""
    chance = random.Random(seed)
    makers = (_unary, _server_stream, _client_stream, _bidi)
    jobs = [make(number, chance) for make in makers for number in range(calls)]
    chance.shuffle(jobs)
    return jobs


def shop_orders() -> Iterator[Order]:
    """What the order book holds at the start: 1 to 40 are only read by the load, 41 to 60 only written."""
    things = ("lamp", "kettle", "atlas", "violin", "kite")
    places = ("Lisbon", "Oslo", "Kyoto", "Quito")
    for number in range(1, 61):
        thing = things[number % 5]
        shelf = "read" if number <= 40 else "written"
        yield Order(
            id=str(number),
            items=[thing, f"{thing} box"],
            description=f"{thing} from the {shelf} shelf",
            price=10 + number / 4,
            destination=places[number % 4],
        )


def call_sync(channel: grpc.Channel, label: str, jobs: list[Job], tell: Tell) -> list[Answer]:
    """Make the calls from threads; the channel may be bare or intercepted."""
    methods = _methods(channel)

    def make(numbered: tuple[int, Job]) -> Answer:
        number, job = numbered
        request_id = f"{label}-{number:04d}"
        try:
            answer = methods[job.method](job.payload, timeout=TIMEOUT, metadata=((REQUEST_ID, request_id),))
            responses = tuple(answer) if job.kind.response_streaming else (answer,)
        except grpc.RpcError as error:
            return _failed(job, request_id, error)
        finally:
            tell()
        return _answered(job, request_id, responses)

    with ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="demo-caller") as pool:
        return list(pool.map(make, enumerate(jobs)))


async def call_asyncio(channel: grpc.aio.Channel, label: str, jobs: list[Job], tell: Tell) -> list[Answer]:
    """Make the calls from tasks; the channel may be bare or intercepted."""
    methods = _methods(channel)
    slots = asyncio.Semaphore(IN_FLIGHT)

    async def make(number: int, job: Job) -> Answer:
        request_id = f"{label}-{number:04d}"
        async with slots:
            try:
                call = methods[job.method](job.payload, timeout=TIMEOUT, metadata=((REQUEST_ID, request_id),))
                responses = tuple([message async for message in call]) if job.kind.response_streaming else (await call,)
            except grpc.RpcError as error:
                return _failed(job, request_id, error)
            finally:
                tell()
            return _answered(job, request_id, responses)

    return await asyncio.gather(*(make(number, job) for number, job in enumerate(jobs)))


def _methods(channel: Any) -> dict[str, Callable[..., Any]]:
    shop, route = OrderManagementStub(channel), RouteGuideStub(channel)
    names = ("getOrder", "searchOrders", "updateOrders", "processOrders")
    return {name: getattr(shop, name) for name in names} | {
        "GetPerson": route.GetPerson,
        "GetPeople": route.GetPeople,
    }


def _answered(job: Job, request_id: str, responses: tuple[Message, ...]) -> Answer:
    content = tuple(message.SerializeToString(deterministic=True) for message in responses)
    return Answer(job, request_id, grpc.StatusCode.OK, "", content)


def _failed(job: Job, request_id: str, error: Any) -> Answer:
    return Answer(job, request_id, error.code(), error.details() or "", ())


def _unary(number: int, chance: random.Random) -> Job:
    if number % 8 == 7:
        unknown = str(chance.randint(1000, 9999))
        asked = (StringValue(value=unknown),)
        return Job("getOrder", Kind.UNARY_UNARY, asked, grpc.StatusCode.NOT_FOUND, mention=unknown)
    if number % 2:
        return Job("GetPerson", Kind.UNARY_UNARY, (Name(value=chance.choice(("Ada", "Konrad", "Grace", "Sam"))),))
    return Job("getOrder", Kind.UNARY_UNARY, (StringValue(value=str(chance.randint(1, 40))),))


def _server_stream(number: int, chance: random.Random) -> Job:
    if number % 16 == 15:
        return Job(
            "searchOrders",
            Kind.UNARY_STREAM,
            (StringValue(),),
            grpc.StatusCode.INVALID_ARGUMENT,
            mention="blank",
        )
    thing = chance.choice(("lamp", "kettle", "atlas", "violin", "kite"))
    return Job("searchOrders", Kind.UNARY_STREAM, (StringValue(value=f"{thing} from the read"),))


def _client_stream(number: int, chance: random.Random) -> Job:
    if number % 16 == 15:
        broken = Order(id="41", items=["lamp"], price=-1.0, destination="Oslo")
        return Job("updateOrders", Kind.STREAM_UNARY, (broken,), grpc.StatusCode.INVALID_ARGUMENT, mention="price")
    ids = chance.sample(range(41, 61), 5)
    orders = (
        Order(
            id=str(key),
            items=["lamp", "bulb"],
            description="updated lamp",
            price=float(key),
            destination="Oslo",
        )
        for key in ids
    )
    return Job("updateOrders", Kind.STREAM_UNARY, tuple(orders))


def _bidi(number: int, chance: random.Random) -> Job:
    if number % 2:
        names = chance.sample(("Ada", "Konrad", "Grace", "Sam"), 3)
        return Job("GetPeople", Kind.STREAM_STREAM, tuple(Name(value=name) for name in names))
    ids = chance.sample(range(1, 41), 8)
    return Job("processOrders", Kind.STREAM_STREAM, tuple(Order(id=str(key)) for key in ids))
