"""Keys that are fetched in the background, and stay while they cannot be. Needs the extra `jwt`."""

from __future__ import annotations

import logging
import math
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from ssl import PROTOCOL_TLS_CLIENT, SSLContext
from types import NoneType
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, HTTPSHandler, OpenerDirector, ProxyHandler, Request, build_opener

from interpose import errors
from interpose._background import Background
from interpose._clock import FOREVER, SYSTEM, Clock
from interpose._flow import wait
from interpose._kind import kind_of
from interpose.contrib.signing_keys import MAX_KEYS, Key, Keys, read_set
from interpose.mechanisms.addresses import is_loopback
from interpose.mechanisms.options import CLOCK, check_options, must_be, option, ruled, seconds, whole
from interpose.mechanisms.text import one_line

MAX_BYTES = 256 * 1024  # of one document
CHUNK = 64 * 1024  # bytes that are read at once

_log = logging.getLogger("interpose")


@dataclass(frozen=True, slots=True, kw_only=True)
class JwksState:
    """What a `Jwks` holds.

    keys: in the set. left_out: in the document, but of no use here. age: seconds since it was last fetched; None: never.
    fetches, failures: how often it was asked for, and how often that failed. changes: how often other keys came.
    error: what the last fetch failed with; None if it did not.
    """

    keys: int
    left_out: int
    age: float | None
    fetches: int
    failures: int
    changes: int
    error: str | None


class _Held(NamedTuple):
    keys: Keys
    at: float


def _is_url(source: str | Path) -> bool:
    return isinstance(source, str) and "://" in source


def _source_faults(name: str, source: object) -> Iterator[str]:
    # Not with what it is: a URL may hold a password, and keys may be given in its place.
    text = f"{name} must be an https URL or the path of a file, not {kind_of(source)}"
    if not isinstance(source, (str, Path)) or not str(source):
        yield text
        return
    if not _is_url(source):
        return
    try:
        url = urlsplit(str(source))
        host = url.hostname or ""
    except ValueError:
        yield text
        return
    if "@" in url.netloc:
        yield f"{name} must be a URL without a password"
    if url.scheme not in ("https", "http") or not host:
        yield text
    if url.scheme == "http" and not is_loopback(host):
        yield f"{name} must be https, not http: {host} is another machine"


