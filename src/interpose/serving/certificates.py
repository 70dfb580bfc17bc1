"""TLS: certificates from files, read anew when the files change."""

from __future__ import annotations

import logging
import os
import ssl
import threading
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import grpc

from interpose.serving.options import CannotServe

_log = logging.getLogger("interpose")

Stamp: TypeAlias = tuple[tuple[int, int, int], ...]


class Certificates:
    """A key, its certificate chain, and the CA whose clients are let in, as files in PEM.

    New ones count from the next handshake on; connections that exist go on. Files that do not fit together, as while
    they are being replaced, are logged once, and the former ones stay in use.

    CannotServe if they do not fit together at the start.
    """

    def __init__(self, key: str, chain: str, client_ca: str | None = None) -> None:
        self._key = key
        self._chain = chain
        self._client_ca = client_ca
        self._lock = threading.Lock()  # handshakes ask from several threads
        self._seen = self._stamp()
        try:
            self._first = self._read()
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise CannotServe(self._fault(error)) from None

    def credentials(self) -> Any:
        """What a server's `add_secure_port` takes."""
        mutual = self._client_ca is not None
        return grpc.dynamic_ssl_server_credentials(self._first, self.fetch, require_client_authentication=mutual)

    def fetch(self) -> Any:
        """Asked at each handshake: the certificates if they have changed, or None."""
        with self._lock:
            try:
                stamp = self._stamp()
                if stamp == self._seen:
                    return None
                self._seen = stamp
                fresh = self._read()
            except (OSError, ValueError) as error:
                _log.error("the certificates stay as they were: %s", self._fault(error))
                return None
        _log.info("certificates were read anew from %s", self._chain)
        return fresh

    def _files(self) -> list[str]:
        return [self._key, self._chain, *([self._client_ca] if self._client_ca else [])]

    def _stamp(self) -> Stamp:
        """What changes with the files; a file that is not there has a stamp too."""
        return tuple(map(_stamp_of, self._files()))

    def _read(self) -> Any:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._chain, self._key, password=_no_password)
        if self._client_ca is not None:
            context.load_verify_locations(self._client_ca)
        key, chain, *ca = (Path(file).read_bytes() for file in self._files())
        return grpc.ssl_server_certificate_configuration([(key, chain)], ca[0] if ca else None)

    def _fault(self, error: Exception) -> str:
        """One line of what is wrong with the files."""
        missing = [file for file in self._files() if not os.access(file, os.R_OK)]
        if missing:
            return f"cannot read {' and '.join(missing)}: give files in PEM that this user may read"
        if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
            return f"the key {self._key} is not that of the certificate {self._chain}: give two that belong together"
        if isinstance(error, _Encrypted):
            return f"the key {self._key} is encrypted, and there is no one to ask for its password: give it decrypted"
        ca = f" and {self._client_ca}" if self._client_ca else ""
        return f"{self._key}, {self._chain}{ca} must be whole files in PEM, and are not: {error}"


class _Encrypted(ValueError):
    """A key wants a password."""


def _no_password() -> NoReturn:
    raise _Encrypted


def _stamp_of(file: str) -> tuple[int, int, int]:
    try:
        found = Path(file).stat()
    except OSError:
        return (0, 0, 0)
    return found.st_mtime_ns, found.st_size, found.st_ino
