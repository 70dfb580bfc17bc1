"""A proxy that lost the server of a call said so by REFUSED_STREAM or an HTTP status, and `Retry` took it for proof.

haproxy 2.6.12 says REFUSED_STREAM whenever the connection to a server breaks before the response, nginx 1.22.1 says 502: the
server may have executed the call. tests/deployment has both of them do so.
"""

from typing import Any

import pytest

from interpose import Kind
from interpose.interceptors import BY_CONVENTION, Retry
from tests.conformance.a6.callers import Way
from tests.conformance.a6.wire import Reply, answer, answering, http, refused, without_status

WAYS = [
    Way("blocking", Kind.UNARY_UNARY),
    Way("sync", Kind.UNARY_STREAM),
    Way("asyncio", Kind.UNARY_STREAM),
    Way("asyncio", Kind.STREAM_UNARY),
    Way("asyncio", Kind.STREAM_STREAM),
]


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize(
    ("safe", "reply"),
    [
        (None, refused),
        (None, without_status),
        (BY_CONVENTION, without_status),
        *((safe, http(status)) for safe in (None, BY_CONVENTION) for status in (429, 502, 503, 504)),
    ],
)
def test_a_write_is_sent_once(safe: Any, reply: Reply, way: Way) -> None:
    """What may have been executed stays failed, by default and by convention."""
    retry = Retry(backoff=lambda _: 0.0, safe=safe)

    with answering(reply, answer(b"yes")) as proxy, way.client(proxy.target, retry) as client:
        answered = client.call()

    assert not answered.ok
    assert proxy.streams == 1


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("reply", [refused, http(502), without_status])
def test_a_read_is_sent_again(reply: Reply, way: Way) -> None:
    """What is safe to execute twice is no worse off."""
    retry = Retry(backoff=lambda _: 0.0, safe=True)

    with answering(reply, answer(b"yes")) as proxy, way.client(proxy.target, retry) as client:
        answered = client.call()

    assert answered.ok
    assert proxy.streams == 2
