"""The identity of a caller, and the credentials that it is read from."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

from interpose import errors
from interpose._call import Call
from interpose._metadata import Metadata
from interpose._method import Method

AUTHORIZATION = "authorization"

# Characters of a token (RFC 6750, b64token) and of a scope (RFC 6749, scope-token).
_TOKEN = re.compile(r"[A-Za-z0-9._~+/\-]+=*")
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")


def _no_claims() -> Mapping[str, Any]:
    return MappingProxyType({})


class Name(NamedTuple):
    """One name of a caller, and of which kind it is: `Name("uri", "spiffe://example.org/web")`."""

    kind: str
    value: str


@dataclass(frozen=True, slots=True, repr=False)
class Identity:
    """The identity of a caller. Verifiers make it, and `context.identity()` gives it to handlers.

    subject: who it is, in one text; the only part of it that is logged.
    scopes:  what the caller may do, for `require`.
    issuer:  who says so; two issuers may give the same subject to different callers. None: this server itself.
    names:   all names of a TLS certificate.
    claims:  all that a token says, as it was read. Callers with the same token share it: do not change it.

    ValueError if the subject is no text or an empty one, or a scope is none.
    """

    subject: str
    scopes: frozenset[str] = frozenset()
    issuer: str | None = None
    names: tuple[Name, ...] = ()
    claims: Mapping[str, Any] = field(default_factory=_no_claims, hash=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.subject, str) or not self.subject:
            raise ValueError("Identity: subject must be a text that is not empty")
        object.__setattr__(self, "scopes", frozenset(checked_scopes(self.scopes)))

    def __repr__(self) -> str:
        scopes = f", scopes={sorted(self.scopes)}" if self.scopes else ""
        return f"Identity({self.subject!r}{scopes})"


def checked_scopes(scopes: object) -> Iterable[str]:
    """The same scopes; ValueError for what is none."""
    if not isinstance(scopes, (list, frozenset)):
        if isinstance(scopes, (str, bytes)) or not isinstance(scopes, Iterable):
            raise ValueError(f"scopes must be a set of texts, like {{'orders.read'}}, not {scopes!r:.100}")
        scopes = list(scopes)
    for scope in scopes:
        if not is_scope(scope):
            raise ValueError(f"a scope must be a text without spaces, like 'orders.read', not {scope!r:.100}")
    return scopes


def is_scope(scope: object) -> bool:
    """Is it one scope, as OAuth writes it?"""
    return isinstance(scope, str) and _SCOPE.fullmatch(scope) is not None


def is_token(token: object) -> bool:
    """Is it text that can travel as a bearer token?"""
    return isinstance(token, str) and _TOKEN.fullmatch(token) is not None


class Credentials:
    """What a caller shows, for verifiers. Each part is read when it is first asked for.

    A verifier that does not accept it raises `errors.Unauthenticated` with the reason, which only the log is given.
    """

    __slots__ = ("_call", "_max_token")

    def __init__(self, call: Call, max_token: int) -> None:
        self._call = call
        self._max_token = max_token

    @property
    def token(self) -> str | None:
        """The bearer token; None if there is none.

        `errors.Unauthenticated` for one that is too long or malformed, and where there are several.
        """
        shown = self._call.metadata.get_all(AUTHORIZATION)
        if not shown:
            return None
        if len(shown) > 1:
            raise errors.Unauthenticated(f"{len(shown)} values of {AUTHORIZATION}, and one is allowed")
        scheme, _, token = str(shown[0]).partition(" ")
        if scheme.lower() != "bearer":
            return None
        if len(token) > self._max_token:
            raise errors.Unauthenticated(f"a token of {len(token)} characters, and {self._max_token} are allowed")
        if not is_token(token):
            raise errors.Unauthenticated("a token with characters that no token has")
        return token

    @property
    def metadata(self) -> Metadata:
        """All metadata of the call."""
        return self._call.metadata

    @property
    def method(self) -> Method:
        """The method that is called."""
        return self._call.method

    @property
    def peer(self) -> str:
        """The address that the call comes from, as grpc writes it; a proxy's where there is one in between."""
        return self._call.peer or ""

    @property
    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """What the transport knows of the caller, by grpc's own names: with TLS, its certificate."""
        shown: Mapping[str, Iterable[bytes]] = self._call.auth_context
        return shown

    def __repr__(self) -> str:
        return f"<Credentials for {self.method}>"  # never what they are


# An identity, or None: these credentials say nothing to this verifier. A text is short for Identity(text).
Found: TypeAlias = Identity | str | None
Verifier: TypeAlias = Callable[[Credentials], Found | Awaitable[Found] | Generator[Any, Any, Found]]
