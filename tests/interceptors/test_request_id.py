"""RequestId: one id, wherever the request goes."""

import asyncio
import io
import logging
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interpose import Call, Flow, Kind, Outcome, chain, context, intercept_channel, server_interceptor
from interpose.interceptors import RequestId
from interpose.interceptors.request_id import RequestIdFilter
from interpose.testing import Echo, Place, failed
from interpose.testing.echo import decode, encode, path
from tests.facts.serving import KINDS, serving
from tests.interceptors.driving import incoming, is_server, numbers, outgoing, play, requests

KEY = "x-request-id"
GIVEN = "client-7/ABC_def.~+=:@"


class Seen:
    """An interceptor that keeps the request id it finds, in the context and in the metadata."""

    def __init__(self) -> None:
        self.ids: list[str | None] = []
        self.sent: list[list[str | bytes]] = []

    def __call__(self, call: Call) -> Flow:
        self.ids.append(context.request_id())
        self.sent.append(call.metadata.get_all(KEY))
        yield call
        self.ids.append(context.request_id())


def test_a_call_without_an_id_is_given_one(place: Place) -> None:
    """The server sees exactly one, the same that the flows further in know, before and after."""
    seen = Seen()

    with place.open(RequestId(), seen) as rpc:
        reply = rpc.call(*requests(place))

    [first, last] = seen.ids
    assert reply.ok
    assert first == last
    assert first is not None
    assert re.fullmatch("[0-9a-f]{32}", first)
    assert seen.sent == [[first]]
    assert is_server(place) or rpc.attempts[0].values(KEY) == [first]


def test_a_handler_finds_exactly_one(place: Place) -> None:
    """Also where the client sent none, or several."""
    for metadata in (None, ((KEY, "one"),), ((KEY, "one"), (KEY, "two")), ((KEY, "no good"), (KEY, "two"))):
        with place.open(RequestId()) as rpc:
            rpc.call(*requests(place), metadata=metadata)

        assert len(rpc.attempts[0].values(KEY)) == 1


def test_an_id_that_is_well_formed_is_kept(place: Place) -> None:
    """What the client or the application put there goes on, with the rest of the metadata."""
    seen = Seen()

    with place.open(RequestId(), seen) as rpc:
        rpc.call(*requests(place), metadata=(("x-other", "1"), (KEY, GIVEN)))

    assert seen.ids == [GIVEN, GIVEN]
    assert rpc.attempts[0].values(KEY) == [GIVEN]
    assert rpc.attempts[0].values("x-other") == ["1"]


def test_nothing_leaks_to_the_caller(place: Place) -> None:
    """Once the RPC is over its id is gone, and the next one gets another."""
    seen = Seen()

    with place.open(RequestId(), seen) as rpc:
        rpc.call(*requests(place))
        after = context.request_id()
        rpc.call(*requests(place))

    assert after is None
    assert len(set(seen.ids)) == 2


def test_the_id_is_echoed_on_wish(place: Place) -> None:
    """A server sends it back, also with a failure; a client has nothing to echo to."""
    with place.open(RequestId(echo=True), script=[failed(grpc.StatusCode.NOT_FOUND, trailing=(("a", "b"),))]) as rpc:
        failure = rpc.call(*requests(place), metadata=((KEY, GIVEN),))
        success = rpc.call(*requests(place), metadata=((KEY, GIVEN),))

    expected = [GIVEN] if is_server(place) else []
    assert failure.trailing_metadata.get_all(KEY) == success.trailing_metadata.get_all(KEY) == expected
    assert failure.trailing_metadata["a"] == "b"


@pytest.mark.parametrize("sort", ["sync", "plain"])
def test_calls_of_a_handler_carry_the_id_of_its_request(sort: str) -> None:
    """From the client through one server to the next, without the handler doing anything."""
    behind = Echo()

    with serving("sync", {}, services=[behind.handlers(asyncio=False)]) as next_server:
        channel = intercept_channel(next_server.channel, RequestId())
        stub = channel.unary_unary(path(Kind.UNARY_UNARY), encode, decode)

        def handle(request: str, native: Any) -> str:
            return f"{context.request_id()} {stub(request, timeout=10)}"

        with serving(sort, {"unary_unary": handle}, RequestId()) as client:
            reply = client.call("a", metadata=((KEY, GIVEN),))

    assert reply.messages == [f"{GIVEN} a"]
    assert behind.attempts[0].values(KEY) == [GIVEN]


