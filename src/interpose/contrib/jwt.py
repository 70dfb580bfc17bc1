"""Callers known by a JSON Web Token. Needs the extra `jwt`."""

from __future__ import annotations

import json
import math
import re
import time
from binascii import a2b_base64
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass
from hashlib import sha256
from types import MappingProxyType
from typing import Any, NamedTuple

from interpose import errors
from interpose._identity import Credentials, Identity
from interpose._kind import name_or_kind
from interpose.contrib.jwks import Jwks, JwksState
from interpose.contrib.signing_keys import HMAC_BYTES, KINDS, Key, Keys, given_keys, key_of
from interpose.mechanisms.lru import Lru
from interpose.mechanisms.options import check_options, is_number, must_be, option, whole
from interpose.mechanisms.tally import Tally
from interpose.mechanisms.text import one_line

import jwt  # isort: skip  # after ours, which says what to install if it is missing

__all__ = ["Jwks", "JwksState", "Jwt", "JwtState"]

LEEWAY = 10.0  # seconds that clocks may differ
MOST_LEEWAY = 600.0
LONGEST_ALGORITHM = 8  # characters; far shorter than a secret that is good for one
KEPT = 4096  # verified tokens
MAX_SHOWN = 64  # characters in the log of what a token says
LATEST = 1e12  # seconds since 1970; some 30,000 years from now

HEADERS = 64  # of good tokens; an issuer has a header for each key

# signed part (header . payload) . signature, each in base64url without padding (RFC 7515, 7.1)
_PARTS = re.compile(r"(([A-Za-z0-9_\-]+)\.([A-Za-z0-9_\-]+))\.([A-Za-z0-9_\-]+)")
_json = json.JSONDecoder().decode


@dataclass(frozen=True, slots=True, kw_only=True)
class JwtState:
    """What a `Jwt` has done so far. verified: tokens that were checked. refused: that were not good.

    reused: calls whose token had been checked before. kept: tokens that are remembered now. keys: of a `Jwks`, or None.
    """

    verified: int
    refused: int
    reused: int
    kept: int
    keys: JwksState | None


class _Header(NamedTuple):
    """What a token says of how it is signed."""

    algorithm: str
    kid: str | None


class _Verified(NamedTuple):
    """A token that was good, and for how long it is, in seconds since 1970."""

    identity: Identity
    key: Key
    starts: float
    until: float


# - what holds of its options -


def _texts(values: list[Any]) -> bool:
    return all(isinstance(value, str) and value for value in values)


def _is_leeway(value: object) -> bool:
    return is_number(value) and 0 <= value <= MOST_LEEWAY


def _is_claim(value: object) -> bool:
    return isinstance(value, str) and bool(value)


