"""What nearly every RPC of a client is: each flow yields the call, or a copy with other headers, and keeps the outcome.

It is what a `Driver` does with such flows, without one. The moment that a flow asks for anything else, a driver takes
over what has begun. tests/laws/test_straight.py holds both to the same; servers have the like around their handlers.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from interpose._call import NOTHING, Call
from interpose._flow import Driver, Layers, Nested, Step
from interpose._outcome import Outcome

Taken: TypeAlias = tuple[Driver, Step]  # a driver that has taken over, and what it asks for


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
                if type(begun) is not Call or begun._asks is not NOTHING:
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
