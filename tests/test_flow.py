"""Interceptors: what is one, what is none, and which methods a stack is for."""

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import (
    AsyncFlow,
    Call,
    Flow,
    Kind,
    Method,
    Side,
    chain,
    intercept_channel,
    server_interceptor,
    wait,
    when,
)
from interpose._flow import Fitted, Wait, is_async, layers, name_of
from interpose.testing import Place, failed
from tests.laws.interpreter import CALL, Player

ORDERS = Method("/shop.v1.Orders/Place", Kind.UNARY_UNARY)
WATCH = Method("/shop.v1.Orders/Watch", Kind.UNARY_STREAM)
HEALTH = Method("/grpc.health.v1.Health/Check", Kind.UNARY_UNARY)


def passes(call: Call) -> Flow:
    """An interceptor."""
    yield call


async def passes_async(call: Call) -> AsyncFlow:
    """An async one."""
    yield call


class Passes:
    """An interceptor with options."""

    def __init__(self, times: int = 1) -> None:
        self.times = times

    def __call__(self, call: Call) -> Flow:
        yield call

    def method(self, call: Call) -> Flow:
        yield call

    @staticmethod
    def static(call: Call) -> Flow:
        yield call

    @classmethod
    def of_class(cls, call: Call) -> Flow:
        yield call


class PassesAsync:
    """An async interceptor with options."""

    async def __call__(self, call: Call) -> AsyncFlow:
        yield call


def with_option(option: int, call: Call) -> Flow:
    """Wants an option first."""
    yield call.with_metadata(("x-option", str(option)))


def decorated(interceptor: Callable[[Call], Flow]) -> Callable[[Call], Flow]:
    """A decorator of the usual kind, which returns the wrapped function's generator."""

    @functools.wraps(interceptor)
    def wrapper(call: Call) -> Flow:
        return interceptor(call)

    return wrapper


def forgets(call: Call) -> None:
    """Forgot to yield."""


async def forgets_async(call: Call) -> None:
    """Forgot to yield, too."""


class Native(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc]  # untyped
    """One of grpc's own."""

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return continuation(details, request)


class NativeServer(grpc.ServerInterceptor):  # type: ignore[misc]  # untyped
    """One of grpc's own, for servers."""

    def intercept_service(self, continuation: Any, details: Any) -> Any:
        return continuation(details)


GOOD: dict[str, Any] = {
    "function": passes,
    "lambda": lambda call: (yield call),
    "instance": Passes(),
    "bound method": Passes().method,
    "static method": Passes.static,
    "class method": Passes.of_class,
    "partial": functools.partial(with_option, 3),
    "partial of a partial": functools.partial(functools.partial(with_option, 3)),
    "partial of an instance": functools.partial(Passes()),
    "decorated": decorated(passes),
    "decorated twice": decorated(decorated(passes)),
    "chain": chain(passes, Passes()),
    "empty chain": chain(),
    "when": when("*", passes),
}
GOOD_ASYNC: dict[str, Any] = {
    "async function": passes_async,
    "async instance": PassesAsync(),
    "async partial": functools.partial(passes_async),
    "async in a chain": chain(passes, chain(passes_async)),
    "async in a when": when("/nowhere/*", passes_async),
}
STARTED = passes(CALL)
STARTED_ASYNC = passes_async(CALL)

BAD: dict[str, tuple[Any, str]] = {
    "None": (None, "^None is no function: an interceptor is a generator function"),
    "text": ("passes", "^a str is no function|^when: the pattern comes first"),
    "list": ([passes], r"^\[passes\] is a list of interceptors: give them one by one, with a star in front: \*stack"),
    "tuple": ((passes,), r"^\[passes\] is a list of interceptors"),
    "server interceptor": (
        server_interceptor(passes),
        r"^a ServerInterceptor is an object for servers: give it to grpc\.server",
    ),
    "class": (Passes, r"^Passes is a class: give an instance, Passes\(…\)"),
    "native": (Native(), r"^a Native is a native grpc interceptor: give it to grpc\.intercept_channel"),
    "native server": (NativeServer(), "^a NativeServer is an object for servers"),
    "native class": (Native, r"^Native is a class: give an instance, Native\(…\)"),
    "running": (STARTED, "^passes is a generator that already runs: give the function, without calling it"),
    "running async": (STARTED_ASYNC, "^passes_async is a generator that already runs"),
    "forgot to yield": (
        forgets,
        "^forgets never yields: an interceptor is a generator function, and `outcome = yield call`",
    ),
    "forgot to yield, async": (
        forgets_async,
        "^forgets_async is a coroutine function without a yield: write `outcome = yield call`",
    ),
    "lambda": (lambda call: call, "^<lambda> never yields"),
    "lambda of a flow": (lambda call, to=passes: to(call), "^<lambda> never yields"),
    "partial": (functools.partial(forgets), "^forgets never yields"),
    "builtin": (print, "^print never yields"),
}


