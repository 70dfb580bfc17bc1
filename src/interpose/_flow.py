"""The flow of one RPC: interceptors as generators, and the pure driver that turns a chain of them.

This is the file to read. An interceptor yields the call it wants sent and is given the outcome:

    def timed(call: Call) -> Flow:
        started = monotonic()
        outcome = yield call
        log.info("%s %s in %.1f ms", call.method, outcome.code.name, 1e3 * (monotonic() - started))

A `Driver` holds a chain of such generators, one per interceptor, as a stack. A call goes down the stack, each
interceptor passing its own version on; below the last one it is handed out as a step, *perform this call*.
The outcome comes back up, and each interceptor keeps it, replaces it, or yields again to send again.

The driver does no I/O. It is a state machine, and a shell turns it: the shell does the step, and passes back what came of it.

    step        what the shell does            what it calls
    Call        perform it: send it, and       tell(outcome)
                for a stream: until its end
    Wait        await it                       answer(value) or fail(exception)
    Race        run its lanes                  tell(outcome of the lane that won)
    Outcome     done: that of the RPC

A chain called inside a flow, `outcome = yield from chain(b, c)(call)`, is put into the stack below that flow until it
has answered, so it behaves as if it had stood there from the start.

Rules: every call handed out is answered with exactly one outcome. Whatever an interceptor does wrong ends the RPC
with a status that names it, and never hides a failure that it was given.
"""

from __future__ import annotations

import functools
import inspect
import logging
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from typing import Any, ClassVar, NamedTuple, NoReturn, TypeAlias, TypeGuard, TypeVar, cast, overload

import grpc
import grpc.aio

from interpose import errors
from interpose._call import Call, Hedging, Overflowed
from interpose._kind import kind_of
from interpose._method import Method, Side
from interpose._outcome import Outcome
from interpose._patterns import Patterns
from interpose._unmatched import Unmatched

T = TypeVar("T")

# What a flow returns is `Outcome | None`; spelled Any because mypy asks a generator that may return None for a `return`.
Flow: TypeAlias = Generator[Call, Outcome, Any]
AsyncFlow: TypeAlias = AsyncGenerator[Call, Outcome]
Interceptor: TypeAlias = Callable[[Call], Flow | AsyncFlow]
Condition: TypeAlias = "Callable[[Method], bool] | str | Iterable[str]"

Step: TypeAlias = "Call | Wait | Race | Outcome"
Lane: TypeAlias = "Callable[[], tuple[Driver, Call]]"
Layer: TypeAlias = Callable[[Call], Generator[Any, Any, Any]]
Layers: TypeAlias = tuple[Layer, ...]
Frames: TypeAlias = "list[Generator[Any, Any, Any]]"  # flows that have begun and not ended; frames[i] runs layer i
Nested: TypeAlias = (
    "tuple[Generator[Any, Any, Any], Nested] | tuple[()]"  # the same: the innermost, and those outside it
)

MAX_RESENDS = 1000  # per RPC; far beyond any retry policy, and short of a spin that goes unnoticed

NO_WAITING = "nothing can await on the sync side"  # why a sync shell refuses a `Wait`, but for a Future

_log = logging.getLogger("interpose")


# --- steps ----------------------------------------------------------------------------------------------------------


class Wait:
    """A step: await this, and answer with what it gives."""

    __slots__ = ("asker", "awaitable", "deadline")

    def __init__(self, awaitable: Awaitable[Any] | Future[Any], deadline: float | None = None) -> None:
        self.awaitable = awaitable
        self.deadline = deadline
        self.asker = ""  # the interceptor that waits; the driver fills it in


class Through:
    """What a chain that is called inside a flow asks of the driver: this call, through the chain too. No shell sees it."""

    __slots__ = ("call", "chain")

    def __init__(self, chain: Chain, call: Call) -> None:
        self.chain = chain
        self.call = call


class Fitted(NamedTuple):
    """An interceptor made ready for one method, with all that is known of the method: what its `fitted(method)` returns.

    layer:     what runs in its place; None: nothing, the method is not its business.
    innermost: what runs inside of all others, and so once per attempt (client); None: nothing.
    """

    layer: Layer | None
    innermost: Layer | None = None


