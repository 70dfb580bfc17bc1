"""Addresses of peers, as grpc and as proxies write them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from itertools import islice
from typing import TypeAlias
from urllib.parse import unquote

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

UNIX = "unix"

SITE = (
    64  # bits of an IPv6 address that one host or site is given; it may use all addresses below them (RFC 4291, 2.5.4)
)
LONGEST = 64  # characters; the longest address with a port and a zone has about 60
MOST_HOPS = 32  # entries of a list of addresses that are looked at; no chain of proxies is so long


def parsed(text: str) -> Address | None:
    """The address that a text says, without brackets and port; None for any other. IPv4 in IPv6 is IPv4."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return (address.version == 6 and address.ipv4_mapped) or address


def host_of_peer(peer: str) -> str:
    """The address in a peer as grpc writes it: "ipv4:10.0.0.1:5000", "ipv6:%5B::1%5D:5000". Empty for "unix:" and others."""
    scheme, _, rest = peer.partition(":")
    host = rest.rpartition(":")[0]
    if scheme == "ipv4":
        return host
    # The brackets are percent-encoded, and so is the % before a zone.
    return unquote(host).removeprefix("[").removesuffix("]") if scheme == "ipv6" else ""


def is_loopback(host: str) -> bool:
    """Is it this machine, by its name or address?"""
    address = parsed(host)
    return host == "localhost" if address is None else address.is_loopback


def is_local(target: str) -> bool:
    """Does a target, as a channel of grpc has it, stay on this machine: a unix socket, or the loopback interface?"""
    scheme, colon, rest = target.partition(":")
    if colon and scheme in (UNIX, f"{UNIX}-abstract"):
        return True
    if scheme == "dns":  # dns:host, dns:///host, and dns://server/host, where that server decides what it means
        server, slash, host = rest.removeprefix("//").partition("/") if rest.startswith("//") else ("", "/", rest)
        return bool(slash) and not server and _is_here(host)
    if scheme in ("ipv4", "ipv6"):
        return all(map(_is_here, rest.split(",")))
    return _is_here(target)


def _is_here(host: str) -> bool:
    """Is a host, with a port or without, this machine?"""
    if host.startswith("["):
        return is_loopback(host[1:].partition("]")[0])
    return is_loopback(host if host.count(":") > 1 else host.partition(":")[0])


@lru_cache(8192)  # connections, or more
def holder_of_peer(peer: str) -> str:
    """The host behind a peer as grpc writes it; the peer itself if it has no address."""
    return holder(host_of_peer(peer) or peer)


def is_unix(peer: str) -> bool:
    """Is it a peer on a unix socket, as grpc writes it: "unix:", "unix:/run/proxy.sock"?"""
    return peer.startswith((UNIX + ":", UNIX + "-abstract:"))


def of_entry(text: str) -> Address | None:
    """The address in an entry that a proxy has made: "203.0.113.7", "203.0.113.7:4711", "2001:db8::1", "[2001:db8::1]:4711"."""
    text = text.strip()
    if len(text) > LONGEST or "%" in text:  # a zone means nothing to another host
        return None
    if text.startswith("["):
        host, closing, port = text[1:].partition("]")
        return parsed(host) if closing and (not port or _is_port(port)) else None
    if text.count(":") == 1:
        host, colon, port = text.partition(":")
        return parsed(host) if _is_port(colon + port) else None
    return parsed(text)


def _is_port(text: str) -> bool:
    return text[:1] == ":" and text[1:].isascii() and text[1:].isdigit() and int(text[1:]) < 65_536


@lru_cache(4096)
def holder(text: str) -> str:
    """The host that an address stands for, as far as can be known: all of an IPv4 address, the first 64 bits of an IPv6 one.

    Of a link-local address all of it, for all hosts of a link have the same 64 bits. A text that is no address stays.
    """
    address = parsed(text)
    if not isinstance(address, IPv6Address) or address.is_link_local or address.is_loopback:
        return text if address is None else str(address)
    return str(IPv6Network((int(address) >> SITE << SITE, SITE)))


def networks(texts: Iterable[str]) -> tuple[tuple[Network, ...], list[str]]:
    """The networks that texts like "10.0.0.0/8" or "10.1.2.3" say, and those texts that say none."""
    found, faults = list[Network](), list[str]()
    for text in texts:
        try:
            found.append(ip_network(text))
        except ValueError as error:
            faults.append(str(error))
    return tuple(found), faults


def within(address: Address, trusted: Collection[Network]) -> bool:
    """Is it in one of these networks?"""
    return any(address.version == network.version and address in network for network in trusted)


def last_untrusted(entries: Iterable[str], trusted: Collection[Network]) -> Address | None:
    """Of lists of addresses, each entry behind those before it, the last that is not trusted.

    If all are trusted, the first. None if there is none, or an entry that is no address follows it: nothing before
    that can be believed.
    """
    address = None
    for entry in _from_the_end(entries):
        address = of_entry(entry)
        if address is None or not within(address, trusted):
            return address
    return address


def _from_the_end(lists: Iterable[str]) -> Iterator[str]:
    """The entries of all lists, the last first; behind MOST_HOPS of them, one that is no address."""
    # Cut at that number of commas and not at each: a peer may send thousands.
    entries = (entry for text in reversed(list(lists)) for entry in reversed(text.rsplit(",", MOST_HOPS)))
    yield from islice(entries, MOST_HOPS)
    yield from islice(("" for _ in entries), 1)
