"""The address of the client itself, where there are proxies before the server."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network

from interpose import context
from interpose._call import Call
from interpose._flow import Flow
from interpose._metadata import Metadata
from interpose._method import Side
from interpose.mechanisms import addresses
from interpose.mechanisms.options import insist

HEADER = "x-forwarded-for"
UNIX = addresses.UNIX


class RealIp:
    """Find the client's own address behind proxies that you trust: `context.real_ip()`, and the key of `by_peer`.

    A proxy writes the address it was called from at the end of a list in the metadata. What is before that, anybody
    may have written. So the list is read from its end: the first address that is not one of your proxies is the client.
    If all of them are, it is the one at the beginning.

    The list counts only if the peer is itself in `trusted`. Otherwise, and where the list is missing or an entry on the
    way is no address, the answer is the peer. `context.real_ip()` is None where the peer has no IP address. Server; on a
    client it does nothing.

    trusted: the networks of your proxies, like "10.0.0.0/8" or "2001:db8::/32", addresses, and "unix" for a proxy that
             comes through a unix socket. There is no default: to trust a network is to believe each host in it.
    header:  the metadata key of the list; "x-real-ip" for a proxy that writes one address. Your outermost proxy has to
             add to it or to replace it. By default "x-forwarded-for", which most proxies write.

    ValueError listing every fault of these.
    """

    def __init__(self, trusted: Iterable[str | IPv4Network | IPv6Network], header: str = HEADER) -> None:
        texts = (
            [] if isinstance(trusted, (str, bytes)) or not isinstance(trusted, Iterable) else list(map(str, trusted))
        )
        found, faults = addresses.networks(text for text in texts if text != UNIX)
        insist(
            "RealIp",
            (
                len(texts) > 0,
                f'trusted must be a list of networks of your proxies, like ["10.0.0.0/8"], not {trusted!r}',
            ),
            *((False, f"trusted: {fault}") for fault in faults),
            (
                _carries_a_list(header),
                f"header must be a metadata key of a list of addresses, like {HEADER!r}, not {header!r}",
            ),
        )
        self._trusted = found
        self._trusts_unix = UNIX in texts
        self._header = header.lower()

    def __call__(self, call: Call) -> Flow:
        if call.side is Side.SERVER:
            context.set_real_ip(self._found(call.peer or "", call.metadata))
        yield call

    def _found(self, peer: str, metadata: Metadata) -> str | None:
        """The address of the client, as text."""
        address = addresses.parsed(addresses.host_of_peer(peer))
        if self._trusts(peer, address):
            lists = [value for value in metadata.get_all(self._header) if isinstance(value, str)]
            address = addresses.last_untrusted(lists, self._trusted) or address
        return None if address is None else str(address)

    def _trusts(self, peer: str, address: addresses.Address | None) -> bool:
        if address is None:
            return self._trusts_unix and addresses.is_unix(peer)
        return addresses.within(address, self._trusted)


def _carries_a_list(header: object) -> bool:
    if not isinstance(header, str) or header.lower() == "forwarded":  # RFC 7239: not a list of addresses
        return False
    try:
        Metadata([(header, "10.0.0.1")])
    except ValueError:
        return False
    return True
