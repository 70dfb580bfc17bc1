"""Addresses of peers, as grpc and as proxies write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interpose.mechanisms.addresses import (
    holder,
    holder_of_peer,
    host_of_peer,
    is_local,
    is_unix,
    last_untrusted,
    networks,
    of_entry,
    parsed,
)


@pytest.mark.parametrize(
    ("peer", "host"),
    [
        ("ipv4:10.0.0.1:5000", "10.0.0.1"),
        ("ipv6:%5B::1%5D:5000", "::1"),
        ("ipv6:[2001:db8::1]:5000", "2001:db8::1"),
        ("ipv6:%5Bfe80::1%254%5D:5000", "fe80::1%4"),
        ("ipv6:[fe80::1%25eth0]:5000", "fe80::1%eth0"),
        ("unix:", ""),
        ("unix:/run/proxy.sock", ""),
        ("vsock:2:5000", ""),
        ("", ""),
    ],
)
def test_the_host_of_a_peer(peer: str, host: str) -> None:
    """Without the port; brackets and the zone of a link as grpc encodes them."""
    assert host_of_peer(peer) == host
    assert host == "" or parsed(host) is not None


@pytest.mark.parametrize(
    ("peer", "holds"),
    [
        ("ipv4:10.0.0.1:5000", "10.0.0.1"),
        ("ipv6:%5B2001:db8:1:2:3:4:5:6%5D:5000", "2001:db8:1:2::/64"),
        ("ipv6:%5B::ffff:10.0.0.1%5D:5000", "10.0.0.1"),
        ("ipv6:%5B::1%5D:5000", "::1"),
        ("ipv6:%5Bfe80::1%254%5D:5000", "fe80::1%4"),
        ("unix:", "unix:"),
        ("unix:/run/a.sock:5", "unix:/run/a.sock:5"),
    ],
)
def test_who_holds_an_address(peer: str, holds: str) -> None:
    """A host is given 64 bits of IPv6, and may take any address below them; but all of a link have the same 64."""
    assert holder_of_peer(peer) == holds


def test_a_text_that_is_no_address_stays() -> None:
    """For a key."""
    assert holder("proxy") == "proxy"


def test_unix() -> None:
    """With a path, without one, abstract."""
    assert all(map(is_unix, ("unix:", "unix:/run/a.sock", "unix-abstract:a")))
    assert not any(map(is_unix, ("ipv4:10.0.0.1:5000", "unixoid:1", "")))


@pytest.mark.parametrize(
    ("entry", "address"),
    [
        ("203.0.113.7", "203.0.113.7"),
        (" 203.0.113.7 ", "203.0.113.7"),
        ("203.0.113.7:4711", "203.0.113.7"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
    ],
)
def test_entries(entry: str, address: str) -> None:
    """With and without a port."""
    assert str(of_entry(entry)) == address


@pytest.mark.parametrize(
    "entry",
    [
        *("", "unknown", "_hidden", "1", "203.0.113", "203.0.113.07", "fe80::1%eth0", "2001:db8::1" + "0" * 60),
        *("203.0.113.7:port", "203.0.113.7:", "203.0.113.7:65536", "203.0.113.7:-1", "203.0.113.7:٣"),
        *("[2001:db8::1", "[2001:db8::1]4711"),
    ],
)
def test_entries_that_are_no_address(entry: str) -> None:
    """A zone means nothing to another host."""
    assert of_entry(entry) is None


TRUSTED, _ = networks(["10.0.0.0/8", "2001:db8::/32"])


@pytest.mark.parametrize(
    ("lists", "client"),
    [
        (["203.0.113.7"], "203.0.113.7"),
        (["198.51.100.1, 203.0.113.7, 10.0.0.2"], "203.0.113.7"),
        (["198.51.100.1", "203.0.113.7", "10.0.0.2,2001:db8::5"], "203.0.113.7"),
        (["10.0.0.1, 10.0.0.2"], "10.0.0.1"),
        (["203.0.113.7, nonsense, 10.0.0.2"], "None"),
        (["nonsense, 203.0.113.7, 10.0.0.2"], "203.0.113.7"),
        (["203.0.113.7,"], "None"),
        ([], "None"),
        (["203.0.113.7" + ", 10.0.0.1" * 31], "203.0.113.7"),
        (["203.0.113.7" + ", 10.0.0.1" * 32], "None"),
        (["203.0.113.7", *["10.0.0.1, 10.0.0.2"] * 16], "None"),
    ],
)
def test_the_last_that_is_not_trusted(lists: list[str], client: str) -> None:
    """Read from the end, of all lists together; what stands before nonsense cannot be believed, nor a list without end."""
    assert str(last_untrusted(lists, TRUSTED)) == client


@given(st.lists(st.text(max_size=80), max_size=4), st.text(max_size=60))
def test_no_text_makes_it_raise(lists: list[str], peer: str) -> None:
    """Whatever a stranger sends."""
    last_untrusted(lists, TRUSTED)
    holder_of_peer(f"ipv6:{peer}:1")
    host_of_peer(peer)


@pytest.mark.parametrize(
    "target",
    [
        *(
            "unix:/run/a.sock",
            "unix:///run/a.sock",
            "unix-abstract:a",
            "localhost:50051",
            "127.0.0.1:50051",
            "[::1]:50051",
        ),
        *("dns:///localhost:50051", "dns:localhost:50051", "dns:///127.0.0.1:1", "ipv4:127.0.0.1:1,127.9.9.9:2"),
        *("ipv6:[::1]:1", "localhost", "::1", "[::ffff:127.0.0.1]:1"),
    ],
)
def test_a_target_on_this_machine(target: str) -> None:
    """A unix socket, or the loopback interface."""
    assert is_local(target)


@pytest.mark.parametrize(
    "target",
    [
        *(
            "",
            "example.org:443",
            "10.0.0.1:1",
            "0.0.0.0:1",
            "[::]:1",
            "localhost.example.org:1",
            "dns:///example.org:1",
        ),
        *(
            "dns://8.8.8.8/localhost:1",
            "ipv4:127.0.0.1:1,10.0.0.1:1",
            "ipv6:[::1]:1,[2001:db8::1]:1",
            "xds:///localhost",
        ),
        *(
            "vsock:1:2",
            "passthrough:///localhost:1",
            "dns:",
            "dns:///",
            "ipv4:",
            "127.0.0.1.example.org:1",
            "dns://localhost",
        ),
    ],
)
def test_a_target_that_may_be_another_machine(target: str) -> None:
    """All of its addresses have to be this one; a name is only believed where this machine's own resolver reads it."""
    assert not is_local(target)
