"""The application that is served: a function that registers servicers, a list of them, or a ready server."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import grpc
import grpc.aio

from interpose.serving.options import CannotServe, Loop

FORMS = "a function that registers servicers on the server it is given, a list of servicers, or a server that is not started"


def load(name: str) -> Any:
    """What "module:attribute" names.

    CannotServe if there is no such thing. What the module itself raises passes: its traceback is what helps.
    """
    module, _, path = name.partition(":")
    if not (module and path):
        raise CannotServe(f'{name!r} is no name of an application: write "module:attribute", like "shop.server:app"')
    value = _module(module)
    for part in path.split("."):
        try:
            value = getattr(value, part)
        except AttributeError:
            raise CannotServe(f"the module {module!r} has no {path!r}: look for a typing error in {name!r}") from None
    return value


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # a module that it imports is missing
        raise CannotServe(
            f"there is no module {error.name!r}: start in the folder that holds it, or name that folder with --app-dir"
        ) from None


class App:
    """An application that was checked. ready: it is a server with handlers. asyncio: it wants a `grpc.aio.server`."""

    def __init__(self, given: Any, *, loop: Loop = "auto", factory: bool = False) -> None:
        if factory:
            given = _made(given)
        self.given = given
        self.ready = isinstance(given, grpc.Server | grpc.aio.Server)
        if not (self.ready or _is_list(given) or _is_function(given)):
            hint = "; if it returns one, add --factory" if callable(given) else ""
            raise CannotServe(f"{given!r} is no application: it must be {FORMS}{hint}")
        if _is_list(given):
            _adders(given)  # is each of them a servicer?
        self.asyncio = _wants_asyncio(given) if loop == "auto" else loop != "none"
        if self.ready and (self.asyncio is not isinstance(given, grpc.aio.Server) or loop == "uvloop"):
            raise CannotServe(f"the application is a {type(given).__name__} already: leave out --loop {loop}")
        if not self.asyncio and _is_async(given):
            raise CannotServe(f"{_named(given)} is async and needs an event loop: leave out --loop none")

    @contextmanager
    def on(self, server: grpc.Server) -> Generator[None]:
        """Register its servicers; at the end, let it clean up."""
        if self.ready:
            yield
        elif _is_list(self.given):
            _register(self.given, server)
            yield
        elif inspect.isgeneratorfunction(self.given):
            with contextmanager(self.given)(server):
                yield
        else:
            self.given(server)
            yield

    @asynccontextmanager
    async def on_asyncio(self, server: grpc.aio.Server) -> AsyncGenerator[None]:
        """The same, on an event loop."""
        if inspect.isasyncgenfunction(self.given):
            async with asynccontextmanager(self.given)(server):
                yield
        elif inspect.iscoroutinefunction(self.given):
            await self.given(server)
            yield
        else:
            with self.on(server):  # type: ignore[arg-type]  # registering is the same for both
                yield


def _made(factory: Any) -> Any:
    if not (callable(factory) and _takes(factory)):
        raise CannotServe(
            f"{factory!r} is no factory: with --factory name a function without arguments, or leave it out"
        )
    return factory()


def _is_list(given: Any) -> bool:
    return isinstance(given, Sequence) and not isinstance(given, str | bytes)


def _is_function(given: Any) -> bool:
    """Can it be called with one argument?"""
    return callable(given) and not inspect.isclass(given) and _takes(given, "a server")


def _takes(function: Any, *arguments: Any) -> bool:
    """Can it be called with these arguments?"""
    try:
        inspect.signature(function).bind(*arguments)
    except (TypeError, ValueError):
        return False
    return True


def _is_async(given: Any) -> bool:
    return inspect.iscoroutinefunction(given) or inspect.isasyncgenfunction(given)


def _named(given: Any) -> str:
    return getattr(given, "__qualname__", None) or repr(given)


def _wants_asyncio(given: Any) -> bool:
    if _is_list(given):
        return any(_is_async(method) for servicer in given for method in _methods(servicer))
    return isinstance(given, grpc.aio.Server) or _is_async(given)


# --- servicers --------------------------------------------------------------------------------------------------------


def _register(servicers: Sequence[Any], server: grpc.Server) -> None:
    for servicer, add in zip(servicers, _adders(servicers), strict=True):
        add(servicer, server)


def _adders(servicers: Sequence[Any]) -> list[Callable[[Any, Any], None]]:
    """The generated functions that add these servicers to a server."""
    if not servicers:
        raise CannotServe("the application is an empty list: name at least one servicer")
    return [_adder(servicer) for servicer in servicers]


def _adder(servicer: Any) -> Callable[[Any, Any], None]:
    base = _generated(servicer)
    if base is None:
        instance = (
            "an instance and not the class" if inspect.isclass(servicer) else "of a class that grpcio-tools generated"
        )
        raise CannotServe(f"{servicer!r} is no servicer: it must be {instance}; or register it yourself, in a function")
    adder: Callable[[Any, Any], None] = getattr(sys.modules[base.__module__], f"add_{base.__name__}_to_server")
    return adder


def _generated(servicer: Any) -> type | None:
    """The generated class that a servicer is of, which is beside the function that adds it."""
    for kind in type(servicer).__mro__:
        if hasattr(sys.modules.get(kind.__module__), f"add_{kind.__name__}_to_server"):
            return kind
    return None


def _methods(servicer: Any) -> Iterator[Any]:
    base = _generated(servicer)
    names = () if base is None else [name for name in vars(base) if not name.startswith("_")]
    yield from (getattr(servicer, name) for name in names)
