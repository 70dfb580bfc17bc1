"""Patterns on the names of methods: the one language of `when` and of every table of methods in a guard.

    /shop.v1.Catalog/GetItem                a method
    /shop.v1.Catalog/*                      all of a service
    /shop.v1.*/Get*                         `*`: any text, "." and "/" included; `?`: one character; `[a-z]`: one of these
    /shop.v1.Catalog/{GetItem,PlaceOrder}   braces: one of these
    *                                       everything

A pattern must fit the whole name. Capitals count. The first "/" may be left out.

A pattern that can match no method is refused: in a guard it would let every call pass unguarded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from fnmatch import translate
from typing import Any

MAX_GLOBS = 256  # what the braces of one pattern may expand to; a longer list is better said by a function

# None of these is in the name of a method (protobuf: letters, digits, "_" and "."); most come from a regular expression.
_STRANGE = re.compile(r"[\s\\^$|()+,;#\"']|://")
_BRACES = re.compile(r"\{([^{}]*)\}")  # an innermost pair
_WILD = re.compile(r"[*?\[]")
EVERYTHING = ("*", "**")


class Patterns:
    """One pattern or several, as a predicate on full names: `Patterns("/grpc.health.v1.Health/*")(method.full_name)`.

    given: a pattern, or an iterable of them; none at all match nothing.

    ValueError listing every fault, each with what to write instead; `owner` and `field` say where it was given.
    """

    __slots__ = ("_fits", "given", "globs")

    def __init__(self, given: str | Iterable[str], *, owner: str = "when", field: str = "the pattern") -> None:
        self.given: tuple[str, ...] = listed(given)
        if faults := list(faults_of(self.given, field)):
            raise ValueError(f"{owner}: {'; '.join(faults)}")
        self.globs = tuple(dict.fromkeys(glob for pattern in self.given for glob in globs_of(pattern)))
        self._fits = re.compile("|".join(map(translate, self.globs)) or r"(?!)").match

    def __call__(self, full_name: str) -> bool:
        """Does one of them fit this name, like "/shop.v1.Catalog/GetItem"?"""
        return self._fits(rooted(full_name)) is not None

    def __repr__(self) -> str:
        return repr(self.given[0] if len(self.given) == 1 else list(self.given))


def faults_of(given: object, field: str = "the pattern") -> Iterator[str]:
    """What is wrong with a pattern or an iterable of them, one text for each fault; for `insist` of a battery's options."""
    for pattern in listed(given):
        fault = _fault(pattern) if isinstance(pattern, str) else "is no text: write '/package.Service/Method'"
        if fault:
            yield f"{field} {pattern!r} {fault}"


def patterns(name: str, given: object) -> Iterator[str]:
    """The same, as the rule of an option."""
    return faults_of(given, name)


def listed(given: Any) -> tuple[Any, ...]:
    """One pattern or several, read once."""
    one = isinstance(given, (str, bytes)) or not isinstance(given, Iterable)
    return (given,) if one else tuple(given)


def globs_of(pattern: str) -> list[str]:
    """A pattern without braces: the globs that it stands for, each with its first "/"."""
    unfinished, globs = [pattern], []
    while unfinished:
        text = unfinished.pop()
        braces = _BRACES.search(text)
        if braces is None:
            globs.append("/*" if text in EVERYTHING else rooted(text))
            continue
        before, after = text[: braces.start()], text[braces.end() :]
        unfinished += [f"{before}{choice}{after}" for choice in reversed(braces[1].split(","))]
        if len(unfinished) + len(globs) > MAX_GLOBS:
            raise ValueError(f"stands for more than {MAX_GLOBS} methods: give a function of the Method")
    return globs


def rooted(name: str) -> str:
    """The name with its first "/"."""
    return name if name.startswith("/") else f"/{name}"


def is_literal(glob: str) -> bool:
    """Is there no wildcard in it?"""
    return _WILD.search(glob) is None


def _fault(pattern: str) -> str | None:
    """Why a pattern can match no method, and what to write instead."""
    try:
        globs = globs_of(pattern)
    except ValueError as error:
        return str(error)
    return next(filter(None, map(_fault_of_glob, globs)), None)


def _fault_of_glob(glob: str) -> str | None:
    strange = _STRANGE.search(glob)
    if strange or glob.startswith("/!"):
        return (
            f"has {strange[0] if strange else '!'!r}, which is in no name of a method: several patterns are a list, "
            "alternatives are written in braces, and anything else is said by a function of the Method"
        )
    if "{" in glob or "}" in glob or re.search(r"\[[^\]]*$", glob):
        return "has a brace or bracket without its other half: write '/shop.v1.Orders/{Get,List}*'"
    if glob == "/*":
        return None
    service, slash, name = glob[1:].partition("/")
    if service and name:
        return None
    if not service:
        return "names no service: write '/package.Service/Method'"
    return f"names no method: {_suggestion(service, slash)}"


def _suggestion(service: str, slash: str) -> str:
    """What somebody may have meant by a name without a method."""
    owner, dot, last = service.rpartition(".")
    whole = f"'/{service}/*' for all of a service"
    if slash or not dot:
        return f"write {whole}"
    if last == "*":
        return f"write '/{owner}/*' for all of a service, or '/{service}/*' for all of a package"
    return f"write {whole}, or '/{owner}/{last}' for one method"
