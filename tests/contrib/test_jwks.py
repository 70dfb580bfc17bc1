"""Jwks: keys that are fetched in the background, and stay while they cannot be."""

import json
import os
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from interpose.contrib.jwks import Jwks
from interpose.contrib.jwt import Jwt
from interpose.contrib.signing_keys import MAX_KEYS, OVERLAP
from interpose.interceptors import Authenticate, Identity
from interpose.testing import FakeClock
from tests.contrib.key_server import KeyServer, serving_keys
from tests.contrib.signing import jwk, jwks, refusal, token, trusting, verified
from tests.facts.serving import KINDS, serving
from tests.interceptors.identities import known
from tests.support import tls

ONE, TWO, THREE = (jwk("RSA", number, kid=f"key-{number}") for number in range(3))
ANN = Identity("ann")


def signed(number: int = 0, **claims: Any) -> str:
    return token(number=number, kid=f"key-{number}", **claims)


@pytest.fixture
def keys() -> Iterator[KeyServer]:
    with serving_keys(jwks(ONE)) as server:
        yield server


def trusted(keys: KeyServer, clock: FakeClock, **options: Any) -> tuple[Jwks, Jwt]:
    fetched = Jwks(keys.url, clock=clock, **options)
    return fetched, trusting(fetched)


def settled(fetched: Jwks) -> None:
    """Wait for the fetch that is under way."""
    running = fetched._background.running()
    if running is not None:
        running.result(10)


# --- fetching ---------------------------------------------------------------------------------------------------------


def test_nothing_happens_before_a_key_is_needed(keys: KeyServer) -> None:
    """No thread, and no request; then one, and no more for the next tokens."""
    clock = FakeClock()
    threads = threading.active_count()

    fetched, verifier = trusted(keys, clock)
    assert threading.active_count() == threads
    assert (keys.asked, fetched.snapshot().age) == ([], None)

    assert verified(verifier, signed()) == ANN
    assert verified(verifier, signed(sub="bob")) == Identity("bob")
    assert keys.asked == ["/keys"]


def test_a_token_that_is_no_good_fetches_nothing(keys: KeyServer) -> None:
    """Its algorithm is looked at first."""
    _, verifier = trusted(keys, FakeClock())

    refusal(verifier, "a.b.c")
    refusal(verifier, token("ES256", kid="key-0"))

    assert keys.asked == []


def test_one_fetch_for_a_hundred_callers(keys: KeyServer) -> None:
    """At the start, and again for an id that nobody has seen: each waits, and each is let in."""
    clock = FakeClock()
    fetched, verifier = trusted(keys, clock)

    with ThreadPoolExecutor(100) as callers:
        for number, document in ((0, jwks(ONE)), (1, jwks(ONE, TWO))):
            keys.body, keys.hold = document, threading.Event()
            futures = [callers.submit(verified, verifier, signed(number, jti=str(n))) for n in range(100)]
            assert keys.came.acquire(timeout=10)
            keys.hold.set()

            assert {future.result(10) for future in futures} == {ANN}
            assert len(keys.asked) == number + 1
    assert fetched.snapshot().fetches == 2


def test_a_fetch_that_comes_too_late_does_nothing(keys: KeyServer) -> None:
    """A caller that wanted one before the last one ended finds the keys there."""
    fetched, verifier = trusted(keys, FakeClock())
    verified(verifier, signed())

    fetched._fetch("key-0", "RS256")

    assert fetched.snapshot().fetches == 1


def test_unknown_ids_are_not_fetched_again_and_again(keys: KeyServer) -> None:
    """One of a stranger's own has the keys fetched once in `cooldown` seconds; a hundred more change nothing."""
    clock = FakeClock()
    fetched, verifier = trusted(keys, clock, cooldown=30)
    verified(verifier, signed())

    for number in range(100):
        assert "of which no key is known" in refusal(verifier, token(kid=f"made-up-{number}"))
    assert len(keys.asked) == 2

    clock.advance(29.9)
    refusal(verifier, token(kid="another"))
    assert len(keys.asked) == 2
    clock.advance(0.1)
    refusal(verifier, token(kid="another"))
    assert len(keys.asked) == 3
    assert fetched.snapshot().failures == 0


def test_a_key_that_appears_is_found_at_once(keys: KeyServer) -> None:
    """However often keys change: only an id that is not there begins the pause."""
    clock = FakeClock()
    fetched, verifier = trusted(keys, clock)

    for number, document in enumerate((jwks(ONE), jwks(ONE, TWO), jwks(TWO, THREE))):
        keys.body = document
        assert verified(verifier, signed(number)) == ANN

    assert fetched.snapshot().changes == 3


