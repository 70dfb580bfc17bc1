"""What nearly every RPC is: each flow yields the call, or a copy with other headers, and keeps the outcome.

It is what a `Driver` does with such flows, without one. The moment that a flow asks for anything else, a driver takes
over what has begun. tests/laws/test_straight.py and test_straight_client.py hold all of it to the driver.

Clients begin the flows, send the call, and end them. On servers all that is written out in one frame around the handler:
frames for its steps are a quarter of what the first interceptor costs. `interpose.aio.straight` is the same around an
async handler.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from interpose._call import NOTHING, Arrived, Call
from interpose._flow import Driver, Layers, Nested, Step
from interpose._outcome import Answered, Outcome
from interpose._shell.handlers import Endpoint
from interpose.context import set_current_call

Behavior: TypeAlias = Callable[..., Any]

Taken: TypeAlias = tuple[Driver, Step]  # a driver that has taken over, and what it asks for


def passes_on(asked: Any, call: Call) -> bool:
    """Is it the call of this RPC with other headers, say, and asks nothing of the shell beyond what every call does?"""
    if type(asked) is not Call or asked._asks is not NOTHING or asked._context is not call._context:
        return False
    # On a server, a limit for the handler takes more than to call it.
    return call._context is None or (asked._timeout is None and asked._deadline is None)


def begin(stack: Layers, call: Call) -> tuple[Nested, Call, Taken | None]:
    """Begin the flows: those that run, the call as they leave it, and the driver if one had to take over."""
    frames: Any = ()
    asked = call
    try:
        for layer in stack:
            frame = layer(asked)
            begun = frame.send(None)
            frames = frame, frames
            if begun is not asked:
                if not passes_on(begun, call):
                    return (), call, Driver.asked(begun, stack, frames, None)
                asked = begun
    except BaseException as failure:
        return (), call, Driver.after(failure, stack, frames, None)
    return frames, asked, None


def end(stack: Layers, frames: Any, outcome: Outcome) -> Taken | None:
    """Pass to the flows how their call has ended; the driver if one had to take over, None if they keep that."""
    while frames:
        frame, frames = frames
        try:
            asked = frame.send(outcome)
        except StopIteration as ending:
            if ending.value is not None:
                return Driver.after(ending, stack, frames, outcome)
        except BaseException as failure:
            return Driver.after(failure, stack, frames, outcome)
        else:
            return Driver.asked(asked, stack, (frame, frames), outcome)
    return None


# --- servers -----------------------------------------------------------------------------------------------------------


def around(  # noqa: C901, PLR0915
    endpoint: Endpoint, record: type[Any], ended: Behavior, go_on: Behavior, known: type[Any] | None, gone: Any
) -> Behavior:
    """A plain handler of one message each way with the interceptors around it, for a server.

    record: see `recording`. ended: the outcome of a handler that did anything but answer. go_on: takes a driver and its
    next step, and goes on to the end of the RPC. known, gone: the kind of native context that keeps what its client is, and
    what that is of one that has gone; others are asked.
    """
    method, stack, handler = endpoint.parts
    now = record.clock.now

    def behave(argument: Any, native: Any) -> Any:  # noqa: C901, PLR0912, PLR0915
        context, call = record(), Arrived()
        context._native, context._call, context.decided = native, call, False
        call._method, call._request, call._context, call._metadata = method, argument, context, None
        set_current_call(call)
        frames: Any = ()  # the innermost, and those outside of it
        asked, begun, taken = call, call, None
        try:
            for layer in stack:
                frame = layer(asked)
                begun = frame.send(None)
                frames = frame, frames
                if begun is not asked:
                    if not passes_on(begun, call):
                        break
                    asked = begun
        except BaseException as failure:
            taken = Driver.after(failure, stack, frames, None)
        if begun is not asked:
            taken = Driver.asked(begun, stack, frames, None)
        if taken is not None:
            return go_on(*taken, argument, context)
        if asked is not call:
            context._call = asked
            set_current_call(asked)
        started = now()
        response, error = None, None
        try:
            response = handler(asked._request, context)
        except BaseException as raised:
            error = raised
        active = native._state.client is not gone if type(native) is known else native.is_active()
        if error is None and active and not context.decided:
            outcome: Any = Answered()
            outcome._response, outcome._elapsed = response, now() - started
        else:
            context.began(started)
            outcome = ended(context, error, response)
            del error  # its traceback holds this frame
        outcome._attempts = 1
        while frames:
            frame, frames = frames
            try:
                begun = frame.send(outcome)
            except StopIteration as ending:
                if ending.value is None:
                    continue
                taken = Driver.after(ending, stack, frames, outcome)
            except BaseException as failure:
                taken = Driver.after(failure, stack, frames, outcome)
            else:
                taken = Driver.asked(begun, stack, (frame, frames), outcome)
            return go_on(*taken, argument, context)
        if type(outcome) is not Answered:
            return context.answer(outcome)
        context._call = asked._context = None  # as by `over`
        return response

    return behave
