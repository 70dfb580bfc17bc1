"""Patterns that match none of the methods that are used: reported once, since what they guard passes unguarded."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from fnmatch import translate

from interpose._method import Method
from interpose._patterns import is_literal

ENOUGH = 16  # distinct methods, after which a pattern that has matched none is reported; a service seldom has more
MAX_SHOWN = 200  # characters of a method's name, which on a server any peer may have chosen

_log = logging.getLogger("interpose")


class Unmatched:
    """The globs of one `when` that have matched no method yet.

    A glob is reported at once if a method shows what was meant: another case, another package, no such method in the
    service; after `ENOUGH` methods in any case, and when a channel is closed that has had any. Kept: at most that many
    names. Without a lock: each step is a single one, and at worst a line is written twice.
    """

    __slots__ = ("_owner", "_seen", "_waiting")

    def __init__(self, globs: Iterable[str], owner: Callable[[], str]) -> None:
        self._owner = owner
        self._waiting = {glob: re.compile(translate(glob)) for glob in globs}
        self._seen: set[str] = set()

    def see(self, method: Method) -> None:
        """A method is used for the first time, by a stub or on a server."""
        if not self._waiting:
            return
        self._seen.add(method.full_name)
        for glob, fits in list(self._waiting.items()):
            if fits.match("/" + method.full_name.removeprefix("/")):
                self._waiting.pop(glob, None)
            elif meant := _meant(glob, method):
                self._report(glob, f"does not match {_shown(method)}: {meant}")
        if len(self._seen) >= ENOUGH:
            self.close()

    def close(self) -> None:
        """No more methods will be seen, or there were enough."""
        if self._seen:
            for glob in list(self._waiting):
                self._report(glob, f"has matched no method so far (methods used: {len(self._seen)})")
        self._seen.clear()

    def _report(self, glob: str, fault: str) -> None:
        if self._waiting.pop(glob, None) is not None:
            _log.warning(
                "%s: %s %s; what it does not match passes without these interceptors", self._owner(), glob, fault
            )


def _shown(method: Method) -> str:
    return f"{method.full_name!r:.{MAX_SHOWN}}"


def _meant(glob: str, method: Method) -> str | None:
    """What somebody meant who wrote this glob, to judge by a method that it does not match; None if that is unknown."""
    if re.match(translate(glob), method.full_name, re.IGNORECASE):
        return "capitals count"
    service, _, name = glob[1:].partition("/")
    if not is_literal(service) or (service != method.service and _is_known(service, method)):
        return None
    if service == method.service:
        return _no_such_method(glob, name, method)
    package, _, bare = service.rpartition(".")
    same = bare.casefold() == method.service.rpartition(".")[2].casefold()
    if same and (not package or method.descriptor is not None):
        return f"write '/{method.service}/{name}' if that service is meant"
    if package == method.package and get_close_matches(service, [method.service], cutoff=0.9):
        return f"write '/{method.service}/{name}' if that service is meant"
    return None


def _no_such_method(glob: str, name: str, method: Method) -> str | None:
    """The service is there; what is wrong if it has no method that the glob matches, to judge by its proto."""
    if method.descriptor is None:
        return None
    names = [other.name for other in method.descriptor.containing_service.methods]
    if any(re.match(translate(glob), f"/{method.service}/{other}") for other in names):
        return None
    near = get_close_matches(name, names, 1)
    hint = f"; write '/{method.service}/{near[0]}' if that method is meant" if near else ""
    return f"{method.service} has no such method{hint}"


def _is_known(service: str, method: Method) -> bool:
    """Has the application loaded a proto with this service?"""
    if method.descriptor is None:
        return False
    try:
        method.descriptor.containing_service.file.pool.FindServiceByName(service)
    except KeyError:
        return False
    return True
