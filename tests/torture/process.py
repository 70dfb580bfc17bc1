"""The edges of a process: its exit, its forks, its garbage collector, the flags of its interpreter.

Each edge is a script in a process of its own. It has passed if the process ends in time and with status 0, says "done"
and, on stderr, nothing that has to do with us.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

EXIT = 6.0  # seconds that a process with open streams may take to end, once it is done
STUCK = 20.0  # seconds after which it is killed, its start included
WORK = 60.0  # seconds for a script that has something to do; a deadlock takes longer
TIMES = 50  # how often the long form repeats an exit

ROOT = Path(__file__).parents[2]
PRELUDE = """
import asyncio, gc, os, queue, sys, threading, time
from concurrent import futures
import grpc, grpc.aio
import interpose
from interpose.testing.echo import decode, encode, path

KINDS = list(interpose.Kind)
never = queue.SimpleQueue()

def done():
    print("done", time.monotonic(), flush=True)

def passing(call):
    yield call

def soon(call):
    yield call.after(0.01)

def late(call):
    yield call.after(60)

def twice(call):
    race = call.side is interpose.Side.CLIENT and not call.kind.response_streaming
    yield call.buffered(1000).hedged(copies=2, delay=0) if race else call

def stub(channel, kind):
    return getattr(channel, kind.value)(path(kind), encode, decode)

def begun(channel, requests):
    "A call of each kind, with request streams that do not end."
    calls = []
    for kind in KINDS:
        method = stub(channel, kind)
        start = method if kind.response_streaming else getattr(method, "future", method)
        calls.append(start(requests() if kind.request_streaming else "a"))
    return calls

def waiting():
    return iter(never.get, None)

async def waiting_async():
    await asyncio.Event().wait()
    yield "never"
"""

EXITS = {
    "sync client": """
held = []
for flows in [(), (passing,), (late,), (twice,)]:
    for options in [(), [("SingleThreadedUnaryStream", 1)]]:
        channel = interpose.intercept_channel(grpc.insecure_channel(sys.argv[1], options), *flows)
        held += [channel, begun(channel, waiting)]
threading.Thread(target=next, args=(held[5][1], None), daemon=True).start()  # somebody is reading
done()
""",
    "asyncio client": """
async def main():
    held = []
    for flows in [(), (passing,), (late,), (twice,)]:
        channel = interpose.intercept_channel(grpc.aio.insecure_channel(sys.argv[1]), *flows)
        held += [channel, begun(channel, waiting_async)]
    reader = asyncio.create_task(held[3][1].read())
    await asyncio.sleep(0)
    globals().update(held=held)
    done()

asyncio.run(main())
""",
    "sync server": """
arrived = threading.Semaphore(0)

def hang(requests, context):
    gone = threading.Event()
    context.add_callback(gone.set)
    arrived.release()
    gone.wait()
    yield b"nobody reads it"

class Hanging(grpc.GenericRpcHandler):
    def service(self, details):
        return grpc.stream_stream_rpc_method_handler(hang)

server = grpc.server(futures.ThreadPoolExecutor(8), interceptors=[interpose.server_interceptor(passing, soon)])
server.add_generic_rpc_handlers((Hanging(),))
port = server.add_insecure_port("127.0.0.1:0")
server.start()
channel = grpc.insecure_channel(f"127.0.0.1:{port}")
held = begun(channel, waiting)
for _ in held:
    arrived.acquire()
server.stop(None)
done()
""",
    "asyncio server": """
arrived = threading.Semaphore(0)

async def hang(requests, context):
    arrived.release()
    await asyncio.Event().wait()
    yield b"never"

def hang_plainly(requests, context):
    gone = threading.Event()
    context.add_callback(gone.set)
    arrived.release()
    gone.wait()
    yield b"nobody reads it"

class Hanging(grpc.GenericRpcHandler):
    def service(self, details):
        plain = details.method.endswith("unary_stream")
        return grpc.stream_stream_rpc_method_handler(hang_plainly if plain else hang)