class Belongs(NamedTuple):
    """The one side that an interceptor is for, as its attribute `belongs`. The other side's stacks refuse it: ValueError.

        belongs = Belongs(Side.SERVER, "Maintenance belongs on a server: give it to intercept_server")

    text: the error, which says where it belongs instead.
    """

    side: Side
    text: str

    def check(self, call: Call) -> None:
        """`errors.Internal` for a call of the other side: a flow may hold interceptors that no stack was asked about."""
        if call._side is not self.side:
            raise errors.Internal(self.text, local=True)


class Race:
    """A step: start these lanes one `delay` after the other; the first good answer wins.

    Of response streams that is the first to deliver a message. What comes after a failure is for `pause_after` to say.
    """

    __slots__ = ("_deadline", "_pause", "_ready", "_verdict", "delay", "failure", "lanes")

    def __init__(self, lanes: tuple[Lane, ...], hedging: Hedging, call: Call) -> None:
        self.lanes = lanes
        self._deadline = call.deadline
        self._pause = call.delay
        self.delay = hedging.delay
        self._verdict = hedging.verdict
        self._ready = hedging.ready
        self.failure: Outcome | None = None  # the answer, if no lane is left

    def pause_after(self, outcome: Outcome, now: float, alone: bool) -> float | None:
        """A lane has failed: seconds until the next one starts, math.inf for never; None: that failure is the answer.

        alone: does no other lane run? Then it is the answer too if the pause would outlive the deadline.
        """
        if isinstance(outcome.error, Overflowed):  # it fell behind one that may well have an answer
            self.failure = self.failure or outcome
            return math.inf
        self.failure = outcome
        if outcome._code is grpc.StatusCode.CANCELLED and outcome.local:  # a channel that closes, a scope that is over
            return None
        try:
            pause = 0.0 if self._verdict is None else self._verdict(outcome)  # at once, as in gRFC A6
        except Exception:
            _log.exception("hedge verdict callback raised; using the failed attempt's outcome")
            return None
        if alone and pause and self._deadline is not None and now + pause >= self._deadline:
            return None
        return pause

    def delay_behind(self, started: int) -> float:
        """Seconds from the start of a lane to that of the next one; started: how many have."""
        return self._pause + self.delay if started == 1 else self.delay

    def ready(self) -> bool:
        """May another lane start?"""
        try:
            return self._ready is None or self._ready()
        except Exception:
            _log.exception("`ready` of a hedged call failed; no more copies are sent")
            return False


@overload
def wait(value: Awaitable[T] | Future[T], *, deadline: float | None = None) -> Generator[Any, Any, T]: ...
@overload
def wait(value: Awaitable[T] | T, *, deadline: float | None = None) -> Generator[Any, Any, T]: ...
def wait(value: Any, *, deadline: float | None = None) -> Generator[Any, Any, Any]:
    """Wait inside a flow: `token = yield from wait(store.get(key))`.

    A plain value comes straight back; an awaitable is awaited by an asyncio channel or server.
    On a sync channel or server an awaitable raises TypeError in the flow.
    A `concurrent.futures.Future`, which another RPC may set, is waited for everywhere, and blocks no thread but that
    of a blocking call or of a sync handler.

    deadline: how long to wait for a Future, in seconds of the monotonic clock; then, and at the RPC's own deadline, the
              flow is raised `DeadlineExceeded`, and `Cancelled` when the RPC is cancelled.
    """
    if isinstance(value, Future) or inspect.isawaitable(value):
        return (yield Wait(value, deadline))
    return value


# --- composing ------------------------------------------------------------------------------------------------------


class Chain:
    """Several interceptors as one; the first is outermost. Made by `chain`."""

    __slots__ = ("interceptors",)

    closed: ClassVar = False  # does it choose in a way that `describe` cannot show?

    def __init__(self, interceptors: tuple[Interceptor, ...]) -> None:
        self.interceptors = interceptors

    def __call__(self, call: Call) -> Flow:
        return (yield cast(Call, Through(self, call)))

    def select(self, method: Method) -> tuple[Interceptor, ...]:
        """Those of its interceptors that see a method."""
        return self.interceptors

    def compiled(self, method: Method) -> Layers:
        """What runs where it is called inside a flow."""
        return layers((self,), method, used=False)

    def see(self, method: Method) -> None:
        """A stub or server is about to use the method."""

    def __repr__(self) -> str:
        return f"chain({named(self.interceptors)})"


