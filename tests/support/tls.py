"""TLS in tests: an authority, and certificates of servers and clients with names of every kind."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from concurrent import futures
from contextlib import contextmanager
from functools import cache
from typing import Any

import grpc
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = dt.timedelta(days=1)


@cache
def authority() -> trustme.CA:
    """The one that servers and clients of the tests trust."""
    return trustme.CA()


def server_credentials(*, ask: bool = False) -> grpc.ServerCredentials:
    """Of a server that is called localhost. ask: clients have to show a certificate."""
    certificate = authority().issue_cert("localhost", "127.0.0.1")
    pairs = [(certificate.private_key_pem.bytes(), certificate.cert_chain_pems[0].bytes())]
    return grpc.ssl_server_credentials(pairs, root(), ask)


def root() -> bytes:
    """The authority's certificate, as PEM."""
    return bytes(authority().cert_pem.bytes())


def channel_credentials(names: Sequence[x509.GeneralName] | None = None, common_name: str = "") -> Any:
    """Of a client that trusts the authority; with a certificate of these names, if any are given."""
    if names is None:
        return grpc.ssl_channel_credentials(root())
    return grpc.ssl_channel_credentials(root(), *client_certificate(names, common_name))


def client_certificate(names: Sequence[x509.GeneralName], common_name: str = "") -> tuple[bytes, bytes]:
    """Key and certificate; trustme itself makes none with a URI."""
    key = ec.generate_private_key(ec.SECP256R1())
    signer: Any = serialization.load_pem_private_key(authority().private_key_pem.bytes(), None)
    now = dt.datetime.now(dt.UTC)
    subject = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else []
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(subject))
        .issuer_name(x509.load_pem_x509_certificate(root()).subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - DAY)
        .not_valid_after(now + DAY)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=not subject)
    certificate = builder.sign(signer, hashes.SHA256())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private, certificate.public_bytes(serialization.Encoding.PEM)


@contextmanager
def ports(server: Any, *, ask: bool = False) -> Iterator[tuple[str, str]]:
    """Start a sync server; gives the targets of its TLS port and of its insecure one."""
    secure = server.add_secure_port("127.0.0.1:0", server_credentials(ask=ask))
    insecure = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"localhost:{secure}", f"127.0.0.1:{insecure}"
    finally:
        server.stop(None).wait()


@contextmanager
def pool(workers: int = 4) -> Iterator[futures.ThreadPoolExecutor]:
    """Threads for a server."""
    with futures.ThreadPoolExecutor(workers) as threads:
        yield threads
