"""One job, done by grpc-java or by one of our two stacks; and the server that watches it being done."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from interpose import Kind, intercept_channel
from interpose._clock import SYSTEM
from interpose.interceptors import Retry
from interpose.testing import Echo
from interpose.testing.echo import Attempt, Stub, path
from tests.support.needs import JARS
from tests.support.patience import PATIENCE


@dataclass(frozen=True)
class Job:
    """Calls to make on one channel, one after the other. Times are in seconds."""

    target: str
    kind: Kind
    config: dict[str, Any]
    requests: list[str]
    timeout: float | None = None
    cancel_after: float | None = None


@dataclass(frozen=True)
class Ending:
    """How a call ended, and how many seconds after it had begun."""

    code: str
    details: str | None
    messages: list[str]
    elapsed: float


Client = Callable[[Job, Callable[[], None]], list[Ending]]  # calls the function before it closes the channel


# --- the server -------------------------------------------------------------------------------------------------------


class Peer(Echo):
    """An echo service on a bare server, that notes when attempts arrive."""

    def __init__(self, script: Any) -> None:
        super().__init__(script)
        self._arrived: list[tuple[float, Attempt]] = []

    def begin(self, kind: Kind, context: Any) -> Any:
        now = SYSTEM.now()
        attempt, act = super().begin(kind, context)
        self._arrived.append((now, attempt))
        return attempt, act

    def settle(self, pause: float) -> None:
        """Wait until no attempt has come for `pause` seconds, and all have ended; one that has not shows in the story."""
        with suppress(TimeoutError):
            while True:
                self.wait_begun(len(self.attempts) + 1, pause)
        with suppress(TimeoutError):
            self.wait_ended(len(self.attempts), PATIENCE / 2)

    def arrived(self, request: str) -> list[tuple[float, Attempt]]:
        """The attempts of the call with this request, and when they came, in that order."""
        return sorted((seen for seen in self._arrived if seen[1].requests == [request]), key=lambda seen: seen[0])


# --- grpc-java --------------------------------------------------------------------------------------------------------


class Java:
    """The program beside this file, running."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __call__(self, job: Job, settle: Callable[[], None]) -> list[Ending]:
        asked = {
            "target": job.target,
            "method": path(job.kind)[1:],
            "streams": job.kind.response_streaming,
            "config": job.config,
            "requests": job.requests,
            "timeout": job.timeout,
            "cancelAfter": job.cancel_after,
        }
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the program has ended; what it said stands in the output of this test"
        settle()
        return [Ending(**ending) for ending in json.loads(answer)]


@contextmanager
def running_java(folder: Path) -> Iterator[Java]:
    """Compile the program into a folder, and run it until the end of the block."""
    source = Path(__file__).with_name("HedgeClient.java")
    jars = ":".join(map(str, JARS))
    subprocess.run(["javac", "-cp", jars, "-d", folder, source], check=True, timeout=60)
    command = ["java", "-XX:TieredStopAtLevel=1", "-Xmx256m", "-cp", f"{folder}:{jars}", source.stem]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Java(process)
        assert process.stdin is not None
        process.stdin.close()


# --- ours -------------------------------------------------------------------------------------------------------------


def ours_sync(job: Job, settle: Callable[[], None]) -> list[Ending]:
    with grpc.insecure_channel(job.target, Retry.channel_options()) as bare:
        grpc.channel_ready_future(bare).result(PATIENCE)
        method = Stub(intercept_channel(bare, _interceptor(job))).method(job.kind)
        endings = [_sync_call(method, job, request) for request in job.requests]
        settle()
        return endings


def ours_asyncio(job: Job, settle: Callable[[], None]) -> list[Ending]:
    async def perform() -> list[Ending]:
        async with grpc.aio.insecure_channel(job.target, Retry.channel_options()) as bare:
            await asyncio.wait_for(bare.channel_ready(), PATIENCE)
            method = Stub(intercept_channel(bare, _interceptor(job))).method(job.kind)
            endings = [await _aio_call(method, job, request) for request in job.requests]
            await asyncio.to_thread(settle)  # the timers of hedges run on meanwhile
            return endings

    return asyncio.run(perform())


def _interceptor(job: Job) -> Any:
    return Retry.from_service_config(json.dumps(job.config))


def _sync_call(method: Any, job: Job, request: str) -> Ending:
    start = SYSTEM.now()
    messages: list[str] = []
    call: Any
    try:
        if job.kind.response_streaming:
            call = method(request, timeout=job.timeout)
            messages.extend(call)
        elif job.cancel_after is not None:
            call = method.future(request, timeout=job.timeout)
            messages.append(call.result(job.cancel_after))
        else:
            message, call = method.with_call(request, timeout=job.timeout)
            messages.append(message)
    except grpc.FutureTimeoutError:
        call.cancel()
    except grpc.RpcError as error:
        call = error
    return Ending(call.code().name, call.details(), messages, SYSTEM.now() - start)


async def _aio_call(method: Any, job: Job, request: str) -> Ending:
    start = SYSTEM.now()
    call = method(request, timeout=job.timeout)
    if job.cancel_after is not None:
        asyncio.get_running_loop().call_later(job.cancel_after, call.cancel)
    messages: list[str] = []
    try:
        if job.kind.response_streaming:
            async for message in call:
                messages.append(message)  # noqa: PERF401  what came before a failure counts
        else:
            messages.append(await call)
    except (grpc.RpcError, asyncio.CancelledError):
        pass  # its code tells
    return Ending((await call.code()).name, await call.details(), messages, SYSTEM.now() - start)
