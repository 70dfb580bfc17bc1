"""What a process sees of us: nothing at import, a fork that works, Ctrl-C that is heard, and an exit that is clean.

Each script runs in a process of its own, against a server in this one.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from interpose import Call, Flow, Kind
from interpose.testing import Act, Attempt, Echo, Place
from tests.support.patience import PATIENCE

pytestmark = pytest.mark.slow  # each runs a process

STARTING = 30.0  # seconds that a process may take in all: a busy machine starts Python slowly

PRELUDE = """
import os, signal, sys, threading
import grpc
import interpose
from interpose.testing.echo import decode, encode

target = sys.argv[1]

def stub(*interceptors, kind="unary_unary", options=()):
    channel = interpose.intercept_channel(grpc.insecure_channel(target, options), *interceptors)
    return getattr(channel, kind)(f"/interpose.testing.Echo/{kind}", encode, decode)

def passing(call):
    yield call

def soon(call):
    yield call.after(0.01)

def late(call):
    yield call.after(60)

def telling(call):
    outcome = yield call
    print("outcome", outcome.code.name, flush=True)
"""


@contextmanager
def serving(echo: Echo) -> Iterator[str]:
    """The echo service, in this process."""
    pool = futures.ThreadPoolExecutor(8)
    server = grpc.server(pool)
    server.add_generic_rpc_handlers((echo.handlers(asyncio=False),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        echo.close()
        server.stop(None).wait(PATIENCE)
        pool.shutdown()


@contextmanager
def started(script: str, target: str = "") -> Iterator["subprocess.Popen[str]"]:
    """A Python process that runs the script; it and its forks end with the test."""
    process = subprocess.Popen(
        [sys.executable, "-c", PRELUDE + script, target],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "GRPC_VERBOSITY": "NONE", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=PATIENCE)


def run(script: str, target: str = "") -> tuple[int, str, str]:
    """The exit code and the output of a script."""
    with started(script, target) as process:
        out, err = process.communicate(timeout=STARTING)
        return process.returncode, out, err


@pytest.mark.fact("P-1")
def test_importing_and_constructing_start_nothing() -> None:
    """Importing the package, and making channels and server interceptors, starts no thread and opens no loop."""
    code, out, err = run(
        """
import asyncio
before = threading.enumerate()
interpose.server_interceptor(passing, late)
channel = interpose.intercept_channel(grpc.insecure_channel("127.0.0.1:1"), passing, late)
channel.unary_unary("/a.B/C")
assert before == threading.enumerate() == [threading.main_thread()], threading.enumerate()
assert asyncio._get_running_loop() is None
print("quiet")
"""
    )

    assert (code, out, err) == (0, "quiet\n", "")


@pytest.mark.fact("P-1", "R-60")
def test_a_fork_after_use_works() -> None:
    """A process forks while calls are delayed: old and new channels, and the clock, work in both processes."""
    with serving(Echo()) as target:
        code, out, err = run(
            """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of fork() where threads run, which is the point here
old, delayed = stub(passing), stub(soon)
assert old("a", timeout=20) == delayed("a", timeout=20) == "a"
waiting = stub(late).future("a")  # the clock's thread runs, and is lost to the child
child = os.fork()
if child == 0:
    signal.alarm(20)
    try:
        assert threading.active_count() == 1 or "interpose-clock" not in map(str, threading.enumerate())
        for _ in range(5):  # grpc itself finds the inherited connection broken, sooner or later
            try:
                answer = old("old", wait_for_ready=True, timeout=10)
                break
            except interpose.errors.Unavailable:
                pass
        assert answer == "old"
        assert stub(passing)("new", timeout=10) == "new"
        assert stub(soon)("blocking", timeout=10) == "blocking"
        assert stub(soon).future("future", timeout=10).result(10) == "future"
        assert list(stub(soon, kind="unary_stream")("stream", timeout=10)) == ["stream"] * 3
        os._exit(0)
    except BaseException:
        import traceback
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
_, status = os.waitpid(child, 0)
assert not waiting.done()
assert old("b", timeout=20) == delayed.future("b", timeout=20).result(20) == "b"
assert waiting.cancel()
print("child", os.waitstatus_to_exitcode(status))
""",
            target,
        )

    assert (code, out, err) == (0, "child 0\n", "")


@pytest.mark.fact("P-1", "R-60")
def test_what_a_child_inherits_can_be_cancelled() -> None:
    """A call that was delayed before the fork can be cancelled in the child: its alarm's lock is not the parent's."""
    with serving(Echo()) as target:
        code, out, err = run(
            """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
waiting = stub(late).future("a")
child = os.fork()
if child == 0:
    signal.alarm(20)
    os._exit(0 if waiting.cancel() and waiting.done() else 1)
