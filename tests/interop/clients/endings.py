"""The endings of a call that clients of other makes are shown, and what a page says that each of them makes of one.

A cell of the page is AS_SENT where code, text, details and messages arrive as the server sent them. Otherwise it says what the
client shows. A text is cut where it begins to vary: at its first number, or after sixty characters.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

from google.rpc import error_details_pb2, status_pb2

from tests.interop.clients.jobs import Maker

AS_SENT = "as sent"
NOT_ASKED = "not asked"
LARGE = 3_000_000  # characters of a message that is within grpc's 4 MiB
OVERSIZED = 5_000_000  # and of one that is not
LONG_TRAILER = 12_000  # bytes
ABORTED = "no order 8: größer 😀"
FAILED = "sold out"
SOLD_OUT = error_details_pb2.ErrorInfo(reason="SOLD_OUT", domain="shop.example")
KINDS = ("Unary", "Down", "Up", "Both")


@dataclass(frozen=True)
class Case:
    """A way in which a call ends.

    text: of the request. code, details: what the server sends; details that end in … stand for all that begin so. code None:
    the client ends the call. detail: a message of google.rpc that comes with it; an empty one stands for all of its type.
    word: trailing metadata. token: of the caller. kinds: of RPC. breaks: it ends other calls too, of some makes. at_random:
    makes that show now this, now that. options: of the job.
    """

    name: str
    text: str = "hello"
    code: str | None = "OK"
    details: str = ""
    _: KW_ONLY
    detail: Any = None
    word: Sequence[str] = ()
    token: str | None = "caller"
    kinds: Sequence[str] = KINDS
    breaks: bool = False
    at_random: Sequence[str] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sent(self) -> str:
        """What the server sends, in the words of the page."""
        if self.code is None:
            return "nothing"
        with_text = f'{self.code} "{self.details}"' if self.details else self.code
        return with_text if self.detail is None else f"{with_text}, {self.detail.DESCRIPTOR.name}"

    def asked(self, make: Maker) -> Sequence[str]:
        """The kinds of RPC in which a client is asked to do it; none if it cannot."""
        if make.lacks & {*self.options, *(["word"] if self.word else [])}:
            return ()
        return self.kinds[:1] if "streams" in make.lacks else self.kinds

    def job(self) -> dict[str, Any]:
        """What a client is asked to do."""
        metadata = {} if self.token is None else {"authorization": f"Bearer {self.token}"}
        return {"text": self.text, "metadata": metadata, **self.options}

    def shown(self, ending: dict[str, Any]) -> str:
        """What a client makes of it: a cell of the page."""
        code, details = ending["code"], ending["details"] or ""
        if self.code is None:
            return str(code)  # at a deadline the text is now the client's, now the server's
        parts: list[str] = []
        if code != self.code or not _fits(details, self.details):
            lost = " without text" if self.details and code != "OK" else ""
            parts.append(f'{code} "{cut(details)}"' if details else f"{code}{lost}")
        if code == "OK" and not self._answered(ending["messages"]):
            parts.append(f"messages {ending['messages']}")
        if not self._detailed(ending.get("rich")):
            parts.append("no details")
        words = [value[:40] for value in ending.get("word") or []]
        if code == "OK" and words != list(self.word):
            parts.append(" and ".join(f"`word: {word}`" for word in words) or "no trailing metadata")
        return ", ".join(parts) or AS_SENT

    def _answered(self, messages: Sequence[str]) -> bool:
        wanted = "x" * 40 if self.text in ("large", "compressed") else self.text[:40]
        return len(messages) == 1 and messages[0].startswith(wanted)

    def _detailed(self, rich: str | None) -> bool:
        if self.detail is None:
            return True
        status = status_pb2.Status.FromString(base64.b64decode(rich or ""))
        found = type(self.detail)()
        return any(one.Unpack(found) for one in status.details) and self.detail in (found, type(found)())


def cut(text: str) -> str:
    """A text up to where it begins to vary."""
    kept = re.split(r"\b\d", text)[0][:60]
    return text if kept == text else f"{kept}…"


def _fits(text: str, wanted: str) -> bool:
    return text.startswith(wanted[:-1]) if wanted.endswith("…") else text == wanted


CASES = [
    Case("OK"),
    Case("OK, with a message of 3 MB", "large"),
    Case("`context.abort`", "abort", "NOT_FOUND", ABORTED),
    Case("a rich error", "rich", "FAILED_PRECONDITION", FAILED, detail=SOLD_OUT),
    Case("an exception: `ExceptionToStatus`", "bug", "INTERNAL", "internal error, id …"),
    Case("no token: `Authenticate`", "hello", "UNAUTHENTICATED", "the call needs valid credentials", token=None),
    Case(
        "a permission that is missing: `Authorize`",
        "hello",
        "PERMISSION_DENIED",
        "the caller may not call this method",
        token="guest",
    ),
    Case(
        "too many calls: `RateLimit`",
        "hello",
        "RESOURCE_EXHAUSTED",
        "too many calls: try again in …",
        detail=error_details_pb2.RetryInfo(),
        token="greedy",
    ),
    Case("too many at once: `ConcurrencyLimit`", "hello", "UNAVAILABLE", "too many calls at once", token="crowd"),
    Case(
        "a request against its rules: `Validate`",
        "invalid",
        "INVALID_ARGUMENT",
        "invalid request…",
        detail=error_details_pb2.BadRequest(),
    ),
    Case(
        "a request of 5 MB: grpc's own limit",
        "x" * OVERSIZED,
        "RESOURCE_EXHAUSTED",
        "SERVER: Received message larger than max…",
        kinds=("Unary", "Both"),
    ),
    Case(
        "the client's deadline has passed",
        "wait",
        None,
        options={"timeout": 0.5},
        at_random=("grpclib", "ruby", "buf curl"),
    ),
    Case("the client cancels", "wait", None, options={"cancel_after": 0.5}, at_random=("ruby",)),
    Case("OK, with `word: a` and `word: b` as trailing metadata", "words", word=("a", "b")),
    Case("OK, with 12,000 bytes of trailing metadata", "long", word=("x" * 40,), breaks=True, at_random=("grpcio",)),
    Case("OK, with messages that the handler compresses", "compressed", kinds=("Down", "Both")),
]
# What no Python server sends: a server that is told its bytes does.
UNHEARD_OF = Case("a status that grpc does not know", code="42", details="odd")
