"""The flow of one RPC: interceptors as generators, and the pure driver that turns a chain of them.

This is the file to read. An interceptor yields the call it wants sent and is given the outcome:

    def timed(call: Call) -> Flow:
        started = monotonic()
        outcome = yield call
        log.info("%s %s in %.1f ms", call.method, outcome.code.name, 1e3 * (monotonic() - started))

`drive` holds a chain of such generators, one per interceptor, as a stack. A call goes down the stack, each
interceptor passing its own version on; below the last one it is handed out as a step, *perform this call*.
The outcome comes back up, and each interceptor lets it stand, replaces it, or yields again to send again.

`drive` does no I/O. It is itself a generator, and speaks to a shell that does:

    step       the shell answers with
    Call       the outcome of performing it (send, and for a stream: until its end)
    Wait       what the awaitable gave, or throws what it raised
    Race       the outcome of the lane that won
    (return)   the outcome of the RPC

Rules: every call handed out is answered with exactly one outcome. Whatever an interceptor does wrong ends the RPC
with a status that names it, and never hides a failure that it was told.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from fnmatch import fnmatchcase
from typing import Any, NoReturn, TypeAlias, TypeVar, cast

from interpose import errors
from interpose._call import Call
from interpose._method import Method
from interpose._outcome import Outcome

T = TypeVar("T")

# What a flow returns is `Outcome | None`; spelled Any because mypy asks a generator that may return None for a `return`.
Flow: TypeAlias = Generator[Call, Outcome, Any]
AsyncFlow: TypeAlias = AsyncGenerator[Call, Outcome]
Interceptor: TypeAlias = Callable[[Call], Flow | AsyncFlow]

Step: TypeAlias = "Call | Wait | Race"
Drive: TypeAlias = Generator[Step, Any, Outcome]
Layer: TypeAlias = Callable[[Call], Generator[Any, Any, Any]]
Layers: TypeAlias = tuple[Layer, ...]

MAX_SENDS = 1000  # attempts of one RPC; far beyond any retry policy, and short of a spin that nobody notices

_log = logging.getLogger("interpose")


# --- steps ----------------------------------------------------------------------------------------------------------


class Wait:
    """A step: await this, and answer with what it gives."""

    __slots__ = ("asker", "awaitable")

    def __init__(self, awaitable: Awaitable[Any]) -> None:
        self.awaitable = awaitable
        self.asker = ""  # the interceptor that waits; the driver fills it in


class Race:
    """A step: start these lanes one `delay` after the other, the next at once when one fails; the first good answer wins."""

    __slots__ = ("delay", "lanes")

    def __init__(self, lanes: tuple[Callable[[], Drive], ...], delay: float) -> None:
        self.lanes = lanes
        self.delay = delay


def wait(value: Awaitable[T] | T) -> Generator[Any, Any, T]:
    """Wait inside a flow: `token = yield from wait(store.get(key))`.

    A plain value comes straight back; an awaitable is awaited by an asyncio channel or server.
    On a sync channel or server an awaitable raises TypeError in the flow.
    """
    if inspect.isawaitable(value):
        return cast(T, (yield Wait(value)))
    return value  # type: ignore[return-value]  # isawaitable does not narrow the other branch


# --- composing ------------------------------------------------------------------------------------------------------


class Chain:
    """Several interceptors as one; the first is outermost. Made by `chain`."""

    __slots__ = ("interceptors",)

    def __init__(self, interceptors: tuple[Interceptor, ...]) -> None:
        self.interceptors = interceptors

    def __call__(self, call: Call) -> Flow:
        return cast(Flow, drive(layers(self.interceptors, call.method), call))

    def select(self, method: Method) -> tuple[Interceptor, ...]:
        return self.interceptors

    def __repr__(self) -> str:
        return f"chain({', '.join(map(name_of, self.interceptors))})"


class When(Chain):
    """A chain for some methods only. Made by `when`."""

    __slots__ = ("_applies", "_condition")

    def __init__(self, condition: Callable[[Method], bool] | str, interceptors: tuple[Interceptor, ...]) -> None:
        super().__init__(interceptors)
        self._condition = condition
        self._applies = _glob(condition) if isinstance(condition, str) else condition

    def __call__(self, call: Call) -> Flow:
        return cast(Flow, drive(layers((self,), call.method), call))

    def select(self, method: Method) -> tuple[Interceptor, ...]:
        return self.interceptors if self._applies(method) else ()

    def __repr__(self) -> str:
        condition = repr(self._condition) if isinstance(self._condition, str) else name_of(self._condition)
        return f"when({condition}, {', '.join(map(name_of, self.interceptors))})"


def chain(*interceptors: Interceptor) -> Chain:
    """Several interceptors as one; the first is outermost. `chain(a, chain(b, c))` behaves as `chain(a, b, c)`.

    TypeError for anything that is not an interceptor.
    """
    for interceptor in interceptors:
        check(interceptor)
    return Chain(interceptors)


def when(condition: Callable[[Method], bool] | str, *interceptors: Interceptor) -> Chain:
    """Interceptors for some methods only: `when("/pay.v1.*/*", Retry())`, `when(lambda m: m.name == "Watch", …)`.

    condition: a glob on "/package.Service/Name" (the first "/" may be left out), or a function of the `Method`.
    It is asked once per method, when the stub method or handler is first seen; elsewhere the interceptors cost nothing.
    """
    if not (isinstance(condition, str) or callable(condition)):
        raise TypeError(f"when: the condition must be a glob or a function of the Method, not {condition!r}")
    for interceptor in interceptors:
        check(interceptor)
    return When(condition, interceptors)


def _glob(pattern: str) -> Callable[[Method], bool]:
    pattern = "/" + pattern.removeprefix("/")
    return lambda method: fnmatchcase(method.full_name, pattern)


def layers(interceptors: tuple[Interceptor, ...], method: Method) -> Layers:
    """Compile a stack for one method: chains opened, those that do not apply left out, async ones lifted."""
    compiled: list[Layer] = []
    for interceptor in interceptors:
        if isinstance(interceptor, Chain):
            compiled += layers(interceptor.select(method), method)
        elif is_async(interceptor):
            compiled.append(_lifted(cast(Callable[[Call], AsyncFlow], interceptor)))
        else:
            compiled.append(cast(Layer, interceptor))
    return tuple(compiled)


def _lifted(interceptor: Callable[[Call], AsyncFlow]) -> Layer:
    """An `async def` generator as a plain one: each of its steps is something to wait for."""

    @functools.wraps(interceptor)
    def flow(call: Call) -> Generator[Any, Any, None]:
        steps = interceptor(call)
        outcome = None
        while True:
            try:
                asked = yield Wait(steps.asend(outcome))
            except StopAsyncIteration:
                return
            outcome = yield asked

    return flow


# --- checking -------------------------------------------------------------------------------------------------------


def name_of(interceptor: Any) -> str:
    """What an interceptor is called in messages: the name of its function or class."""
    name = getattr(interceptor, "__qualname__", None) or type(interceptor).__qualname__
    return str(name).replace("<locals>.", "")


def is_async(interceptor: Any) -> bool:
    """Is it an `async def` generator, or contains one?"""
    if isinstance(interceptor, Chain):
        return any(map(is_async, interceptor.interceptors))
    return inspect.isasyncgenfunction(_body(interceptor))


def check(interceptor: Any) -> None:
    """TypeError, saying what was given and what to do, for anything that is not an interceptor."""
    if isinstance(interceptor, Chain):
        return
    if isinstance(interceptor, type):
        _refuse(interceptor, f"is a class: give an instance, {interceptor.__name__}(…)")
    if any(hasattr(interceptor, name) for name in _NATIVE):
        _refuse(
            interceptor,
            "is a native grpc interceptor: give it to grpc.intercept_channel or grpc.server(interceptors=…) itself",
        )
    if inspect.isgenerator(interceptor) or inspect.isasyncgen(interceptor):
        _refuse(interceptor, "is a generator that already runs: give the function, without calling it")
    if not callable(interceptor):
        _refuse(
            interceptor, "is no function: an interceptor is a generator function of one call, `outcome = yield call`"
        )
    body = _body(interceptor)
    if inspect.iscoroutinefunction(body):
        _refuse(interceptor, "is a coroutine function without a yield: write `outcome = yield call` in it")
    if not (inspect.isgeneratorfunction(body) or inspect.isasyncgenfunction(body)):
        _refuse(
            interceptor,
            "never yields: an interceptor is a generator function, and `outcome = yield call` sends the call",
        )


def check_sync(interceptors: tuple[Interceptor, ...]) -> None:
    """TypeError if one of them needs a running loop."""
    for interceptor in interceptors:
        if isinstance(interceptor, Chain):
            check_sync(interceptor.interceptors)
        elif is_async(interceptor):
            _refuse(
                interceptor,
                "is an `async def` generator, and this channel is a sync one: write it as a plain generator, "
                "which runs on both, or use grpc.aio",
            )


_NATIVE = (
    "intercept_unary_unary",
    "intercept_unary_stream",
    "intercept_stream_unary",
    "intercept_stream_stream",
    "intercept_service",
)


def _body(interceptor: Any) -> Any:
    """The function behind an interceptor: through partials, decorators and `__call__`."""
    while isinstance(interceptor, functools.partial):
        interceptor = interceptor.func
    if not inspect.isroutine(interceptor):
        interceptor = getattr(type(interceptor), "__call__", interceptor)  # noqa: B004  the method itself is wanted
    return inspect.unwrap(interceptor)


def _refuse(interceptor: Any, fault: str) -> NoReturn:
    raise TypeError(f"{interceptor!r} {fault}")


# --- driving --------------------------------------------------------------------------------------------------------


def drive(flows: Layers, call: Call) -> Drive:
    """Turn the flows of one RPC: hand out steps, take their answers, return the outcome of the RPC."""
    frames: list[Generator[Any, Any, Any]] = []  # frames[i] runs flows[i]
    outcome: Outcome | None = None  # None while a call goes down, then what comes back up
    asked: Any = call
    sends = 0
    while True:
        if outcome is None:
            for layer in flows[len(frames) :] if frames else flows:
                try:
                    frame = layer(call)
                    asked = frame.send(None)
                except BaseException as error:
                    outcome = _verdict(layer, error, None)
                    break
                frames.append(frame)
                if asked is not call:
                    if type(asked) is not Call or asked._asks.hedging is not None:
                        break
                    call = asked
            else:
                sends += 1
                outcome = yield call
                outcome._attempts = sends
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
            else:
                return outcome
        # The innermost frame asks for more than to pass the call on.
        layer = flows[len(frames) - 1]
        if type(asked) is Wait:
            asked, ending = yield from _attend(frames[-1], asked, layer)
            if ending is not None:
                frames.pop()
                outcome = _verdict(layer, ending, outcome)
                continue
        fault = _misuse(asked, outcome, sends)
        if fault:
            _close(frames.pop(), layer)
            outcome = _fault(layer, fault, None, outcome)
        elif type(asked) is Call and asked._asks.hedging is None:
            call, outcome = asked, None
        else:
            outcome = yield _race(asked, flows[len(frames) :])
            sends += outcome._attempts
            outcome._attempts = sends


def _attend(
    frame: Generator[Any, Any, Any], asked: Any, layer: Layer
) -> Generator[Wait, Any, tuple[Any, BaseException | None]]:
    """Let a flow wait as often as it likes: gives what it asks for next, or the exception that ended it."""
    while type(asked) is Wait:
        asked.asker = name_of(layer)
        try:
            answer = yield asked
        except BaseException as error:
            resume, answer = frame.throw, error
        else:
            resume = frame.send
        try:
            asked = resume(answer)
        except BaseException as ending:  # StopIteration too: it may not leave a generator (PEP 479)
            return None, ending
    return asked, None


def _verdict(layer: Layer, ending: BaseException, told: Outcome | None) -> Outcome:
    """The outcome above a flow that has ended: by its return, by a status it raised, or by a fault of its own."""
    if isinstance(ending, errors.StatusError):
        return _failed(ending, told)
    if not isinstance(ending, StopIteration):
        return _fault(layer, f"raised {type(ending).__name__}", ending, told)
    outcome = ending.value
    if outcome is None:
        return told or _fault(layer, "ended without a yield: `yield call` sends it, a returned Outcome answers it")
    if type(outcome) is not Outcome:
        return _fault(layer, f"returned {outcome!r:.100}: return an Outcome, or nothing", None, told)
    return outcome._after(told)


def _misuse(asked: Any, told: Outcome | None, sends: int) -> str | None:
    """What is wrong with what a flow yielded, if anything is."""
    if type(asked) is not Call and type(asked) is not Race:
        hint = "; a coroutine is awaited with `yield from wait(…)`" if inspect.isawaitable(asked) else ""
        return f"yielded {asked!r:.100}: yield the call, or a changed copy of it{hint}"
    if told is not None and not told.replayable:
        return "sent the call again although it cannot be sent twice: check outcome.replayable"
    if told is not None and sends >= MAX_SENDS:
        return f"sent the call more than {MAX_SENDS} times"
    return None


def _race(asked: Call | Race, below: Layers) -> Race:
    """The lanes of a race: each copy goes through the layers below on its own."""
    if isinstance(asked, Race):  # from a chain that was called inside a flow: its lanes go through our layers too
        opened = tuple((lambda lane: lambda: drive((lambda _: lane(), *below), _NO_CALL))(lane) for lane in asked.lanes)
        return Race(cast(Any, opened), asked.delay)
    hedging = asked._asks.hedging
    assert hedging is not None
    copy = asked._ask(hedging=None)
    return Race((lambda: drive(below, copy),) * hedging.copies, hedging.delay)


_NO_CALL = cast(Call, None)


def _failed(error: errors.StatusError, told: Outcome | None) -> Outcome:
    """The outcome of a flow that raised a status."""
    if told is not None and told.error is error:
        return told
    return Outcome.failure(error)._after(told)


def _fault(layer: Layer, did: str, error: BaseException | None = None, told: Outcome | None = None) -> Outcome:
    """The outcome when an interceptor is at fault: a failure it was told stands, all else becomes INTERNAL.

    The exception's text stays in the log: on a server the details go to a stranger.
    """
    blame = f"interceptor {name_of(layer)} {did}"
    _log.error("%s", blame, exc_info=error)
    if told is not None and not told.ok:
        if told.error is not None:
            told.error.add_note(blame)
        return told
    failure = errors.Internal(blame if told is None else f"{blame} (it had been told OK)", local=True)
    failure.__cause__ = error
    return _failed(failure, told)


def _close(frame: Generator[Any, Any, Any], layer: Layer) -> None:
    try:
        frame.close()
    except BaseException as error:
        _log.error("interceptor %s failed while it was being closed", name_of(layer), exc_info=error)