_, status = os.waitpid(child, 0)
waiting.cancel()
print("child", os.waitstatus_to_exitcode(status))
""",
            target,
        )

    assert (code, out, err) == (0, "child 0\n", "")


PENDING = {
    "delayed": ['stub(late).future("a")', 'stub(late, kind="unary_stream")("a")'],
    "under way": [
        'stub(passing).future("a")',
        'stub(passing, kind="unary_stream")("a")',
        'stub(passing, kind="stream_stream")(iter(["a"]))',
    ],
    "single-threaded": ['stub(passing, kind="unary_stream", options=[("SingleThreadedUnaryStream", 1)])("a")'],
}


@pytest.mark.fact("R-61")
@pytest.mark.parametrize("pending", PENDING)
def test_a_process_with_calls_under_way_exits_cleanly(pending: str) -> None:
    """A process that ends while calls are delayed, or under way, ends at once and says nothing."""
    with serving(Echo([Act(hang=True), ...])) as target:
        code, out, err = run(f'calls = [{", ".join(PENDING[pending])}]\nprint("done")\n', target)

    assert (code, out, err) == (0, "done\n", "")


INTERRUPTED = """
from interpose._clock import SystemClock

def once(*_):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt

class Clock(SystemClock):
    def sleep(self, seconds, woken):
        print("begun", flush=True)
        super().sleep(seconds, woken)

signal.signal(signal.SIGINT, once)
channel = interpose.intercept_channel(grpc.insecure_channel(target), telling, {flow}, clock=Clock())
call = channel.{kind}("/interpose.testing.Echo/{kind}", encode, decode)
try:
    call({request})
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


class Announcing(Echo):
    """An echo service that says when the first attempt has come."""

    def __init__(self, script: Iterable[Act] = ()) -> None:
        super().__init__(script)
        self.begun = threading.Event()

    def begin(self, kind: Kind, context: Any) -> tuple[Attempt, Act]:
        self.begun.set()
        return super().begin(kind, context)


@pytest.mark.fact("P-1")
@pytest.mark.parametrize(("kind", "request_"), [("unary_unary", '"a"'), ("stream_unary", 'iter(["a"])')])
@pytest.mark.parametrize("flow", ["passing", "late"], ids=["sent", "delayed"])
def test_ctrl_c_ends_a_blocking_call_with_one_outcome(kind: str, request_: str, flow: str) -> None:
    """Ctrl-C in a blocking call, sent or still delayed, is one CANCELLED outcome; its caller gets KeyboardInterrupt."""
    script = INTERRUPTED.format(flow=flow, kind=kind, request=request_)
    echo = Announcing([Act(hang=True)])

    with serving(echo) as target, started(script, target) as process:
        assert process.stdout is not None
        if flow == "late":
            assert process.stdout.readline() == "begun\n"
        else:
            assert echo.begun.wait(STARTING)
        out, err = interrupted(process)

    assert (process.returncode, out, err) == (0, "outcome CANCELLED\ninterrupted\n", "")


def interrupted(process: "subprocess.Popen[str]") -> tuple[str, str]:
    """What it still says after Ctrl-C. CPython may miss one that comes just before it waits, so it may take several."""
    for _ in range(int(STARTING)):
        process.send_signal(signal.SIGINT)
        try:
            return process.communicate(timeout=1)
        except subprocess.TimeoutExpired:
            continue
    raise TimeoutError("Ctrl-C was not heard")


@pytest.mark.fact("P-1")
def test_the_clock_keeps_no_thread() -> None:
    """The thread that rings for delayed calls exists only while something is delayed."""
    with serving(Echo()) as target, grpc.insecure_channel(target) as native:
        import interpose

        def soon(call: Call) -> Flow:
            yield call.after(0.01)

        stub = interpose.intercept_channel(native, soon).unary_unary(
            "/interpose.testing.Echo/unary_unary", str.encode, bytes.decode
        )
        answer = stub.future("a").result(PATIENCE)
        clocks = [thread for thread in threading.enumerate() if thread.name == "interpose-clock"]
        for thread in clocks:
            thread.join(PATIENCE)

    assert answer == "a"
    assert not any(thread.is_alive() for thread in clocks)


@pytest.mark.fact("P-4")
def test_a_flow_that_fails_afterwards_repeats_nothing(place: Place) -> None:
    """A bug of a flow after its yield never runs the RPC again: the server, and its handler, are called once."""

    def buggy(call: Call) -> Flow:
        yield call
        raise ValueError("a bug")

    with place.open(buggy) as rpc:
        reply = rpc.call("a")

    assert reply.code is grpc.StatusCode.INTERNAL
    assert "buggy" in reply.details
    assert len(rpc.attempts) == 1
