"""What Python shows, with a full stack on the client, for each ending of a call to a server of another make: docs/peers.md."""

from __future__ import annotations

import asyncio
import base64
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from google.rpc import status_pb2

from interpose import Kind, errors, intercept_channel
from interpose.interceptors import AccessLog, CircuitBreaker, Deadline, PropagateContext, RequestId, Retry
from tests.interop import page
from tests.interop.calling import NAMES, SERVICE, STACKS
from tests.interop.clients.endings import ABORTED, FAILED, NOT_ASKED, OVERSIZED, SOLD_OUT, Case
from tests.interop.clients.jobs import MAKES, go_built
from tests.interop.servers.foreign import running
from tests.support.patience import PATIENCE

pytestmark = [pytest.mark.peers, pytest.mark.slow, pytest.mark.timeout(240)]

HERE = Path(__file__).parent
TABLE = "the server ends it with"
MAKE = {make.name: make for make in MAKES}
RICH = status_pb2.Status(code=9, message=FAILED)
RICH.details.add().Pack(SOLD_OUT)

CASES = [
    Case("OK"),
    Case("OK, with a message of 3 MB", "large"),
    Case('a status: NOT_FOUND "no order 8: größer 😀"', "abort", "NOT_FOUND", ABORTED),
    Case(
        'a rich error: FAILED_PRECONDITION "sold out", ErrorInfo',
        "rich",
        "FAILED_PRECONDITION",
        FAILED,
        detail=SOLD_OUT,
    ),
    Case('a status that grpc does not know: 42 "odd"', "odd", "42", "odd"),
    Case('an exception: "boom"', "bug", "an exception", "boom"),
    Case("UNAVAILABLE, and OK when `Retry` asks again", "again"),
    Case("a request of 5 MB: its own limit", "x" * OVERSIZED, "RESOURCE_EXHAUSTED", "?", kinds=("Unary",)),
    Case(
        "an answer of 5 MB: Python's limit",
        "oversized",
        "RESOURCE_EXHAUSTED",
        "CLIENT: Received message larger than max…",
    ),
    Case("nothing before the deadline", "wait", None, options={"timeout": 0.3}),
    Case("no such method", "hello", "UNIMPLEMENTED", "?", kinds=("Unary",), options={"path": "Nothing"}),
]
CANNOT = {("grpclib", "odd")}  # its statuses are an enumeration

SERVERS: Mapping[str, Callable[[Path], list[str]]] = {
    "grpc-js": lambda _: ["node", str(HERE / "peer_node.js"), "grpc-js"],
    "nice-grpc": lambda _: ["node", str(HERE / "peer_node.js"), "nice-grpc"],
    "grpclib": lambda _: [sys.executable, str(HERE / "peer_grpclib.py")],
    "grpc-go": lambda folder: go_built(HERE / "peer.go", folder),
}


def stack() -> list[Any]:
    """What a client in production has."""
    return [RequestId(), AccessLog(), Deadline(PATIENCE), PropagateContext(), Retry(safe=True), CircuitBreaker()]


def served(make: str, folder: Path) -> AbstractContextManager[str]:
    return running(SERVERS[make](folder), DETAILS=base64.b64encode(RICH.SerializeToString()).decode())


def servers() -> list[Any]:
    """Each make with both stacks; the suite runs two of them, with one each."""
    chosen = {("grpc-js", "asyncio"), ("grpclib", "sync")}
    return [
        pytest.param(
            make,
            side,
            marks=[
                *([pytest.mark.needs(need)] if (need := MAKE[make].need) else []),
                *([] if (make, side) in chosen else [pytest.mark.rare]),
            ],
        )
        for make in SERVERS
        for side in STACKS
    ]


@pytest.mark.parametrize(("make", "side"), servers())
def test_what_python_shows(make: str, side: str, tmp_path: Path) -> None:
    """As the page says, and each failure as the class of its code."""
    page.of_version(TABLE, make, MAKE[make].version)
    cases = [case for case in CASES if (make, case.text) not in CANNOT]
    with served(make, tmp_path) as target:
        shown = in_sync(target, cases) if side == "sync" else asyncio.run(in_asyncio(target, cases))

    cells = {case.name: page.cell_of(shown[case.name]) if case.name in shown else NOT_ASKED for case in CASES}
    page.compare(TABLE, make, cells)


def in_sync(target: str, cases: list[Case]) -> dict[str, dict[str, str]]:
    shown: dict[str, dict[str, str]] = {}
    with grpc.insecure_channel(target) as bare:
        for case, kind in each(cases):
            channel = intercept_channel(bare, *stack())  # a breaker of its own
            try:
                answer = method(channel, case, kind)(request(case, kind), timeout=timeout(case))
                ended = answered(list(answer) if kind.response_streaming else [answer])
            except grpc.RpcError as error:
                ended = failed(error)
            shown.setdefault(case.name, {})[NAMES[kind]] = case.shown(ended)
    return shown


async def in_asyncio(target: str, cases: list[Case]) -> dict[str, dict[str, str]]:
    shown: dict[str, dict[str, str]] = {}
    async with grpc.aio.insecure_channel(target) as bare:
        for case, kind in each(cases):
            channel = intercept_channel(bare, *stack())  # a breaker of its own
            try:
                call = method(channel, case, kind)(request(case, kind), timeout=timeout(case))
                ended = answered([message async for message in call] if kind.response_streaming else [await call])
            except grpc.RpcError as error:
                ended = failed(error)
            shown.setdefault(case.name, {})[NAMES[kind]] = case.shown(ended)
    return shown


def each(cases: list[Case]) -> list[tuple[Case, Kind]]:
    return [(case, kind) for case in cases for kind in Kind if NAMES[kind] in case.kinds]


def method(channel: Any, case: Case, kind: Kind) -> Any:
    path = f"/{SERVICE}/{case.options.get('path', NAMES[kind])}"
    return getattr(channel, kind.value)(path, StringValue.SerializeToString, StringValue.FromString)


def request(case: Case, kind: Kind) -> Any:
    message = StringValue(value=case.text + (NAMES[kind] if case.text == "again" else ""))
    return iter([message]) if kind.request_streaming else message


def timeout(case: Case) -> float:
    return case.options.get("timeout", PATIENCE)  # type: ignore[no-any-return]


def answered(messages: list[Any]) -> dict[str, Any]:
    return {"code": "OK", "details": "", "messages": [message.value[:40] for message in messages]}


def failed(error: Any) -> dict[str, Any]:
    assert isinstance(error, errors.of(error.code()))
    rich = status_pb2.Status()
    for detail in error.error_details:
        rich.details.add().Pack(detail)
    packed = base64.b64encode(rich.SerializeToString()).decode()
    return {"code": error.code().name, "details": error.details(), "messages": [], "rich": packed}
