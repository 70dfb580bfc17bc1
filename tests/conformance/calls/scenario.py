"""Scenarios: how an RPC is started, and what server and caller then do, one step after the other.

A model of the RPC says which steps are possible: those that grpcio answers, and always in the
same way. It knows nothing of grpcio beyond this: the end of a response stream is not told before its messages are read.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import strategies as st

from interpose import Kind
from tests.support.patience import PATIENCE

OK, FAILED, CANCELLED = "OK", "NOT_FOUND", "CANCELLED"
ENDS = (OK, FAILED, CANCELLED)

ANY_TIME = ("done", "cancelled", "time_remaining", "repr", "kinship", "add_done_callback")
SYNC_ANY_TIME = (*ANY_TIME, "is_active", "running", "add_callback")
AT_THE_END = ("code", "details")
SYNC_AT_THE_END = (*AT_THE_END, "result", "exception", "traceback")
EARLY = ("early: code", "early: details", "early: trailing_metadata")
SYNC_EARLY = (*EARLY, "early: exception")

BRIEFLY = 0.03  # seconds: a deadline that is to pass


@dataclass(frozen=True)
class Scenario:
    """How an RPC goes.

    form: how it is started: "call", "with_call", "future" or "stream". sends: "one" request, "given" (an iterator), or
    "said" (as steps say). ahead: what the server is told before the call is made. steps: "server: …" for the server,
    "settle" to wait until the caller's side knows the end, "early: …" to ask beside the other steps; all others are what
    the caller does.
    """

    kind: Kind
    form: str
    sends: str
    steps: tuple[str, ...]
    ahead: tuple[str, ...] = ()
    timed: bool = True  # is there a deadline?
    expires: bool = False  # does it pass?

    @property
    def timeout(self) -> float | None:
        """Seconds that the call may take."""
        if self.expires:
            return BRIEFLY
        return PATIENCE if self.timed else None


@dataclass
class Model:
    """What can be known of an RPC from outside."""

    kind: Kind
    asyncio: bool
    sends: str
    steps: list[str] = field(default_factory=list)
    initial_sent: bool = False
    initial_known: bool = False
    connected: bool = False
    unread: int = 0
    sent: int = 0
    early: int = 0
    half_closed: bool = False
    ended: bool = False  # at the server
    over: bool = False  # at the caller
    cancelled: bool = False  # by the caller
    style: str = ""  # asyncio: "read" or "iterate"

    def possible(self) -> list[str]:
        """The steps that may come next."""
        steps = [*(ANY_TIME if self.asyncio else SYNC_ANY_TIME), *self._of_server(), *self._of_messages()]
        if self._may_cancel():
            steps += ["cancel"] if self.over or not self.asyncio else ["cancel", "give up"]
        if self.kind.response_streaming:
            steps += self._of_responses()
        elif self.asyncio and self.over:
            steps.append("await")
        if self.over:
            steps += self._of_the_end()
        else:
            if self.early < 2:
                steps += EARLY if self.asyncio else SYNC_EARLY
                # Of a response stream grpcio may give a message that somebody else is about to read.
                steps += [] if self.asyncio or self.kind.response_streaming else ["early: result"]
            if not self.asyncio:
                steps += ["result soon", "exception soon", "traceback soon"]
        if self._initial_metadata_is_certain():
            steps.append("initial_metadata")
        if self.asyncio and self._connection_is_certain():
            steps.append("wait_for_connection")
        return steps

    def _of_server(self) -> list[str]:
        if self.ended or self.over:
            return []
        # grpc.aio now and then forgets the initial metadata that came right before the end.
        forgets = self.asyncio and self.kind is not Kind.UNARY_UNARY and self.initial_sent and not self.unread
        steps = [] if forgets and not self.initial_known else [f"server: {end}" for end in ENDS]
        if not self.initial_sent:
            steps.append("server: initial")
        if self.kind.response_streaming and self.sent < 3:
            steps += ["server: message"] * 3
        return steps

    def _of_messages(self) -> list[str]:
        if self.sends != "said":
            return ["say", "hush"] if self.asyncio and self.kind.request_streaming else []
        if self.asyncio:
            # Between the server's end and the caller's grpc.aio makes up a status of its own for what is written.
            return ["say", "hush", "hush"] if self.over or not self.ended else []
        return [] if self.over or self.ended or self.half_closed else ["say", "hush", "hush"]

    def _of_responses(self) -> list[str]:
        forms = ("read", "iterate") if self.asyncio else ("next",)
        steps = [*forms, *forms] if self.unread or self.over else []
        if self.ended or self.over:
            steps += ["read all", "iterate all"] if self.asyncio else ["iterate all"]
        return steps

    def _of_the_end(self) -> list[str]:
        steps = list(AT_THE_END if self.asyncio else SYNC_AT_THE_END)
        if not (self.cancelled and self.ended):  # which of the two ends came first is a race
            steps.append("trailing_metadata")
        if not self.cancelled:  # asked is what grpc answers: row debug-text
            steps.append("debug_error_string")
        return steps

    def _may_cancel(self) -> bool:
        # Whether the server's trailing metadata or the cancel comes first is a race, for those who wait for it.
        return self.over or not self.ended or "early: trailing_metadata" not in self.steps

    def _initial_metadata_is_certain(self) -> bool:
        if not self.over:
            return self.initial_sent and self.kind is not Kind.UNARY_UNARY
        return not self.cancelled or self.initial_known or not self.initial_sent

    def _connection_is_certain(self) -> bool:
        if not self.over:
            return self.initial_sent and self.kind is not Kind.UNARY_UNARY
        # Asked is what grpc answers: row connection-of-an-ended-call.
        return not self.cancelled or self.connected or not self.kind.request_streaming

    def do(self, step: str) -> None:
        """Take note of a step."""
        self.steps.append(step)
        was_over = self.over
        who, _, what = step.rpartition(": ")
        if who == "server":
            self._serve(what)
        elif who == "early":
            self.early += 1
        elif step in ("cancel", "give up"):
            self.cancelled |= not self.over
            self.over = True
        elif step == "hush":
            self.half_closed = True
        elif step in ("next", "read", "iterate", "iterate all", "read all"):
            self._receive(step)
        elif not was_over:
            self._learn(step)
        self.over |= self.ended and not self.unread
        if self.over and not was_over:
            self.steps.append("settle")

    def _serve(self, what: str) -> None:
        self.initial_sent = True
        if what == "message":
            self.unread += 1
            self.sent += 1
        elif what in ENDS:
            if self.half_closed or self.sends != "said":
                self.steps.insert(-1, "server: read all")
            self.ended = True

    def _learn(self, step: str) -> None:
        """What the caller's side knows for certain because it has waited for it."""
        said = step == "say" and self.sends == "said" and not self.half_closed
        self.initial_known |= step == "initial_metadata"
        self.connected |= said or step in ("initial_metadata", "wait_for_connection")

    def _receive(self, step: str) -> None:
        style = step.removesuffix(" all")
        if self.asyncio and self.style not in ("", style):
            return  # a usage error
        self.style = style
        if self.unread:
            self.initial_known = self.connected = True
            self.unread = 0 if step.endswith("all") else self.unread - 1

    def sweep(self) -> tuple[str, ...]:
        """Ask for everything that can be asked at the end."""
        asked = [step for step in self.possible() if not step.startswith(("server", "early", "say", "hush"))]
        return tuple(dict.fromkeys(asked))


