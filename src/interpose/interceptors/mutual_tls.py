"""Callers known by their TLS certificate."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address
from typing import Any

from interpose import errors
from interpose._identity import Credentials, Identity, Name
from interpose._kind import name_or_kind
from interpose.mechanisms.options import insist

# Where grpc puts the names of a client's certificate, by their kind. `peer_spiffe_id` is not read: it is missing where
# there are two URIs. `peer_identities()` is not: it mixes kinds, so that a DNS name may pass for a URI.
PROPERTIES = {"uri": "peer_uri", "dns": "peer_dns", "email": "peer_email", "ip": "peer_ip"}
SPIFFE = "spiffe"
COMMON_NAME = "common_name"
KINDS = (*PROPERTIES, SPIFFE, COMMON_NAME)
LONGEST_KIND = max(map(len, KINDS))

MAX_NAMES = 100  # of one certificate
MAX_NAME = 2048  # characters; SPIFFE allows its ids as many bytes

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:[\x21-\x7e]+")
_SPIFFE = re.compile(r"spiffe://[a-z0-9._\-]+(/[A-Za-z0-9._\-]+)*")  # the SPIFFE standard, "SPIFFE ID"
_LABEL = r"(?!-)[A-Za-z0-9_\-]{1,63}(?<!-)"
_DNS = re.compile(rf"(\*\.)?{_LABEL}(\.{_LABEL})*")
_EMAIL = re.compile(r"[^@\s\x00-\x1f/:\x7f]+@[A-Za-z0-9.\-]+")


class MutualTls:
    """A verifier for `Authenticate`: callers by the names in their TLS certificate.

    The server's credentials have to ask for it: `grpc.ssl_server_credentials(pairs, ca, require_client_auth=True)`. Then
    grpc has checked the certificate against that authority before a call arrives. Needs no package beyond grpcio.

    The identity has all names of the certificate in `names`, each with its kind; its subject is the first name of the
    first kind that the certificate has. A name must be written as its kind is written, so that none passes for one of
    another kind. A DNS name with a "/" in it, for example, is left out.

    subject: which kinds of names are taken for the subject, and in which order: "uri", "dns", "email", "ip"; "spiffe" for
        a SPIFFE id, of a certificate with exactly one URI, as that standard asks; and "common_name", which stands for no
        kind of name and is only read if it is named here.

    A certificate with none of them is refused. ValueError for any other kind.
    """

    def __init__(self, subject: str | Iterable[str] = tuple(PROPERTIES)) -> None:
        kinds = (subject,) if isinstance(subject, str) or not isinstance(subject, Iterable) else tuple(subject)
        insist(
            "MutualTls",
            (bool(kinds), "subject must name at least one kind of names, like 'spiffe'"),
            *(
                (kind in KINDS, f"subject must be made of {', '.join(KINDS)}, not {name_or_kind(kind, LONGEST_KIND)}")
                for kind in kinds
            ),
        )
        self._kinds = kinds

    def __call__(self, credentials: Credentials) -> Identity | None:
        shown = credentials.auth_context
        if list(shown.get("transport_security_type", ())) != [b"ssl"]:
            return None
        names = tuple(_names(shown))
        for kind in self._kinds:
            for value in _subjects(kind, names, shown):
                return Identity(value, names=names)
        if "x509_pem_cert" not in shown and not names:
            return None  # the server did not ask for a certificate
        raise errors.Unauthenticated(f"a certificate without a name of the kinds {', '.join(self._kinds)}")

    def __repr__(self) -> str:
        return f"MutualTls({self._kinds!r})"


def _names(shown: Mapping[str, Iterable[bytes]]) -> Iterator[Name]:
    """All names of the certificate that are written as their kind is written."""
    for kind, key in PROPERTIES.items():
        for raw in list(shown.get(key, ()))[:MAX_NAMES]:
            value = _text(raw)
            if value is not None and _is_written_as(kind, value):
                yield Name(kind, value)


def _subjects(kind: str, names: tuple[Name, ...], shown: Mapping[str, Any]) -> list[str]:
    """The names of one kind."""
    if kind == COMMON_NAME:
        return [value for raw in shown.get("x509_common_name", ()) if (value := _text(raw))]
    if kind == SPIFFE:
        uris = [_text(raw) or "" for raw in shown.get(PROPERTIES["uri"], ())]
        return uris if len(uris) == 1 and _SPIFFE.fullmatch(uris[0]) else []
    return [name.value for name in names if name.kind == kind]


def _text(raw: bytes) -> str | None:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return None
    return text if text.isprintable() and len(text) <= MAX_NAME else None


def _is_written_as(kind: str, value: str) -> bool:
    """Is it written as names of this kind are, and not as an address, unless it is one?"""
    if _is_address(value) or kind == "ip":
        return _is_address(value) and kind == "ip"
    return {"uri": _URI, "dns": _DNS, "email": _EMAIL}[kind].fullmatch(value) is not None


def _is_address(value: str) -> bool:
    try:
        ip_address(value)
    except ValueError:
        return False
    return True
