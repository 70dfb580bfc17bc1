"""Metadata: of every shape, refused where it is set, merged where several set it, and the keys of gRPC itself."""

from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import Call, Flow, errors
from interpose.testing import Echo, failed
from tests.facts.calling import EVERY, FEW, UNARY, Watch, Way, channels, opened, ways
from tests.facts.handling import ALL, ASYNC, SYNC, Shape, done, echoing, handling, raising, serve, shapes
from tests.facts.handling import FEW as FEW_SHAPES
from tests.facts.handling import UNARY as UNARY_SHAPES
from tests.facts.serving import Watch as Counting

pytestmark = pytest.mark.usefixtures("hosts")

Code = grpc.StatusCode

ASYNCIO = [way for way in EVERY if way.aio]


# --- what an application gives ----------------------------------------------------------------------------------------

PAIRS = (("x-k", "1"), ("x-k", "2"), ("x-b-bin", b"\x00"))
GIVEN: dict[str, Any] = {"None": None, "empty tuple": (), "empty list": [], "tuple": PAIRS, "list": list(PAIRS)}


@pytest.mark.fact("C-14")
@pytest.mark.parametrize("given", [*GIVEN, "Metadata"])
@ways(FEW)
def test_metadata_of_every_shape_arrives_whole(way: Way, given: str) -> None:
    """Flows add to metadata of any shape; repeated keys arrive, in order, and what was given is left as it was."""
    metadata = GIVEN[given] if given in GIVEN else grpc.aio.Metadata(*PAIRS) if way.aio else PAIRS
    echo, before = Echo(), list(metadata or ())

    def add(call: Call) -> Flow:
        yield call.with_metadata(("x-k", "3"), ("x-own", "here"))

    with opened(way, echo, add) as link:
        link.call(metadata=metadata)

    [attempt] = echo.attempts
    assert attempt.values("x-k") == [value for key, value in before if key == "x-k"] + ["3"]
    assert attempt.values("x-own") == ["here"]
    assert attempt.values("x-b-bin") == [value for key, value in before if key == "x-b-bin"]
    assert list(metadata or ()) == before


@pytest.mark.fact("C-15", "R-56")
@pytest.mark.parametrize("pair", [("X-Key", "v"), ("x-k", "\u00fc"), ("x-k", "a\nb"), ("x-k", 7)], ids=repr)
@ways(FEW)
def test_what_the_application_sets_wrong_is_a_local_failure(way: Way, pair: Any) -> None:
    """Metadata of the application that grpc refuses fails as without interceptors, and does not look like an answer."""
    watch, echo = Watch(), Echo()

    with opened(way, echo, watch) as link:
        with pytest.raises(Exception) as caught:  # noqa: PT011  grpc has a class of its own for each stack and pair
            link.call(metadata=(pair,))
        outcome = watch.outcome()

    assert way.aio or isinstance(caught.value, (grpc.RpcError, ValueError, TypeError))
    assert outcome.code is Code.INTERNAL
    assert outcome.local
    assert not echo.attempts


# --- what a flow sets -------------------------------------------------------------------------------------------------

REFUSED: list[Any] = [("X Key", "v"), ("x-k", "\u00fc"), ("x-k", "a\nb"), ("x-k", 5), ("x-k-bin", "text"), ("", "v")]
REFUSED += [("x-k", None), ("x-k", "a\rb"), ("x-k", "a\0b"), ("x-k", "a\tb"), ("x-k", "\u00e9")]


@pytest.mark.fact("C-15", "R-56")
@pytest.mark.parametrize("pair", REFUSED, ids=repr)
@channels
def test_a_pair_that_cannot_travel_is_refused_where_it_is_set(way: Way, pair: Any) -> None:
    """A flow that sets a pair the wire would refuse gets a ValueError; the call fails with the flow's name, unsent."""
    echo, refused = Echo(), list[str]()

    def careless(call: Call) -> Flow:
        try:
            call = call.with_metadata(pair)
        except ValueError as error:
            refused.append(str(error))
            raise
        yield call

    with (
        opened(way, echo, careless) as link,
        pytest.raises(errors.Internal, match="careless raised ValueError") as caught,
    ):
        link.call()

    assert len(refused) == 1 and "metadata" in refused[0]
    assert isinstance(caught.value.__cause__, ValueError)
    assert not echo.attempts


