"""The service of features.proto, told by each RPC's metadata what to do, and what tests need to call it.

It answers in upper case. `Ask` answers the text, `List` the text three times, `Collect` all texts joined by ",", and
`Chat` each text as it comes.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from interpose import Call, Flow, Kind
from tests.protos.compiled import Generated

BOUND = 10  # seconds that anything in a test may take before it counts as hung

PATHS = {
    Kind.UNARY_UNARY: "/interpose.tests.Features/Ask",
    Kind.UNARY_STREAM: "/interpose.tests.Features/List",
    Kind.STREAM_UNARY: "/interpose.tests.Features/Collect",
    Kind.STREAM_STREAM: "/interpose.tests.Features/Chat",
}
ANSWERS = {
    Kind.UNARY_UNARY: ["A"],
    Kind.UNARY_STREAM: ["A", "A", "A"],
    Kind.STREAM_UNARY: ["A,B"],
    Kind.STREAM_STREAM: ["A", "B"],
}

HOLD = (("x-act", "hold"),)  # sends initial metadata, then waits for the gate
FAIL = (("x-act", "fail"),)  # NOT_FOUND, once it has read what there is to read
BREAK = (("x-act", "break"),)  # NOT_FOUND after the first response of a stream
FAIL_FIRST = ("x-fail-first", "yes")  # UNAVAILABLE at once

INITIAL = ("x-initial", "1")
TRAILING = (("x-trailing", "2"), ("x-trailing", "3"))


@dataclass
class Features:
    """The servicer. `gate` lets what is held go on; `arrived` and `gone` tell that an RPC is held, or over."""

    text: type[Any]
    seen: list[tuple[tuple[str, Any], ...]] = field(default_factory=list)
    remaining: list[float] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    arrived: threading.Event = field(default_factory=threading.Event)
    gone: threading.Event = field(default_factory=threading.Event)

    def Ask(self, request: Any, context: Any) -> Any:
        self._act(context)
        return self._said(request)

    def List(self, request: Any, context: Any) -> Iterator[Any]:
        act = self._act(context)
        yield self._said(request)
        if act == "break":
            context.abort(grpc.StatusCode.NOT_FOUND, "no such thing")
        yield self._said(request)
        yield self._said(request)

    def Collect(self, requests: Iterable[Any], context: Any) -> Any:
        requests = self._read(requests, context)
        self._act(context)
        return self.text(text=",".join(request.text.upper() for request in requests))

    def Chat(self, requests: Iterable[Any], context: Any) -> Iterator[Any]:
        # A bidi call that fails before the client has half-closed reaches asyncio clients as INTERNAL now and then.
        failing = {FAIL[0], BREAK[0]} & {(key, value) for key, value in context.invocation_metadata()}
        requests = self._read(requests, context) if failing else requests
        act = self._act(context)
        for request in requests:
            yield self._said(request)
            if act == "break":
                context.abort(grpc.StatusCode.NOT_FOUND, "no such thing")

    def values(self, key: str) -> list[Any]:
        """What each attempt carried under a metadata key, one after the other."""
        return [value for metadata in self.seen for name, value in metadata if name == key]

    def _said(self, request: Any) -> Any:
        return self.text(text=request.text.upper())

    def _read(self, requests: Iterable[Any], context: Any) -> list[Any]:
        return [] if FAIL_FIRST in context.invocation_metadata() else list(requests)

    def _act(self, context: Any) -> str:
        metadata = tuple((key, value) for key, value in context.invocation_metadata())
        self.seen.append(metadata)
        self.remaining.append(context.time_remaining())
        if FAIL_FIRST in metadata:
            context.abort(grpc.StatusCode.UNAVAILABLE, "as asked")
        context.add_callback(self.gone.set)
        context.send_initial_metadata((INITIAL,))
        context.set_trailing_metadata(TRAILING)
        act = dict(metadata).get("x-act", "")
        if act == "hold":
            self.arrived.set()
            self.gate.wait(BOUND)
        if act == "fail":
            context.abort(grpc.StatusCode.NOT_FOUND, "no such thing")
        return act


@contextmanager
def served(
    generated: Generated, address: str = "127.0.0.1:0", credentials: Any = None, options: Any = ()
) -> Iterator[tuple[str, Features]]:
    """A running server: its target and its servicer."""
    service = Features(generated("features_pb2").Text)
    pool = futures.ThreadPoolExecutor(8)
    server = grpc.server(pool, options=(("grpc.so_reuseport", 0), *options))
    generated("features_pb2_grpc").add_FeaturesServicer_to_server(service, server)
    if credentials is None:
        port = server.add_insecure_port(address)
    else:
        port = server.add_secure_port(address, credentials)
    server.start()
    try:
        yield (address if address.startswith("unix:") else f"127.0.0.1:{port}"), service
    finally:
        service.gate.set()
        server.stop(None).wait(BOUND)
        pool.shutdown()


def stub(generated: Generated, channel: Any, style: str) -> dict[Kind, Any]:
    """The four multi-callables of a channel, of a generated stub or bare."""
    if style == "generated":
        made = generated("features_pb2_grpc").FeaturesStub(channel)
        return dict(zip(PATHS, (made.Ask, made.List, made.Collect, made.Chat), strict=True))
    text = generated("features_pb2").Text
    return {
        kind: getattr(channel, kind.value)(path, text.SerializeToString, text.FromString)
        for kind, path in PATHS.items()
    }


# --- flows ------------------------------------------------------------------------------------------------------------


def passes(call: Call) -> Flow:
    """Asks for nothing."""
    yield call


def looks(call: Call) -> Flow:
    """Looks at all there is to see, and changes nothing."""
    outcome = yield call.tap(requests=repr, responses=repr, initial_metadata=repr)
    repr((outcome, outcome.initial_metadata, outcome.trailing_metadata, call.metadata, call.timeout))


def replaces(call: Call) -> Flow:
    """Changes each message into an equal one."""
    outcome = yield call.map(requests=lambda message: message, responses=lambda message: message)
    return outcome


def resends(call: Call) -> Flow:
    """Lets the first attempt fail at the server, and sends the call again."""
    outcome = yield call.buffered().with_metadata(FAIL_FIRST)
    if not outcome.ok and outcome.replayable:
        yield call.buffered()


def resends_later(call: Call) -> Flow:
    """Sends, a moment later, a call that the server lets fail, and again a moment later."""
    outcome = yield call.buffered().with_metadata(FAIL_FIRST).after(0.002)
    if not outcome.ok and outcome.replayable:
        yield call.buffered().after(0.002)