@pytest.mark.parametrize("interceptor", [*GOOD.values(), *GOOD_ASYNC.values()], ids=[*GOOD, *GOOD_ASYNC])
def test_what_is_an_interceptor(interceptor: Any) -> None:
    """Generator functions of one call, in whatever dress."""
    assert repr(chain(interceptor)).startswith("chain(")
    assert server_interceptor(interceptor)


@pytest.mark.parametrize("interceptor", GOOD.values(), ids=GOOD)
def test_they_run(interceptor: Any) -> None:
    """All of them send the call."""
    player = Player()

    assert player.play(interceptor).ok
    assert len(player.sent) == 1


def calls_chain(interceptor: Any) -> object:
    return chain(passes, interceptor)


def calls_when(interceptor: Any) -> object:
    return when("*", interceptor)


def calls_channel(interceptor: Any) -> object:
    with grpc.insecure_channel("localhost:1") as channel:
        return intercept_channel(channel, passes, interceptor)


def calls_server(interceptor: Any) -> object:
    return server_interceptor(interceptor)


@pytest.mark.parametrize("take", [calls_chain, calls_when, calls_channel, calls_server])
@pytest.mark.parametrize(("given", "said"), BAD.values(), ids=BAD)
def test_what_is_none(take: Callable[[Any], object], given: Any, said: str) -> None:
    """TypeError at once, wherever it is given, which says what was given and what to do."""
    with pytest.raises(TypeError, match=said):
        take(given)


@pytest.mark.parametrize("interceptor", GOOD_ASYNC.values(), ids=GOOD_ASYNC)
def test_async_on_a_sync_channel(interceptor: Any) -> None:
    """It could not wait there: TypeError at once, which says what to do; also if it stands inside a chain."""
    assert is_async(interceptor)
    with (
        grpc.insecure_channel("localhost:1") as channel,
        pytest.raises(TypeError, match="is an `async def` generator, and this channel is a sync one: write it"),
    ):
        intercept_channel(channel, passes, interceptor)


async def test_async_on_an_asyncio_channel() -> None:
    """There it may stand."""
    async with grpc.aio.insecure_channel("localhost:1") as channel:
        for interceptor in GOOD_ASYNC.values():
            assert isinstance(intercept_channel(channel, interceptor), grpc.aio.Channel)


def test_a_plain_dress_of_an_async_interceptor_is_plain() -> None:
    """A generator function that wraps an async one and bears its name is a plain one: it is what runs."""

    @functools.wraps(passes_async)
    def plain(call: Call) -> Flow:
        yield call

    assert not is_async(plain)
    assert Player().play(plain).ok


@pytest.mark.parametrize(
    ("interceptor", "name"),
    [
        (passes, "passes"),
        (Passes(), "Passes"),
        (Passes().method, "Passes.method"),
        (functools.partial(functools.partial(with_option), 3), "with_option"),
        (chain(passes, when("/a/*", Passes())), "chain(passes, when('/a/*', Passes))"),
    ],
)
def test_what_an_interceptor_is_called(interceptor: Any, name: str) -> None:
    """In messages it goes by the name of its function or class."""
    assert name_of(interceptor) == name


def test_how_a_chain_prints() -> None:
    """By the names of what is in it."""
    stack = chain(passes, when("/a/*", Passes(), passes_async), when(bool, passes))

    assert repr(chain(passes, Passes())) == "chain(passes, Passes)"
    assert repr(stack.interceptors[1]) == "when('/a/*', Passes, passes_async)"
    assert repr(stack.interceptors[2]) == "when(bool, passes)"


