"""What nearly every RPC of a server is, in one frame: each flow yields the call, the handler answers, each keeps that.

It is what a `Driver` does with such flows, written out: without a driver, and without a frame for each of its steps,
which is a quarter of what the first interceptor costs. The moment that a flow asks for anything, a driver takes over what
has begun. `interpose.aio.straight` is the same around an async handler; tests/laws/test_straight.py holds both to the driver.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from interpose._call import Arrived
from interpose._flow import Driver
from interpose._grpcio.servers import GONE, NATIVE
from interpose._outcome import Answered
from interpose._shell.handlers import Endpoint
from interpose.context import set_current_call

Behavior: TypeAlias = Callable[..., Any]


def straight(endpoint: Endpoint, record: type[Any], ended: Behavior, go_on: Behavior) -> Behavior:  # noqa: C901, PLR0915
    """A handler of one message each way with the interceptors around it.

    record: see `recording`. ended: the outcome of a handler that did anything but answer. go_on: takes a driver and its
    next step, and goes on to the end of the RPC.
    """
    method, stack, handler = endpoint.parts
    now = record.clock.now

    def behave(argument: Any, native: Any) -> Any:  # noqa: C901, PLR0912
        context, call = record(), Arrived()
        context._native, context._call, context.decided = native, call, False
        call._method, call._request, call._context, call._metadata = method, argument, context, None
        set_current_call(call)
        frames: Any = ()  # the innermost, and those outside of it
        asked, taken = call, None
        try:
            for layer in stack:
                frame = layer(call)
                asked = frame.send(None)
                frames = frame, frames
                if asked is not call:
                    break
        except BaseException as failure:
            taken = Driver.after(failure, stack, frames, None)
        if asked is not call:
            taken = Driver.asked(asked, stack, frames, None)
        if taken is not None:
            return go_on(*taken, argument, context)
        started = now()
        response, error = None, None
        try:
            response = handler(argument, context)
        except BaseException as raised:
            error = raised
        active = native._state.client is not GONE if type(native) is NATIVE else native.is_active()
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
                asked = frame.send(outcome)
            except StopIteration as ending:
                if ending.value is None:
                    continue
                taken = Driver.after(ending, stack, frames, outcome)
            except BaseException as failure:
                taken = Driver.after(failure, stack, frames, outcome)
            else:
                taken = Driver.asked(asked, stack, (frame, frames), outcome)
            return go_on(*taken, argument, context)
        if type(outcome) is not Answered:
            return context.answer(outcome)
        context._call = call._context = None  # as by `over`
        return response

    return behave