def test_a_fetch_that_began_too_early_is_followed_by_another(keys: KeyServer) -> None:
    """A caller whose key came after the answer was made does not have to come again."""
    clock = FakeClock()
    fetched, verifier = trusted(keys, clock)
    verified(verifier, signed())
    keys.came.acquire()
    clock.advance(300)
    keys.hold = threading.Event()
    fetched.renew()
    assert keys.came.acquire(timeout=10)

    with ThreadPoolExecutor(1) as caller:
        future = caller.submit(verified, verifier, signed(1))
        assert not future.done()
        keys.body = jwks(ONE, TWO)  # the answer that is held is older
        keys.hold.set()

        assert future.result(10) == ANN


def test_keys_are_refreshed_while_calls_go_on(keys: KeyServer) -> None:
    """Nobody waits, also with tokens that are kept: they have the keys looked after, too."""
    clock = FakeClock()
    fetched, verifier = trusted(keys, clock, refresh=60)
    verified(verifier, signed())

    clock.advance(59.9)
    verified(verifier, signed())
    assert len(keys.asked) == 1
    clock.advance(0.1)
    keys.hold = threading.Event()
    assert verified(verifier, signed()) == ANN
    assert verified(verifier, signed(sub="bob")) == Identity("bob")
    keys.hold.set()
    settled(fetched)

    assert len(keys.asked) == 2
    assert fetched.snapshot().age == 0


# --- rotation ---------------------------------------------------------------------------------------------------------


def test_rotation_refuses_no_call(keys: KeyServer) -> None:
    """The old key leaves as the new one comes: tokens of both are good, until the old one has been gone for 60 seconds."""
    clock = FakeClock()
    fetched, verifier = trusted(keys, clock)
    verified(verifier, signed())

    keys.body = jwks(TWO)
    assert verified(verifier, signed(1)) == ANN
    assert verified(verifier, signed(0)) == ANN
    assert verified(verifier, signed(0, sub="bob")) == Identity("bob")

    clock.advance(OVERLAP - 0.1)
    assert verified(verifier, signed(0)) == ANN
    clock.advance(0.1)
    refusal(verifier, signed(0))
    refusal(verifier, signed(0, sub="bob"))
    assert verified(verifier, signed(1)) == ANN
    assert fetched.snapshot().keys == 1


def test_a_key_that_comes_back_is_good_again(keys: KeyServer) -> None:
    """As if it had never been away; and the same document changes nothing."""
    clock = FakeClock()
    fetched, verifier = trusted(keys, clock, refresh=10)

    for document in (jwks(ONE), jwks(TWO), jwks(ONE, TWO), jwks(ONE, TWO)):
        keys.body = document
        verified(verifier, signed())
        clock.advance(10)
        fetched.renew()
        settled(fetched)
    clock.advance(OVERLAP)

    assert fetched.find("key-0", "RS256") and verified(verifier, signed()) == ANN
    assert fetched.snapshot().changes <= 3
    assert len(fetched._retired) == 0


# --- bad days ---------------------------------------------------------------------------------------------------------

NONSENSE = {
    "no JSON": b"<html>",
    "no text": b"\xff\xfe",
    "a list": b"[]",
    "no keys": b"{}",
    "an empty set": jwks(),
    "keys that are none": jwks({"kty": "AKP"}, {"kty": "OKP", "crv": "X25519", "x": "AA"}),
    "keys that are no list": b'{"keys": {"a": 1}}',
    "too many keys": jwks(*[jwk("RSA")] * (MAX_KEYS + 1)),
    "too many bytes": jwks(ONE) + b" " * (256 * 1024),
}


@pytest.mark.parametrize("what", NONSENSE)
def test_nonsense_changes_no_key(what: str, keys: KeyServer, caplog: pytest.LogCaptureFixture) -> None:
    """The last good keys stay; the log says what came instead."""
    clock = FakeClock()
    fetched, verifier = trusted(keys, clock)
    verified(verifier, signed())

    keys.body = NONSENSE[what]
    clock.advance(300)
    fetched.renew()
    settled(fetched)

    assert verified(verifier, signed(sub="bob")) == Identity("bob")
    state = fetched.snapshot()
    assert (state.keys, state.failures, state.age) == (1, 1, 300)
    assert state.error is not None
    assert "the last good ones stay" in caplog.text