# - when ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("glob", "methods"),
    [
        ("*", [ORDERS, WATCH, HEALTH]),
        ("/*", [ORDERS, WATCH, HEALTH]),
        ("/shop.v1.Orders/*", [ORDERS, WATCH]),
        ("shop.v1.Orders/*", [ORDERS, WATCH]),
        ("shop.*/*", [ORDERS, WATCH]),
        (["/shop.v1.Orders/Place", "/grpc.*/*"], [ORDERS, HEALTH]),
        ("/shop.v1.Orders/{Place,Watch}", [ORDERS, WATCH]),
        ("*/Watch", [WATCH]),
        ("/shop.v1.Orders/Place", [ORDERS]),
        ("/shop.v1.Orders/Pl?ce", [ORDERS]),
        ("/grpc.health.v1.Health/[CW]*", [HEALTH]),
        ("/shop.v1.orders/place", []),
    ],
)
def test_a_glob_on_the_path(glob: str | list[str], methods: list[Method]) -> None:
    """It must fit the whole path, capitals count, and the first slash may be left out."""
    assert [method for method in (ORDERS, WATCH, HEALTH) if layers((when(glob, passes),), method)] == methods


def test_a_function_of_the_method() -> None:
    """It may look at all that a method is."""
    stack = when(lambda method: method.kind.response_streaming, passes, passes_async)

    assert len(layers((stack,), WATCH)) == 2
    assert layers((stack,), ORDERS) == ()


def test_when_inside_when() -> None:
    """Both must apply."""
    stack = when("/shop.*/*", when("*/Watch", passes))

    assert [len(layers((stack,), method)) for method in (ORDERS, WATCH, HEALTH)] == [0, 1, 0]


@pytest.mark.parametrize("condition", [None, 5, b"/a/*"])
def test_what_is_no_condition(condition: Any) -> None:
    """TypeError which says what was given."""
    with pytest.raises(
        TypeError, match="when: the condition must be a pattern, a list of them, or a function of the Me"
    ):
        when(condition, passes)


@pytest.mark.parametrize("error", [ValueError, SystemExit])
def test_a_condition_that_raises(place: Place, error: type[BaseException], caplog: pytest.LogCaptureFixture) -> None:
    """Its calls end with INTERNAL that names it, rather than pass unguarded; neither client nor server breaks."""

    def condition(method: Method) -> bool:
        raise error

    with place.open(when(condition, passes)) as rpc:
        replies = [rpc.call("a"), rpc.call("a")]

    assert [reply.code for reply in replies] == [grpc.StatusCode.INTERNAL] * 2
    assert f"its condition raised {error.__name__}" in replies[0].details
    assert not rpc.attempts
    assert "its condition raised" in caplog.text


def test_it_is_asked_once_per_method(place: Place) -> None:
    """However many RPCs there are: once when the stub or handler is first seen."""
    asked: list[str] = []
    runs: list[str] = []

    def watch(call: Call) -> Flow:
        runs.append(str(call.method))
        yield call

    def condition(method: Method) -> bool:
        asked.append(method.name)
        return True

    with place.open(when(condition, watch)) as rpc:
        assert all(rpc.call("a").ok for _ in range(3))

    assert asked == [place.kind.value]
    assert len(runs) == 3


def test_elsewhere_it_does_nothing(place: Place) -> None:
    """Where the condition does not hold, the interceptors are not called."""

    def refuses(call: Call) -> Flow:
        raise AssertionError
        yield call

    with place.open(when("/elsewhere/*", refuses)) as rpc:
        assert rpc.call("a").ok


# - wait ---------------------------------------------------------------------------------------------------------------


def test_a_plain_value_comes_straight_back() -> None:
    """Without a step for any shell."""
    with pytest.raises(StopIteration) as end:
        next(wait("a token"))
    assert end.value.value == "a token"


def test_an_awaitable_is_a_step() -> None:
    """The shell is asked to await it."""
    future: Awaitable[str] = asyncio.Future(loop=asyncio.new_event_loop())
    flow = wait(future)
    step = next(flow)

    assert isinstance(step, Wait)
    assert step.awaitable is future
    with pytest.raises(StopIteration) as end:
        flow.send("a token")
    assert end.value.value == "a token"
    future.get_loop().close()  # type: ignore[attr-defined]


