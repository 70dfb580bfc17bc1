"""The word of a server on whether a call was executed: who gives it, who passes it on, and who believes it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import (
    Call,
    Flow,
    Kind,
    Metadata,
    Outcome,
    Side,
    chain,
    errors,
    intercept_channel,
    server_interceptor,
    testing,
)
from interpose._executed import KEY, MAY_HAVE_RUN, not_executed, told_by_server, vouched
from interpose._method import Method
from interpose.interceptors import Retry
from interpose.mechanisms import pushback
from interpose.testing import Place, failed, ok
from interpose.testing.echo import Echo, Stub

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
BUY = "/shop.v1.Shop/Buy"
WORD = (KEY, BUY)

PLACES = [Place(asynchronous, Side.SERVER, kind) for asynchronous in (False, True) for kind in Kind]


def incoming(name: str = BUY) -> Call:
    """A call on a server."""
    return Call(Method(name, Kind.UNARY_UNARY), Side.SERVER, None, None, None)


# --- giving it ----------------------------------------------------------------------------------------------------------


def test_a_refusal_names_the_method() -> None:
    """And says when the call is welcome again, if somebody knows."""
    assert not_executed(incoming()) == (WORD,)
    assert not_executed(incoming(), 0.25) == (WORD, (pushback.KEY, "250"))
    assert not_executed(incoming(), pushback=pushback.NO_MORE) == (WORD, (pushback.KEY, "-1"))


@pytest.mark.parametrize("name", ["/a/\n", "/ä/b", "/a b/c", "/a/" + "b" * 1024, ""])
def test_a_name_that_cannot_travel_is_not_named(name: str) -> None:
    """A stranger may ask for anything; the refusal stands without the word."""
    assert not_executed(incoming(name), 1.0) == ((pushback.KEY, "1000"),)


@pytest.mark.parametrize(
    ("seconds", "value"),
    [(0, "0"), (0.0001, "1"), (0.1, "100"), (0.3, "300"), (2.5, "2500"), (2_147_483.647, "2147483647"), (3e9, "-1")],
)
def test_a_pause_is_never_shorter_than_was_asked(seconds: float, value: str) -> None:
    """In whole milliseconds; what is beyond their range means never."""
    pair = pushback.pair(seconds)

    assert pair == (pushback.KEY, value)
    assert (pushback.parse([pair]) or 0.0) >= seconds


@pytest.mark.parametrize("seconds", [-0.001, float("nan")])
def test_a_pause_below_nothing_is_refused(seconds: float) -> None:
    """It would read as "never", which somebody else has to mean."""
    with pytest.raises(ValueError, match="pushback must be 0 or more seconds, or NO_MORE, not"):
        pushback.pair(seconds)


# --- believing it -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], None),
        ([WORD], True),
        ([(KEY, BUY[1:])], True),
        ([WORD, WORD], True),
        ([MAY_HAVE_RUN], False),
        ([WORD, MAY_HAVE_RUN], False),
        ([(KEY, "/shop.v1.Shop/Sell")], False),
        ([(KEY, b"\xff")], False),
    ],
)
def test_what_it_says_of_a_call(words: Any, told: bool | None) -> None:
    """That very method was not executed, or nothing is certain."""
    assert told_by_server(incoming(), Metadata.trusted(words)) is told


# --- passing it on ------------------------------------------------------------------------------------------------------


def outcome(error: errors.StatusError, attempts: int) -> Outcome:
    """A failure of a server behind so many calls of its handler."""
    made = Outcome.failure(error)
    made._attempts = attempts
    return made


def of_a_dependency(native: type, *trailing: Any, details: str = "busy") -> errors.StatusError:
    """What a stub raises."""
    return errors.native_class(errors.Unavailable, native)(details, trailing_metadata=trailing)


OTHER = ("x-id", "7")


@pytest.mark.parametrize(
    ("error", "attempts", "sent"),
    [
        (errors.Unavailable("busy", trailing_metadata=(WORD, OTHER)), 0, (WORD, OTHER)),
        (errors.Unavailable("busy", trailing_metadata=(WORD, OTHER)), 1, (OTHER,)),  # the handler ran
        (errors.Unavailable("over", trailing_metadata=(MAY_HAVE_RUN, WORD)), 1, (MAY_HAVE_RUN,)),
        (of_a_dependency(grpc.aio.AioRpcError, WORD, OTHER), 0, (OTHER,)),  # an interceptor had asked it
        (of_a_dependency(grpc.Call, WORD, OTHER), 0, (OTHER,)),
        (errors.Unavailable("GOAWAY received; Error code: 0"), 0, (MAY_HAVE_RUN,)),
        (errors.Unavailable("failed to connect to all addresses; …", trailing_metadata=(WORD,)), 1, (MAY_HAVE_RUN,)),
        (errors.Unavailable("failed to connect", trailing_metadata=(OTHER,)), 1, (OTHER,)),
        (errors.NotFound("failed to connect to all addresses"), 1, ()),  # of no code that says so
    ],
)
def test_what_a_server_can_stand_by(error: errors.StatusError, attempts: int, sent: Any) -> None:
    """Its own word on a call that no handler has seen; and what would mislead is put right."""
    assert tuple(vouched(outcome(error, attempts))) == sent


def refusing(call: Call) -> Flow:
    """A guard."""
    raise errors.ResourceExhausted("busy", trailing_metadata=not_executed(call))
    yield call


def refusing_later(call: Call) -> Flow:
    """What refuses the answer of a handler, in the words of a guard."""
    yield call
    raise errors.ResourceExhausted("busy", trailing_metadata=not_executed(call))


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_the_word_travels(place: Place) -> None:
    """From a guard to the client, in every kind of RPC."""
    with place.open(refusing) as rpc:
        reply = rpc.call("a")

    assert reply.trailing_metadata.get_all(KEY) == [f"/interpose.testing.Echo/{place.kind.value}"]


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_no_word_of_a_call_that_was_executed(place: Place) -> None:
    """Whatever an interceptor says afterwards."""
    with place.open(refusing_later) as rpc:
        reply = rpc.call("a")

    assert reply.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert KEY not in reply.trailing_metadata


@pytest.mark.parametrize("asynchronous", [False, True])
def test_no_word_of_a_call_whose_first_attempt_ran(asynchronous: bool) -> None:
    """A retry on the server calls the handler, and is refused the second time."""
    limited: list[str] = []

    def once(call: Call) -> Flow:
        limited.append("")
        if len(limited) > 1:
            raise errors.Unavailable("busy", local=True, trailing_metadata=not_executed(call))
        yield call

    place = Place(asynchronous, Side.SERVER, Kind.UNARY_UNARY)
    with place.open(Retry(2, safe=True, backoff=lambda _: 0.0), once, script=[failed(UNAVAILABLE)]) as rpc:
        reply = rpc.call("a")

    assert (len(limited), len(rpc.attempts), reply.details) == (2, 1, "busy")
    assert KEY not in reply.trailing_metadata


ECHO = "interpose.testing.Echo"


def test_a_handler_that_forwards_a_refusal() -> None:
    """A gateway calls the method of the same name behind it, and passes its error on as it is: it has run itself."""
    with Echo().serve(refusing) as behind, grpc.insecure_channel(behind) as bare, ThreadPoolExecutor(1) as pool:

        def pass_on(request: bytes, context: Any) -> bytes:
            try:
                Stub(bare).unary_unary(request.decode())
            except grpc.RpcError as error:
                context.set_trailing_metadata(error.trailing_metadata())  # type: ignore[attr-defined]  # the stubs
                context.abort(error.code(), error.details())  # type: ignore[attr-defined]  # forget them
            return b""

        server = grpc.server(pool, interceptors=[server_interceptor(through)])
        target = served(server, pass_on)
        server.start()
        with grpc.insecure_channel(target) as channel, pytest.raises(grpc.RpcError) as raised:
            Stub(channel).unary_unary("a", timeout=10)
        server.stop(None).wait()

    assert raised.value.details() == "busy"  # type: ignore[attr-defined]
    assert KEY not in Metadata.trusted(raised.value.trailing_metadata())  # type: ignore[attr-defined]


async def test_a_handler_that_lets_a_refusal_pass() -> None:
    """The same on asyncio, by not catching it."""
    async with Echo().serve_aio(refusing) as behind, grpc.aio.insecure_channel(behind) as bare:
        channel: Any = intercept_channel(bare, through)

        async def pass_on(request: bytes, context: Any) -> bytes:
            return str(await Stub(channel).unary_unary(request.decode())).encode()

        server = grpc.aio.server(interceptors=[server_interceptor(through)])
        target = served(server, pass_on)
        await server.start()
        async with grpc.aio.insecure_channel(target) as outer:
            with pytest.raises(grpc.RpcError) as raised:
                await Stub(outer).unary_unary("a", timeout=10)
        await server.stop(None)

    assert raised.value.details() == "busy"  # type: ignore[attr-defined]
    assert KEY not in Metadata.trusted(raised.value.trailing_metadata())  # type: ignore[attr-defined]


def served(server: Any, handle: Any) -> str:
    """Let the server call this for the echo's unary method; gives its target."""
    methods: Any = {"unary_unary": grpc.unary_unary_rpc_method_handler(handle)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(ECHO, methods),))
    return f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"


