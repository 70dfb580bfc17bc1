"""MutualTls: callers known by the names in their TLS certificate."""

import asyncio
import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from interpose import Call, Flow, context, errors, intercept_server, server_interceptor
from interpose._identity import Credentials
from interpose.interceptors import Authenticate, Identity, MutualTls, Name, mutual_tls
from interpose.testing import Echo, incoming
from interpose.testing.echo import Stub
from tests.support import tls

DNS, URI, EMAIL = x509.DNSName, x509.UniformResourceIdentifier, x509.RFC822Name
WEB = "spiffe://example.org/ns/web"
ALL = [
    DNS("web.example.org"),
    DNS("*.example.org"),
    URI(WEB),
    URI("urn:uuid:6e8bc430-9c3a-11d9-9669-0800200c9a66"),
    EMAIL("web@example.org"),
    x509.IPAddress(ipaddress.ip_address("10.0.0.1")),
    x509.IPAddress(ipaddress.ip_address("2001:db8::1")),
]
NAMES = (
    Name("uri", WEB),
    Name("uri", "urn:uuid:6e8bc430-9c3a-11d9-9669-0800200c9a66"),
    Name("dns", "web.example.org"),
    Name("dns", "*.example.org"),
    Name("email", "web@example.org"),
    Name("ip", "10.0.0.1"),
    Name("ip", "2001:db8::1"),
)


# --- real certificates ------------------------------------------------------------------------------------------------


class Seen:
    """An interceptor that keeps the identities it finds, and whether their TLS session was a resumed one."""

    def __init__(self) -> None:
        self.identities: list[Identity | None] = []
        self.resumed: list[bytes] = []

    def __call__(self, call: Call) -> Flow:
        self.identities.append(context.identity())
        self.resumed += call.auth_context.get("ssl_session_reused", ())
        yield call


@contextmanager
def served(verifier: MutualTls, seen: Seen, *, ask: bool = True) -> Iterator[tuple[str, str]]:
    """The echo service on a sync server, by its TLS port and by its insecure one."""
    stack = server_interceptor(Authenticate(verifier), seen)
    with tls.pool() as threads:
        server = grpc.server(threads, interceptors=[stack])
        server.add_generic_rpc_handlers((Echo().handlers(asyncio=False),))
        with tls.ports(server, ask=ask) as targets:
            yield targets


def code_of(channel: grpc.Channel) -> grpc.StatusCode:
    with channel:
        try:
            Stub(channel).unary_unary("hello", timeout=10)
        except grpc.RpcError as error:
            return error.code()  # type: ignore[no-any-return,attr-defined]  # grpc's stubs know it of calls only
    return grpc.StatusCode.OK


def test_all_names_of_a_certificate_are_read() -> None:
    """With their kinds, several of each; with two URIs as well, for which grpc has no SPIFFE id."""
    seen = Seen()

    with served(MutualTls(), seen) as (secure, _):
        assert code_of(grpc.secure_channel(secure, tls.channel_credentials(ALL))) is grpc.StatusCode.OK

    assert seen.identities == [Identity(WEB, names=NAMES)]


@pytest.mark.parametrize(
    ("names", "common_name", "subject", "expected"),
    [
        ([URI(WEB)], "", "spiffe", WEB),
        ([URI(WEB), URI("https://example.org/")], "", "spiffe", None),
        ([DNS("web.example.org")], "web", "common_name", "web"),
        ([], "web", ("dns", "uri"), None),
        ([EMAIL("web@example.org"), DNS("web.example.org")], "", ("ip", "email"), "web@example.org"),
    ],
)
def test_the_subject_is_of_the_kind_that_was_asked_for(
    names: list[x509.GeneralName], common_name: str, subject: Any, expected: str | None
) -> None:
    """A common name only if it is asked for; a SPIFFE id only if it is the one URI."""
    seen = Seen()

    with served(MutualTls(subject), seen) as (secure, _):
        code = code_of(grpc.secure_channel(secure, tls.channel_credentials(names, common_name)))

    assert code is (grpc.StatusCode.OK if expected else grpc.StatusCode.UNAUTHENTICATED)
    assert [identity.subject for identity in seen.identities if identity] == ([expected] if expected else [])


def test_without_a_certificate_nobody_is_known() -> None:
    """Over TLS of a server that asks for none, and without TLS."""
    seen = Seen()

    with served(MutualTls(), seen, ask=False) as (secure, insecure):
        assert code_of(grpc.secure_channel(secure, tls.channel_credentials())) is grpc.StatusCode.UNAUTHENTICATED
        assert code_of(grpc.insecure_channel(insecure)) is grpc.StatusCode.UNAUTHENTICATED

    assert seen.identities == []