class When(Chain):
    """A chain for some methods only. Made by `when`."""

    __slots__ = ("condition", "unmatched")

    def __init__(self, condition: Callable[[Method], bool] | Patterns, interceptors: tuple[Interceptor, ...]) -> None:
        super().__init__(interceptors)
        self.condition = condition
        self.unmatched = Unmatched(condition.globs if isinstance(condition, Patterns) else (), lambda: repr(self))

    def select(self, method: Method) -> tuple[Interceptor, ...]:
        condition = self.condition
        applies = condition(method.full_name) if isinstance(condition, Patterns) else condition(method)
        return self.interceptors if applies else ()

    def see(self, method: Method) -> None:
        self.unmatched.see(method)

    def __repr__(self) -> str:
        return f"when({self.said}, {named(self.interceptors)})"

    @property
    def said(self) -> str:
        """The condition, as it was given."""
        return repr(self.condition) if isinstance(self.condition, Patterns) else name_of(self.condition)


def chain(*interceptors: Interceptor) -> Chain:
    """Several interceptors as one; the first is outermost. `chain(a, chain(b, c))` behaves as `chain(a, b, c)`.

    TypeError for anything that is not an interceptor.
    """
    for interceptor in interceptors:
        check(interceptor)
    return Chain(interceptors)


def when(condition: Condition, *interceptors: Interceptor) -> Chain:
    """Interceptors for some methods only: `when("/pay.v1.*/*", Retry())`, `when(lambda m: m.name == "Watch", …)`.

    condition: a pattern on "/package.Service/Method", as in docs/when.md: `*`, `?`, `[a-z]` and `{Get,List}`; a list of
        patterns; or a function of the `Method`.
    It is asked once per method, when the stub method or handler is first seen; elsewhere the interceptors cost nothing.

    ValueError for a pattern that can match no method, with what to write instead. One that matches none of the methods
    that are used is reported once in the log, at level WARNING. TypeError for anything that is no condition.
    """
    if not (isinstance(condition, str | Iterable) or callable(condition)) or isinstance(condition, bytes):
        raise TypeError(
            f"when: the condition must be a pattern, a list of them, or a function of the Method, not {kind_of(condition)}"
        )
    for interceptor in interceptors:
        if isinstance(interceptor, str):
            raise TypeError('when: the pattern comes first: when("/shop.v1.Orders/*", Retry())')
        check(interceptor)
    if callable(condition):
        return When(condition, interceptors)
    patterns = Patterns(condition)
    if not patterns.given:
        raise ValueError("when: an empty list of patterns applies to no method: leave the interceptors out")
    return When(patterns, interceptors)


def layers(
    interceptors: tuple[Interceptor, ...], method: Method, *, used: bool = True, asyncio: bool | None = None
) -> Layers:
    """Compile a stack for one method: chains opened, those that do not apply left out, async ones lifted.

    used: a stub or server is about to use the method, so patterns that do not match it may be reported.
    asyncio: of which kind the server is, on a server; an interceptor that is unfit for it fails every call with its name.
    """
    compiled: list[Layer] = []
    innermost: list[Layer] = []
    for interceptor in _for(interceptors, method, used):
        if asyncio is not None and (fault := unfit(interceptor, asyncio)):
            _log.error("%s: %s", method, fault)
            compiled.append(_faulty(fault))
        elif hasattr(interceptor, "fitted"):
            layer, inside = _fitted(interceptor, method)
            compiled += [layer] if layer is not None else []
            innermost += [inside] if inside is not None else []
        elif is_async(interceptor):
            compiled.append(_lifted(cast(Callable[[Call], AsyncFlow], interceptor)))
        else:
            compiled.append(cast(Layer, interceptor))
    return (*compiled, *innermost) if asyncio is None else tuple(compiled)


def _for(interceptors: tuple[Interceptor, ...], method: Method, used: bool) -> Iterator[Interceptor]:
    """Those that see a method, chains opened."""
    for interceptor in interceptors:
        if is_fixed(interceptor):
            if used:
                interceptor.see(method)
            yield from _for(_selected(interceptor, method), method, used)
        else:
            yield interceptor


def _fitted(interceptor: Any, method: Method) -> Fitted:
    """What an interceptor is for a method; if it cannot say, one that fails every call with its name."""
    try:
        fitted: Fitted = interceptor.fitted(method)
    except Exception as error:
        blame = f"interceptor {name_of(interceptor)} raised {type(error).__name__} when it was fitted to a method"
        _log.exception("%s: %s", method, blame)
        return Fitted(_faulty(blame))
    return fitted


