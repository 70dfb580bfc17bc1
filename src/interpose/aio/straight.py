"""What nearly every RPC of an asyncio server is, in one frame: `around` of `_shell.straight`, for an async handler.

The two differ in how a handler is called, and in how one sees that the client has gone.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio import get_running_loop
from collections.abc import Callable
from typing import Any, TypeAlias

from interpose._call import Arrived
from interpose._flow import Driver
from interpose._outcome import Answered
from interpose._shell.handlers import Endpoint
from interpose._shell.straight import passes_on
from interpose.context import set_current_call

Behavior: TypeAlias = Callable[..., Any]

if sys.version_info >= (3, 12):
    task_of: Callable[[Any], Any] = asyncio.current_task
else:  # there `current_task` is written in Python, and to look where it looks costs a third
    task_of = vars(asyncio.tasks)["_current_tasks"].get


def straight(endpoint: Endpoint, record: type[Any], ended: Behavior, go_on: Behavior) -> Behavior:  # noqa: C901, PLR0915
    """An async handler of one message each way with the interceptors around it; see the twin."""
    method, stack, handler = endpoint.parts
    now = record.clock.now

    async def behave(argument: Any, native: Any) -> Any:  # noqa: C901, PLR0912, PLR0915
        context, call = record(), Arrived()
        context._native, context._call, context.decided = native, call, False
        call._method, call._request, call._context, call._metadata = method, argument, context, None
        set_current_call(call)
        frames: Any = ()
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
            return await go_on(*taken, argument, context)
        if asked is not call:
            context._call = asked
            set_current_call(asked)
        started = now()
        response, error = None, None
        try:
            response = await handler(asked._request, context)
        except BaseException as raised:
            error = raised
        task = task_of(get_running_loop())
        if error is None and not context.decided and not (task and task.cancelling()):
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
            return await go_on(*taken, argument, context)
        if type(outcome) is not Answered:
            return await context.answer(outcome)
        context._call = asked._context = None  # as by `over`
        return response

    return behave