@pytest.mark.parametrize("status", [204, 301, 302, 307, 308, 404, 500, 503])
def test_only_ok_is_an_answer(status: int, keys: KeyServer) -> None:
    """Redirects are not followed, wherever they lead."""
    clock = FakeClock()
    with serving_keys(jwks(ONE, TWO)) as elsewhere:
        fetched, verifier = trusted(keys, clock)
        verified(verifier, signed())
        keys.status, keys.headers = status, {"Location": elsewhere.url}
        if status == 204:
            keys.body = b""

        refusal(verifier, signed(1))
        assert verified(verifier, signed(sub="bob")) == Identity("bob")

    assert elsewhere.asked == []
    assert fetched.snapshot().failures == 1


def test_an_endpoint_that_is_down(keys: KeyServer, caplog: pytest.LogCaptureFixture) -> None:
    """From the start: calls are refused, and it is tried after 1, 2, 4 … `cooldown` seconds."""
    clock = FakeClock()
    keys.status = 503
    fetched, verifier = trusted(keys, clock, cooldown=5)

    for pause in (1, 2, 4, 5, 5):
        before = len(keys.asked)
        for _ in range(3):
            assert "of which no key is known" in refusal(verifier, signed())
        assert len(keys.asked) == before + 1
        clock.advance(pause - 0.1)
        refusal(verifier, signed())
        assert len(keys.asked) == before + 1
        clock.advance(0.1)
    keys.status = 200

    assert verified(verifier, signed()) == ANN
    assert fetched.snapshot().error is None
    assert "there are none yet" in caplog.text


def test_keys_stay_while_the_endpoint_is_down(keys: KeyServer) -> None:
    """For hours, and without a call that waits."""
    clock = FakeClock()
    fetched, verifier = trusted(keys, clock)
    verified(verifier, signed())
    keys.status = 503

    for _ in range(5):
        clock.advance(3600)
        fetched.renew()
        settled(fetched)
        assert verified(verifier, signed(sub="bob")) == Identity("bob")

    assert fetched.snapshot().failures == 5


def test_a_call_waits_no_longer_than_it_may() -> None:
    """An endpoint that takes connections and never answers: the call is refused after `timeout` seconds."""
    with serving_keys(jwks(ONE)) as keys:
        keys.hold = threading.Event()
        verifier = trusting(Jwks(keys.url, timeout=0.2))
        with serving("sync", known("sync"), Authenticate(verifier)) as client:
            reply = client.call(metadata=(("authorization", f"Bearer {signed()}"),))

        assert reply.code is grpc.StatusCode.UNAUTHENTICATED
        keys.hold.set()


@pytest.mark.parametrize("sort", ["sync", "plain", "async"])
def test_all_servers_wait_for_keys(sort: str) -> None:
    """In every kind of RPC; the loop of an asyncio server goes on meanwhile."""
    for kind in KINDS:
        with serving_keys(jwks(ONE)) as keys:
            verifier = trusting(Jwks(keys.url))
            with serving(sort, known(sort), Authenticate(verifier)) as client:
                reply = client.call(kind=kind, metadata=(("authorization", f"Bearer {signed()}"),))

            assert set(reply.messages) == {"ann"}


# --- what is in a set -------------------------------------------------------------------------------------------------


def test_keys_of_no_use_are_left_out(keys: KeyServer, caplog: pytest.LogCaptureFixture) -> None:
    """Keys for encryption, of kinds not known here, and broken ones take nobody's sign-in down. The log names each once."""
    clock = FakeClock()
    bad = [
        {"kty": "OKP", "crv": "X25519", "x": "AAAA", "kid": "x"},
        {"kty": "AKP", "alg": "ML-DSA-65", "kid": "pq"},
        jwk("RSA-1024", kid="short"),
        jwk("RSA", 1, kid="enc", use="enc"),
        {"kty": "RSA", "kid": "broken\nFAKE LINE"},
        {"kty": ["RSA"], "kid": "odd"},
        {},
    ]
    keys.body = json.dumps({"keys": [*bad, "no key", 1, ONE, jwk("P-256", kid="ec")]}).encode()
    fetched, verifier = trusted(keys, clock)

    assert verified(verifier, signed()) == ANN
    clock.advance(300)
    fetched.renew()
    settled(fetched)

    state = fetched.snapshot()
    assert (state.keys, state.left_out, state.failures) == (2, 9, 0)
    assert caplog.text.count("a key is left out, x: ") == 1
    assert "\nFAKE" not in caplog.text