def unused(interceptors: tuple[Interceptor, ...]) -> None:
    """A channel with this stack is closed: report the patterns that have matched none of the methods it was used for."""
    for interceptor in interceptors:
        if isinstance(interceptor, When):
            interceptor.unmatched.close()
        if isinstance(interceptor, Chain):
            unused(interceptor.interceptors)


def _selected(chain: Chain, method: Method) -> tuple[Interceptor, ...]:
    """What a chain has for a method; if its condition raises, an interceptor that fails every call with its name."""
    try:
        return chain.select(method)
    except (
        Exception,
        SystemExit,
        GeneratorExit,
    ) as error:  # a sync server asks on its one serving thread, which must live
        blame = f"{chain!r} failed: its condition raised {type(error).__name__}"
        _log.exception("%s for %s", blame, method)
        return (_faulty(blame),)


def _faulty(blame: str) -> Callable[[Call], Flow]:
    """An interceptor that fails every call with this text."""

    def failed(call: Call) -> Flow:
        raise errors.Internal(blame, local=True)

    return failed


def _lifted(interceptor: Callable[[Call], AsyncFlow]) -> Layer:
    """An `async def` generator as a plain one: each of its steps is something to wait for."""

    @functools.wraps(interceptor)
    def flow(call: Call) -> Generator[Any, Any, None]:
        steps = interceptor(call)
        outcome: Any = None  # as the first thing that a generator is sent
        while True:
            try:
                asked = yield Wait(steps.asend(outcome))
            except StopAsyncIteration:
                return
            outcome = yield asked

    return flow


# --- checking -------------------------------------------------------------------------------------------------------


def name_of(interceptor: Any) -> str:
    """What an interceptor is called in messages: the name of its function or class, or what a chain is made of."""
    if isinstance(interceptor, Chain):
        return repr(interceptor)
    while isinstance(interceptor, functools.partial):
        interceptor = interceptor.func
    name = getattr(interceptor, "__qualname__", None) or type(interceptor).__qualname__
    return str(name).replace("<locals>.", "")


def named(interceptors: Iterable[Any]) -> str:
    """The names of a stack, the first outermost."""
    return ", ".join(map(name_of, interceptors))


def is_fixed(interceptor: Any) -> TypeGuard[Chain]:
    """Is it a chain that always holds the same? One that changes while calls run is fitted to a method like a battery."""
    return isinstance(interceptor, Chain) and not hasattr(interceptor, "fitted")


def is_async(interceptor: Any) -> bool:
    """Is it an `async def` generator, or contains one?"""
    if isinstance(interceptor, Chain):
        return any(map(is_async, interceptor.interceptors))
    return inspect.isasyncgenfunction(body_of(interceptor))


def check(interceptor: Any) -> None:
    """TypeError, saying what was given and what to do, for anything that is not an interceptor."""
    if isinstance(interceptor, Chain):
        return
    if isinstance(interceptor, type):
        _refuse(interceptor, f"is a class: give an instance, {interceptor.__name__}(…)")
    if isinstance(interceptor, list | tuple):
        _refuse(interceptor, "is a list of interceptors: give them one by one, with a star in front: *stack")
    if isinstance(interceptor, grpc.Channel | grpc.aio.Channel):
        _refuse(interceptor, "is a channel: it comes first, intercept_channel(channel, *interceptors)")
    if hasattr(interceptor, "intercept_service"):
        _refuse(
            interceptor,
            "is an object for servers: give it to grpc.server(interceptors=[…]) itself; a channel, a chain and another "
            "server_interceptor take the generator functions that it was made of",
        )
    if any(hasattr(interceptor, name) for name in _NATIVE):
        _refuse(
            interceptor,
            "is a native grpc interceptor: give it to grpc.intercept_channel or grpc.aio.insecure_channel(interceptors=…)",
        )
    if inspect.isgenerator(interceptor) or inspect.isasyncgen(interceptor):
        _refuse(interceptor, "is a generator that already runs: give the function, without calling it")
    if not callable(interceptor):
        _refuse(
            interceptor, "is no function: an interceptor is a generator function of one call, `outcome = yield call`"
        )
    body = body_of(interceptor)
    if inspect.iscoroutinefunction(body):
        _refuse(interceptor, "is a coroutine function without a yield: write `outcome = yield call` in it")
    if not (inspect.isgeneratorfunction(body) or inspect.isasyncgenfunction(body)):
        _refuse(
            interceptor,
            "never yields: an interceptor is a generator function, and `outcome = yield call` sends the call",
        )