@st.composite
def scenarios(draw: st.DrawFn, kind: Kind, asyncio: bool = False) -> Scenario:
    """RPCs that do not block their caller: sync futures and response streams, and all asyncio calls."""
    sends = draw(st.sampled_from(["given", "said"])) if kind.request_streaming else "one"
    model = Model(kind, asyncio, sends)
    for _ in range(draw(st.integers(0, 10))):
        model.do(draw(st.sampled_from(model.possible())))
    if not model.over:
        # No drop with a done callback, which grpc lets hold the call.
        droppable = not asyncio and not model.early and "add_done_callback" not in model.steps
        finish(model, draw(st.sampled_from([*ENDS, "cancel", "drop"] if droppable else [*ENDS, "cancel"])))
    form = "stream" if kind.response_streaming or asyncio else "future"
    asked = model.sweep() if model.over else ()
    return Scenario(kind, form, sends, (*model.steps, *asked), timed=draw(st.booleans()))


def finish(model: Model, end: str) -> None:
    """Bring the RPC to its end."""
    if end in ENDS and not model.ended:
        if f"server: {end}" not in model.possible():
            model.do("initial_metadata")
        model.do(f"server: {end}")
    elif end == "drop":
        model.steps.append("drop")
        return
    elif end == "cancel" and "cancel" in model.possible():
        model.do("cancel")
    if not model.over:
        style = model.style or "iterate"
        model.do(f"{style} all" if model.asyncio else "iterate all")


@st.composite
def blocking(draw: st.DrawFn, kind: Kind) -> Scenario:
    """Sync RPCs that block their caller: what the call gives or raises is looked at."""
    form = draw(st.sampled_from(["call", "with_call"]))
    model = Model(kind, False, "given" if kind.request_streaming else "one", over=True, initial_sent=True)
    end = draw(st.sampled_from(ENDS))
    ahead = (*(["initial"] if draw(st.booleans()) else []), *(["read all"] if draw(st.booleans()) else []), end)
    for _ in range(draw(st.integers(0, 6))):
        model.do(draw(st.sampled_from(model.possible())))
    return Scenario(kind, form, model.sends, (*model.steps, *model.sweep()), ahead)


@st.composite
def expiring(draw: st.DrawFn, kind: Kind, asyncio: bool = False) -> Scenario:
    """RPCs whose deadline passes while the server does nothing."""
    form = "stream" if kind.response_streaming or asyncio else draw(st.sampled_from(["future", "call", "with_call"]))
    # On asyncio nothing is sent: grpc.aio may make up a status of its own for a message that comes too late.
    sends = "one" if not kind.request_streaming else "said" if asyncio else "given"
    model = Model(kind, asyncio, sends, over=True)
    for _ in range(draw(st.integers(0, 6))):
        model.do(draw(st.sampled_from(model.possible())))
    return Scenario(kind, form, model.sends, ("settle", *model.steps, *model.sweep()), expires=True)