def through(call: Call) -> Flow:
    """An interceptor, so that the server or channel is ours."""
    yield call


# --- attempts -----------------------------------------------------------------------------------------------------------


def test_what_was_sent_is_counted_though_the_last_was_refused() -> None:
    """A flow that sends again and is refused then has sent all the same; within it, the refusal was not sent."""
    inside: list[int] = []
    outside: list[int] = []
    passed: list[str] = []

    def limit(call: Call) -> Flow:
        passed.append("")
        if len(passed) > 2:
            raise errors.Unavailable("full", local=True)
        yield call

    def thrice(call: Call) -> Flow:
        inside.append((yield call).attempts)
        inside.append((yield call).attempts)
        inside.append((yield call).attempts)

    def look(call: Call) -> Flow:
        outside.append((yield call).attempts)

    testing.play(chain(look, thrice, limit), [failed(UNAVAILABLE), failed(UNAVAILABLE)])

    assert (inside, outside) == ([1, 2, 0], [2])


def test_what_was_never_sent_is_not_counted() -> None:
    """However often it was asked for."""
    outside: list[int] = []

    def twice(call: Call) -> Flow:
        yield call
        yield call

    def look(call: Call) -> Flow:
        outside.append((yield call).attempts)

    testing.play(chain(look, twice, refusing), [])
    testing.play(chain(look, twice), [ok(), ok()])

    assert outside == [0, 2]