@dataclass(eq=False, repr=False)
class Jwt:
    """A verifier for `Authenticate`: bearer tokens that are signed JSON Web Tokens.

    keys:       a `Jwks`; or a PEM, a certificate, a JWK, a JWKS document, a secret, or a public key of cryptography; or
        several of these, as a list or by key id. RSA keys have 2048 bits or more, secrets as many bytes as the hash.
    algorithms: those that are accepted, like ["RS256"]. Secrets (HS…) and public keys are never mixed, "none" is none.
    audience:   a token has to be for this one, or one of these. None: only tokens without an audience.
    issuer:     a token has to be of this one, or one of these. None: any that holds the key.
    leeway:     seconds that clocks may differ. A token is good from `nbf` and `iat` less this to `exp` plus this, to the
        fraction of a second: at `exp + leeway` it is not.
    require:    claims that a token must have. Without `exp` it would be good for ever.
    subject:    the claim that identifies the caller: the subject of the identity. A token without it is refused.
    scopes:     the claim that says what the caller may do: a text of scopes between spaces, or a list of them. `scp` is
        read where `scope` is missing.
    keep:       how many good tokens are remembered, so that a token is checked once and then found again: by its SHA-256,
        as long as it and its key are good. 0: none.
    wall:       gives seconds since 1970. It runs where the call does: on the thread of its handler, or in the event loop. What
        it raises refuses the call, as a fault.

    Defaults: leeway 10 s, for clocks that a time server sets; `exp` is required, or a token would be good for ever; 4096
    tokens are kept, one for each caller of a busy server.

    ValueError listing every fault of these. Whatever is wrong with a token or with the keys, its call is refused with
    UNAUTHENTICATED.
    """

    keys: Any
    _: KW_ONLY
    algorithms: Iterable[str]
    audience: str | Iterable[str] | None = option(None, must_be("a text or a list of them", _texts))
    issuer: str | Iterable[str] | None = option(None, must_be("a text or a list of them", _texts))
    leeway: float = option(LEEWAY, must_be(f"from 0 to {MOST_LEEWAY:g} seconds", _is_leeway))
    require: Iterable[str] = option(("exp",), must_be("a list of claims, like ['exp']", _texts))
    subject: str = option("sub", must_be("a claim, like 'sub'", _is_claim))
    scopes: str = option("scope", must_be("a claim, like 'scope'", _is_claim))
    keep: int = option(KEPT, whole(0, 10**6))
    wall: Callable[[], float] = option(time.time, must_be("a function like time.time", callable))

    def __post_init__(self) -> None:
        for name in ("algorithms", "audience", "issuer", "require"):
            setattr(self, name, _listed(getattr(self, name)))  # read once
        names = list(self.algorithms)
        found, faults = (self.keys, []) if isinstance(self.keys, Jwks) else _given(self.keys, names)
        check_options(self, *_algorithm_requirements(names), *((False, fault) for fault in faults))
        self.keys = found  # no secret as it was given is kept
        self._algorithms, self._required = frozenset(names), tuple(self.require)
        self._audiences, self._issuers = frozenset(self.audience or ()), frozenset(self.issuer or ())
        self._second_scopes = "scp" if self.scopes == "scope" else self.scopes
        # PyJWT checks signatures. The rest is done here: its reading of a token takes longer than that, and it cuts the
        # times in it to whole seconds, not all in the same way.
        self._checks = {name: jwt.get_algorithm_by_name(name).verify for name in names}
        self._kept: Lru[bytes, _Verified] = Lru(self.keep)
        self._headers: Lru[str, _Header] = Lru(HEADERS)
        self._tally = Tally("verified", "refused", "reused")

    def __call__(self, credentials: Credentials) -> Identity | Generator[Any, Any, Identity] | None:
        token = credentials.token
        if token is None:
            return None
        now = self.keys.now()
        if now >= self.keys.due:
            self.keys.renew()
        digest, wall = sha256(token.encode()).digest(), self.wall()
        kept = self._kept.get(digest, wall)
        if kept is not None and kept.starts <= wall and kept.key.is_good(now):
            self._tally.add("reused")
            return kept.identity
        return self._examined(token, digest)

    def snapshot(self) -> JwtState:
        """What it has done so far."""
        return JwtState(
            verified=self._tally["verified"],
            refused=self._tally["refused"],
            reused=self._tally["reused"],
            kept=len(self._kept),
            keys=self.keys.snapshot() if isinstance(self.keys, Jwks) else None,
        )

    def __repr__(self) -> str:
        return f"<Jwt, {', '.join(sorted(self._algorithms))}>"

    # - a token that is not known -

    def _examined(self, token: str, digest: bytes) -> Generator[Any, Any, Identity]:
        """The holder of this token; `errors.Unauthenticated` with the reason if it is not good."""
        try:
            signed, written, payload, signature = _parts(token)
            header = self._headers.get(written, 0.0) or self._read_header(written)
            keys = self.keys.find(header.kid, header.algorithm)
            if not keys:
                keys = yield from self.keys.find_later(header.kid, header.algorithm)
            key = self._signer(signed.encode(), _decoded(signature), header, keys)
            verified = self._lasting(_object(payload), key)
        except errors.Unauthenticated:
            self._tally.add("refused")
            raise
        self._tally.add("verified")
        self._headers.put(written, header, math.inf)
        self._kept.put(digest, verified, verified.until)
        return verified.identity

    def _read_header(self, written: str) -> _Header:
        """Algorithm and key id that the token names. Both are only words yet."""
        header = _object(written)
        algorithm, kid = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str) or algorithm not in self._algorithms:
            raise errors.Unauthenticated(f"a token with the algorithm {_said(algorithm)}, which is not accepted")
        if not (kid is None or isinstance(kid, str)):
            raise errors.Unauthenticated("a token with a kid that is no text")
        # RFC 7515, 4.1.11: what is critical and not understood makes it invalid.
        if "crit" in header or "b64" in header:
            raise errors.Unauthenticated("a token with extensions that are critical to it")
        return _Header(algorithm, kid)

    def _signer(self, signed: bytes, signature: bytes, header: _Header, keys: Iterable[Key]) -> Key:
        """The key that it is signed with."""
        check, reason = self._checks[header.algorithm], "of which no key is known"
        for key in keys:
            try:
                if check(signed, key.material, signature):
                    return key
                reason = "whose signature is wrong"
            except Exception as error:  # for a key or a signature that PyJWT does not like; its text may hold either
                reason = f"that cannot be checked: {type(error).__name__}"
        raise errors.Unauthenticated(f"a token {reason}: key {_said(header.kid)}, {header.algorithm}")

    def _lasting(self, claims: Mapping[str, Any], key: Key) -> _Verified:
        """The holder, and for how long; `errors.Unauthenticated` unless it is for here and now."""
        self._check_addresses(claims)
        starts = max(_time_of(claims, "nbf", -LATEST), _time_of(claims, "iat", -LATEST)) - self.leeway
        until = _time_of(claims, "exp", LATEST) + self.leeway
        wall = self.wall()
        if wall < starts:
            raise errors.Unauthenticated(f"a token that is good in {starts - wall:.1f} s, leeway included")
        if wall >= until:
            raise errors.Unauthenticated(f"a token that expired {wall - until:.1f} s ago, leeway included")
        return _Verified(self._identity(claims), key, starts, until)

    def _check_addresses(self, claims: Mapping[str, Any]) -> None:
        """Is it for this server, and of an issuer that is trusted?"""
        for name in self._required:
            if claims.get(name) is None:
                raise errors.Unauthenticated(f"a token without the claim {name}")
        issuer, audience = claims.get("iss"), claims.get("aud")
        if self._issuers and not (isinstance(issuer, str) and issuer in self._issuers):
            raise errors.Unauthenticated(f"a token of the issuer {_said(issuer)}")
        # RFC 7519, 4.1.3: a token for others is refused, also by a server that has no name for itself.
        if not (_is_for(audience, self._audiences) if self._audiences else audience in (None, [])):
            raise errors.Unauthenticated(f"a token for the audience {_said(audience)}")

    def _identity(self, claims: Mapping[str, Any]) -> Identity:
        subject, issuer = claims.get(self.subject), claims.get("iss")
        if not isinstance(subject, str) or not subject:
            raise errors.Unauthenticated(f"a token without a text in the claim {self.subject}")
        try:
            return Identity(
                subject,
                _scopes(claims.get(self.scopes) or claims.get(self._second_scopes)),
                issuer if isinstance(issuer, str) else None,
                claims=MappingProxyType(claims),
            )
        except ValueError:
            raise errors.Unauthenticated("a token with scopes that are neither a text nor a list of them") from None