async def test_calls_of_an_async_handler_carry_the_id_of_its_request() -> None:
    """The same on asyncio, also from a task of the handler's own."""
    behind = Echo()
    last = grpc.aio.server()
    last.add_generic_rpc_handlers((behind.handlers(asyncio=True),))
    port = last.add_insecure_port("127.0.0.1:0")
    await last.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as bare:
        stub = intercept_channel(bare, RequestId()).unary_unary(path(Kind.UNARY_UNARY), encode, decode)

        async def handle(request: str, native: Any) -> str:
            async def ask() -> str:
                answer: str = await stub(request, timeout=10)
                return answer

            return await asyncio.get_running_loop().create_task(ask())

        first = grpc.aio.server(interceptors=[server_interceptor(RequestId())])
        handler = grpc.unary_unary_rpc_method_handler(handle, decode, encode)
        first.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("front.Door", {"Knock": handler}),))
        port = first.add_insecure_port("127.0.0.1:0")
        await first.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            reply = await channel.unary_unary("/front.Door/Knock", encode, decode)(
                "a", metadata=((KEY, GIVEN),), timeout=10
            )
        await first.stop(None)
    await last.stop(None)

    assert reply == "a"
    assert behind.attempts[0].values(KEY) == [GIVEN]


@pytest.mark.parametrize(
    "value",
    [
        *("", "x" * 129, "x" * 100_000, "two words", "tab\there", "id\n", "id\r\nFAKE LINE", "\x00", "é", "😀"),
        *("semi;colon", '"quoted"', "$(id)", "{{x}}", "<b>", "a,b"),
    ],
)
def test_a_malformed_id_is_replaced(value: str) -> None:
    """Nothing that could trick whoever reads a log goes on, on either side."""
    request_id = RequestId(make=lambda: "fresh")

    for given_call in (incoming(metadata=((KEY, value),)), outgoing(metadata=((KEY, value),))):
        [sent], _ = play(request_id, given_call, Outcome())

        assert sent.metadata.get_all(KEY) == ["fresh"]


def test_a_malformed_id_of_the_request_at_hand_is_replaced() -> None:
    """An application may make one that is good for its own log alone: calls of the handler have a fresh one."""
    sent: list[Call] = []

    def handler(call: Call) -> Flow:
        sent.extend(play(RequestId(make=lambda: "fresh"), outgoing(), Outcome())[0])
        yield call

    play(chain(RequestId(make=lambda: "two words"), handler), incoming(), Outcome())

    assert [call.metadata.get_all(KEY) for call in sent] == [["fresh"]]


@given(st.from_regex(r"[A-Za-z0-9._~+/=:@\-]{1,128}", fullmatch=True))
def test_every_id_of_the_alphabet_is_kept(value: str) -> None:
    """1 to 128 characters of it; and the call goes on as it is, not as a copy."""
    arrived: list[Call] = []

    def first(call: Call) -> Flow:
        arrived.append(call)
        yield call

    sent, _ = play(chain(first, RequestId()), incoming(metadata=((KEY, value),)), Outcome())

    assert sent == arrived  # calls are equal if they are the same


def test_strangers_are_not_trusted_on_wish() -> None:
    """At the edge every request gets a fresh id; an application's own is always kept."""
    request_id = RequestId(trust=False, make=numbers().__next__)

    [server], _ = play(request_id, incoming(metadata=((KEY, GIVEN),)), Outcome())
    [client], _ = play(request_id, outgoing(metadata=((KEY, GIVEN),)), Outcome())

    assert server.metadata.get_all(KEY) == ["id-1"]
    assert client.metadata.get_all(KEY) == [GIVEN]