@pytest.mark.fact("C-15")
@ways(EVERY)
def test_a_flow_may_set_keys_in_any_case(way: Way) -> None:
    """A flow's upper-case key travels in lower case."""
    echo = Echo()

    def add(call: Call) -> Flow:
        yield call.with_metadata(("X-Request-Id", "7"))

    with opened(way, echo, add) as link:
        link.call()

    assert echo.attempts[0].values("x-request-id") == ["7"]


@pytest.mark.fact("C-16", "R-55", "R-56")
@pytest.mark.parametrize("key", ["grpc-timeout", "grpc-previous-rpc-attempts", "grpc-trace-bin", "grpc-status"])
@ways(UNARY)
def test_keys_of_grpc_itself_are_refused(way: Way, key: str) -> None:
    """A flow cannot set a key that gRPC drops or misreads; the error names one that it can set."""
    refused: list[str] = []

    def careless(call: Call) -> Flow:
        with pytest.raises(ValueError, match="belongs to gRPC") as caught:
            call.with_metadata((key, b"1" if key.endswith("-bin") else "1"))
        refused.append(str(caught.value))
        yield call

    with opened(way, Echo(), careless) as link:
        link.call()

    assert f"x-{key}" in refused[0]


@pytest.mark.fact("C-16", "R-55")
@ways(UNARY)
def test_a_key_of_ones_own_counts_attempts(way: Way) -> None:
    """A flow that numbers its attempts does it under a key of its own: the core's would be stripped."""
    echo = Echo([failed(Code.UNAVAILABLE)])

    def numbering(call: Call) -> Flow:
        outcome = yield call.with_metadata(("x-retry-attempt", "0"))
        while not outcome.ok:
            outcome = yield call.with_metadata(("x-retry-attempt", str(outcome.attempts)))

    with opened(way, echo, numbering) as link:
        link.call()

    assert [attempt.values("x-retry-attempt") for attempt in echo.attempts] == [["0"], ["1"]]


@pytest.mark.fact("R-56")
@ways(EVERY)
def test_binary_values_carry_anything(way: Way) -> None:
    """Under a -bin key every byte travels, from a flow to the server."""
    echo, everything = Echo(), bytes(range(256))

    def add(call: Call) -> Flow:
        yield call.with_metadata(("x-all-bin", everything))

    with opened(way, echo, add) as link:
        link.call()

    assert echo.attempts[0].values("x-all-bin") == [everything]


# --- what an asyncio channel makes of details -------------------------------------------------------------------------


@pytest.mark.fact("A-1", "R-8")
@ways(EVERY)
def test_one_interceptor_serves_every_kind(way: Way) -> None:
    """One flow runs for all four kinds; none is passed by in silence."""
    echo = Echo()

    def authenticate(call: Call) -> Flow:
        yield call.with_metadata(("authorization", "Bearer me"))

    with opened(way, echo, authenticate) as link:
        link.call()

    [attempt] = echo.attempts
    assert attempt.values("authorization") == ["Bearer me"]


@pytest.mark.fact("A-2")
@ways(EVERY)
def test_a_flow_is_shown_text_and_values(way: Way) -> None:
    """The method is text, metadata that was not given is empty, and compression is compression."""
    seen: list[Call] = []

    def look(call: Call) -> Flow:
        seen.append(call)
        yield call.with_metadata(("x-added", "1"))

    echo = Echo()
    with opened(way, echo, look) as link:
        messages = link.call("a" * 10_000, "b", compression=grpc.Compression.Gzip)

    [call] = seen
    assert str(call.method) == f"/interpose.testing.Echo/{way.kind.value}"
    assert call.metadata == ()
    assert call.compression is grpc.Compression.Gzip
    assert messages[0].startswith("a" * 10_000)
    assert echo.attempts[0].values("x-added") == ["1"]