@dataclass(eq=False, repr=False)
class Jwks:
    """Keys of a JWKS document that is fetched in the background: `Jwt(Jwks("https://id.example/jwks.json"), …)`.

    The first call that needs a key has it fetched. From then on it is fetched again every `refresh` seconds, while
    calls go on with the keys that are there. There is one fetch at a time, in a thread that ends with it, and none
    before it is needed. If a fetch fails, or gives nonsense, the last good keys stay; it is tried again after 1 s, 2
    s, 4 s … `cooldown`. An unknown key id has the keys fetched at once, one time for all callers that wait for it. If
    it is still unknown then, other unknown ids are refused unfetched for `cooldown` seconds. A key that has left the
    document is good for 60 s more.

    source:    an https URL, one with http on this machine, or the path of a file. Redirects are not followed.
    refresh:   seconds between two fetches.
    cooldown:  seconds; see above.
    timeout:   seconds that a fetch may wait for the server, and a call for a fetch.
    max_bytes: a longer document is refused.
    ssl:       an `ssl.SSLContext`, where the server's authority is not one of the usual.
    clock:     where the time is read; the one that was given to the server.

    Defaults: 300 s, as in PyJWT: after that a new key is known even if no token has named it. Cooldown 30 s and 5 s for a
    fetch are those of jose for JavaScript. 256 KiB is many times what such a document has.

    ValueError listing every fault of these. Nothing is opened or fetched here.
    """

    source: str | Path = field(metadata=ruled(_source_faults))
    _: KW_ONLY
    refresh: float = option(300.0, seconds(FOREVER))
    cooldown: float = option(30.0, seconds(FOREVER))
    timeout: float = option(5.0, seconds(FOREVER))
    max_bytes: int = option(MAX_BYTES, whole(1, 1 << 30))
    ssl: SSLContext | None = option(
        None, must_be("an ssl.SSLContext or None", lambda ssl: isinstance(ssl, (SSLContext, NoneType)), shown=kind_of)
    )
    clock: Clock = option(SYSTEM, CLOCK)

    def __post_init__(self) -> None:
        check_options(self)
        self.now = self.clock.now
        self._background: Background[None] = Background("interpose-jwks")
        self._held: _Held | None = None
        self._retired: list[Key] = []
        self._left_out: list[str] = []
        self.due = math.inf  # when the keys that are here are to be fetched again
        self._unknown_from = -math.inf  # from when on a key that is not here has them fetched
        # Only the one thread that fetches changes these.
        self._fetches = self._failures = self._in_a_row = self._changes = 0
        self._error: str | None = None

    def find(self, kid: str | None, algorithm: str) -> list[Key]:
        """The keys here and now that a token with this id and algorithm may have been signed with."""
        if self._held is None:
            return []
        now = self.now()
        retired = [key for key in Keys(self._retired).find(kid, algorithm) if key.is_good(now)]
        return self._held.keys.find(kid, algorithm) + retired

    def renew(self) -> None:
        """Have the keys fetched if that is due. No call waits for it."""
        if self.now() >= self.due:
            with suppress(RuntimeError):  # no thread to be had
                self._background.start(partial(self._fetch, None, None))

    def find_later(self, kid: str | None, algorithm: str) -> Generator[Any, Any, list[Key]]:
        """The same as `find`, after a fetch if one may help."""
        until = self.now() + self.timeout
        for _ in range(2):  # a fetch that was under way may have begun before the key was there
            if self._background.running() is None and not self._helps(kid, algorithm):
                break
            try:
                yield from wait(self._background.start(partial(self._fetch, kid, algorithm)), deadline=until)
            except (errors.DeadlineExceeded, RuntimeError):  # too slow, or no thread to be had
                break
            if found := self.find(kid, algorithm):
                return found
        return self.find(kid, algorithm)

    def snapshot(self) -> JwksState:
        """What it holds at the moment."""
        held = self._held
        return JwksState(
            keys=0 if held is None else len(held.keys.keys),
            left_out=len(self._left_out),
            age=None if held is None else self.now() - held.at,
            fetches=self._fetches,
            failures=self._failures,
            changes=self._changes,
            error=self._error,
        )

    def __repr__(self) -> str:
        return f"Jwks({str(self.source)!r})"

    # - one fetch, in its thread -

    def _helps(self, kid: str | None, algorithm: str | None) -> bool:
        """May a fetch bring something new: is it due, or is it for an id that is not known?"""
        now = self.now()
        if now >= self.due:
            return True
        return algorithm is not None and now >= self._unknown_from and not self.find(kid, algorithm)

    def _fetch(self, kid: str | None, algorithm: str | None) -> None:
        """Fetch the keys, unless another fetch that has just ended has made it needless. Never raises."""
        if not self._helps(kid, algorithm):
            return
        self._fetches += 1
        try:
            keys, left_out = read_set(self._read())
        except Exception as error:
            self._failed(error)
            return
        self._take(keys, left_out)
        if algorithm is not None and not self.find(kid, algorithm):
            self._unknown_from = self.now() + self.cooldown

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        self._in_a_row += 1
        self._error = f"{type(error).__name__}: {one_line(str(error), 200)}"
        pause = min(self.cooldown, 2.0 ** min(self._in_a_row - 1, 30))
        self._unknown_from = self.now() + pause
        if self._held is not None:
            self.due = self._unknown_from
        have = "there are none yet" if self._held is None else "the last good ones stay"
        _log.warning("%r: no keys could be fetched, %s: %s", self, have, self._error)

    def _take(self, keys: list[Key], left_out: list[str]) -> None:
        """Let these be the keys from now on. Those that are here already stay the same objects."""
        now, before = self.now(), [] if self._held is None else list(self._held.keys.keys)
        there = {key.source: key for key in [*self._retired, *before]}
        keys = [there.get(key.source, key) for key in keys]
        gone = [key for key in before if key not in keys]
        for key in gone:
            key.retired = now
        for key in keys:
            key.retired = None
        self._retired = [*gone, *(key for key in self._retired if key not in keys and key.is_good(now))][:MAX_KEYS]
        self._held = _Held(Keys(keys), now)
        if set(keys) != set(before):
            self._changes += 1
            _log.info("%r: %d keys, %d others of no use here", self, len(keys), len(left_out))
        for fault in left_out:
            if fault not in self._left_out:
                _log.warning("%r: a key is left out, %s", self, fault)
        self._left_out, self._in_a_row, self._error = left_out, 0, None
        self.due = now + self.refresh

    def _read(self) -> bytes:
        """The document, as it is now."""
        if not _is_url(self.source):
            with Path(self.source).open("rb") as file:
                return _within(file.read(self.max_bytes + 1), self.max_bytes)
        until = self.now() + self.timeout
        request = Request(str(self.source), headers={"Accept": "application/jwk-set+json, application/json"})  # noqa: S310  its scheme was looked at
        with self._opener.open(request, timeout=self.timeout) as response:
            if response.status != 200:
                raise ValueError(f"status {response.status}")
            data = b""
            while chunk := response.read1(CHUNK):
                data = _within(data + chunk, self.max_bytes)
                if self.now() > until:
                    raise TimeoutError(f"it took longer than {self.timeout:g} s")
        return data

    @cached_property
    def _opener(self) -> OpenerDirector:
        """What opens URLs. Made once, for it reads all authorities of this machine, and not where nothing is encrypted."""
        if urlsplit(str(self.source)).scheme == "http":
            return build_opener(_NoRedirects, HTTPSHandler(context=SSLContext(PROTOCOL_TLS_CLIENT)), ProxyHandler({}))
        return build_opener(_NoRedirects, HTTPSHandler(context=self.ssl))


class _NoRedirects(HTTPRedirectHandler):
    """Keys come from where the application says, and from nowhere else."""

    def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: Any) -> None:
        return None  # which urllib takes for an error


def _within(data: bytes, most: int) -> bytes:
    if len(data) > most:
        raise ValueError(f"more than {most} bytes")
    return data
