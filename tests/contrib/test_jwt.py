"""Jwt: callers known by a JSON Web Token."""

import datetime as dt
import json
import logging
import math
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import grpc
import jwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jwt.utils import base64url_encode

from interpose import Side, errors
from interpose.contrib.jwks import Jwks
from interpose.contrib.jwt import Jwt
from interpose.contrib.signing_keys import OVERLAP
from interpose.interceptors import Authenticate, Identity
from interpose.interceptors.authenticate import REFUSAL
from interpose.testing import FakeClock, ok, play
from tests.contrib.signing import (
    KIND_OF,
    NOW,
    SECRET,
    jwk,
    jwks,
    pem,
    private,
    private_pem,
    public,
    refusal,
    shown,
    token,
    trusting,
    verified,
)
from tests.support.examples import examples

# --- good tokens ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", KIND_OF)
def test_a_good_token_says_who_calls(algorithm: str) -> None:
    """With every algorithm."""
    verifier = trusting(public(KIND_OF[algorithm]), algorithms=[algorithm])

    assert verified(verifier, token(algorithm)) == Identity("ann")


def test_ed448_is_eddsa_as_well() -> None:
    """Two kinds of keys, one name."""
    signed = jwt.encode({"sub": "ann", "exp": NOW + 9}, private("Ed448"), "EdDSA")

    assert verified(trusting(public("Ed448"), algorithms=["EdDSA"]), signed) == Identity("ann")


def test_an_identity_has_what_the_token_says() -> None:
    """Subject, scopes, issuer, and all claims."""
    verifier = trusting(issuer="https://id.example", audience="orders")
    said = {"iss": "https://id.example", "aud": ["shop", "orders"], "scope": "orders.read orders.write", "tenant": "t1"}

    identity = verified(verifier, token(**said))

    assert identity == Identity("ann", frozenset({"orders.read", "orders.write"}), "https://id.example")
    assert identity.claims["tenant"] == "t1"
    with pytest.raises(TypeError):
        identity.claims["tenant"] = "t2"  # type: ignore[index]  # that is the point


@pytest.mark.parametrize(
    ("options", "claims", "scopes"),
    [
        ({}, {}, set()),
        ({}, {"scope": ""}, set()),
        ({}, {"scope": "a b"}, {"a", "b"}),
        ({}, {"scope": ["a", "b"]}, {"a", "b"}),
        ({}, {"scp": ["a"]}, {"a"}),
        ({}, {"scope": "a", "scp": "b"}, {"a"}),
        ({"scopes": "roles"}, {"roles": ["a"], "scp": "b"}, {"a"}),
        ({"scopes": "roles"}, {"scp": "b"}, set()),
    ],
)
def test_scopes_are_written_in_many_ways(options: Any, claims: Any, scopes: set[str]) -> None:
    """As a text or a list, in the claim that the issuer uses."""
    identity = verified(trusting(**options), token(**claims))

    assert identity is not None
    assert identity.scopes == scopes


def test_without_a_token_it_says_nothing() -> None:
    """The next verifier is asked."""
    assert verified(trusting(), None) is None


@pytest.mark.parametrize("given_as", ["pem", "text", "object", "jwk", "list", "by id", "document"])
def test_keys_are_given_in_many_ways(given_as: str) -> None:
    """One or several, with ids or without."""
    ways = {
        "pem": pem("RSA"),
        "text": pem("RSA").decode(),
        "object": public("RSA"),
        "jwk": jwk("RSA", kid="one"),
        "list": [pem("RSA", 1), pem("RSA")],
        "by id": {"one": pem("RSA"), "two": pem("RSA", 1)},
        "document": json.loads(jwks(jwk("RSA", kid="one"), jwk("RSA", 1, kid="two"))),
    }

    assert verified(trusting(ways[given_as]), token(kid="one")) == Identity("ann")


def test_a_certificate_is_a_key() -> None:
    """Its public one."""
    from tests.support import tls

    key, certificate = tls.client_certificate([], "signer")
    signed = jwt.encode({"sub": "ann", "exp": NOW + 9}, key, "ES256")

    assert verified(trusting(certificate, algorithms=["ES256"]), signed) == Identity("ann")


