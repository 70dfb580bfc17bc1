"""StaticTokens: callers known by a secret token, from a table."""

from typing import Any

import pytest

from interpose import errors
from interpose._identity import Credentials
from interpose.interceptors import Identity, StaticTokens, static_tokens
from interpose.testing import incoming

ANN = Identity("ann", frozenset({"orders.read"}))
TOKENS = {"token-of-ann": ANN, "token-of-bob": "bob"}


def shown(token: str | None) -> Credentials:
    return Credentials(incoming(metadata=[("authorization", f"Bearer {token}")] if token else []), 8192)


def test_a_token_has_its_owner() -> None:
    """As it was given; a text is a subject."""
    tokens = StaticTokens(TOKENS)

    assert tokens(shown("token-of-ann")) is ANN
    assert tokens(shown("token-of-bob")) == Identity("bob")
    assert tokens(shown(None)) is None


@pytest.mark.parametrize("token", ["token", "token-of-ann=", "TOKEN-OF-ANN", "token-of-anna"])
def test_no_other_token_has_one(token: str) -> None:
    """Not a part of one, nor one that is almost the same."""
    with pytest.raises(errors.Unauthenticated, match="an unknown token"):
        StaticTokens(TOKENS)(shown(token))


def test_all_of_the_table_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """In constant time, whichever it is: the whole of each, to the end."""
    compared: list[tuple[int, int]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return one == other

    monkeypatch.setattr(static_tokens, "compare_digest", compare)
    tokens = StaticTokens(TOKENS)

    tokens(shown("token-of-ann"))
    with pytest.raises(errors.Unauthenticated):
        tokens(shown("x"))

    assert compared == [(32, 32)] * 4


def test_tokens_are_not_kept() -> None:
    """Nor shown."""
    tokens = StaticTokens(TOKENS)

    assert "token-of" not in repr(vars(tokens))
    assert repr(tokens) == "<StaticTokens of 2>"


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({}, "tokens must be a dict from tokens to identities"),
        (["token"], "tokens must be a dict from tokens to identities"),
        ({"": "ann"}, "token 1 must be a text of letters, digits"),
        ({"fine": ANN, "two words": ANN}, "token 2 must be a text of letters, digits"),
        ({b"bytes": "ann"}, "token 1 must be a text of letters, digits"),
        ({"token": ""}, "the owner of token 1 must be an Identity or a text, not an empty one"),
        ({"token": None}, "the owner of token 1 must be an Identity or a text, not None"),
        ({"a b": "s3cret", "s3cret": 1}, "token 1 must .*; the owner of token 2 .* not an int$"),
        ({"fine": b"s3cret"}, "the owner of token 1 must be an Identity or a text, not a bytes"),
    ],
)
def test_what_is_no_table_is_refused(given: Any, complaint: str) -> None:
    """Every fault, and never a token, wherever it stands."""
    with pytest.raises(ValueError, match=f"^StaticTokens: {complaint}") as refused:
        StaticTokens(given)

    assert "s3cret" not in str(refused.value)
    assert "two words" not in str(refused.value)


@pytest.mark.parametrize("subject", ["", None, 1, b"ann"])
def test_an_identity_has_a_subject(subject: Any) -> None:
    """A text that is not empty."""
    with pytest.raises(ValueError, match=r"^Identity: subject must be a text"):
        Identity(subject)


@pytest.mark.parametrize("scopes", ["orders.read", b"orders.read", 1, None])
def test_scopes_are_a_set(scopes: Any) -> None:
    """Not one text, which is a set of its letters."""
    with pytest.raises(ValueError, match=r"^scopes must be a set of texts"):
        Identity("ann", scopes)


def test_an_identity_shows_no_claims() -> None:
    """Only its subject and scopes; and two are equal whatever their tokens say besides."""
    identity = Identity("ann", frozenset({"b", "a"}), claims={"email": "ann@example.org"})

    assert repr(identity) == "Identity('ann', scopes=['a', 'b'])"
    assert identity == Identity("ann", frozenset({"a", "b"}))
    assert hash(identity) == hash(Identity("ann", frozenset({"a", "b"})))
    assert Identity("ann", ["a", "a"]).scopes == frozenset({"a"})  # type: ignore[arg-type]  # any iterable does
    assert repr(Identity("bob")) == "Identity('bob')"
