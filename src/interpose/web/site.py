"""What a browser is answered: the page, its JSON twin, or why not. Read only, and only for the hosts that are named.

A foreign web page can have its own name point to 127.0.0.1, and then ask whatever listens there (DNS rebinding).
The browser still sends the page's name as `Host`, so a request for a name that was not given is refused. An address
is not such a name.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import json
import logging
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import parse_qsl, quote

from interpose.mechanisms.seldom import Seldom

HERE = "localhost"
MAX_QUERY = 2048  # characters
MAX_FIELDS = 16

Query: TypeAlias = Mapping[str, str]
Read: TypeAlias = Callable[[Query], Any]  # gives what JSON can hold, or raises `BadQuery`

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]{1,5})?", re.ASCII)

_log = logging.getLogger("interpose")


class BadQuery(ValueError):
    """What was asked makes no sense; the text says what would, and is shown to those who asked."""


class Reply(NamedTuple):
    """The answer to one request."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


class Site:
    """One page. read: what the JSON twin holds at the moment. now: seconds of a monotonic clock."""

    def __init__(self, read: Read, hosts: Iterable[str], now: Callable[[], float]) -> None:
        self._read = read
        self._hosts = {HERE, *(host.lower() for host in hosts)}
        self._now = now
        self._failed = Seldom(60)

    def answer(self, verb: str, place: str, path: str, query: str, hosts: Sequence[str]) -> Reply:
        """The answer to a request. place: where the page is. path: below that. hosts: each `Host` header that came."""
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            return _refusal(421, "This page is not served for that host. Name it: hosts=['ops.example.com'].")
        if verb not in {"GET", "HEAD"}:
            return _refusal(405, "This page is read only: GET and HEAD.", ("Allow", "GET, HEAD"))
        if path == "":
            return _refusal(302, f"The page is at {place}/", ("Location", f"{quote(place)}/"))
        if path == "/":
            return _reply(200, "text/html; charset=utf-8", document().body, document().policy)
        if path == "/json":
            return self._json(query)
        return _refusal(404, "There is a page here at /, and the same as JSON at /json.")

    def _is_ours(self, host: str) -> bool:
        found = _HOST.fullmatch(host.strip().lower())
        return found is not None and (found[1] in self._hosts or _is_address(found[1]))

    def _json(self, query: str) -> Reply:
        try:
            body = json.dumps(self._read(_asked(query)), separators=(",", ":"), allow_nan=False).encode()
        except BadQuery as error:
            return _refusal(400, str(error))
        except Exception:
            if count := self._failed.happened(self._now()):
                _log.exception("the JSON of a page could not be made, %d times since this was last said", count)
            return _refusal(500, "What this page shows could not be read; the log says why.")
        return _reply(200, "application/json", body)


def _asked(query: str) -> Query:
    try:
        return dict(parse_qsl(query[:MAX_QUERY], max_num_fields=MAX_FIELDS, errors="replace"))
    except ValueError:
        raise BadQuery(f"A query has at most {MAX_FIELDS} fields.") from None


def host_faults(hosts: Any) -> list[str]:
    """What is wrong with names of hosts that were given as an option."""
    if isinstance(hosts, str) or not isinstance(hosts, Collection):
        return [f"hosts must be a list of names, like ['ops.example.com'], not {hosts!r}"]
    return [
        f"hosts must have names without scheme and port, like 'ops.example.com', not {host!r}"
        for host in hosts
        if not isinstance(host, str) or not (found := _HOST.fullmatch(host.lower())) or found[1] != host.lower()
    ]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


# --- the page -------------------------------------------------------------------------------------------------------


class Document(NamedTuple):
    """The page, and what a browser may do on it."""

    body: bytes
    policy: str


@cache
def document() -> Document:
    """The page with its style and its script inside, so that a single address is all there is to reach."""
    folder = resources.files("interpose.web") / "page"
    page, style, script = ((folder / name).read_text("utf-8") for name in ("page.html", "page.css", "page.js"))
    body = page.replace("/* style */", style).replace("/* script */", script)
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )
    return Document(body.encode(), policy)


def _hash(text: str) -> str:
    """How a policy names an inline style or script: by what is in it (W3C, Content Security Policy 3, 2.3.1)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _reply(status: int, kind: str, body: bytes, policy: str = "default-src 'none'; frame-ancestors 'none'") -> Reply:
    headers = (
        ("Content-Type", kind),
        ("Content-Length", str(len(body))),
        ("Content-Security-Policy", policy),
        ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "no-referrer"),
        ("Cross-Origin-Resource-Policy", "same-origin"),
        ("Cross-Origin-Opener-Policy", "same-origin"),
    )
    return Reply(status, headers, body)


def _refusal(status: int, why: str, *headers: tuple[str, str]) -> Reply:
    reply = _reply(status, "text/plain; charset=utf-8", f"{why}\n".encode())
    return reply._replace(headers=(*reply.headers, *headers))