# --- where from -------------------------------------------------------------------------------------------------------


def test_https_with_an_authority_of_your_own() -> None:
    """And with none that knows it, no key is taken."""
    context = ssl.create_default_context()
    tls.authority().configure_trust(context)

    with serving_keys(jwks(ONE), secure=True) as keys:
        assert verified(trusting(Jwks(keys.url, ssl=context)), signed()) == ANN
        refusal(trusting(stranger := Jwks(keys.url)), signed())

    assert "CERTIFICATE_VERIFY_FAILED" in str(stranger.snapshot().error)


def test_a_file(tmp_path: Path) -> None:
    """Read like a URL: when it is needed, and again later; one that is missing is an endpoint that is down."""
    clock = FakeClock()
    file = tmp_path / "keys.json"
    for source in (file, str(file)):
        file.unlink(missing_ok=True)
        fetched = Jwks(source, clock=clock)
        verifier = trusting(fetched)
        refusal(verifier, signed())
        assert "FileNotFoundError" in str(fetched.snapshot().error)

        file.write_bytes(jwks(ONE))
        clock.advance(1)
        assert verified(verifier, signed()) == ANN
        file.write_bytes(jwks(ONE, TWO))
        assert verified(verifier, signed(1)) == ANN


def test_a_proxy_is_not_asked_for_this_machine(keys: KeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the environment says of proxies is for other machines."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")

    assert verified(trusting(Jwks(keys.url)), signed()) == ANN


def test_a_child_fetches_for_itself(keys: KeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fetch that was under way in the parent does not run in a process that was forked."""
    _, verifier = trusted(keys, FakeClock())
    hold = keys.hold = threading.Event()

    with ThreadPoolExecutor(1) as parent:
        future = parent.submit(verified, verifier, signed())
        assert keys.came.acquire(timeout=10)
        keys.hold = None
        process = os.getpid()
        monkeypatch.setattr(os, "getpid", lambda: process + 1)
        assert verified(verifier, signed()) == ANN
        monkeypatch.undo()
        hold.set()

        assert future.result(10) == ANN
    assert len(keys.asked) == 2


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"source": ""}, "source must be an https URL or the path of a file, not a str"),
        ({"source": None}, "source must be an https URL or the path of a file, not None"),
        ({"source": "ftp://a.example/keys"}, "source must be an https URL or the path of a file"),
        ({"source": "file:///etc/keys"}, "source must be an https URL or the path of a file"),
        ({"source": "https://"}, "source must be an https URL or the path of a file"),
        ({"source": "https://[::1/keys"}, "source must be an https URL or the path of a file"),
        ({"source": "http://a.example/keys"}, "source must be https, not http: a.example is another machine"),
        ({"source": "http://localhost.a.example/"}, "source must be https, not http"),
        ({"source": "https://ann:s3cret@a.example/"}, "source must be a URL without a password$"),
        ({"refresh": 0}, "refresh must be above 0 and below 1e.08 seconds, not 0"),
        ({"cooldown": -1}, "cooldown must be above 0"),
        ({"timeout": "5"}, "timeout must be above 0 .* not '5'"),
        ({"max_bytes": 0}, "max_bytes must be a whole number from 1 to 1073741824, not 0"),
        ({"ssl": True}, "ssl must be an ssl.SSLContext or None, not a bool"),
        ({"clock": None}, r"clock must have a method now\(\), not be None"),
        ({"source": "http://a.example", "refresh": 0, "timeout": 0}, "source .*; refresh .*; timeout "),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], complaint: str) -> None:
    """Every fault, with what to write instead."""
    options = {"source": "https://id.example/keys", **options}

    with pytest.raises(ValueError, match=f"^Jwks: {complaint}"):
        Jwks(options.pop("source"), **options)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.9.9", "[::1]"])
def test_http_is_for_this_machine(host: str) -> None:
    """By its name or address; and nothing of the source is opened when it is made."""
    assert repr(Jwks(f"http://{host}:1/keys")) == f"Jwks('http://{host}:1/keys')"


def test_no_thread_to_be_had(keys: KeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then a token cannot be checked, and one whose key is there can."""
    clock = FakeClock()
    _, verifier = trusted(keys, clock)

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        refusal(verifier, signed())
    assert verified(verifier, signed()) == ANN
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        clock.advance(300)
        assert verified(verifier, signed(sub="bob")) == Identity("bob")
