"""A real etcd that is killed and started again while clients read, write and watch."""

from __future__ import annotations

import asyncio
import importlib
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from interpose import errors, intercept_channel, when
from interpose.interceptors import Deadline, RequestId, Retry, Unlimited, exponential
from tests.protos.compiled import protoc
from tests.realworld.scenarios import PATIENCE, Scenario, Watch, free_port

KEY = b"orders"
CALLS = 60  # before it is killed, and as many after that


class Etcd:
    """A server with its data in a folder."""

    def __init__(self, folder: Path) -> None:
        self.target = f"127.0.0.1:{free_port()}"
        peer = f"http://127.0.0.1:{free_port()}"
        own = f"http://{self.target}"
        self._command = [
            *("etcd", "--data-dir", str(folder), "--logger", "zap", "--log-outputs", str(folder / "etcd.log")),
            *("--listen-client-urls", own, "--advertise-client-urls", own),
            *(
                "--listen-peer-urls",
                peer,
                "--initial-advertise-peer-urls",
                peer,
                "--initial-cluster",
                f"default={peer}",
            ),
        ]
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stderr=subprocess.DEVNULL)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@contextmanager
def running() -> Iterator[tuple[Etcd, Any]]:
    """An etcd that answers, and the messages of its proto."""
    with tempfile.TemporaryDirectory() as folder:
        here = Path(__file__).parent
        protoc(f"-I{here}", f"--python_out={folder}", "etcd.proto")
        sys.path.insert(0, folder)
        etcd = Etcd(Path(folder))
        try:
            with grpc.insecure_channel(etcd.target, SOON) as channel:
                grpc.channel_ready_future(channel).result(PATIENCE)
            yield etcd, importlib.import_module("etcd_pb2")
        finally:
            etcd.kill()
            sys.path.remove(folder)


SOON = [("grpc.max_reconnect_backoff_ms", 200)]


def stack(watch: Watch) -> list[Any]:
    """Reads are sent again until etcd is back; writes only where they were certainly not executed."""
    patient = exponential(0.05, cap=0.5)
    reads = Retry(attempts=100, safe=True, backoff=patient, budget=Unlimited())
    writes = Retry(attempts=100, backoff=patient, budget=Unlimited())
    return [
        RequestId(),
        watch,
        Deadline(PATIENCE),
        when("/etcdserverpb.KV/Range", reads),
        when("/etcdserverpb.KV/Put", writes),
    ]


def method(channel: Any, name: str, request: Any, response: Any, kind: str = "unary_unary") -> Any:
    return getattr(channel, kind)(f"/etcdserverpb.{name}", request.SerializeToString, response.FromString)


def in_sync() -> None:
    watch = Watch()
    with running() as (etcd, pb), intercept_channel(grpc.insecure_channel(etcd.target, SOON), *stack(watch)) as channel:
        put = method(channel, "KV/Put", pb.PutRequest, pb.PutResponse)
        read = method(channel, "KV/Range", pb.RangeRequest, pb.RangeResponse)
        follow = method(channel, "Watch/Watch", pb.WatchRequest, pb.WatchResponse, "stream_stream")
        over = threading.Event()

        def requests() -> Iterator[Any]:
            yield pb.WatchRequest(create_request=pb.WatchCreateRequest(key=KEY))
            over.wait(PATIENCE)

        following = follow(requests())
        assert next(following).created
        done, unknown = 0, 0
        for number in range(2 * CALLS):
            if number == CALLS:
                etcd.kill()
                threading.Timer(1.0, etcd.start).start()
            try:
                put(pb.PutRequest(key=KEY, value=b"%d" % number))
                done += 1
            except errors.Unavailable:
                unknown += 1
            [found] = read(pb.RangeRequest(key=KEY)).kvs
        ended = following.code()
        over.set()
    check(found.version, done, unknown, watch, ended)


def in_asyncio() -> None:
    asyncio.run(_in_asyncio())


async def _in_asyncio() -> None:
    watch = Watch()
    with running() as (etcd, pb):
        async with intercept_channel(grpc.aio.insecure_channel(etcd.target, SOON), *stack(watch)) as channel:
            put = method(channel, "KV/Put", pb.PutRequest, pb.PutResponse)
            read = method(channel, "KV/Range", pb.RangeRequest, pb.RangeResponse)
            following = method(channel, "Watch/Watch", pb.WatchRequest, pb.WatchResponse, "stream_stream")()
            await following.write(pb.WatchRequest(create_request=pb.WatchCreateRequest(key=KEY)))
            assert (await following.read()).created
            done, unknown = 0, 0
            for number in range(2 * CALLS):
                if number == CALLS:
                    etcd.kill()
                    asyncio.get_running_loop().call_later(1.0, etcd.start)
                try:
                    await put(pb.PutRequest(key=KEY, value=b"%d" % number))
                    done += 1
                except errors.Unavailable:
                    unknown += 1
                [found] = (await read(pb.RangeRequest(key=KEY))).kvs
            ended = await following.code()
    check(found.version, done, unknown, watch, ended)


def check(version: int, done: int, unknown: int, watch: Watch, ended: grpc.StatusCode) -> None:
    """etcd counts the writes of a key."""
    assert done <= version <= done + unknown, (version, done, unknown)
    assert done + unknown == 2 * CALLS and unknown <= 1
    assert watch.codes("Range") == ["OK"] * 2 * CALLS
    assert ended is grpc.StatusCode.UNAVAILABLE


STACK = "`RequestId`, `Deadline`; `Retry(safe=True)` for reads, `Retry` for writes"
HOLDS = (
    "Killed and started anew: all 120 reads succeed, no write is done twice, at most one is unknown. The watch ends with "
    "UNAVAILABLE."
)
SCENARIOS = [
    Scenario("etcd, sync", ("etcd",), STACK, HOLDS, in_sync, "etcd"),
    Scenario("etcd, asyncio", ("etcd",), STACK, HOLDS, in_asyncio, "etcd"),
]
