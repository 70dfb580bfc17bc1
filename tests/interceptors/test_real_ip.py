"""RealIp: the client's own address behind proxies that are trusted, and no address that anybody may write."""

from collections.abc import Iterable
from ipaddress import ip_network
from typing import Any

import pytest

from interpose import Call, Flow, Side, chain, context
from interpose.interceptors import RateLimit, RealIp
from interpose.interceptors.keys import by_peer
from interpose.testing import PLACES, Place, ok, play
from tests.interceptors.driving import requests

PROXY = "ipv4:10.0.0.2:4711"
SERVERS = [place for place in PLACES if place.side is Side.SERVER]


def found(real_ip: RealIp, peer: str, *lists: str, header: str = "x-forwarded-for") -> str | None:
    """What a handler is told."""
    seen: list[str | None] = []

    def look(call: Call) -> Flow:
        seen.append(context.real_ip())
        yield call

    play(chain(real_ip, look), side=Side.SERVER, peer=peer, metadata=[(header, value) for value in lists])
    return seen[0]


@pytest.mark.parametrize(
    ("peer", "lists", "client"),
    [
        (PROXY, ["203.0.113.7"], "203.0.113.7"),
        (PROXY, ["198.51.100.1, 203.0.113.7, 10.9.9.9"], "203.0.113.7"),
        (PROXY, ["198.51.100.1", "2001:db8::7, 10.9.9.9"], "2001:db8::7"),
        (PROXY, ["203.0.113.7, nonsense"], "10.0.0.2"),
        (PROXY, [], "10.0.0.2"),
        (PROXY, ["10.1.1.1, 10.2.2.2"], "10.1.1.1"),
        ("ipv4:192.0.2.1:4711", ["203.0.113.7"], "192.0.2.1"),
        ("ipv6:%5B::ffff:10.0.0.2%5D:4711", ["203.0.113.7"], "203.0.113.7"),
        ("ipv6:%5Bfd00::2%5D:4711", ["203.0.113.7"], "203.0.113.7"),
        ("ipv6:%5Bfe80::1%254%5D:4711", ["203.0.113.7"], "fe80::1%4"),
        ("unix:", ["203.0.113.7"], None),
        ("vsock:1:2", ["203.0.113.7"], None),
    ],
)
def test_who_called(peer: str, lists: list[str], client: str | None) -> None:
    """The last that is not a proxy of ours, if the peer is one; otherwise the peer."""
    assert found(RealIp(["10.0.0.0/8", ip_network("fd00::/64")]), peer, *lists) == client


def test_a_proxy_on_a_unix_socket() -> None:
    """It is trusted if that is said; others there are too."""
    assert found(RealIp(["unix"]), "unix:", "203.0.113.7") == "203.0.113.7"
    assert found(RealIp(["unix"]), "unix:", "nonsense") is None
    assert found(RealIp(["unix"]), PROXY, "203.0.113.7") == "10.0.0.2"


def test_another_header() -> None:
    """In whatever case it is written."""
    assert found(RealIp(["10.0.0.2"], header="X-Real-IP"), PROXY, "203.0.113.7", header="x-real-ip") == "203.0.113.7"


@pytest.mark.parametrize("place", SERVERS, ids=str)
def test_on_servers(place: Place) -> None:
    """Of real calls: those through one proxy are limited one by one."""
    with place.open(RealIp(["127.0.0.0/8"]), RateLimit("1/hour"), script=[ok(), ...]) as rpc:
        codes = [
            rpc.call(*requests(place), metadata=(("x-forwarded-for", f"{address}, 127.0.0.9"),)).ok
            for address in ("203.0.113.7", "203.0.113.8", "203.0.113.7")
        ]

    assert codes == [True, True, False]


def test_on_a_client_it_does_nothing() -> None:
    """There is no peer that could be known."""
    played = play(RealIp(["10.0.0.0/8"]))

    assert played.outcome.ok and context.real_ip() is None


def test_it_is_not_the_key_of_outgoing_calls() -> None:
    """A limit on a channel counts by its target, also for calls that a handler makes."""

    def look(call: Call) -> Flow:
        played = play(RateLimit("1/hour", key=by_peer, on_refuse=lambda details: keys.append(details.key)), [ok()])
        assert played.outcome.ok
        keys.append(by_peer(played.sent[0].call))
        yield call

    keys: list[str] = []
    play(
        chain(RealIp(["10.0.0.0/8"]), look), side=Side.SERVER, peer=PROXY, metadata=[("x-forwarded-for", "203.0.113.7")]
    )

    assert keys == [""]


@pytest.mark.parametrize(
    ("trusted", "header", "faults"),
    [
        ([], "x-forwarded-for", ["trusted must be a list of networks"]),
        ("10.0.0.0/8", "x-forwarded-for", ["trusted must be a list of networks"]),
        (None, "x-forwarded-for", ["trusted must be a list of networks"]),
        (["10.0.0.1/8", "proxy"], "", ["10.0.0.1/8 has host bits set", "'proxy' does not appear", "header must be"]),
        (["10.0.0.0/8"], "x-list-bin", ["header must be"]),
        (["10.0.0.0/8"], "Forwarded", ["header must be"]),
        (["10.0.0.0/8"], 5, ["header must be"]),
    ],
)
def test_bad_options(trusted: Any, header: Any, faults: Iterable[str]) -> None:
    """All of them, in one error."""
    with pytest.raises(ValueError, match=r"^RealIp: ") as error:
        RealIp(trusted, header)

    assert all(fault in str(error.value) for fault in faults)
