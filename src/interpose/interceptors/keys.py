"""Which calls belong together: those with the same key share a breaker, a count or a share of a limit."""

from __future__ import annotations

from collections.abc import Callable

from interpose import context
from interpose._call import Call
from interpose._method import CLIENT
from interpose.mechanisms import addresses

_real_ip = context._real_ip.get
_identity = context._identity.get


def by_target(call: Call) -> str:
    """One key for each target, like "dns:///pay:443"; for each channel that hides its target; on a server one for all."""
    return "" if call.method.target is None else call.method.target.key


def by_service(call: Call) -> str:
    """One key for each service, like "pay.v1.Cards"."""
    return call.method.service


def by_peer(call: Call) -> str:
    """One key for each host that calls: its IPv4 address, or the first 64 bits of an IPv6 one; behind `RealIp` the client's.

    Not for each connection, which cost a client nothing. All that come through a unix socket are one. On a client there
    is one for each target.
    """
    if call._side is CLIENT:
        return str(call.method.target or "")
    address = _real_ip()
    return addresses.holder_of_peer(call.peer or "") if address is None else addresses.holder(address)


def by_identity(call: Call) -> str:
    """One key for each caller whose identity is known, and `by_peer` for all others; on a client for each target."""
    identity = None if call._side is CLIENT else _identity()
    return by_peer(call) if identity is None else f"{identity.issuer or ''}\0{identity.subject}"


def by_method(call: Call) -> str:
    """One key for each method, like "/pay.v1.Cards/Charge"."""
    return call.method.full_name


def by_metadata(key: str) -> Callable[[Call], str]:
    """One key for each value that calls have under a metadata key, and `by_peer` for those without.

    A client is free in what it sends: use a key that something before this has verified. Values are not logged.
    """

    def by_value(call: Call) -> str:
        value = call.metadata.get(key)
        if value is None:
            return by_peer(call)
        return f"{key}:{value.hex() if isinstance(value, bytes) else value}"

    return by_value