def test_the_header_is_yours_to_choose() -> None:
    """In any case of letters; the usual one is then left alone."""
    [sent], _ = play(
        RequestId("X-Correlation-Id", make=lambda: "fresh"), outgoing(metadata=((KEY, "mine"),)), Outcome()
    )

    assert sent.metadata.get_all("x-correlation-id") == ["fresh"]
    assert sent.metadata.get_all(KEY) == ["mine"]


def test_an_echo_of_the_handler_stands() -> None:
    """If the handler sent the key itself, it is not sent twice."""
    told = Outcome().with_trailing_metadata((KEY, "own"))

    _, outcome = play(RequestId(echo=True), incoming(), told)

    assert outcome.trailing_metadata.get_all(KEY) == ["own"]


# --- the filter -----------------------------------------------------------------------------------------------------


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What "shop" and the loggers below it write, each line with the request id in front."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(request_id)s %(message)s"))
    handler.addFilter(RequestIdFilter())
    shop = logging.getLogger("shop")
    shop.addHandler(handler)
    shop.setLevel(logging.INFO)
    yield stream
    shop.removeHandler(handler)
    shop.setLevel(logging.NOTSET)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sort", ["sync", "plain", "async"])
def test_every_record_of_a_handler_has_the_id(sort: str, kind: str, lines: io.StringIO) -> None:
    """In front of, between and behind the messages of a stream; outside of the RPC there is none."""
    log = logging.getLogger("shop.orders")

    def unary(_: Any, native: Any) -> str:
        log.info("at work")
        return "done"

    def stream(_: Any, native: Any) -> Iterator[str]:
        log.info("first")
        yield "one"
        log.info("last")

    async def unary_later(_: Any, native: Any) -> str:
        await asyncio.get_running_loop().create_task(write_later())
        return unary(None, None)

    async def stream_later(_: Any, native: Any) -> AsyncIterator[str]:
        log.info("first")
        yield "one"
        await asyncio.get_running_loop().create_task(write_later())
        log.info("last")

    async def write_later() -> None:
        log.info("in a task")

    plain, later = (stream, stream_later) if kind.endswith("stream") else (unary, unary_later)
    with serving(sort, {kind: later if sort == "async" else plain}, RequestId()) as client:
        client.call(kind=kind, metadata=((KEY, "one"),))
        client.call(kind=kind, metadata=((KEY, "two"),))
        log.info("outside")

    told = ["first", "last"] if kind.endswith("stream") else ["at work"]
    if sort == "async":
        told.insert(len(told) - 1, "in a task")
    assert lines.getvalue().splitlines() == [
        *[f"one {line}" for line in told],
        *[f"two {line}" for line in told],
        "- outside",
    ]


def test_a_record_that_has_an_id_keeps_it(lines: io.StringIO) -> None:
    """As one of AccessLog, or one that came through a queue."""
    logging.getLogger("shop").info("told", extra={"request_id": "own"})

    assert lines.getvalue() == "own told\n"


def test_the_default_is_yours_to_choose() -> None:
    """Any text; anything else is refused."""
    record = logging.makeLogRecord({})

    assert RequestIdFilter(default="none").filter(record)
    assert record.__dict__["request_id"] == "none"
    with pytest.raises(ValueError, match=r"^RequestIdFilter: default must be text, like '-', not None"):
        RequestIdFilter(default=None)  # type: ignore[arg-type]  # what the test is about


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"header": "x-trace-bin"}, "header must be a metadata key for text"),
        ({"header": "grpc-id"}, "header must be a metadata key for text"),
        ({"header": "two words"}, "header must be a metadata key for text"),
        ({"header": None}, "header must be a metadata key for text"),
        ({"trust": "yes"}, "trust must be True or False, not 'yes'"),
        ({"make": "id"}, "make must be a function that gives an id, not 'id'"),
        ({"echo": 1}, "echo must be True or False, not 1"),
        ({"header": "", "make": 1, "echo": 1, "trust": 1}, "header .*; trust .*; make .*; echo "),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], complaint: str) -> None:
    """Every fault, with what to write instead."""
    with pytest.raises(ValueError, match=f"^RequestId: {complaint}"):
        RequestId(**options)