def test_a_key_id_chooses() -> None:
    """A token that names one is checked with no other; one without is tried with each that fits."""
    verifier = trusting({"one": public("RSA"), "two": public("RSA", 1)})

    assert verified(verifier, token(kid="two", number=1)) == Identity("ann")
    assert verified(verifier, token(number=1)) == Identity("ann")
    assert "whose signature is wrong" in refusal(verifier, token(kid="one", number=1))
    assert "of which no key is known: key 'three', RS256" in refusal(verifier, token(kid="three"))


def test_a_jwk_without_an_algorithm_is_for_all_that_its_kind_takes() -> None:
    """PyJWT 2.15.1 takes one of RSA for RS256, and refuses what was rightly signed with another."""
    verifier = trusting(jwk("RSA", kid="one", use="sig"), algorithms=["RS256", "RS512", "PS256"])

    for algorithm in ("RS256", "RS512", "PS256"):
        assert verified(verifier, token(algorithm, kid="one")) == Identity("ann")


def test_a_jwk_with_an_algorithm_is_for_that_one() -> None:
    """Whatever else its kind takes."""
    verifier = trusting(jwk("RSA", alg="RS512"), algorithms=["RS256", "RS512"])

    assert verified(verifier, token("RS512")) == Identity("ann")
    assert "of which no key is known" in refusal(verifier, token("RS256"))


# --- tokens that are not good -----------------------------------------------------------------------------------------


def forged(header: Any, payload: Any, signature: bytes = b"x") -> str:
    """A token with these parts: JSON, or bytes as they are."""
    parts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, payload)]
    return ".".join(base64url_encode(part).decode() for part in (*parts, signature))


GOOD = {"sub": "ann", "exp": NOW + 600}
RS256 = {"alg": "RS256"}

