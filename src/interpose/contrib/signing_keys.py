"""The keys that tokens are checked with, and which tokens each of them is for. Needs the extra `jwt`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any

try:
    import jwt
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
    from jwt.algorithms import get_default_algorithms
except ImportError as missing:
    raise ImportError('JSON Web Tokens need packages more: pip install "interpose[jwt]"') from missing

from interpose._kind import kind_of
from interpose.mechanisms.text import one_line

OVERLAP = 60.0  # seconds that a key is good for after it has left the set
MAX_KEYS = 64  # of one set; real ones have two to ten
MAX_KID = 256  # characters of a key id in the log

RSA_BITS = 2048  # NIST SP 800-131A, and where PyJWT begins to warn
HMAC_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}  # RFC 7518, 3.2: at least as long as the hash

_CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521", "secp256k1": "secp256k1"}

# The kinds of keys that an algorithm takes (RFC 7518, RFC 8037, RFC 8812).
KINDS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(HMAC_BYTES, ("oct",)),
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), ("RSA",)),
    "ES256": ("P-256",),
    "ES384": ("P-384",),
    "ES512": ("P-521",),
    "ES256K": ("secp256k1",),
    "EdDSA": ("Ed25519", "Ed448"),
}

# Which algorithm of PyJWT reads a JWK of this `kty`; what the JWK says of its algorithm is compared later.
_READERS = {"RSA": "RS256", "EC": "ES256", "OKP": "EdDSA", "oct": "HS256"}
_ALIASES = {"Ed25519": "EdDSA", "Ed448": "EdDSA"}  # RFC 9864


class BadKey(ValueError):
    """What is wrong with a key, or with a set of them."""


class Key:
    """One key, and which tokens it may be tried on."""

    __slots__ = ("kid", "kind", "material", "retired", "source", "stated")

    def __init__(self, material: Any, kid: str | None = None, stated: str | None = None, source: bytes = b"") -> None:
        """material: as PyJWT takes it. stated: the one algorithm that it is for. `BadKey` for what is no good key."""
        self.material = material
        self.kind = _kind_of(material)
        self.kid = kid
        self.stated = _ALIASES.get(stated, stated) if stated is not None else None
        self.source = source
        self.retired: float | None = None  # since when it is in the set no more

    def fits(self, algorithm: str) -> bool:
        """May a token that names this algorithm be checked with it?"""
        long_enough = self.kind != "oct" or len(self.material) >= HMAC_BYTES.get(algorithm, 0)
        return self.kind in KINDS[algorithm] and self.stated in (None, algorithm) and long_enough

    def is_good(self, now: float) -> bool:
        """Is it in the set, or has it been until a moment ago?"""
        return self.retired is None or now < self.retired + OVERLAP

    def __repr__(self) -> str:
        return f"<Key {self.kid!r}, {self.kind}>"  # never what it is


def _kind_of(material: Any) -> str:
    """What sort of key it is; `BadKey` with what is wrong with it."""
    match material:
        case bytes():
            get_default_algorithms()["HS256"].prepare_key(material)  # refuses what is a public key in disguise
            return "oct"
        case rsa.RSAPublicKey():
            if material.key_size < RSA_BITS:
                raise BadKey(f"an RSA key of {material.key_size} bits: at least {RSA_BITS} are needed")
            return "RSA"
        case ec.EllipticCurvePublicKey():
            return _CURVES.get(material.curve.name, material.curve.name)
        case ed25519.Ed25519PublicKey():
            return "Ed25519"
        case ed448.Ed448PublicKey():
            return "Ed448"
        case _:
            if "Private" in type(material).__name__:
                raise BadKey("a private key: give the public one, a verifier needs no more")
            raise BadKey(kind_of(material))


def key_of(given: Any, kid: str | None = None) -> Key:
    """A key as an application gives it: a PEM, a certificate, a JWK, a secret, or a key object of cryptography.

    `BadKey`, which never has the key in its text.
    """
    if isinstance(given, Mapping):
        return key_of_jwk(given, kid)
    if isinstance(given, (str, bytes)):
        given = given.encode() if isinstance(given, str) else given
        given = _opened(given) if given.lstrip().startswith(b"-----BEGIN") else given
    return _made(lambda: Key(given, kid))


def _opened(pem: bytes) -> Any:
    try:
        if b"CERTIFICATE" in pem:
            return x509.load_pem_x509_certificate(pem).public_key()
        if b"PRIVATE" in pem:
            return serialization.load_pem_private_key(pem, None)
        return serialization.load_pem_public_key(pem)
    except Exception as error:
        raise BadKey(f"a PEM that cannot be read: {type(error).__name__}") from None


def key_of_jwk(jwk: Mapping[str, Any], kid: str | None = None) -> Key:
    """A JWK (RFC 7517). `BadKey` for one that is not for checking signatures, or not known here."""
    reader = _READERS.get(str(jwk.get("kty")))
    if reader is None:
        raise BadKey(f"a kty that is not known here: {jwk.get('kty')!r:.40}")
    if jwk.get("use", "sig") != "sig" or "verify" not in jwk.get("key_ops", ("verify",)):
        raise BadKey("a key that is not for signatures")
    own_id, stated = jwk.get("kid"), jwk.get("alg")
    if not all(text is None or isinstance(text, str) for text in (own_id, stated)):
        raise BadKey("a kid or alg that is no text")

    def make() -> Key:
        material = jwt.PyJWK({**jwk, "alg": reader}, reader).key
        source = sha256(json.dumps(dict(jwk), sort_keys=True).encode()).digest()
        return Key(material, kid if own_id is None else own_id, stated, source)

    return _made(make)


def _made(make: Callable[[], Key]) -> Key:
    """The key; whatever making it raises becomes a `BadKey`, without the key in its text."""
    try:
        return make()
    except BadKey:
        raise
    except Exception as error:
        raise BadKey(f"a key that cannot be read: {type(error).__name__}") from None


def given_keys(given: Any) -> Iterable[tuple[str, Any, str | None]]:
    """Keys as an application gives them, each with what to call it in an error, and its id."""
    if isinstance(given, Mapping) and isinstance(given.get("keys"), (list, tuple)):
        given = list(given["keys"])
    if isinstance(given, Mapping) and "kty" not in given:
        # By its place: a secret may be in the wrong column.
        return [(f"entry {place} of keys", key, kid) for place, (kid, key) in enumerate(given.items(), 1)]
    if isinstance(given, (list, tuple)):
        return [(f"keys[{place}]", key, None) for place, key in enumerate(given)]
    return [("keys", given, None)]


# --- sets -------------------------------------------------------------------------------------------------------------


class Keys:
    """A set of keys that stays as it is."""

    due = math.inf  # when it wants to be refreshed

    def __init__(self, keys: Sequence[Key]) -> None:
        self.keys = tuple(keys)

    def find(self, kid: str | None, algorithm: str) -> list[Key]:
        """The keys that a token with this id and algorithm may have been signed with.

        A key without an id fits tokens with any; a token without one may fit several keys.
        """
        return [key for key in self.keys if key.fits(algorithm) and (kid is None or key.kid in (None, kid))]

    @staticmethod
    def now() -> float:
        """The time, which makes no difference to them."""
        return 0.0

    def renew(self) -> None:
        """Look for newer ones."""

    def find_later(self, kid: str | None, algorithm: str) -> Generator[Any, Any, list[Key]]:
        """The same, after having looked for newer ones."""
        yield from ()
        return []


def read_set(data: bytes) -> tuple[list[Key], list[str]]:
    """The keys of a JWKS document, and what is wrong with the others. `BadKey` if it is none, or has no usable key."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadKey(f"no JSON: {type(error).__name__}") from None
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list) or len(listed) > MAX_KEYS:
        raise BadKey(f"no JWKS: it must be an object with a list of at most {MAX_KEYS} keys in 'keys'")
    keys: list[Key] = []
    left_out: list[str] = []
    for jwk in listed:
        try:
            keys.append(key_of_jwk(jwk if isinstance(jwk, dict) else {}))
        except BadKey as fault:
            left_out.append(f"{one_line(str(jwk.get('kid') if isinstance(jwk, dict) else None), MAX_KID)}: {fault}")
    if not keys:
        raise BadKey(f"no usable key among {len(listed)}")
    return keys, left_out
