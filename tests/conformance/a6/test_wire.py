"""Attempts that end as no server of grpcio lets them end: on the level of HTTP/2, and before gRPC has a say."""

from __future__ import annotations

import socket
from typing import Any

import grpc
import pytest

from interpose.interceptors import BY_CONVENTION, Retry, RetryDetails
from interpose.mechanisms.budget import Unlimited
from interpose.testing import FakeClock
from tests.conformance.a6.callers import LOSES_HEADERS, WAYS, Way
from tests.conformance.a6.wire import (
    GRPC,
    Reply,
    answer,
    answering,
    cut_off,
    cut_off_behind,
    gone_away,
    only,
    refused,
    status_behind,
)

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
NODE = (b"x-node", b"7")

each_way = pytest.mark.parametrize("way", WAYS, ids=str)


def retry(**more: Any) -> Retry:
    options: dict[str, Any] = {"attempts": 2, "backoff": lambda _: 1.0, "budget": Unlimited()}
    return Retry(**(options | more))


@each_way
@pytest.mark.parametrize(("reply", "safe"), [(refused, True), (gone_away, None), (cut_off, True)])
def test_connections_and_streams_that_break(reply: Reply, safe: bool | None, way: Way) -> None:
    """A stream that is refused unread, or a connection that ends before an answer: an attempt of ours like any other."""
    clock = FakeClock(auto=True)

    with (
        answering(reply, answer(b"yes")) as server,
        way.client(server.target, retry(attempts=10, safe=safe), clock=clock) as client,
    ):
        answered = client.call()

    assert answered.ok and answered.messages == ["yes"]
    assert server.streams == 2
    assert set(clock.pauses) == {1.0}  # more than one if grpc had not noticed yet that the connection is gone


@each_way
def test_a_connection_that_broke_under_an_unsafe_call(way: Way) -> None:
    """The server may have executed it; core would send it again, and so twice."""
    clock = FakeClock(auto=True)

    with (
        answering(cut_off, answer(b"yes")) as server,
        way.client(server.target, retry(), clock=clock) as client,
    ):
        answered = client.call()

    assert answered.code is UNAVAILABLE
    assert server.streams == 1


@each_way
def test_retry_transparent_goaway(way: Way) -> None:
    """What a GOAWAY left unseen core repeats at once, uncounted; our channel options switch that off with its retries."""
    clock = FakeClock(auto=True)

    with (
        answering(gone_away, answer(b"yes")) as server,
        way.client(server.target, retry(), clock=clock, options=[]) as client,
    ):
        answered = client.call()

    assert answered.ok and server.streams == 2
    assert clock.pauses == []


@each_way
def test_retry_lb_fail(way: Way) -> None:
    """Where there is no server each attempt fails with UNAVAILABLE on this side, and there is another."""
    clock = FakeClock(auto=True)
    told: list[RetryDetails] = []
    policy = retry(on_retry=told.append)

    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        target = f"127.0.0.1:{nobody.getsockname()[1]}"
        with way.client(target, policy, clock=clock) as client:
            reply = client.call()

    assert reply.code is UNAVAILABLE
    assert [(details.number, details.outcome.code) for details in told] == [(1, UNAVAILABLE)]
    assert clock.pauses == [1.0]


@pytest.mark.parametrize("way", [way for way in WAYS if way != LOSES_HEADERS], ids=str)
@pytest.mark.parametrize("reply", [cut_off_behind(NODE), status_behind(14, NODE)], ids=["cut off", "trailers"])
def test_unavailable_behind_metadata(reply: Reply, way: Way) -> None:
    """The server had begun: UNAVAILABLE that comes after its metadata, from it or from the network, is the answer."""
    clock = FakeClock(auto=True)

    policy = retry(safe=BY_CONVENTION)
    with answering(reply) as server, way.client(server.target, policy, clock=clock) as client:
        answered = client.call()

    assert answered.code is UNAVAILABLE
    assert server.streams == 1


@each_way
def test_headers_without_metadata_cannot_be_seen(way: Way) -> None:
    """Core commits at any headers; grpcio shows only what metadata is in them: without any the convention tries again."""
    clock = FakeClock(auto=True)

    with (
        answering(status_behind(14), answer(b"yes")) as server,
        way.client(server.target, retry(safe=BY_CONVENTION), clock=clock) as client,
    ):
        answered = client.call()

    assert answered.ok and server.streams == 2


@each_way
@pytest.mark.parametrize(
    ("reply", "streams"),
    [
        (only(*GRPC), 1),
        (only(*GRPC, (b"grpc-status", b"x")), 1),
        (only(*GRPC, (b"grpc-status", b"99")), 1),
        (only((b":status", b"404")), 1),
        (only((b":status", b"503")), 2),
        (only((b":status", b"429")), 2),
    ],
    ids=["no status", "not a number", "no such code", "not found", "unavailable", "too many requests"],
)
def test_broken_trailers(reply: Reply, streams: int, way: Way) -> None:
    """What stands for a status counts as gRPC reads it: HTTP's 503 and 429 are UNAVAILABLE, and no others are repeated."""
    clock = FakeClock(auto=True)

    with answering(reply) as server, way.client(server.target, retry(safe=True), clock=clock) as client:
        answered = client.call()

    assert (answered.code is UNAVAILABLE) is (streams == 2)
    assert server.streams == streams
