"""A torn upload is not a finished one: what a handler does behind its loop must not be done for a client that has left.

Uploads are cancelled or run out of time at random moments. No client of them ever says that it has sent everything, so
whatever their handlers commit is a part that was taken for the whole. One upload in ten is finished and must be
committed. In the long form the same uploads go to bare grpc, for comparison.
"""

from __future__ import annotations

import random
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio

from interpose import Call, Flow, Interceptor
from tests.facts.serving import Client, serving
from tests.support.patience import PATIENCE
from tests.torture.quiet import quiet, tell

NUMBER = "x-upload"  # the metadata key that says which upload it is
AT_ONCE = 24  # uploads under way at the same time, and workers of the server
SPAN = 0.02  # seconds within which a client leaves
LONG = 2_000  # uploads per sort of server and shape of handler
KINDS = ("stream_unary", "stream_stream")

# Which handlers there are: (sort of server, shape of handler). `read`: with context.read().
PLACES = (("async", "iterated"), ("async", "read"), ("plain", "iterated"), ("sync", "iterated"))


@dataclass(frozen=True)
class Upload:
    """One upload as it is planned. ending: "cancel" or "deadline" tear it after `moment` seconds, "finish" does not."""

    number: int
    kind: str
    ending: str
    moment: float
    messages: int
    gap: float  # seconds between two messages

    @property
    def torn(self) -> bool:
        return self.ending != "finish"


def plans(seed: int, count: int) -> list[Upload]:
    """The uploads of a run; the same for the same seed."""
    chance = random.Random(seed)
    return [
        Upload(
            number,
            KINDS[number % 2],
            chance.choices(("cancel", "deadline", "finish"), (45, 45, 10))[0],
            chance.uniform(0.001, SPAN),
            chance.randint(1, 6),
            chance.choice((0, 0, 0.001, 0.005)),
        )
        for number in range(count)
    ]


@dataclass
class Seen:
    """What the handlers and an interceptor of a server saw, by the number of the upload."""

    uploads: list[Upload]
    begun: set[int] = field(default_factory=set)
    ended: set[int] = field(default_factory=set)
    committed: set[int] = field(default_factory=set)
    told_ok: set[int] = field(default_factory=set)

    @property
    def torn(self) -> set[int]:
        """The torn uploads that reached a handler."""
        return {upload.number for upload in self.uploads if upload.torn} & self.begun

    @property
    def taken_for_whole(self) -> set[int]:
        """The torn uploads that were committed."""
        return self.torn & self.committed

    def defects(self) -> list[str]:
        """Everything that must not be, a line for each upload."""
        finished = {upload.number for upload in self.uploads if not upload.torn}
        wrong = {
            "torn, and committed": self.taken_for_whole,
            "torn, and a success for interceptors": self.torn & self.told_ok,
            "finished, and not committed": finished - self.committed,
            "begun, and its handler did not end": self.begun - self.ended,
        }
        return [f"{what}: {self.uploads[number]}" for what, numbers in wrong.items() for number in sorted(numbers)]

    def watch(self, call: Call) -> Flow:
        """The interceptor: which uploads end well."""
        outcome = yield call
        if outcome.ok:
            self.told_ok.add(int(call.metadata[NUMBER]))

    @contextmanager
    def handled(self, context: Any) -> Iterator[int]:
        """Around the body of a handler; gives the number of the upload."""
        number = int(dict(context.invocation_metadata())[NUMBER])
        self.begun.add(number)
        try:
            yield number
        finally:
            self.ended.add(number)


# --- handlers ---------------------------------------------------------------------------------------------------------


def handlers(seen: Seen, sort: str, shape: str) -> dict[str, Any]:
    """Handlers for both kinds of upload: they take everything, and then commit."""
    if sort != "async":
        return _plain(seen)
    return _reading(seen) if shape == "read" else _iterating(seen)