def check_sync(interceptors: tuple[Interceptor, ...], where: str = "channel") -> None:
    """TypeError if one of them needs a running loop. where: what has none, a channel or a server."""
    for interceptor in interceptors:
        if isinstance(interceptor, Chain):
            check_sync(interceptor.interceptors, where)
        elif is_async(interceptor):
            _refuse(
                interceptor,
                f"is an `async def` generator, and this {where} is a sync one: write it as a plain generator, "
                "which runs on both, or use grpc.aio",
            )


def check_fit(interceptors: tuple[Interceptor, ...], asyncio: bool) -> None:
    """TypeError if one of them cannot run on a channel or server of this kind."""
    for interceptor in interceptors:
        if is_fixed(interceptor):
            check_fit(interceptor.interceptors, asyncio)
        elif fault := unfit(interceptor, asyncio):
            raise TypeError(fault)


def check_side(interceptors: tuple[Interceptor, ...], side: Side) -> None:
    """ValueError if one of them belongs on the other side; on this one it would end every call."""
    for interceptor in interceptors:
        belongs: Belongs | None = getattr(interceptor, "belongs", None)
        if is_fixed(interceptor):
            check_side(interceptor.interceptors, side)
        elif isinstance(belongs, Belongs) and belongs.side is not side:
            raise ValueError(belongs.text)


def unfit(interceptor: Interceptor, asyncio: bool) -> str | None:
    """Why an interceptor cannot run there, by its own word: the method `unfit` that it may have; None if it can."""
    ask = getattr(interceptor, "unfit", None)
    fault = None if ask is None else ask(asyncio)
    return fault and f"{name_of(interceptor)} cannot run here: {fault}"


_NATIVE = (
    "intercept_unary_unary",
    "intercept_unary_stream",
    "intercept_stream_unary",
    "intercept_stream_stream",
)


def body_of(interceptor: Any) -> Any:
    """The function behind an interceptor: through partials, decorators and `__call__`."""
    while isinstance(interceptor, functools.partial):
        interceptor = interceptor.func
    if not inspect.isroutine(interceptor):
        interceptor = getattr(type(interceptor), "__call__", interceptor)  # noqa: B004  the method itself is wanted
    # Not through a decorator that is a generator function itself: it is what runs.
    return inspect.unwrap(
        interceptor, stop=lambda body: inspect.isgeneratorfunction(body) or inspect.isasyncgenfunction(body)
    )


def _refuse(interceptor: Any, fault: str) -> NoReturn:
    # Not with what it is: that may be a secret, also as an argument of a partial.
    if isinstance(interceptor, list | tuple):
        shown = f"[{named(interceptor)}]"
    else:
        has_name = callable(interceptor) or hasattr(interceptor, "__qualname__")
        shown = name_of(interceptor) if has_name else kind_of(interceptor)
    raise TypeError(f"{shown} {fault}")


# --- driving --------------------------------------------------------------------------------------------------------