BAD = {
    "no token": "no-token",
    "two parts": "a.b",
    "four parts": f"{token()}.x",
    "an empty part": "..",
    "padding": token().replace(".", "=.", 1),
    "a header that is no JSON": forged(b"{", GOOD),
    "a header that is no text": forged(b"\xff", GOOD),
    "a header that is a list": forged(["RS256"], GOOD),
    "a part of no length": f"{token().partition('.')[0]}.a.b",
    "no algorithm": forged({}, GOOD),
    "none": forged({"alg": "none"}, GOOD),
    "None": forged({"alg": "None"}, GOOD),
    "an algorithm that is no text": forged({"alg": ["RS256"]}, GOOD),
    "another algorithm": token("RS512"),
    "another kind of algorithm": token("ES256"),
    "a secret": jwt.encode(GOOD, SECRET, "HS256"),
    "a kid that is no text": forged(RS256 | {"kid": 1}, GOOD),
    "critical extensions": forged(RS256 | {"crit": ["exp"], "exp": 1}, GOOD),
    "an unencoded payload": forged(RS256 | {"b64": False}, GOOD),
    "a wrong signature": forged(RS256, GOOD),
    "an empty signature": forged(RS256, GOOD, b""),
    "another key": token(number=1),
    "another payload": ".".join([token().split(".")[0], token(sub="bob").split(".")[1], token().split(".")[2]]),
    "no subject": token(sub=None),
    "an empty subject": token(sub=""),
    "no end": token(exp=None),
    "the past": token(exp=NOW - 10),
    "the future": token(nbf=NOW + 11),
    "from the future": token(iat=NOW + 11),
    "a time that is a text": token(iat="1700000000"),
    "a time that is true": token(nbf=True),
    "a time that is no number": token(nbf=math.nan),
    "a time that never comes": token(exp=math.inf),
    "a time of many digits": token(exp=10**400),
    "an audience": token(aud="shop"),
    "scopes that are a number": token(scope=1),
    "scopes that are none": token(scope=["a b"]),
    "scopes in an object": token(scope={"a": 1}),
    "scopes that are numbers": token(scope=[1]),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_no_fault_of_a_token_is_anything_but_unauthenticated(what: str, caplog: pytest.LogCaptureFixture) -> None:
    """With the one fixed text, and it is no fault of the server: the log has the reason, and nothing of the token."""
    authenticate = Authenticate(trusting())

    with caplog.at_level(logging.INFO, "interpose"):
        metadata = [("authorization", f"Bearer {BAD[what]}")]
        outcome = play(authenticate, [], side=Side.SERVER, metadata=metadata).outcome

    assert (outcome.code, outcome.details) == (grpc.StatusCode.UNAUTHENTICATED, REFUSAL)
    assert (authenticate.snapshot().refused, authenticate.snapshot().faults) == (1, 0)
    assert not any(part in caplog.text for part in BAD[what].split(".") if len(part) > 8)


@settings(max_examples=examples(60))
@given(st.data())
def test_no_token_that_was_changed_is_good(data: st.DataObject) -> None:
    """In any character but those that stand for nothing; nor is one that is made up."""
    good = token()
    place = data.draw(st.integers(0, len(good) - 1))
    character = data.draw(st.sampled_from("abcXYZ019-_."))
    changed = good[:place] + character + good[place + 1 :]

    if changed != good and place != len(good) - 1:  # the last has bits that stand for nothing
        refusal(trusting(), changed)


ANYTHING = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.lists(st.text(max_size=5))


@settings(max_examples=examples(60))
@given(ANYTHING, st.dictionaries(st.sampled_from(["sub", "exp", "nbf", "iat", "aud", "iss", "scope", "scp"]), ANYTHING))
def test_whatever_a_signed_token_says(alone: Any, claims: dict[str, Any]) -> None:
    """It gives an identity or a refusal, and nothing else."""
    for said in (alone, claims):
        refusal_or_identity(jwt.api_jws.encode(json.dumps(said).encode(), private("oct"), "HS256"))


def refusal_or_identity(signed: str) -> None:
    try:
        found = verified(trusting(public("oct"), algorithms=["HS256"]), signed)
    except errors.Unauthenticated:
        return
    assert isinstance(found, Identity)


@pytest.mark.parametrize("kind", ["P-384", "Ed25519", "RSA"])
def test_a_key_of_another_kind_is_never_tried(kind: str) -> None:
    """Also if it has the right id: PyJWT would raise what is no error of a token."""
    verifier = trusting(
        {"one": public(kind), "two": public("P-256", 1)}, algorithms=["ES256", "ES384", "EdDSA", "RS256"]
    )

    assert "of which no key is known: key 'one', ES256" in refusal(verifier, token("ES256", kid="one"))


def test_what_pyjwt_raises_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it is; its text, which may hold what the token says, is not told."""
    verifier = trusting()

    def explode(*_: Any) -> bool:
        raise TypeError("s3cret")

    monkeypatch.setattr(verifier, "_checks", {"RS256": explode})

    assert refusal(verifier, token()) == "a token that cannot be checked: TypeError: key None, RS256"


# --- whom it is for ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "said", "good"),
    [
        ("orders", "orders", True),
        ("orders", ["shop", "orders"], True),
        (["orders", "shop"], "shop", True),
        ("orders", "shop", False),
        ("orders", "orders-2", False),
        ("orders", None, False),
        ("orders", [], False),
        ("orders", [["orders"]], False),
        ("orders", {"orders": 1}, False),
        ("orders", 1, False),
        (None, None, True),
        (None, [], True),
        (None, "orders", False),
        (None, 0, False),
    ],
)
def test_the_audience(wanted: Any, said: Any, good: bool) -> None:
    """A token has to be for this server; one for others is refused also by a server without a name."""
    verifier, signed = trusting(audience=wanted), token(aud=said)

    assert good is (
        verified(verifier, signed) == Identity("ann") if good else "audience" not in refusal(verifier, signed)
    )


@pytest.mark.parametrize(
    ("wanted", "said", "good"),
    [
        ("https://id.example", "https://id.example", True),
        (["https://a.example", "https://b.example"], "https://b.example", True),
        ("https://id.example", "https://id.example/", False),
        ("https://id.example", "id.example", False),
        ("https://id.example", None, False),
        ("https://id.example", ["https://id.example"], False),
        ("https://id.example", {"a": 1}, False),
        (None, "https://any.example", True),
    ],
)
def test_the_issuer(wanted: Any, said: Any, good: bool) -> None:
    """A token has to be of one that is trusted, to the letter."""
    verifier, signed = trusting(issuer=wanted), token(iss=said)

    if good:
        assert verified(verifier, signed) is not None
    else:
        assert "a token of the issuer" in refusal(verifier, signed)


def test_claims_may_be_required() -> None:
    """And a token without an end allowed, by choice; the subject may be another claim."""
    assert "a token without the claim tenant" in refusal(trusting(require=["tenant"]), token())
    assert verified(trusting(require=()), token(exp=None)) == Identity("ann")
    assert verified(trusting(subject="client_id"), token(sub=None, client_id="web")) == Identity("web")


# --- times ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leeway", [0, 10, 0.25])
@pytest.mark.parametrize("second", [0, 0.25, 0.5, 0.999])
def test_the_edges_of_a_life(leeway: float, second: float) -> None:
    """To the fraction of a second: from `nbf` and `iat` less the leeway, to before `exp` plus the leeway."""
    edge = 1_700_000_000 + second
    step = 2**-20  # of a second, which both add to without an error

    def good(at: float, **claims: Any) -> bool:
        verifier = trusting(leeway=leeway, wall=lambda: at, require=())
        try:
            return verified(verifier, token(**{"exp": None, **claims})) is not None
        except errors.Unauthenticated:
            return False

    assert good(edge + leeway - step, exp=edge)
    assert not good(edge + leeway, exp=edge)
    for claim in ("nbf", "iat"):
        assert good(edge - leeway, **{claim: edge})
        assert not good(edge - leeway - step, **{claim: edge})


@given(
    st.fixed_dictionaries({}, optional={name: st.integers(-3, 3) for name in ("exp", "nbf", "iat")}),
    st.sampled_from([0, 1, 2]),
)
def test_whole_seconds_are_judged_as_pyjwt_does(offsets: dict[str, int], leeway: int) -> None:
    """Where nobody's clock shows a fraction, both say the same."""
    at = 1_700_000_000
    claims = {name: at + offset for name, offset in offsets.items()}
    signed = token("HS256", **{"exp": None, **claims})
    verifier = trusting(public("oct"), algorithms=["HS256"], leeway=leeway, wall=lambda: at, require=())
    try:
        ours = verified(verifier, signed) is not None
    except errors.Unauthenticated:
        ours = False

    class Frozen:
        @staticmethod
        def now(tz: dt.tzinfo) -> dt.datetime:
            return dt.datetime.fromtimestamp(at, tz)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("jwt.api_jwt.datetime", Frozen)
        try:
            theirs = bool(jwt.decode(signed, public("oct"), algorithms=["HS256"], leeway=leeway))
        except jwt.InvalidTokenError:
            theirs = False

    assert ours is theirs


# --- tokens that are kept ---------------------------------------------------------------------------------------------


def test_a_token_is_checked_once() -> None:
    """Then it is found again, and nothing of it is kept but its digest and what it said."""
    verifier = trusting()
    signed = token()

    first = verified(verifier, signed)
    again = verifier(shown(signed))

    assert again is first
    state = verifier.snapshot()
    assert (state.verified, state.reused, state.refused, state.kept, state.keys) == (1, 1, 0, 1, None)
    assert signed not in repr(vars(verifier))


def test_a_token_that_is_kept_expires() -> None:
    """As one that was never seen."""
    times = [NOW]
    verifier = trusting(wall=lambda: times[0])
    signed = token(nbf=NOW - 5)
    verified(verifier, signed)

    times[0] = NOW + 609.9
    assert verified(verifier, signed) == Identity("ann")
    times[0] = NOW + 610
    assert "expired 0.0 s ago" in refusal(verifier, signed)
    times[0] = NOW - 15.1  # the clock was set back
    verified_again = refusal(verifier, signed)

    assert "a token that is good in 0.1 s" in verified_again


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(-30, 30)), max_size=12))
def test_keeping_changes_no_answer(calls: list[tuple[str, int]]) -> None:
    """Whatever the clock does: a verifier that keeps tokens says of each what one says that keeps none."""
    times = [NOW]
    signed = {
        "a": token("HS256", sub="a", exp=NOW + 10),
        "b": token("HS256", sub="b", nbf=NOW + 5),
        "c": token("HS256", sub="c", exp=NOW + 3, iat=NOW - 3),
    }
    keeping, forgetful = (
        trusting(public("oct"), algorithms=["HS256"], wall=lambda: times[0], keep=keep) for keep in (2, 0)
    )

    def answer(verifier: Jwt, which: str) -> Any:
        try:
            return verified(verifier, signed[which])
        except errors.Unauthenticated as error:
            return error.details()

    for which, step in calls:
        times[0] += step
        assert answer(keeping, which) == answer(forgetful, which)


