"""Which services, methods and messages there are: as the server says by reflection, or as `.proto` files have it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import grpc
from google.protobuf import descriptor_pool

from interpose.cli.connection import Connection
from interpose.cli.failures import Refused, failing
from interpose.cli.options import group
from interpose.cli.protos import compiled
from interpose.cli.reflection import NoReflection, Reflected
from interpose.mechanisms.text import one_line

PATIENCE = 10.0  # seconds for a question to reflection where there is no deadline: grpcurl's time to connect
MOST_TEXT = 256  # characters of a server's text
MOST_SHOWN = 12  # names in an error


class Schema:
    """The types of a server. pool: of protobuf. services: their full names."""

    def __init__(self, pool: Any, services: Callable[[], list[str]], target: str) -> None:
        self.pool = pool
        self._services = services
        self._target = target

    @property
    def services(self) -> list[str]:
        """The full names of all services, in order. Refused if the server does not say them."""
        with self._asking():
            try:
                return self._services()
            except KeyError as error:
                why = one_line(str(error.args[0]), MOST_TEXT)
                raise Refused(f"{self._target} does not say which services it has: {why}; give --proto FILE") from None

    def _known(self) -> list[str]:
        """The services, for an error that names some; none if there are none to be had."""
        with suppress(Refused):
            return self.services
        return []

    def service(self, name: str) -> Any:
        """The descriptor of a service. Refused if there is none, with the names that are close."""
        found = self._find(self.pool.FindServiceByName, name)
        if found is None:
            raise Refused(f"there is no service {name}{_instead(name, self._known())}")
        return found

    def method(self, name: str) -> Any:
        """The descriptor of `package.Service/Method`; a dot may stand for the slash. Refused as for a service."""
        service, method = _split(name)
        methods = self.service(service).methods_by_name
        if method not in methods:
            raise Refused(f"{service} has no method {method}{_instead(method, list(methods))}")
        return methods[method]

    def symbol(self, name: str) -> Any:
        """The descriptor of a service, a method, a message or an enum of this name. Refused if there is none."""
        pool, name = self.pool, name.removeprefix(".").removeprefix("/").replace("/", ".")
        finders = (pool.FindServiceByName, pool.FindMessageTypeByName, pool.FindEnumTypeByName, self._found_method)
        found = next(filter(None, (self._find(finder, name) for finder in finders)), None)
        if found is None:
            raise Refused(f"there is no service, method, message or enum {name}{_instead(name, self._known())}")
        return found

    def _found_method(self, name: str) -> Any:
        service, _, method = name.rpartition(".")  # protobuf's own FindMethodByName asks no database
        return self.pool.FindServiceByName(service).methods_by_name[method]

    def _find(self, finder: Callable[[str], Any], name: str) -> Any:
        with self._asking():
            try:
                return finder(name)
            except KeyError:
                return None

    @contextmanager
    def _asking(self) -> Generator[None, None, None]:
        """What can go wrong with questions to the server."""
        try:
            with failing("server reflection", self._target):
                yield
        except NoReflection:
            raise Refused(f"{self._target} has no server reflection: give --proto FILE") from None
        except TypeError as error:  # of protobuf: a file that does not fit to others
            raise Refused(f"the descriptors of {self._target} do not go together: {error}") from None


def _split(name: str) -> tuple[str, str]:
    service, slash, method = name.removeprefix("/").rpartition("/" if "/" in name.removeprefix("/") else ".")
    if not (service and slash and method):
        raise Refused(f"{name!r} is no method: write package.Service/Method")
    return service, method


def _instead(name: str, names: Iterable[str]) -> str:
    """The names that may have been meant, or all if none is close."""
    known = sorted(names)
    lower = {each.lower(): each for each in known}
    close = [lower[each] for each in difflib.get_close_matches(name.lower(), lower, 3, 0.6)]
    close += [each for each in known if each.rpartition(".")[2].lower() == name.rpartition(".")[2].lower()]
    if close:
        return f"; did you mean {' or '.join(dict.fromkeys(close))}?"
    return f"; there are: {', '.join(known[:MOST_SHOWN])}{' …' if known[MOST_SHOWN:] else ''}" if known else ""


@dataclass(frozen=True, slots=True)
class Source:
    """Where the types come from: protos and where to look for them, or the server's reflection if there are none."""

    protos: tuple[str, ...]
    paths: tuple[Path, ...]

    def schema(self, connection: Connection, channel: grpc.Channel) -> Schema:
        """The types of this server."""
        if self.protos:
            pool, services = compiled(self.protos, self.paths)
            return Schema(pool, lambda: services, connection.target)
        reflected = Reflected(channel, connection.metadata, connection.timeout or PATIENCE)
        return Schema(descriptor_pool.DescriptorPool(reflected), reflected.services, connection.target)


OPTIONS = (
    click.option("--proto", "protos", multiple=True, metavar="FILE",
                 help="Take the types from this file, and not from the server's reflection."),
    click.option("-I", "--import-path", "paths", multiple=True, metavar="DIR", type=click.Path(path_type=Path),
                 help="Look for protos and their imports here. Default: where each --proto is."),
)  # fmt: skip


# Gives a command these options: it is called with `source`.
with_protos = group(OPTIONS, "source", Source, "protos", "paths")