class Driver:
    """The flows of one RPC: hands out steps, gets what came of them, and ends with the outcome of the RPC."""

    __slots__ = ("__weakref__", "_again", "_asked", "_called", "_flows", "_frames", "_resends", "_sends", "_told")

    def __init__(self, flows: Layers) -> None:
        self._flows = flows
        self._asked: Race | None  # what the shell was handed last, if it is a race
        self._frames: Frames = []
        self._sends = 0
        self._again: set[int] | None = None  # which frames have sent again behind an attempt

    @property
    def sends(self) -> int:
        """How many calls were handed out so far, those of a race that has ended included."""
        return self._sends

    @property
    def frames(self) -> int:
        """How many flows have begun and not ended."""
        return len(self._frames)

    def __repr__(self) -> str:
        return f"<Driver of {named(self._flows)}: {self.frames} have not ended>"

    def start(self, call: Call) -> Step:
        """The RPC begins."""
        self._resends = 0
        self._called: list[tuple[int, Layers]] | None = None  # chains called in flows: how deep, and the layers before
        return self._turn(call, None)

    @classmethod
    def asked(cls, asked: Any, flows: Layers, frames: Nested, told: Outcome | None) -> tuple[Driver, Step]:
        """Take over an RPC that has begun without a driver: the innermost flow that runs asked for this."""
        driver = cls._with(flows, frames, told)
        return driver, driver._go_on(asked, told)

    @classmethod
    def after(cls, ending: BaseException, flows: Layers, frames: Nested, told: Outcome | None) -> tuple[Driver, Step]:
        """Take over an RPC that has begun without a driver: the flow below those that run has ended with this."""
        driver = cls._with(flows, frames, told)
        return driver, driver._turn(None, _verdict(flows[driver.frames], ending, told))

    @classmethod
    def under_way(cls, flows: Layers, frames: Nested) -> Driver:
        """Take over an RPC that has begun without a driver, and whose call has been sent."""
        driver = cls._with(flows, frames, None)
        driver._sends = 1
        return driver

    @classmethod
    def _with(cls, flows: Layers, frames: Nested, told: Outcome | None) -> Driver:
        driver = cls(flows)
        rest: Any = frames
        while rest:
            frame, rest = rest
            driver._frames.insert(0, frame)
        driver._sends = 0 if told is None else told._attempts
        driver._asked, driver._resends, driver._called = None, 0, None
        return driver

    def tell(self, outcome: Outcome) -> Step:
        """The call, or the race, that was handed out has ended."""
        if type(self._asked) is Race:
            self._sends += outcome._attempts
        outcome._attempts = self._sends
        return self._turn(None, outcome)

    def answer(self, value: Any) -> Step:
        """What was waited for gave this."""
        return self._resume(self._frames[-1].send, value)

    def fail(self, error: BaseException) -> Step:
        """What was waited for raised this."""
        return self._resume(self._frames[-1].throw, error)

    def _turn(self, call: Call | None, outcome: Outcome | None) -> Step:
        """A call goes down, or an outcome comes up, until there is something for the shell to do."""
        frames = self._frames
        while True:
            asked: Any = call
            flows = self._flows
            if outcome is None:
                for layer in flows[len(frames) :] if frames else flows:
                    try:
                        frame = layer(asked)
                        begun = frame.send(None)
                    except BaseException as error:
                        outcome = _verdict(layer, error, None)
                        break
                    frames.append(frame)
                    if begun is not asked:
                        asked, before = begun, asked
                        if not isinstance(asked, Call) or asked._asks.hedging is not None:
                            break
                        if asked._asks is not before._asks:
                            asked._asks.sign(layer)
                else:
                    self._sends += 1
                    self._asked = None
                    return cast(Call, asked)
            if outcome is not None:
                while frames:
                    try:
                        asked = frames[-1].send(outcome)
                    except StopIteration as end:
                        frames.pop()
                        if end.value is not None:
                            outcome = _verdict(flows[len(frames)], end, outcome)
                    except BaseException as error:
                        frames.pop()
                        outcome = _verdict(flows[len(frames)], error, outcome)
                    else:
                        break
                    if self._again is not None:
                        outcome = self._counted(outcome)
                else:
                    return outcome
            # The innermost frame asks for more than to pass the call on.
            call, outcome = self._consider(asked, outcome)
            if outcome is None and not isinstance(call, Call):
                return cast(Step, call)

    def _consider(self, asked: Any, told: Outcome | None) -> tuple[Any, Outcome | None]:
        """What the innermost flow asked for: a call to go down, a step for the shell, or the outcome if it may not."""
        layer = self._flows[len(self._frames) - 1]
        if type(asked) is Wait:
            asked.asker = name_of(layer)
            self._told = told
            return asked, None
        if told is not None:
            progress = told._responses and isinstance(asked, Call) and asked._asks.resumes
            self._resends = 0 if progress else self._resends + 1
            if told.attempts:
                self._again = {len(self._frames) - 1, *(self._again or ())}
        fault = _misuse(asked, told, self._resends)
        if fault:
            _close(self._frames.pop(), layer)
            return None, _fault(layer, fault, None, told)
        if self._called is not None or type(asked) is Through:
            asked = self._open(asked)
        asked._asks.sign(layer)
        if asked._asks.hedging is None:
            return asked, None
        self._asked = _race(asked, self._flows[len(self._frames) :])
        return self._asked, None

    def _counted(self, outcome: Outcome) -> Outcome:
        """The outcome of the flow that has just ended: none that it sent before is forgotten if its last was refused."""
        if self._again is None or len(self._frames) not in self._again:
            return outcome
        self._again.discard(len(self._frames))
        return outcome if outcome.attempts else outcome._copy("_attempts", self._sends)

    def _open(self, asked: Call | Through) -> Call:
        """Put the chain that a flow calls below that flow, in the place of one that it called before."""
        depth, called = len(self._frames), self._called or []
        while called and called[-1][0] >= depth:
            self._flows = called.pop()[1]
        if type(asked) is Through:
            called.append((depth, self._flows))
            inner = asked.chain.compiled(asked.call.method)
            self._flows = (*self._flows[:depth], *inner, *self._flows[depth:])
            asked = asked.call
        self._called = called
        return cast(Call, asked)

    def _resume(self, move: Callable[[Any], Any], value: Any) -> Step:
        """Let the flow that waited go on."""
        told = self._told
        try:
            asked = move(value)
        except BaseException as ending:
            self._frames.pop()
            return self._turn(None, self._counted(_verdict(self._flows[len(self._frames)], ending, told)))
        return self._go_on(asked, told)

    def _go_on(self, asked: Any, told: Outcome | None) -> Step:
        """The innermost flow asked for this."""
        call, outcome = self._consider(asked, told)
        return self._turn(call, outcome) if outcome is not None or isinstance(call, Call) else call