def test_no_more_are_kept_than_was_said() -> None:
    """Those that were used longest ago go first; tokens that are refused are never kept."""
    verifier = trusting(public("oct"), algorithms=["HS256"], keep=3)
    for number in range(5):
        verified(verifier, token("HS256", sub=f"caller-{number}"))
        refusal(verifier, token("HS256", number=1, sub=f"stranger-{number}"))

    assert verifier.snapshot().kept == 3
    assert len(verifier._headers) == 1


def test_a_token_lasts_as_long_as_its_key(tmp_path: Path) -> None:
    """At most 60 seconds after that has left the set."""
    clock, file = FakeClock(), tmp_path / "keys.json"
    file.write_bytes(jwks(jwk("RSA")))
    verifier = trusting(Jwks(file, clock=clock))
    signed = token()
    verified(verifier, signed)
    (key,) = verifier.keys.find(None, "RS256")

    key.retired = clock.now()
    clock.advance(OVERLAP - 0.001)
    assert verified(verifier, signed) == Identity("ann")
    assert verifier.snapshot().reused == 1

    clock.advance(0.001)
    assert verifier(shown(signed)) != Identity("ann")
    assert verifier.snapshot().reused == 1


# --- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "options", "complaint"),
    [
        (pem("RSA"), {"algorithms": []}, "algorithms must name at least one"),
        (pem("RSA"), {"algorithms": ["none"]}, "algorithms must not have 'none'"),
        (pem("RSA"), {"algorithms": ["RS256", "NONE"]}, "algorithms must not have 'NONE'"),
        (pem("RSA"), {"algorithms": ["rs256"]}, "algorithms must be made of HS256, .* not 'rs256'"),
        (pem("RSA"), {"algorithms": [1]}, "algorithms must be made of HS256, .* not an int"),
        (SECRET, {"algorithms": ["HS256", "RS256"]}, "algorithms must not mix HS… with others"),
        (pem("RSA"), {"algorithms": ["HS256"]}, "keys is of the kind RSA, which none of HS256 takes"),
        (SECRET, {"algorithms": ["RS256"]}, "keys is of the kind oct, which none of RS256 takes"),
        (jwk("RSA", alg="RS512"), {}, "keys is of the kind RSA, which none of RS256 takes"),
        (public("P-384"), {"algorithms": ["ES256"]}, "keys is of the kind P-384, which none of ES256 takes"),
        ("x" * 31, {"algorithms": ["HS256"]}, "keys must be a secret of at least 32 bytes for HS256, not of 31"),
        (
            b"x" * 32,
            {"algorithms": ["HS256", "HS512"]},
            "keys must be a secret of at least 64 bytes for HS512, not of 32",
        ),
        (public("RSA-1024"), {}, "keys must be a key, not an RSA key of 1024 bits: at least 2048 are needed"),
        (private("RSA"), {}, "keys must be a key, not a private key: give the public one"),
        (private_pem("RSA"), {}, "keys must be a key, not a private key: give the public one"),
        (jwk("oct", k=1), {"algorithms": ["HS256"]}, "keys must be a key, not a key that cannot be read"),
        (jwk("RSA", n="AQ"), {}, "keys must be a key, not a"),
        (jwk("RSA", use="enc"), {}, "keys must be a key, not a key that is not for signatures"),
        (jwk("RSA", key_ops=["sign"]), {}, "keys must be a key, not a key that is not for signatures"),
        (jwk("RSA", kid=1), {}, "keys must be a key, not a kid or alg that is no text"),
        ({"kty": "AKP", "alg": "ML-DSA-65"}, {}, "keys must be a key, not a kty that is not known here: 'AKP'"),
        (
            "-----BEGIN PUBLIC KEY-----\nabc\n-----END PUBLIC KEY-----",
            {},
            "keys must be a key, not a PEM that cannot be read",
        ),
        ([pem("RSA"), None], {}, r"keys\[1\] must be a key, not None"),
        ({"one": 1}, {}, "entry 1 of keys must be a key, not an int"),
        ([], {}, "keys must have at least one"),
        (pem("RSA"), {"audience": 1}, r"audience must be a text or a list of them, not \[1\]"),
        (pem("RSA"), {"issuer": [""]}, r"issuer must be a text or a list of them, not \[''\]"),
        (pem("RSA"), {"leeway": -1}, "leeway must be from 0 to 600 seconds, not -1"),
        (pem("RSA"), {"leeway": math.nan}, "leeway must be from 0 to 600 seconds, not nan"),
        (pem("RSA"), {"require": [1]}, r"require must be a list of claims, like \['exp'\], not \[1\]"),
        (pem("RSA"), {"subject": ""}, "subject must be a claim, like 'sub', not ''"),
        (pem("RSA"), {"scopes": None}, "scopes must be a claim, like 'scope', not None"),
        (pem("RSA"), {"keep": -1}, "keep must be a whole number from 0"),
        (pem("RSA"), {"wall": 1}, "wall must be a function like time.time, not 1"),
        ("s3cret", {"algorithms": ["HS256"], "leeway": "x"}, "keys must be a secret .*; leeway "),
    ],
    ids=lambda value: "" if isinstance(value, (str, bytes)) else None,  # a key is another one in each process
)
def test_options_that_make_no_sense_are_refused(keys: Any, options: dict[str, Any], complaint: str) -> None:
    """Every fault, with what to write instead, and never a key."""
    options = {"algorithms": ["RS256"], **options}

    with warnings.catch_warnings(), pytest.raises(ValueError, match=f"^Jwt: {complaint}") as refused:
        Jwt(keys, **options)

    assert "s3cret" not in str(refused.value)


