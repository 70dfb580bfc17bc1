"""TLS: certificates from files, which may change while the server runs."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from interpose.serving import CannotServe
from interpose.serving.certificates import Certificates
from tests.serving.driving import Client, Shop, serve


class Made(NamedTuple):
    """A key, its certificate, and the authority that has signed that."""

    key: bytes
    certificate: bytes
    authority: bytes

    def encrypted(self) -> bytes:
        """The key as it is kept under a password."""
        key: Any = serialization.load_pem_private_key(self.key, None)
        how = serialization.BestAvailableEncryption(b"secret")
        return bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how))


@pytest.fixture(scope="module")
def made() -> list[Made]:
    """Two certificates of two authorities, so that who trusts one does not trust the other."""
    found = []
    for _ in range(2):
        authority = trustme.CA()
        certificate = authority.issue_cert("localhost")
        chain = certificate.cert_chain_pems[0].bytes()
        found.append(Made(certificate.private_key_pem.bytes(), chain, authority.cert_pem.bytes()))
    return found


@pytest.fixture
def written(tmp_path: Path) -> Callable[[bytes, bytes], list[str]]:
    """Write key and certificate where the server reads them; gives the paths."""

    def write(key: bytes, certificate: bytes) -> list[str]:
        files = [tmp_path / "key.pem", tmp_path / "cert.pem"]
        for file, content in zip(files, (key, certificate), strict=True):
            fresh = file.with_suffix(".new")
            fresh.write_bytes(content)
            fresh.rename(file)  # as those who renew certificates do; and another inode, however coarse the clock
        return list(map(str, files))

    return write


def trusting(server: Made, own: Made | None = None) -> Any:
    """What a client trusts, and shows."""
    key, chain = (None, None) if own is None else own[:2]
    return grpc.ssl_channel_credentials(server.authority, key, chain)


@pytest.mark.parametrize("on_loop", [False, True], ids=["sync", "asyncio"])
def test_new_certificates_count_from_the_next_handshake(
    path: Path, made: list[Made], written: Any, on_loop: bool
) -> None:
    """A client that trusts the new certificate alone is served once the files have changed; the old connection goes on."""
    (first, second) = made
    key, cert = written(*first[:2])

    def script(client: Client) -> Any:
        before = client.call()
        written(*second[:2])
        fresh = Client(client.target, trusting(second), [("grpc.ssl_target_name_override", "localhost")])
        try:
            return before, fresh.call(), client.call()
        finally:
            fresh.channel.close()

    shop = Shop(asyncio=on_loop)
    answers = serve(shop.app, script, path, credentials=trusting(first), tls_key=key, tls_cert=cert)

    assert answers == ("hello!",) * 3


def test_clients_need_a_certificate_of_the_ca(path: Path, made: list[Made], written: Any) -> None:
    """With a CA, a client without a certificate is refused, and one with it is served."""
    (own, other) = made
    key, cert = written(*own[:2])
    ca = str(Path(cert).with_name("ca.pem"))
    Path(ca).write_bytes(other.authority)

    def script(client: Client) -> Any:
        answer = client.call()
        bare = Client(client.target, trusting(own), [("grpc.ssl_target_name_override", "localhost")])
        try:
            with pytest.raises(grpc.RpcError) as caught:
                bare.call(wait_for_ready=False)
        finally:
            bare.channel.close()
        return answer, caught.value.code()

    credentials = trusting(own, other)
    ends = serve(
        Shop(asyncio=False).app, script, path, credentials=credentials, tls_key=key, tls_cert=cert, tls_client_ca=ca
    )

    assert ends == ("hello!", grpc.StatusCode.UNAVAILABLE)


def test_files_that_do_not_fit_leave_the_old_ones_in_use(
    made: list[Made], written: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Amid a change the key is not that of the certificate: said once, and the next state of the files counts."""
    (first, second) = made
    certificates = Certificates(*written(*first[:2]))

    unchanged = certificates.fetch()
    written(second[0], first[1])
    torn = [certificates.fetch() for _ in range(3)]
    written(*second[:2])
    fresh = certificates.fetch()

    assert unchanged is None
    assert torn == [None] * 3
    assert fresh is not None
    assert [record.message.split(":")[0] for record in caplog.records if record.levelname == "ERROR"] == [
        "the certificates stay as they were"
    ]


def test_files_that_are_gone_leave_the_old_ones_in_use(
    made: list[Made], written: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that is removed is no reason to stop serving."""
    key, cert = written(*made[0][:2])
    certificates = Certificates(key, cert)

    Path(cert).unlink()

    assert certificates.fetch() is None
    assert f"cannot read {cert}" in caplog.text


def test_what_cannot_be_used_is_refused_at_the_start(made: list[Made], written: Any, tmp_path: Path) -> None:
    """Files that are missing, damaged, encrypted, or of two certificates: each in one line that names them."""
    (first, second) = made
    key, cert = written(first[0], second[1])
    encrypted = tmp_path / "encrypted.pem"
    encrypted.write_bytes(first.encrypted())
    (tmp_path / "damaged").write_text("no PEM")

    said = []
    for files in (
        (key, cert),
        (str(tmp_path / "none"), cert),
        (str(tmp_path / "damaged"), cert),
        (str(encrypted), cert),
    ):
        with pytest.raises(CannotServe) as caught:
            Certificates(*files)
        said.append(str(caught.value))

    assert "is not that of the certificate" in said[0]
    assert said[1].startswith(f"cannot read {tmp_path / 'none'}: give files in PEM")
    assert "must be whole files in PEM" in said[2]
    assert "is encrypted" in said[3]
    assert not any("\n" in one or os.linesep in one for one in said)