# - in every place -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_broken_interceptor_ends_the_rpc(place: Place, after: bool, caplog: pytest.LogCaptureFixture) -> None:
    """INTERNAL that names it, in every place, and its exception's text goes to the log alone."""

    def breaks(call: Call) -> Flow:
        if after:
            yield call
        raise ValueError("a secret")

    with place.open(passes, breaks, passes) as rpc:
        reply = rpc.call("a")

    assert reply.code is grpc.StatusCode.INTERNAL
    assert "breaks raised ValueError" in reply.details
    assert "a secret" not in reply.details
    assert "a secret" in caplog.text
    assert len(rpc.attempts) == after


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError])
def test_no_exception_of_an_interceptor_loses_an_rpc(
    place: Place, error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    """Also what is no Exception ends the RPC, and nothing but the RPC."""

    def breaks(call: Call) -> Flow:
        raise error
        yield call

    with place.open(breaks) as rpc:
        replies = [rpc.call("a"), rpc.call("a")]

    assert [reply.code for reply in replies] == [grpc.StatusCode.INTERNAL] * 2


def test_a_bug_hides_no_failure(place: Place) -> None:
    """The status that the interceptor was told reaches the caller, though it broke afterwards."""

    def breaks(call: Call) -> Flow:
        yield call
        raise ValueError

    with place.open(breaks, script=[failed(grpc.StatusCode.NOT_FOUND, "no such book")]) as rpc:
        reply = rpc.call("a")

    assert reply.code is grpc.StatusCode.NOT_FOUND
    assert reply.details == "no such book"
    if place.side.value == "client":
        assert reply.error is not None
        assert any("breaks" in note for note in getattr(reply.error, "__notes__", ()))


def test_an_async_interceptor_in_asyncio_places(place: Place) -> None:
    """It sees the same as a plain one; a sync server answers INTERNAL and names it."""
    codes: list[grpc.StatusCode] = []

    async def watch(call: Call) -> AsyncFlow:
        await asyncio.sleep(0)
        outcome = yield call.with_metadata(("x-async", "yes"))
        await asyncio.sleep(0)
        codes.append(outcome.code)

    if place.asyncio:
        with place.open(passes, watch, passes) as rpc:
            assert rpc.call("a").ok
        assert codes == [grpc.StatusCode.OK]
    elif place.side.value == "server":
        with place.open(watch) as rpc:
            reply = rpc.call("a")
        assert reply.code is grpc.StatusCode.INTERNAL
        assert "watch" in reply.details


# --- interceptors that are fitted to a method ---------------------------------------------------------------------------


class Tailored:
    """An interceptor that has a layer of its own for each method, and one inside of all others."""

    def __init__(self) -> None:
        self.methods: list[str] = []
        self.seen: list[str] = []

    def __call__(self, call: Call) -> Flow:
        yield call

    def fitted(self, method: Method) -> Fitted:
        self.methods.append(method.full_name)

        def outside(call: Call) -> Flow:
            self.seen.append("outside")
            yield call

        def inside(call: Call) -> Flow:
            self.seen.append("inside")
            yield call

        return Fitted(outside, inside)


def test_it_is_fitted_once_per_method(place: Place) -> None:
    """What runs is what that gave: in its place, and on a client inside of all others, once per attempt."""
    tailored = Tailored()

    def again(call: Call) -> Flow:
        tailored.seen.append("between")
        outcome = yield call
        if outcome.replayable:
            yield call

    with place.open(tailored, again, script=[failed(grpc.StatusCode.ABORTED, unread=True), ...]) as rpc:
        rpc.call("a")
        first = list(tailored.seen)
        rpc.call("a")

    assert len(tailored.methods) == 1
    inside = first.count("inside")
    assert first == ["outside", "between"] + ["inside"] * inside
    expected = {0} if place.side is Side.SERVER else {1, 2} if place.kind.request_streaming else {2}
    assert inside in expected


def test_one_that_leaves_a_method_alone(place: Place) -> None:
    """Nothing runs in its place."""

    class Elsewhere(Tailored):
        def fitted(self, method: Method) -> Fitted:
            return Fitted(None)

    with place.open(Elsewhere()) as rpc:
        assert rpc.call("a").ok


def test_one_that_cannot_be_fitted(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """Its RPCs end with INTERNAL and its name, as those of any interceptor that is at fault."""

    class Clumsy(Tailored):
        def fitted(self, method: Method) -> Fitted:
            raise KeyError(method)

    with place.open(Clumsy()) as rpc:
        reply = rpc.call("a")

    assert reply.code is grpc.StatusCode.INTERNAL
    assert "Clumsy raised KeyError when it was fitted to a method" in reply.details
    assert "Clumsy raised KeyError" in caplog.text


def test_a_pattern_behind_its_interceptors() -> None:
    """The error has the order that is right."""
    with pytest.raises(TypeError, match="when: the pattern comes first"):
        when(passes, "/shop.v1.Orders/*")  # type: ignore[arg-type]