async def main():
    global server
    pool = futures.ThreadPoolExecutor(8)
    server = grpc.aio.server(pool, interceptors=[interpose.server_interceptor(passing, soon)])
    server.add_generic_rpc_handlers((Hanging(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    globals().update(channel=grpc.insecure_channel(f"127.0.0.1:{port}"))
    globals().update(held=begun(channel, waiting))
    for _ in held:
        await asyncio.get_running_loop().run_in_executor(None, arrived.acquire)
    done()

asyncio.run(main())
""",
}

FORK = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of fork() where threads run, which is the point here

def opened():
    return interpose.intercept_channel(grpc.insecure_channel(sys.argv[1]), passing, soon)

def all_kinds(channel):
    for kind in KINDS:
        method = stub(channel, kind)
        answer = method(iter(["a"]) if kind.request_streaming else "a", timeout=20, wait_for_ready=True)
        assert [answer] if not kind.response_streaming else list(answer), kind

words = queue.SimpleQueue()
channel = opened()
stream = stub(channel, interpose.Kind.STREAM_STREAM)(iter(words.get, None))
words.put("before")
assert next(stream) == "before"
def forked():
    "Fork; did all go well in the child?"
    child = os.fork()
    if child == 0:
        status = 1
        try:
            all_kinds(opened())
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

for _ in range(3):
    # On a busy machine grpc itself fails in one child out of ten, bare too: the fork hit one of its threads at work.
    assert any(forked() for _ in range(6))
    all_kinds(channel)
words.put(None)
list(stream)
done()
"""

# Wherever a lock of ours is taken, a call object that nobody holds is collected: its finalizer runs there.
COLLECTING = """
import types
from interpose import _clock
from interpose.testing import Act, PLACES

litter, taken, collected = [], 0, 0

class Knot:
    "What it holds is garbage, in a cycle, once nobody holds the knot."
    def __init__(self, held):
        self.held, self.me = held, self

def collect():
    global taken, collected
    taken += 1
    if litter:
        litter.pop()
        collected += 1
    gc.collect()

class Lock:
    def __init__(self):
        self._lock = threading.Lock()
    def __enter__(self):
        self._lock.acquire()
        collect()
    def __exit__(self, *_):
        self._lock.release()

class Condition(threading.Condition):
    def __enter__(self):
        super().__enter__()
        collect()
    def wait(self, timeout=None):
        answer = super().wait(timeout)
        collect()
        return answer

class Thread(threading.Thread):
    "One that collects before its starter knows that it runs."
    def _set_ident(self):
        collect()
        super()._set_ident()

shim = types.SimpleNamespace(**vars(threading))
shim.Lock, shim.Condition, shim.Thread = Lock, Condition, Thread
modules = [m for name, m in sys.modules.items() if name.startswith("interpose.") and hasattr(m, "threading")]
for module in modules:
    module.threading = shim
_clock.SYSTEM._reset()
assert {"interpose._clock", "interpose.sync.exchange", "interpose.sync.requests", "interpose._grpcio.plain"} <= {
    module.__name__ for module in modules
}

def drop_some():
    "Calls that are open, and that nobody holds but the litter."
    for flows in [(passing,), (late,), (twice,)]:
        for options in [(), [("SingleThreadedUnaryStream", 1)]]:
            channel = interpose.intercept_channel(grpc.insecure_channel(sys.argv[1], options), *flows)
            litter.extend(Knot([call, channel]) for call in begun(channel, waiting))

async def drop_some_async():
    for flows in [(passing,), (late,), (twice,)]:
        channel = interpose.intercept_channel(grpc.aio.insecure_channel(sys.argv[1]), *flows)
        litter.extend(Knot([call, channel]) for call in begun(channel, waiting_async))
    await asyncio.sleep(0)

def resending(call):
    outcome = yield call.buffered(1000)
    if not outcome.ok and outcome.replayable:
        yield call.buffered(1000).after(0.001)

loop = asyncio.new_event_loop()
threading.Thread(target=loop.run_forever, daemon=True).start()
for place in PLACES:
    gc.collect()
    gc.freeze()  # what was there before need not be looked through each time
    drop_some()
    asyncio.run_coroutine_threadsafe(drop_some_async(), loop).result()
    with place.open(twice, resending, script=[Act(code=grpc.StatusCode.UNAVAILABLE)] * 2) as rpc:
        for _ in range(3):
            rpc.call("a", timeout=20)
    if not place.asyncio:
        continue
    with place.open(resending, passing, plain=True) as rpc:
        rpc.call("a", timeout=20)
assert collected > 100, (taken, collected)
loop.call_soon_threadsafe(loop.stop)
done()
os._exit(0)
"""

PLACES = """
import logging
from interpose.testing import PLACES

logging.getLogger("asyncio").setLevel(logging.ERROR)  # in development mode it tells of every pause of a busy machine
count = 0
for place in PLACES:
    for plain in {False, place.asyncio}:
        with place.open(passing, soon, plain=plain) as rpc:
            reply = rpc.call("a", timeout=20)
        if not reply.ok:
            raise SystemExit(f"{place}: {reply}")
        count += 1
if count != 24:
    raise SystemExit(f"{count} places")
done()
"""

FLAGS = ("-O", "-OO", "-Xdev", "-Werror")


def of_ours(text: str) -> bool:
    """Does a traceback or a log name us? A checkout may have any name, ours too."""
    return "interpose" in text.replace(str(ROOT), "")


@dataclass(frozen=True)
class Ended:
    """How a process ended; code None: it had to be killed."""

    code: int | None
    out: str
    err: str
    seconds: float  # from "done" to its end, or in all

    @property
    def hung_in_grpc(self) -> bool:
        """Did the main thread stand still in a finalizer of grpcio's, under no function of ours?

        So it did in one exit in some hundreds, with and without us (grpcio 1.85.1).
        """
        main = self.err.partition("Current thread")[2].partition("\n\n")[0]
        return self.code is None and "_channel.py" in main and "in __del__" in main and not of_ours(main)

    def fault(self, patience: float, *, quiet: bool = True) -> str | None:
        """What is wrong with it. quiet: not a word on stderr; else grpc itself may complain, but not of us."""
        if self.code != 0 or not self.out.startswith("done "):
            return f"exit code {self.code} after {self.seconds:.1f} s, out {self.out!r}: {self.err[-3000:]}"
        if self.seconds > patience:
            return f"it took {self.seconds:.1f} s"
        if self.err if quiet else of_ours(self.err):
            return self.err[-3000:]
        return None


def run(script: str, *arguments: str, flags: tuple[str, ...] = (), patience: float = WORK) -> Ended:
    """Run a script in a process of its own, to its end."""
    begun = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-X", "faulthandler", *flags, "-c", PRELUDE + script, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "GRPC_VERBOSITY": "NONE", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    try:
        out, err = process.communicate(timeout=patience)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)  # faulthandler then tells where its threads stand
        out, err = process.communicate(timeout=patience)
        return Ended(None, out, err, time.monotonic() - begun)
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    if out.startswith("done "):
        begun = float(out.split()[1])  # the clock is the machine's, the same in all processes
    return Ended(process.returncode, out, err, time.monotonic() - begun)


def _hung(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
    """Nothing, until the client has gone."""
    gone = threading.Event()
    if context.add_callback(gone.set):
        gone.wait()
    yield b"nobody reads it"


def _echoed(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
    yield from requests


class _Every(grpc.GenericRpcHandler):
    """A service with every method, all alike."""

    def __init__(self, function: Any) -> None:
        self._handler: Any = grpc.stream_stream_rpc_method_handler(function)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return self._handler


@contextmanager
def serving(function: Any) -> Iterator[str]:
    """A plain server, in this process, whose methods all do this; gives its address."""
    pool = futures.ThreadPoolExecutor(256)
    server = grpc.server(pool)
    server.add_generic_rpc_handlers((_Every(function),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait(WORK)
        pool.shutdown()


# --- the edges --------------------------------------------------------------------------------------------------------


def exits(which: str, times: int) -> list[str]:
    """A process ends with open streams, so many times; what was wrong."""
    # As its loop ends, grpc.aio itself complains of the handlers that it interrupts.
    quiet = which != "asyncio server"
    with serving(_hung) as target:
        ended = [run(EXITS[which], target, patience=STUCK) for _ in range(times)]
    return [fault for end in ended if not end.hung_in_grpc and (fault := end.fault(EXIT, quiet=quiet))]


def forks() -> str | None:
    """A process with a live channel and an open stream forks, and both go on; what was wrong."""
    with serving(_echoed) as target:
        return run(FORK, target).fault(WORK)


def collects() -> str | None:
    """The collector runs inside every locked section of ours, and finds calls to finalize; what was wrong."""
    with serving(_hung) as target:
        return run(COLLECTING, target).fault(WORK)


def flagged(flag: str) -> str | None:
    """One RPC in each of the sixteen places, under a flag of the interpreter; what was wrong."""
    return run(PLACES, flags=(flag,)).fault(WORK)


def table_rows() -> list[tuple[str, str, int]]:
    """The long form, for the table of `make torture`."""
    edges = {"fork with a live channel": forks, "collected in every lock": collects}
    rows = [(f"exit with open streams: {which}", f"{TIMES} exits", len(exits(which, TIMES))) for which in EXITS]
    rows += [(what, "1 process", int(edge() is not None)) for what, edge in edges.items()]
    rows += [(f"python {flag}", "24 places", int(flagged(flag) is not None)) for flag in FLAGS]
    return rows
