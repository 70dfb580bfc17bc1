"""Callers known by a secret token, from a table."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from hmac import compare_digest

from interpose import errors
from interpose._identity import Credentials, Identity, is_token
from interpose._kind import kind_of
from interpose.mechanisms.options import insist


class StaticTokens:
    """A verifier for `Authenticate`: bearer tokens from a table, `StaticTokens({token: "billing"})`.

    tokens: from the token to its `Identity`, or to the subject of one. Read them from where you keep secrets; make them
        with `secrets.token_urlsafe()`.

    A token is compared with all of the table, each in constant time: this is for some hundred callers, not for thousands.
    The tokens themselves are not kept, only their SHA-256.

    ValueError listing every fault, by the places in the table: an entry may be a secret, also in the wrong column.
    """

    def __init__(self, tokens: Mapping[str, Identity | str]) -> None:
        table = isinstance(tokens, Mapping)
        insist(
            "StaticTokens",
            (table and bool(tokens), "tokens must be a dict from tokens to identities, like {token: 'billing'}"),
            *(
                (is_token(token), f"token {place} must be a text of letters, digits and -._~+/ only")
                for place, token in enumerate(tokens if table else (), 1)
            ),
            *(
                (
                    isinstance(owner, Identity) or (isinstance(owner, str) and bool(owner)),
                    f"the owner of token {place} must be an Identity or a text, not {_shown(owner)}",
                )
                for place, owner in enumerate(tokens.values() if table else (), 1)
            ),
        )
        self._owners = [
            (_digest(token), owner if isinstance(owner, Identity) else Identity(owner))
            for token, owner in tokens.items()
        ]

    def __call__(self, credentials: Credentials) -> Identity | None:
        token = credentials.token
        if token is None:
            return None
        digest, found = _digest(token), None
        for known, owner in self._owners:  # to the end, so that the time reveals nothing
            if compare_digest(known, digest):
                found = owner
        if found is None:
            raise errors.Unauthenticated("an unknown token")
        return found

    def __repr__(self) -> str:
        return f"<StaticTokens of {len(self._owners)}>"


def _shown(owner: object) -> str:
    """What was given as an owner, which may be a secret in the wrong place."""
    return "an empty one" if owner == "" else kind_of(owner)


def _digest(token: str) -> bytes:
    return sha256(token.encode()).digest()