def _plain(seen: Seen) -> dict[str, Any]:
    def stream_unary(requests: Iterator[str], context: Any) -> str:
        with seen.handled(context) as number:
            for _ in requests:
                pass
            seen.committed.add(number)
        return "committed"

    def stream_stream(requests: Iterator[str], context: Any) -> Iterator[str]:
        with seen.handled(context) as number:
            yield from requests
            seen.committed.add(number)

    return {"stream_unary": stream_unary, "stream_stream": stream_stream}


def _iterating(seen: Seen) -> dict[str, Any]:
    async def stream_unary(requests: AsyncIterator[str], context: Any) -> str:
        with seen.handled(context) as number:
            async for _ in requests:
                pass
            seen.committed.add(number)
        return "committed"

    async def stream_stream(requests: AsyncIterator[str], context: Any) -> AsyncIterator[str]:
        with seen.handled(context) as number:
            async for message in requests:
                yield message
            seen.committed.add(number)

    return {"stream_unary": stream_unary, "stream_stream": stream_stream}


def _reading(seen: Seen) -> dict[str, Any]:
    async def stream_unary(_: Any, context: Any) -> str:
        with seen.handled(context) as number:
            while await context.read() is not grpc.aio.EOF:
                pass
            seen.committed.add(number)
        return "committed"

    async def stream_stream(_: Any, context: Any) -> None:
        with seen.handled(context) as number:
            while (message := await context.read()) is not grpc.aio.EOF:
                await context.write(message)
            seen.committed.add(number)

    return {"stream_unary": stream_unary, "stream_stream": stream_stream}


# --- the client: bare grpc --------------------------------------------------------------------------------------------


def perform(client: Client, upload: Upload) -> None:
    """Upload, and leave as planned."""
    over = threading.Event()
    timeout = upload.moment if upload.ending == "deadline" else PATIENCE
    stub = client.stub(upload.kind)
    send = stub if upload.kind == "stream_stream" else stub.future
    call = send(_messages(upload, over), timeout=timeout, metadata=((NUMBER, str(upload.number)),))
    call.add_done_callback(lambda _: over.set())
    if upload.ending == "cancel":
        over.wait(upload.moment)
        call.cancel()
        return
    with suppress(grpc.RpcError):
        if upload.kind == "stream_stream":
            for _ in call:
                pass
        else:
            call.result()


def _messages(upload: Upload, over: threading.Event) -> Iterator[str]:
    """The request stream; that of a torn upload goes on until the RPC is over."""
    for position in range(upload.messages):
        yield str(position)
        over.wait(upload.gap)
    if upload.torn:
        over.wait()


# --- measuring --------------------------------------------------------------------------------------------------------


def measure(sort: str, shape: str, *, seed: int, count: int, bare: bool = False) -> Seen:
    """Perform the uploads against a server of this sort, with an interceptor or bare."""
    seen = Seen(plans(seed, count))
    flows: tuple[Interceptor, ...] = () if bare else (seen.watch,)
    with (
        quiet(),
        serving(sort, handlers(seen, sort, shape), *flows, workers=2 * AT_ONCE) as client,
        ThreadPoolExecutor(AT_ONCE, "uploads") as clients,
    ):
        for done in [clients.submit(perform, client, upload) for upload in seen.uploads]:
            done.result()
    return seen


def table_rows(count: int = LONG, seed: int = 1) -> list[tuple[str, str, int]]:
    """The long form: a row per sort of server, beside bare grpc."""
    rows = []
    for sort, shape in PLACES:
        bare = measure(sort, shape, seed=seed, count=count, bare=True)
        ours = measure(sort, shape, seed=seed, count=count)
        size = f"{len(ours.torn)} torn (bare grpc takes {len(bare.taken_for_whole)} of {len(bare.torn)} for whole)"
        defects = ours.defects()
        tell(f"torn uploads, seed {seed}, {sort}, {shape}", defects)
        rows.append((f"torn uploads, {sort} server, {shape}", size, len(defects)))
    return rows