@pytest.mark.fact("A-2")
@ways(ASYNCIO)
def test_the_key_that_carries_compression_is_kept(way: Way) -> None:
    """What an inner asyncio channel's compression needs among the metadata may be set and passes a flow."""

    def compress(call: Call) -> Flow:
        yield call.with_metadata(("grpc-internal-encoding-request", "gzip"))

    with opened(way, Echo(), compress) as link:
        messages = link.call("a" * 10_000)

    assert messages[0] == "a" * 10_000


# --- what a handler sends ---------------------------------------------------------------------------------------------

WRONG = [(("x-number", 1),), (("x-bin", "text"),), (("x-text", b"\xff"),), (("X Y", "a"),), (("x-none", None),)]
SENDS = ("set", "initial", "abort_with_status", "abort")
# Every pair on every sort of server, and one pair in the other shapes of handlers.
WRONGLY = [(shape, pairs) for shape in UNARY_SHAPES for pairs in WRONG]
WRONGLY += [(shape, WRONG[0]) for shape in (SYNC[-1], Shape("plain", "unary_stream"), *ASYNC[-2:])]


@pytest.mark.fact("R-28")
@pytest.mark.parametrize(
    ("shape", "pairs", "how"),
    [
        (shape, pairs, how)
        for shape, pairs in WRONGLY
        for how in SENDS
        if shape.waits or how != "abort"  # a plain handler's abort takes no metadata
    ],
    ids=str,
)
def test_wrong_metadata_of_a_handler_ends_the_rpc(shape: Shape, pairs: Any, how: str) -> None:
    """Metadata that the wire would refuse is an exception in the handler, and a status for the client."""
    watch = Counting()

    class Status(grpc.Status):
        code, details, trailing_metadata = Code.DATA_LOSS, "torn", pairs

    async def body(context: Any) -> str:
        if how == "initial":
            await done(context.send_initial_metadata(pairs))
        if how == "abort_with_status":
            await done(context.abort_with_status(Status()))
        if how == "abort":
            await done(context.abort(Code.NOT_FOUND, "x", pairs))
        context.set_trailing_metadata(pairs)
        return "a"

    with serve(shape, handling(shape, body), watch) as rpc:
        reply = rpc.call()

    assert reply.code is Code.UNKNOWN and isinstance(watch.outcomes[0].error, ValueError)


@pytest.mark.fact("R-28")
@pytest.mark.parametrize("where", ["call", "outcome", "error"])
@shapes(UNARY_SHAPES)
def test_wrong_metadata_of_a_flow_is_its_fault(shape: Shape, where: str) -> None:
    """A flow that adds metadata the wire would refuse ends the RPC with INTERNAL and its name."""

    def clumsy(call: Call) -> Flow:
        pair: Any = ("x-number", 1)
        outcome = yield call.with_initial_metadata(pair) if where == "call" else call
        if where == "error":
            raise errors.NotFound("x", trailing_metadata=(pair,))
        return outcome.with_trailing_metadata(pair)

    with serve(shape, echoing(shape.sort), clumsy) as rpc:
        reply = rpc.call()

    assert reply.code is Code.INTERNAL and "clumsy" in reply.details


# --- merged -----------------------------------------------------------------------------------------------------------


@pytest.mark.fact("E-4")
@pytest.mark.parametrize("handler_sends", [True, False])
@shapes(ALL)
def test_initial_metadata_of_flows_and_handler_is_merged(shape: Shape, handler_sends: bool) -> None:
    """What flows put in front of a response is sent once, with the handler's own behind it or without."""

    def outer(call: Call) -> Flow:
        yield call.with_initial_metadata(("x-outer", "1"))

    def inner(call: Call) -> Flow:
        yield call.with_initial_metadata(("x-inner", "2"))

    async def body(context: Any) -> str:
        if handler_sends:
            await done(context.send_initial_metadata((("x-handler", "3"),)))
        return "a"

    with serve(shape, handling(shape, body), outer, inner) as rpc:
        reply = rpc.call()

    own = ["3"] if handler_sends else []
    assert reply.ok
    assert [reply.initial.get_all(f"x-{who}") for who in ("outer", "inner", "handler")] == [["1"], ["2"], own]


