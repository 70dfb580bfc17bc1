"""What `Authenticate` and `Authorize` have in common: tables of methods, and how a guard fails closed."""

from __future__ import annotations

import inspect
import logging
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from grpc import StatusCode

from interpose import errors
from interpose._executed import is_downstream
from interpose._flow import NO_WAITING, body_of
from interpose._method import Method
from interpose._patterns import Patterns, globs_of
from interpose._served import Served
from interpose.mechanisms.text import one_line

# What a server answers without asking who calls: load balancers and tools come without credentials.
HEALTH_AND_REFLECTION = (
    "/grpc.health.v1.Health/*",
    "/grpc.reflection.v1.ServerReflection/*",
    "/grpc.reflection.v1alpha.ServerReflection/*",
)

MAX_METHODS = 4096  # answers remembered; a generic handler may answer to any name that a peer makes up
MAX_TEXT = 256  # characters in the log of a method, a peer, a subject or a reason

SYNC = "give a plain function, or a generator that waits for a Future"  # instead of an async one

_ENDS = {StatusCode.CANCELLED, StatusCode.DEADLINE_EXCEEDED, StatusCode.UNAVAILABLE}  # by client, time, server

V = TypeVar("V")

_log = logging.getLogger("interpose")


class Table(Generic[V]):
    """Rows of pattern and value: the first that fits a method decides."""

    __slots__ = ("_known", "rows")

    def __init__(self, rows: Mapping[str, V]) -> None:
        self.rows = [(row, Patterns(row), value) for row, value in rows.items()]
        self._known: dict[str, V | None] = {}

    def get(self, method: Method) -> V | None:
        """The value of the first row that fits; None if none does."""
        name = method.full_name
        if name in self._known:
            return self._known[name]
        value = next((value for _, fits, value in self.rows if fits(name)), None)
        if len(self._known) < MAX_METHODS:
            self._known[name] = value
        return value


def listed(patterns: Any) -> Any:
    """Patterns as a tuple, if they are an iterable of some."""
    return patterns if isinstance(patterns, str) or not isinstance(patterns, Iterable) else tuple(patterns)


def is_async(function: Any) -> bool:
    """Is it an `async def` function, or an object that is called like one?"""
    return inspect.iscoroutinefunction(body_of(function))


def blamed(name: str, error: BaseException) -> str:
    """What a function of the application failed with, and where; never the exception's text, which may hold a token."""
    if type(error) is TypeError and NO_WAITING in str(error):
        return f"{name} is async, and this is the sync side: {SYNC}"
    frames = "".join(traceback.format_list(traceback.extract_tb(error.__traceback__)[1:]))
    return f"{name} raised {type(error).__name__}\n{frames}".rstrip()


def is_over(error: BaseException) -> bool:
    """Did the RPC end while a function of the application was waited for? Then there is no call to judge any more.

    That is for the server to say. What a call of the function's own ended with is a failure like any other.
    """
    return isinstance(error, errors.StatusError) and error.local and error.code() in _ENDS and not is_downstream(error)


def shown(text: str | None) -> str:
    """Untrusted text, for the log."""
    return one_line(text or "", MAX_TEXT)


def note(message: str, details: Any, hook: Callable[[Any], object] | None) -> None:
    """Write a refusal to the log, a fault as an error; and call the hook, if there is one."""
    _log.log(logging.ERROR if details.fault else logging.INFO, "%s: %s", message, details.reason)
    if hook is not None:
        try:
            hook(details)
        except Exception:
            _log.exception("a hook failed, and the call is refused all the same: %s", message)


def unmatched(owner: str, field: str, rows: Iterable[str], served: Served) -> Iterator[str]:
    """A fault for each row of a table that fits no method. Where any method may be served it is a warning in the log."""
    for row in rows:
        for glob in globs_of(row):
            fits = Patterns(glob)
            if any(fits(method.full_name) for method in served.methods):
                continue
            fault = f"{owner}: {field} {row!r} fits no method of this server: {_hint(glob, served.methods)}"
            if not served.generic:
                yield fault
                continue
            _log.warning("%s, unless a generic handler serves it", fault)


def _hint(glob: str, methods: tuple[Method, ...]) -> str:
    """What may have been meant: the methods with that name or of that service, as far as there are some."""
    service, _, name = glob[1:].partition("/")
    near = [method.full_name for method in methods if name == method.name or service == method.service]
    return f"it serves {', '.join((near or [method.full_name for method in methods])[:5])}"
