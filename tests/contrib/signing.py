"""Keys and tokens for tests: made once, since an RSA key takes a while."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable
from functools import cache
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from interpose import errors
from interpose._flow import Wait
from interpose._identity import Credentials, Identity
from interpose.contrib.jwt import Jwt
from interpose.testing import incoming

NOW = 1_700_000_000.5  # the wall clock of these tests
SECRET = "a-secret-of-sixty-four-bytes-".ljust(64, "x")

CURVES: dict[str, type[ec.EllipticCurve]] = {
    "P-256": ec.SECP256R1,
    "P-384": ec.SECP384R1,
    "P-521": ec.SECP521R1,
    "secp256k1": ec.SECP256K1,
}

# Every algorithm, and a kind of key that it takes.
KIND_OF = {
    **dict.fromkeys(("HS256", "HS384", "HS512"), "oct"),
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), "RSA"),
    "ES256": "P-256",
    "ES384": "P-384",
    "ES512": "P-521",
    "ES256K": "secp256k1",
    "EdDSA": "Ed25519",
}


def private(kind: str, number: int = 0) -> Any:
    """A private key of this kind; another one for each number."""
    return _private(kind, number)


@cache
def _private(kind: str, number: int) -> Any:
    match kind:
        case "oct":
            return f"{number}{SECRET[1:]}".encode()
        case "RSA":
            return rsa.generate_private_key(65537, 2048)
        case "RSA-1024":
            return rsa.generate_private_key(65537, 1024)
        case "Ed25519":
            return ed25519.Ed25519PrivateKey.generate()
        case "Ed448":
            return ed448.Ed448PrivateKey.generate()
    return ec.generate_private_key(CURVES[kind]())


def public(kind: str, number: int = 0) -> Any:
    """The key that tokens are checked with."""
    key = private(kind, number)
    return key if kind == "oct" else key.public_key()


def pem(kind: str, number: int = 0) -> bytes:
    """The public key as PEM."""
    return bytes(public(kind, number).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def private_pem(kind: str) -> bytes:
    """The private key as PEM."""
    return bytes(private(kind).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def jwk(kind: str, number: int = 0, **more: Any) -> dict[str, Any]:
    """The public key as JWK, without an `alg` unless one is given."""
    if kind == "oct":
        made = {"kty": "oct", "k": jwt.utils.base64url_encode(private(kind, number)).decode()}
    elif kind.startswith("RSA"):
        made = RSAAlgorithm.to_jwk(public(kind, number), as_dict=True)
    elif kind.startswith("Ed"):
        made = OKPAlgorithm.to_jwk(public(kind, number), as_dict=True)
    else:
        made = ECAlgorithm.to_jwk(public(kind, number), as_dict=True)
    return {name: value for name, value in made.items() if name != "key_ops"} | more


def jwks(*keys: dict[str, Any]) -> bytes:
    """A document with these keys."""
    return json.dumps({"keys": keys}).encode()


def token(
    algorithm: str = "RS256", *, number: int = 0, kid: str | None = None, header: Any = None, **claims: Any
) -> str:
    """A token of ann's that is good for ten minutes, unless its claims say otherwise; None takes a claim away."""
    said = {"sub": "ann", "exp": NOW + 600, **claims}
    named = {} if kid is None else {"kid": kid}
    left = {name: value for name, value in said.items() if value is not None}
    return jwt.api_jws.encode(  # not jwt.encode: some of these claims it would not write
        json.dumps(left).encode(),
        private(KIND_OF[algorithm], number),
        algorithm,
        {**named, **(header or {})},
    )


def shown(token: str | None) -> Credentials:
    """Credentials with this token."""
    return Credentials(incoming(metadata=[("authorization", f"Bearer {token}")] if token else []), 1 << 20)


def verified(verifier: Jwt, token: str | None) -> Identity | None:
    """What a verifier says of a token, when it waits for nothing but Futures that are set."""
    found = verifier(shown(token))
    if not isinstance(found, Generator):
        return found
    try:
        step = next(found)
        while True:
            assert isinstance(step, Wait)
            try:
                step = found.send(step.awaitable.result(10))  # type: ignore[union-attr]  # a Future
            except errors.StatusError as error:
                step = found.throw(error)
    except StopIteration as end:
        identity: Identity = end.value
        return identity


def refusal(verifier: Jwt, token: str) -> str:
    """Why a token is refused."""
    with pytest.raises(errors.Unauthenticated) as refused:
        verified(verifier, token)
    assert token not in str(refused.value)
    return refused.value.details()


def wall() -> float:
    return NOW


def trusting(*keys: Any, algorithms: Iterable[str] = ("RS256",), **options: Any) -> Jwt:
    """A verifier by this clock that trusts these keys."""
    options = {"wall": wall, **options}
    given = (keys[0] if len(keys) == 1 else list(keys)) if keys else pem("RSA")
    return Jwt(given, algorithms=algorithms, **options)