@pytest.mark.fact("E-4")
@shapes(ALL)
def test_initial_metadata_of_flows_is_sent_with_a_failure(shape: Shape) -> None:
    """What flows put in front of a response reaches the client though the handler fails before its first message."""

    def identify(call: Call) -> Flow:
        yield call.with_initial_metadata(("x-request-id", "7"))

    with serve(shape, handling(shape, raising(errors.NotFound("x"))), identify) as rpc:
        reply = rpc.call()

    assert reply.code is Code.NOT_FOUND and reply.initial.get_all("x-request-id") == ["7"]


@pytest.mark.fact("S-5", "E-4")
@pytest.mark.parametrize("fails", ["no", "abort", "set_code", "raise", "status"])
@shapes(FEW_SHAPES)
def test_trailing_metadata_of_flows_and_handler_is_merged(shape: Shape, fails: str) -> None:
    """Trailing metadata of the handler and of two flows all arrives, however the handler ends."""

    def adding(name: str) -> Callable[[Call], Flow]:
        def add(call: Call) -> Flow:
            outcome = yield call
            return outcome.with_trailing_metadata((name, "flow"))

        return add

    async def body(context: Any) -> str:
        context.set_trailing_metadata((("x-handler", "1"), ("x-handler", "2")))
        if fails == "abort":
            await done(context.abort(Code.NOT_FOUND, "x"))
        if fails == "set_code":
            context.set_code(Code.NOT_FOUND)
        if fails == "raise":
            raise ValueError("x")
        if fails == "status":
            raise errors.NotFound("x", trailing_metadata=(("x-status", "s"),))
        return "a"

    with serve(shape, handling(shape, body), adding("x-outer"), adding("x-inner")) as rpc:
        reply = rpc.call()

    assert reply.ok is (fails == "no")
    got = {name: reply.trailing.get_all(name) for name in ("x-handler", "x-outer", "x-inner", "x-status")}
    assert got == {
        "x-handler": ["1", "2"],
        "x-outer": ["flow"],
        "x-inner": ["flow"],
        "x-status": ["s"] if fails == "status" else [],
    }


@pytest.mark.fact("S-25", "E-4")
@shapes(ASYNC)
def test_trailing_metadata_given_to_abort_is_merged_with_a_flows(shape: Shape) -> None:
    """Trailing metadata given to `abort` arrives beside what a flow adds."""

    def add(call: Call) -> Flow:
        outcome = yield call
        return outcome.with_trailing_metadata(("x-flow", "1"))

    async def body(context: Any) -> None:
        await context.abort(Code.NOT_FOUND, "x", (("x-abort", "2"),))

    with serve(shape, handling(shape, body), add) as rpc:
        reply = rpc.call()

    assert reply.trailing["x-flow"] == "1" and reply.trailing["x-abort"] == "2"


@pytest.mark.fact("E-4")
@shapes(UNARY_SHAPES)
def test_trailing_metadata_of_a_failure_that_a_flow_makes(shape: Shape) -> None:
    """A status that a flow raises takes its own trailing metadata along."""

    def refuse(call: Call) -> Flow:
        raise errors.ResourceExhausted("slow down", trailing_metadata=(("grpc-retry-pushback-ms", "100"),))
        yield call

    with serve(shape, echoing(shape.sort), refuse) as rpc:
        reply = rpc.call()

    assert reply.code is Code.RESOURCE_EXHAUSTED and reply.trailing["grpc-retry-pushback-ms"] == "100"