def _scopes(said: object) -> Any:
    """Scopes as a token says them, in a text or a list; `Identity` looks at each."""
    if isinstance(said, str):
        return said.split()
    if said is None or isinstance(said, list):
        return said or ()
    raise ValueError


def _parts(token: str) -> tuple[str, ...]:
    """What is signed, its two halves, and the signature, as they are written."""
    parts = _PARTS.fullmatch(token)
    if parts is None:
        raise errors.Unauthenticated("a token that is no JWT")
    return parts.groups()


def _decoded(part: str) -> bytes:
    try:
        # `urlsafe_b64decode` takes three times as long.
        return a2b_base64(part.replace("-", "+").replace("_", "/") + "==")
    except ValueError:
        raise errors.Unauthenticated("a token that is no JWT") from None


def _object(part: str) -> dict[str, Any]:
    """A part of a token as the JSON object that it is."""
    try:
        loaded = _json(_decoded(part).decode())
    except (ValueError, RecursionError):
        loaded = None
    if not isinstance(loaded, dict):
        raise errors.Unauthenticated("a token that is no JWT")
    return loaded


def _is_for(audience: object, us: frozenset[str]) -> bool:
    """Is one of these names in the claim, which is a text or a list of them?"""
    if isinstance(audience, str):
        return audience in us
    return isinstance(audience, list) and any(isinstance(one, str) and one in us for one in audience)


def _time_of(claims: Mapping[str, Any], name: str, missing: float) -> float:
    """A claim in seconds since 1970."""
    value = claims.get(name, missing)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not -LATEST <= value <= LATEST:
        raise errors.Unauthenticated(f"a token with a time in {name} that is none")
    return value


def _said(value: object) -> str:
    """What a token says, for the log."""
    return one_line(repr(value), MAX_SHOWN)


# --- options ----------------------------------------------------------------------------------------------------------


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, Iterable) and not isinstance(value, (str, bytes)) else [value]


def _algorithm_requirements(names: list[Any]) -> Iterator[tuple[bool, str]]:
    yield bool(names), "algorithms must name at least one, like ['RS256']; what a token names is only its word"
    for name in names:
        if isinstance(name, str) and name.lower() == "none":
            yield False, f"algorithms must not have {name!r}: such a token is signed by anybody"
        else:
            yield (
                isinstance(name, str) and name in KINDS,
                f"algorithms must be made of {', '.join(KINDS)}, not {name_or_kind(name, LONGEST_ALGORITHM)}",
            )
    secret = [isinstance(name, str) and name in HMAC_BYTES for name in names]
    yield (
        all(secret) or not any(secret),
        "algorithms must not mix HS… with others: anybody who knows a public key could sign with it as a secret",
    )


def _given(keys: Any, algorithms: list[Any]) -> tuple[Keys, list[str]]:
    """Keys that the application gives, and what is wrong with them."""
    known = [name for name in algorithms if isinstance(name, str) and name in KINDS]
    found: list[Key] = []
    faults: list[str] = []
    for what, given, kid in given_keys(keys):
        try:
            key = key_of(given, kid)
        except ValueError as fault:
            faults.append(f"{what} must be a key, not {fault}")
            continue
        found.append(key)
        faults += [f"{what} {fault}" for fault in _misfits(key, known)]
    if not found and not faults:
        faults.append("keys must have at least one")
    return Keys(found), faults


def _misfits(key: Key, algorithms: list[str]) -> Iterator[str]:
    """Why a key is of no use with these algorithms."""
    if key.kind == "oct":
        for name in algorithms:
            if len(key.material) < HMAC_BYTES.get(name, 0):
                yield f"must be a secret of at least {HMAC_BYTES[name]} bytes for {name}, not of {len(key.material)}"
    if algorithms and not any(key.kind in KINDS[name] and key.stated in (None, name) for name in algorithms):
        yield f"is of the kind {key.kind}, which none of {', '.join(algorithms)} takes"
