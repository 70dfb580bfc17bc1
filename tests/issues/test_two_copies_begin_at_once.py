"""Copies of a hedged upload that began on two threads at once shared the application's messages out, each a part of them."""

import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from interpose import Call, Flow, intercept_channel
from interpose._shell.replay import Replay
from interpose.sync.requests import Requests
from tests.support.patience import PATIENCE

MESSAGES = [b"one", b"two", b"three"]
COPIES = 2


class Uploads:
    """Notes what each copy brings, and answers none of them before all are there."""

    def __init__(self) -> None:
        self.brought: list[list[bytes]] = []
        self._all = threading.Barrier(COPIES)

    def put(self, requests: Iterator[bytes], _: grpc.ServicerContext) -> bytes:
        self.brought.append(list(requests))
        self._all.wait(PATIENCE)
        return b"done"

    @contextmanager
    def served(self) -> Iterator[str]:
        with futures.ThreadPoolExecutor(COPIES) as pool:
            server = grpc.server(pool)
            method = {"Put": grpc.stream_unary_rpc_method_handler(self.put)}
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Uploads", method),))
            port = server.add_insecure_port("127.0.0.1:0")
            server.start()
            yield f"127.0.0.1:{port}"
            server.stop(None).wait()


@pytest.mark.parametrize("way", ["blocking", "future"])
def test_each_copy_has_all_messages(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second begins while the first has not yet begun to keep what it sends."""
    met = threading.Barrier(COPIES)
    keep = Requests._keep

    def keep_together(self: Requests, replay: Replay) -> Any:
        met.wait(PATIENCE)
        return keep(self, replay)

    monkeypatch.setattr(Requests, "_keep", keep_together)

    def hedge(call: Call) -> Flow:
        yield call.buffered().hedged(copies=COPIES, delay=0)

    uploads = Uploads()
    with uploads.served() as target, intercept_channel(grpc.insecure_channel(target), hedge) as channel:
        stub = channel.stream_unary("/Uploads/Put")
        start = stub if way == "blocking" else lambda *a, **k: stub.future(*a, **k).result(PATIENCE)

        assert start(iter(MESSAGES), timeout=PATIENCE) == b"done"

    assert uploads.brought == [MESSAGES] * COPIES
