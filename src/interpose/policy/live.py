"""A stack that can be replaced while calls run: each call stays on the one that it began with."""

from __future__ import annotations

from collections.abc import Iterator

from interpose._call import Call
from interpose._flow import Chain, Fitted, Flow, Interceptor, Layers, is_async, layers, name_of, named, unfit
from interpose._method import Method, Side
from interpose._order import warn_of_order
from interpose._served import Served
from interpose._shell.serving import faults_of


class Live(Chain):
    """The stack of one section of a policy: an interceptor like any other, and a list of that one.

        intercept_channel(channel, policy.client)
        interpose.serve(app, stack=policy.server)

    `describe(policy.client)` shows what it holds now.
    """

    __slots__ = ("_kinds", "_served", "side")

    def __init__(self, side: Side) -> None:
        super().__init__(())
        self.side = side
        self._kinds: set[bool] = set()  # asyncio or not: of the channels and servers that it was put on
        self._served: Served | None = None  # by the server that has looked at it last

    def __iter__(self) -> Iterator[Interceptor]:
        """It alone, so that it can be given where a stack is a list: `*policy.client`."""
        yield self

    def __repr__(self) -> str:
        return f"policy({named(self.interceptors)})"

    def fitted(self, method: Method) -> Fitted:
        """What runs in its place: the stack that it holds when a call begins, compiled for the method."""
        held = _Compiled(self.interceptors, method, self.side)

        def policy(call: Call) -> Flow:
            nonlocal held
            if held.interceptors is not self.interceptors:
                held = _Compiled(self.interceptors, method, self.side)
            return held(call)

        return Fitted(policy)

    # - is the stack good where it is? -

    def unfit(self, asyncio: bool) -> str | None:
        """Why what it holds cannot run on such a channel or server; None if it can."""
        self._kinds.add(asyncio)
        return "; ".join(_unfit(self.interceptors, asyncio)) or None

    def check_served(self, served: Served) -> Iterator[str]:
        """What is wrong with its rows and tables, now that the methods of a server are known."""
        self._served = served
        yield from faults_of(self.interceptors, served)

    def objections(self, stack: tuple[Interceptor, ...]) -> Iterator[str]:
        """Why this stack cannot take the place of the one that it holds."""
        for asyncio in self._kinds:
            yield from _unfit(stack, asyncio)
        if self._served is not None:
            yield from faults_of(stack, self._served)

    def replace(self, stack: tuple[Interceptor, ...]) -> None:
        """Calls that begin from now on go through this stack."""
        self.interceptors = stack
        if self._kinds:  # else a channel or server will look at it, once it is put on one
            warn_of_order(stack)


class _Compiled(Chain):
    """A stack, compiled for a method."""

    __slots__ = ("_layers",)

    def __init__(self, interceptors: tuple[Interceptor, ...], method: Method, side: Side) -> None:
        super().__init__(interceptors)
        # On a server all of a stack that does not fit is refused before, see `unfit`; its kind only keeps out what runs
        # once per attempt of a client.
        asyncio = None if side is Side.CLIENT else not any(_unfit(interceptors, asyncio=True))
        self._layers = layers(interceptors, method, asyncio=asyncio)

    def compiled(self, method: Method) -> Layers:
        return self._layers


def _unfit(interceptors: tuple[Interceptor, ...], asyncio: bool) -> Iterator[str]:
    """Why some of them cannot run on such a channel or server."""
    for interceptor in interceptors:
        if isinstance(interceptor, Chain):
            yield from _unfit(interceptor.interceptors, asyncio)
        elif fault := unfit(interceptor, asyncio):
            yield fault
        elif not asyncio and is_async(interceptor):
            yield f"{name_of(interceptor)} is an `async def` generator, and this is the sync side"
