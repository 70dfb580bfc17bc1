"""How a server stops: the order of the steps, for sync and asyncio alike."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Protocol

from interpose.serving.options import CLEAN_UP, FLUSH

NO_NEW_CALLS = "no new calls are taken"  # said when that is so: another process may have the port for itself


class Host(Protocol):
    """A server that is running. What its verbs give is awaited on asyncio, and used as it is elsewhere."""

    def not_serving(self) -> Any:
        """Have the health service answer NOT_SERVING from now on."""

    def pause(self, seconds: float) -> Any:
        """Serve on for that long, or until a signal comes; gives whether one came."""

    def refuse(self) -> Any:
        """Take no new RPCs; those under way go on. Streams of health and reflection end."""

    def finished(self, seconds: float) -> Any:
        """Wait until the RPCs under way have ended, for so long at most, or until a signal; gives whether they have."""

    def end(self) -> Any:
        """End the RPCs that still run, and let their handlers know."""

    def left(self, seconds: float) -> Any:
        """Wait until their handlers have returned, for so long at most."""

    def stop(self) -> Any:
        """Close what is open."""

    def clean_up(self) -> Any:
        """Let the application clean up."""


def drain(host: Host, delay: float, grace: float) -> Generator[Any, Any, None]:
    """Stop without losing a call. Each step is yielded, and its result is sent back.

    delay: seconds between NOT_SERVING and the refusal of new RPCs, in which load balancers look elsewhere.
    grace: seconds for the RPCs under way. A signal cuts either short.
    """
    yield host.not_serving()
    if (yield host.pause(delay)):
        grace = 0.0
    yield host.refuse()
    if not (yield host.finished(grace)):
        yield host.end()
        # A client that still writes when the connection breaks may never read what came before that.
        yield host.pause(FLUSH)
    yield host.left(CLEAN_UP)
    yield host.stop()
    yield host.clean_up()


def play(steps: Generator[Any, Any, None]) -> None:
    """Take the steps where nothing is awaited."""
    given: Any = None
    while True:
        try:
            given = steps.send(given)
        except StopIteration:
            return


async def play_on_loop(steps: Generator[Any, Any, None]) -> None:
    """Take the steps, each of which is awaited."""
    given: Any = None
    while True:
        try:
            step = steps.send(given)
        except StopIteration:
            return
        given = await step
