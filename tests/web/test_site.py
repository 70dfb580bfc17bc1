"""What a browser is answered: only for hosts that are named, read only, and under a strict policy."""

import base64
import hashlib
import json
import logging
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from interpose.web.site import BadQuery, Reply, Site, document, host_faults


def site(read: Any = lambda asked: {"asked": dict(asked)}, hosts: tuple[str, ...] = ()) -> Site:
    return Site(read, hosts, lambda: 1000.0)


def answer(
    path: str = "/", *, verb: str = "GET", query: str = "", host: str | None = "localhost", of: Site | None = None
) -> Reply:
    """What the site says to one request."""
    return (of or site()).answer(verb, "/rpcz", path, query, [] if host is None else [host])


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:80",
        "127.0.0.1",
        "127.0.0.1:8081",
        "[::1]:9",
        "[::1]",
        "10.0.0.7:80",
        "ops.example.com:443",
    ],
)
def test_hosts_that_are_named_are_answered(host: str) -> None:
    """localhost and addresses, with any port, for there may be a tunnel; and the names that were given."""
    assert answer(host=host, of=site(hosts=("Ops.Example.com",))).status == 200


@pytest.mark.parametrize(
    "host",
    [None, "", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "127.0.0.1@evil.example", "localhost:80:80",
     "localhost:", "[::1", "localhost evil.example", "2130706433", "127.1", "[::1].evil.example"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/", "/json", "", "/none"])
def test_others_learn_nothing(host: str | None, path: str) -> None:
    """A stranger's name that points to the loopback (DNS rebinding), one that looks like ours, and none."""
    reply = answer(path, host=host)

    assert reply.status == 421
    assert b"hosts=" in reply.body


def test_two_hosts_are_none() -> None:
    """It is not for us to choose."""
    assert site().answer("GET", "/rpcz", "/", "", ["localhost", "localhost"]).status == 421


@pytest.mark.parametrize("verb", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "get"])
def test_it_is_read_only(verb: str) -> None:
    """Nothing but GET and HEAD, and the answer says so."""
    reply = answer(verb=verb)

    assert reply.status == 405
    assert ("Allow", "GET, HEAD") in reply.headers


def test_where_things_are() -> None:
    """The page at the slash, the twin at json, a hint elsewhere."""
    assert [answer(path).status for path in ("/", "/json", "", "/x", "//", "/json/")] == [200, 200, 302, 404, 404, 404]
    assert ("Location", "/rpcz/") in answer("").headers
    moved = site().answer("GET", "/a b\r\nX: y", "", "", ["localhost"])
    assert ("Location", "/a%20b%0D%0AX%3A%20y/") in moved.headers


def test_the_twin_passes_the_query_on() -> None:
    """Decoded, cut at a length, and without a field that comes twice."""
    reply = answer("/json", query="filter=a%20b&limit=5&limit=6")

    assert json.loads(reply.body) == {"asked": {"filter": "a b", "limit": "6"}}
    assert ("Content-Type", "application/json") in reply.headers
    assert answer("/json", query="a=1&" * 17).status == 400
    assert len(answer("/json", query=f"filter={'x' * 5000}").body) < 3000


def test_a_query_that_makes_no_sense_is_answered() -> None:
    """With what was wrong."""

    def read(asked: Any) -> Any:
        raise BadQuery("limit must be a whole number")

    reply = answer("/json", of=site(read))
    assert (reply.status, reply.body) == (400, b"limit must be a whole number\n")


def raises(asked: Any) -> Any:
    raise ValueError("secret")


@pytest.mark.parametrize(
    "read", [raises, lambda asked: float("nan"), lambda asked: object()], ids=["raises", "nan", "no json"]
)
def test_a_fault_stays_in_the_log(read: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Once a minute, with its traceback; who asks learns that there was one."""
    broken = site(read)
    with caplog.at_level(logging.ERROR, "interpose"):
        replies = [answer("/json", of=broken) for _ in range(3)]

    assert {reply.status for reply in replies} == {500}
    assert b"secret" not in replies[0].body
    assert len(caplog.records) == 1


@pytest.mark.parametrize("path", ["/", "/json", "", "/none"])
def test_every_answer_is_kept_by_nobody_and_framed_by_nobody(path: str) -> None:
    """Headers against caches, sniffing, frames and other origins."""
    headers = dict(answer(path).headers)

    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_the_page_needs_nothing_from_outside() -> None:
    """No address but its own, no handler and no style in a tag; its style and script are those that the policy names."""
    body, policy = document()
    page, parsed = body.decode(), Tags()
    parsed.feed(page)

    for _, attributes in parsed.tags:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        assert [attributes[name] for name in ("src", "href") if name in attributes] == [
            value
            for name in ("src", "href")
            if (value := attributes.get(name)) and re.match(r"json$|#|data:image/svg", value)
        ]
    assert "http" not in re.sub(r"http://www\.w3\.org/2000/svg", "", page)
    assert "innerHTML" not in page and "eval(" not in page and "@import" not in page and "url(" not in page
    for tag, directive in (("style", "style-src"), ("script", "script-src")):
        [inside] = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize(
    ("hosts", "faults"),
    [([], 0), (["a.b"], 0), ("a.b", 1), (7, 1), (["http://a.b"], 1), (["a.b:80"], 1), ([1, "[::1]", "*"], 2)],
    ids=str,
)
def test_names_of_hosts(hosts: Any, faults: int) -> None:
    """Names, without scheme and port; each that is none is told."""
    assert len(host_faults(hosts)) == faults