def test_a_resumed_session_has_the_same_identity() -> None:
    """TLS asks for the certificate once; the next connection has it from the session. That needs a host name."""
    from grpc.experimental import session_cache

    seen = Seen()
    options = [("grpc.ssl_session_cache", session_cache.ssl_session_cache_lru(4))]
    credentials = tls.channel_credentials(ALL)

    with served(MutualTls(), seen) as (secure, _):
        for _ in range(3):  # a ticket may come after the answer
            assert code_of(grpc.secure_channel(secure, credentials, options)) is grpc.StatusCode.OK

    assert b"true" in seen.resumed
    assert set(seen.identities) == {Identity(WEB, names=NAMES)}


@pytest.mark.parametrize("plain", [False, True], ids=["async", "plain"])
async def test_asyncio_servers_read_the_same(plain: bool) -> None:
    """For async handlers and for plain ones."""
    seen = Seen()
    with tls.pool() as threads:
        server = intercept_server(grpc.aio.server(threads), Authenticate(MutualTls()), seen)
        server.add_generic_rpc_handlers((Echo().handlers(asyncio=True, plain=plain),))
        port = server.add_secure_port("127.0.0.1:0", tls.server_credentials(ask=True))
        await server.start()
        async with grpc.aio.secure_channel(f"localhost:{port}", tls.channel_credentials(ALL)) as channel:
            await asyncio.wait_for(Stub(channel).unary_unary("hello"), 10)
        await server.stop(None)

    assert seen.identities == [Identity(WEB, names=NAMES)]


# --- by hand ----------------------------------------------------------------------------------------------------------


def verified(subject: Any = tuple(mutual_tls.PROPERTIES), **shown: list[bytes]) -> Any:
    """What a connection with these properties gives."""
    auth_context = {"transport_security_type": [b"ssl"], "x509_pem_cert": [b"-----"], **shown}
    return MutualTls(subject)(Credentials(incoming(auth_context=auth_context), 8192))


KEYS = {"uri": "peer_uri", "dns": "peer_dns", "email": "peer_email", "ip": "peer_ip"}
ODD = ["10.0.0.1", "::1", "spiffe://td/a", "a@b.example", "web.example", "a/b", "fe80::1", "localhost", "*.a.example"]


@given(st.one_of(st.sampled_from(ODD), st.text(max_size=30)))
def test_no_name_passes_for_one_of_another_kind(text: str) -> None:
    """Whatever stands in a certificate as a name of one kind: no text is a name of two kinds."""
    taken = []
    for kind, key in KEYS.items():
        try:
            taken.append(verified(kind, **{key: [text.encode()]}).subject)
        except errors.Unauthenticated:
            continue

    assert len(taken) <= 1
    assert set(taken) <= {text}


@pytest.mark.parametrize("raw", [b"\xff", b"a\x00.example", b"a\n.example", b"", b"-a.example", b"a b", b"x" * 3000])
def test_a_name_that_is_none_is_left_out(raw: bytes) -> None:
    """Bytes that are no text, and text that is no name."""
    with pytest.raises(errors.Unauthenticated, match="without a name of the kinds"):
        verified("dns", peer_dns=[raw])

    assert verified("dns", peer_dns=[raw, b"web.example"]).subject == "web.example"


@pytest.mark.parametrize(
    "raw", [b"spiffe://", b"spiffe://TD/a", b"spiffe://td/a//b", b"spiffe://td/a/", b"https://td/a"]
)
def test_a_spiffe_id_is_written_as_its_standard_says(raw: bytes) -> None:
    """Anything else is another URI."""
    with pytest.raises(errors.Unauthenticated):
        verified("spiffe", peer_uri=[raw])


def test_other_transports_say_nothing() -> None:
    """A local connection, or one without any security: the next verifier is asked."""
    for shown in ({}, {"transport_security_type": [b"local"], "peer_dns": [b"web.example"]}):
        assert MutualTls()(Credentials(incoming(auth_context=shown), 8192)) is None


@pytest.mark.parametrize("subject", [(), "url", ("dns", 1), None], ids=repr)
def test_kinds_that_are_none_are_refused(subject: Any) -> None:
    """With those that there are."""
    with pytest.raises(ValueError, match=r"^MutualTls: subject must (be made of uri, dns|name at least one)"):
        MutualTls(subject)


def test_it_shows_what_it_reads() -> None:
    """The kinds, in their order."""
    assert repr(MutualTls("spiffe")) == "MutualTls(('spiffe',))"