def test_a_public_key_is_never_a_secret() -> None:
    """In whatever form it comes: anybody who knows it could sign."""
    for disguise in (pem("RSA"), pem("RSA").decode(), b" \n" + pem("RSA"), jwk("RSA"), public("RSA")):
        with pytest.raises(ValueError, match=r"^Jwt: keys is of the kind RSA, which none of HS256 takes"):
            Jwt(disguise, algorithms=["HS256"])


def test_it_shows_its_algorithms() -> None:
    """And no key."""
    assert repr(trusting(public("oct"), algorithms=["HS512", "HS256"])) == "<Jwt, HS256, HS512>"
    assert "xxx" not in repr(trusting(public("oct"), algorithms=["HS256"]).keys.find(None, "HS256"))


def test_the_extra_is_named() -> None:
    """Without PyJWT the error has the line that installs it."""
    program = "import sys; sys.modules['jwt'] = None; import interpose.contrib.jwt"

    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=60)

    assert 'pip install "interpose[jwt]"' in done.stderr


def test_an_issuer_that_is_no_text_is_not_told() -> None:
    """Where no issuer is asked for."""
    identity = verified(trusting(), token(sub="bob"))

    assert identity is not None and identity.issuer is None
    assert play(
        Authenticate(trusting()), [ok()], side=Side.SERVER, metadata=[("authorization", f"Bearer {token()}")]
    ).outcome.ok
