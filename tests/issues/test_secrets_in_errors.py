"""An option in the wrong place is refused, and a secret in it is not shown: the error is in a log soon after."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from traceback import format_exception
from typing import Any

import pytest

from interpose.contrib.jwt import Jwks, Jwt
from interpose.contrib.redis import RedisStore
from interpose.interceptors import Authenticate, BearerToken, MutualTls, StaticTokens, Token
from interpose.serving.options import Options

SECRET = "s3cret-s3cret-s3cret-s3cret-s3cret"
KEY = f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----\n"

MISPLACED: dict[str, tuple[Callable[[], object], str]] = {
    "a table of tokens as a verifier": (
        lambda: Authenticate({SECRET: "bob"}),  # type: ignore[arg-type]
        "a verifier must be a function of Credentials, not a dict: write StaticTokens({…})",
    ),
    "a token as a verifier": (lambda: Authenticate(SECRET), "not a str: write StaticTokens({…})"),  # type: ignore[arg-type]
    "a list of tokens as a verifier": (lambda: Authenticate([SECRET]), "of Credentials, not a list"),  # type: ignore[arg-type]
    "a list of tokens as a table": (lambda: StaticTokens([SECRET]), "tokens must be a dict"),  # type: ignore[arg-type]
    "a list as the owner of a token": (lambda: StaticTokens({"a": [SECRET]}), "or a text, not a list"),  # type: ignore[dict-item]
    "a token as a provider": (lambda: BearerToken(SECRET), "provider must be a function"),  # type: ignore[arg-type]
    "a token and its time, the wrong way round": (lambda: Token(3600, SECRET), "or None, not a str"),  # type: ignore[arg-type]
    "a secret as an algorithm": (lambda: Jwt(SECRET, algorithms=[SECRET]), "algorithms must be made of"),
    "keys by what they are": (lambda: Jwt({SECRET: 1}, algorithms=["HS256"]), "entry 1 of keys must be a key"),
    "a key as a source of keys": (lambda: Jwks({"k": SECRET}), "source must be an https URL"),  # type: ignore[arg-type]
    "a URL with a password": (lambda: Jwks(f"https://me:{SECRET}@a.example/keys"), "a URL without a password"),
    "a URL with a secret": (lambda: Jwks(f"ftp://a.example/?key={SECRET}"), "an https URL or the path of a file"),
    "a password as the TLS of a source": (lambda: Jwks("keys.json", ssl=SECRET), "ssl must be an ssl.SSLContext"),  # type: ignore[arg-type]
    "a list of URLs of Redis": (lambda: RedisStore([f"redis://:{SECRET}@a"]), "or a URL, not a list"),
    "a URL of Redis with a slash in its password": (lambda: RedisStore(f"redis://:{SECRET}/1@a"), "the URL is not one"),
    "a URL of Redis without its beginning": (lambda: RedisStore(f":{SECRET}@a:6379"), "the URL is not one of Redis"),
    "a key as the kind of a name": (lambda: MutualTls(KEY), "subject must be made of"),
    "what is in the file of a key": (lambda: Options(tls_key=KEY, tls_cert="a.pem"), "tls_key must be the path"),
}


@pytest.mark.parametrize("misplaced", MISPLACED)
def test_a_secret_in_the_wrong_place_is_not_shown(misplaced: str) -> None:
    """Nor a part of it."""
    make, said = MISPLACED[misplaced]

    with pytest.raises(ValueError) as error:  # noqa: PT011  the texts are in the table
        make()

    assert said in str(error.value)
    assert SECRET[:6] not in "".join(format_exception(error.value))  # with what it follows from, as a log has it


def test_names_that_were_misspelt_are_shown() -> None:
    """They are too short for a secret."""
    make: Callable[..., Any] = partial(Jwt, KEY)

    with pytest.raises(ValueError, match="not 'RS257'"):
        make(algorithms=["RS257"])
    with pytest.raises(ValueError, match="not 'commonname'"):
        MutualTls("commonname")
