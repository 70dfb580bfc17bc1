"""Where a command connects to, and how: the options that all of them share, and the channel that follows from them."""

from __future__ import annotations

import ssl
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import grpc

from interpose.cli.durations import duration
from interpose.cli.failures import Refused
from interpose.cli.headers import Pairs, parsed
from interpose.cli.options import group

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_FILES = ("ca", "cert", "key")


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """What a command was given of a server, and of how to call it. timeout: seconds, or None for no deadline."""

    target: str
    tls: bool
    ca: Path | None
    cert: Path | None
    key: Path | None
    authority: str | None
    metadata: Pairs
    timeout: float | None
    max_msg_sz: int | None

    @property
    def secure(self) -> bool:
        """A file for TLS asks for TLS."""
        return self.tls or any(getattr(self, name) is not None for name in _FILES)

    @property
    def options(self) -> list[tuple[str, Any]]:
        """Those of grpc's channel. Its own retries are off: what is sent again is for the flags to say."""
        options: list[tuple[str, Any]] = [("grpc.enable_retries", 0), ("grpc.primary_user_agent", "interpose-cli")]
        if self.authority:
            options.append(("grpc.default_authority", self.authority))
            options += [("grpc.ssl_target_name_override", self.authority)] if self.secure else []
        if self.max_msg_sz is not None:
            options.append(("grpc.max_receive_message_length", self.max_msg_sz))
        return options

    @property
    def credentials(self) -> grpc.ChannelCredentials | None:
        """For TLS; None without it. Refused if the files do not go together."""
        if not self.secure:
            return None
        if (self.cert is None) != (self.key is None):
            raise Refused("a client certificate needs both: --cert FILE and --key FILE")
        self._look_at_files()
        ca, cert, key = (None if path is None else path.read_bytes() for path in (self.ca, self.cert, self.key))
        return grpc.ssl_channel_credentials(ca, key, cert)

    def _look_at_files(self) -> None:
        """Refused for files that Python's own TLS does not take: grpc's core would try them again and again."""
        context = ssl.create_default_context()
        if self.ca is not None:
            with _pem(f"--ca {self.ca} holds no certificate in PEM"):
                context.load_verify_locations(self.ca)
        if self.cert is not None:
            with _pem(
                f"--cert {self.cert} and --key {self.key} are no certificate in PEM and its key, without a password"
            ):
                context.load_cert_chain(self.cert, self.key, password="")

    def channel(self, grpc: Any = grpc, *options: tuple[str, Any]) -> Any:
        """A channel to it, to be closed. grpc: `grpc.aio` for one of asyncio. options: more of the channel's."""
        credentials = self.credentials
        if credentials is None:
            return grpc.insecure_channel(self.target, [*self.options, *options])
        return grpc.secure_channel(self.target, credentials, [*self.options, *options])


@contextmanager
def _pem(fault: str) -> Generator[None, None, None]:
    """Say of a file that TLS does not take what is wrong with it."""
    try:
        yield
    except (ssl.SSLError, ValueError) as error:
        raise Refused(f"{fault}: {getattr(error, 'reason', None) or error}") from None


def _connection(header: tuple[str, ...], **values: Any) -> Connection:
    if not values["target"]:
        raise Refused("TARGET is empty: write host:port, unix:/path or dns:///name:port")
    return Connection(metadata=parsed(header), **values)


OPTIONS = (
    click.argument("target"),
    click.option("-H", "--metadata", "--header", "header", multiple=True, metavar="KEY:VALUE",
                 help="Send this metadata; -bin keys take base64, ${NAME} is a variable of the environment."),
    click.option("--deadline", "--timeout", "timeout", type=duration, metavar="TIME",
                 help="How long it may take: 5, 5s, 250ms, 1m."),
    click.option("--tls/--plaintext", default=False, help="Encrypt. A file for TLS asks for it too."),
    click.option("--ca", "--cacert", "ca", type=FILE, help="Trust servers of this CA, in PEM. Default: the usual ones."),
    click.option("--cert", type=FILE, help="The client's certificate, in PEM."),
    click.option("--key", type=FILE, help="The key of the client's certificate, in PEM."),
    click.option("--authority", metavar="NAME", help="The name of the server, if it is not that in TARGET."),
    click.option("--max-msg-sz", type=click.IntRange(1), metavar="BYTES",
                 help="Of one message that comes in. Default: 4 MiB."),
)  # fmt: skip

# Gives a command the argument TARGET and the options of a connection: it is called with `connection`.
connected = group(
    OPTIONS, "connection", _connection, "target", "header", "timeout", "tls", *_FILES, "authority", "max_msg_sz"
)
