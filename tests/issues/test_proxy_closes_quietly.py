"""FaultProxy, left while a connection was open, made asyncio complain of a task that was cancelled."""

import socket

import pytest

from interpose.testing import Echo, FaultProxy


def test_a_proxy_is_left_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    """A connection that is open when the proxy is left is closed, and nothing is logged."""
    with Echo().serve() as target, FaultProxy(target) as proxy:
        host, _, port = proxy.target.rpartition(":")
        client = socket.create_connection((host, int(port)))
        client.recv(1)  # the server's first frame: so both halves of the connection are up

    with client:
        assert client.recv(10_000) is not None
    assert [record.getMessage() for record in caplog.records] == []
