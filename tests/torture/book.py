"""The book of a run: what was planned for each RPC, and what its interceptors, its handler and its caller saw."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

import grpc

from interpose import Call, Flow, Kind, Outcome

NUMBER = "x-number"  # the metadata key that says which RPC it is
FLAT, TALL = "torture.Flat", "torture.Tall"  # services with one interceptor on each side, and with many
OUTERMOST = "client outermost"  # the interceptor whose outcome the caller has to see

OK = grpc.StatusCode.OK
CANCELLED = grpc.StatusCode.CANCELLED
DEADLINE_EXCEEDED = grpc.StatusCode.DEADLINE_EXCEEDED
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
UNKNOWN = grpc.StatusCode.UNKNOWN

# What the handler does, and the code that its caller sees.
ACTS = {
    "answer": OK,
    "abort": grpc.StatusCode.FAILED_PRECONDITION,
    "raise status": grpc.StatusCode.NOT_FOUND,
    "raise": UNKNOWN,
    "set code": grpc.StatusCode.DATA_LOSS,
    "fail once": UNAVAILABLE,  # or OK, where an interceptor sends it again
    "refuse unread": grpc.StatusCode.PERMISSION_DENIED,
}


@dataclass(frozen=True)
class Plan:
    """One RPC as it is planned.

    ending: "wait" until it ends, "cancel" it after `moment` seconds, give it a "deadline" of `moment`, or "drop" it after
    `reads` responses. api: the other way to call: `future` for sync unary responses, read and write for asyncio streams.
    """

    number: int
    client: str  # "sync" or "aio"
    server: str  # "sync", "async" or "plain": an asyncio server with plain handlers
    kind: Kind
    service: str
    act: str
    delay: float  # seconds before the handler answers
    requests: int  # messages of a request stream
    responses: int  # messages of a response stream
    gap: float  # seconds between two request messages
    api: bool
    ending: str
    moment: float
    reads: int

    @property
    def codes(self) -> set[grpc.StatusCode]:
        """How it may end."""
        codes = {ACTS[self.act]}
        if self.act == "fail once" and self.service == TALL:
            codes = {OK}
        # A server that sees the deadline pass first resets the stream, and grpc's client, bare as well, tells CANCELLED. So it
        # does on asyncio if a request stream ends just as the deadline passes.
        early = {"cancel": {CANCELLED}, "deadline": {DEADLINE_EXCEEDED, CANCELLED}}.get(self.ending, set())
        # Whoever leaves may come too late, and may leave between two attempts.
        return codes | early | ({UNAVAILABLE} if early and self.act == "fail once" else set())

    def sent(self) -> list[str]:
        """Its request messages."""
        return [f"{self.number}.{position}" for position in range(self.requests if self.kind.request_streaming else 1)]

    def answers(self) -> list[str]:
        """The response messages of a handler that has taken all requests."""
        if not self.kind.response_streaming:
            return [f"{self.number}.{len(self.sent())}"]
        return [f"{self.number}.{position}" for position in range(self.responses)]


class Mark:
    """Something that must be gone when the RPC is: it lives in the frame of a flow, or owns a callback."""

    __slots__ = ("__weakref__",)


class Book:
    """Counts by RPC, place and event. `open` is what has begun and not ended: nothing, once all is settled."""

    def __init__(self, plans: Sequence[Plan]) -> None:
        self.plans = plans
        self.marks: WeakSet[Any] = WeakSet()
        self.owners: WeakSet[Any] = WeakSet()
        self._changed = threading.Condition(threading.RLock())  # a finalizer may come in between
        self._called: set[int] = set()
        self._counts: dict[int, Counter[tuple[str, str]]] = defaultdict(Counter)
        self._told: dict[int, list[grpc.StatusCode]] = defaultdict(list)  # to the outermost interceptor of the client
        self._outcomes: dict[int, list[tuple[grpc.StatusCode, list[str]] | None]] = defaultdict(list)
        self._faults: dict[int, list[str]] = defaultdict(list)
        self._open = 0

    def call(self, number: int) -> None:
        """This RPC is about to be performed."""
        with self._changed:
            self._called.add(number)

    def note(self, number: int, where: str, what: str, opens: int = 0) -> int:
        """Count an event; opens: 1 if something has begun, -1 if it has ended. Gives the count."""
        with self._changed:
            self._counts[number][where, what] += 1
            self._open += opens
            if opens < 0:
                self._changed.notify_all()
            return self._counts[number][where, what]

    def told(self, number: int, outcome: Outcome) -> None:
        """What the outermost interceptor was told."""
        with self._changed:
            self._told[number].append(outcome.code)

    def outcome(self, number: int, outcome: tuple[grpc.StatusCode, list[str]] | None) -> None:
        """What the caller got; None: it dropped the call."""
        with self._changed:
            self._outcomes[number].append(outcome)

    def fault(self, number: int, fault: str) -> None:
        with self._changed:
            self._faults[number].append(fault)

    def settle(self, patience: float) -> list[str]:
        """Wait until all that has begun has ended; gives the differences since the last time."""
        with self._changed:
            self._changed.wait_for(lambda: self._open == 0, patience)
            # Also of RPCs that had ended for their callers, and reached a server only later.
            numbers = sorted(self._called | self._counts.keys() | self._faults.keys())
            differences = [
                f"{fault}; {self.plans[number]}" for number in numbers for fault in self._differences(number)
            ]
            self._called.clear()
            for kept in (self._counts, self._told, self._outcomes, self._faults):
                kept.clear()  # type: ignore[attr-defined]
            self._open = 0
            return differences

    # - what must hold for each RPC -

    def _differences(self, number: int) -> Iterator[str]:
        counts = self._counts[number]
        yield from self._faults[number]
        for begins, ends in (("started", "finished"), ("sent", "told"), ("begun", "ended"), ("added", "called")):
            for where in sorted({where for where, _ in counts}):
                if counts[where, begins] != counts[where, ends]:
                    yield f"{where}: {counts[where, begins]} {begins}, {counts[where, ends]} {ends}"
        if number not in self._called:
            return
        if (told := len(self._told[number])) != 1:
            yield f"{OUTERMOST} was told {told} outcomes"
        if (outcomes := len(self._outcomes[number])) != 1:
            yield f"the caller got {outcomes} outcomes"
        elif (outcome := self._outcomes[number][0]) is not None:
            yield from self._unexpected(self.plans[number], *outcome)

    def _unexpected(self, plan: Plan, code: grpc.StatusCode, messages: list[str]) -> Iterator[str]:
        # Who cancels while another thread tells the flows of a good end sees CANCELLED, as futures do that were cancelled.
        too_late = plan.ending == "cancel" and plan.client == "sync" and code is CANCELLED
        if [code] != self._told[plan.number] and not too_late:
            yield f"the caller got {code.name}, {OUTERMOST} was told {[code.name for code in self._told[plan.number]]}"
        if code not in plan.codes:
            yield f"the caller got {code.name}"
        answers = plan.answers()
        if messages != (answers if code is OK else answers[: len(messages)]):
            yield f"the caller got {messages} with {code.name}"


# --- interceptors -----------------------------------------------------------------------------------------------------


class Layer:
    """An interceptor that keeps the book: what it starts it finishes, and what it sends it is told of."""

    def __init__(self, book: Book, where: str) -> None:
        self.book = book
        self.where = where

    def __call__(self, call: Call) -> Flow:
        number = int(call.metadata[NUMBER])
        mark = Mark()
        self.book.marks.add(mark)
        self.book.note(number, self.where, "started", 1)
        try:
            return (yield from self.flow(call, number))
        finally:
            self.book.note(number, self.where, "finished", -1)
            del mark

    def flow(self, call: Call, number: int) -> Flow:
        return (yield from self.send(call, number))

    def send(self, call: Call, number: int) -> Generator[Call, Outcome, Outcome]:
        self.book.note(number, self.where, "sent", 1)
        outcome = yield call
        self.book.note(number, self.where, "told", -1)
        if self.where == OUTERMOST:
            self.book.told(number, outcome)
        return outcome


class Tap(Layer):
    """Sees each message; what it saw is what the outcome counts."""

    def flow(self, call: Call, number: int) -> Flow:
        requests: list[str] = []
        responses: list[str] = []
        tapped = call.tap(requests=requests.append, responses=responses.append)
        outcome = yield from self.send(tapped, number)
        counted, seen = (outcome.requests, outcome.responses), (len(requests), len(responses))
        if outcome.ok and counted != seen:
            self.book.fault(number, f"{self.where}: the outcome counts {counted} messages, but {seen} have passed")
        return outcome


class Replay(Layer):
    """Sends again what is UNAVAILABLE, once; a client keeps the request stream for that."""

    def flow(self, call: Call, number: int) -> Flow:
        if call.side.value == "client":
            call = call.buffered(4096)
        outcome = yield from self.send(call, number)
        if outcome.code is UNAVAILABLE and outcome.replayable:
            outcome = yield from self.send(call, number)
        return outcome


class Later(Layer):
    """Lets every third call go a little later."""

    def flow(self, call: Call, number: int) -> Flow:
        return (yield from self.send(call if number % 3 else call.after(0.002), number))


def stack(book: Book, side: str) -> tuple[Layer, tuple[Layer, ...]]:
    """The outermost interceptor, and those below it in the tall stack."""
    below = (
        Replay(book, f"{side} replay"),
        Tap(book, f"{side} tap"),
        Later(book, f"{side} later"),
        Layer(book, f"{side} innermost"),
    )
    return Layer(book, f"{side} outermost"), below


# --- callbacks --------------------------------------------------------------------------------------------------------


class Owner(Mark):
    """Owns a callback that is called once, at the end of the RPC; `over` is set then."""

    __slots__ = ("_book", "_number", "_where", "over")

    def __init__(self, book: Book, number: int, where: str) -> None:
        self._book = book
        self._number = number
        self._where = where
        self.over = threading.Event()
        book.owners.add(self)
        book.note(number, where, "added", 1)

    def called(self, *_: Any) -> None:
        self._book.note(self._number, self._where, "called", -1)
        self.over.set()


@contextmanager
def handled(book: Book, context: Any) -> Iterator[tuple[Plan, int]]:
    """Around the body of a handler; gives the plan, and how often its handler was called."""
    plan = book.plans[int(dict(context.invocation_metadata())[NUMBER])]
    begun = book.note(plan.number, "handler", "begun", 1)
    try:
        yield plan, begun
    finally:
        book.note(plan.number, "handler", "ended", -1)