def _verdict(layer: Layer, ending: BaseException, told: Outcome | None) -> Outcome:
    """The outcome above a flow that has ended: by its return, by a status it raised, or by a fault of its own."""
    if isinstance(ending, errors.StatusError):
        return _failed(ending, told)
    if not isinstance(ending, StopIteration):
        return _fault(layer, f"raised {type(ending).__name__}", ending, told)
    outcome = ending.value
    if outcome is None:
        return told or _fault(layer, "ended without a yield: `yield call` sends it, a returned Outcome answers it")
    if not isinstance(outcome, Outcome):
        did = f"returned {kind_of(outcome)}: return the outcome, or outcome.with_response(message)"
        return _fault(layer, did, None, told)
    return outcome._after(told)


def _misuse(asked: Any, told: Outcome | None, resends: int) -> str | None:
    """What is wrong with what a flow yielded, if anything is."""
    if not isinstance(asked, Call | Through):
        hint = "; a coroutine is awaited with `yield from wait(…)`" if inspect.isawaitable(asked) else ""
        return f"yielded {kind_of(asked)}: yield the call, or a changed copy of it{hint}"
    if told is not None and not (told.replayable or (isinstance(asked, Call) and asked._asks.resumes)):
        return "sent the call again although it cannot be sent twice: check outcome.replayable"
    if resends > MAX_RESENDS:
        return f"sent the call more than {MAX_RESENDS} times"
    return None


def _race(call: Call, below: Layers) -> Race:
    """The lanes of a race: each copy goes through the layers below on its own."""
    hedging = cast(Hedging, call._asks.hedging)
    first = call._ask(hedging=None)
    copy = first._ask(delay=0.0) if first.delay else first  # they follow the first, which alone waits
    others = (lambda: (Driver(below), copy),) * (hedging.copies - 1)
    return Race((lambda: (Driver(below), first), *others), hedging, call)


def _failed(error: errors.StatusError, told: Outcome | None) -> Outcome:
    """The outcome of a flow that raised a status."""
    if told is not None and told.error is error:
        return told
    return Outcome.failure(error)._after(told)


def _fault(layer: Layer, did: str, error: BaseException | None = None, told: Outcome | None = None) -> Outcome:
    """The outcome when an interceptor is at fault: a failure it was given is kept, all else becomes INTERNAL.

    The exception's text stays in the log: on a server the details go to an unknown caller.
    """
    blame = f"interceptor {name_of(layer)} {did}"
    _log.error("%s", blame, exc_info=error)
    if told is not None and not told.ok:
        if told.error is not None:
            told.error.add_note(blame)
        return told
    failure = errors.Internal(blame if told is None else f"{blame} (the outcome it was given was OK)", local=True)
    failure.__cause__ = error
    return _failed(failure, told)


def _close(frame: Generator[Any, Any, Any], layer: Layer) -> None:
    try:
        frame.close()
    except BaseException as error:
        _log.error("interceptor %s failed while it was being closed", name_of(layer), exc_info=error)
