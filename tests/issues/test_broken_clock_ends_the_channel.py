"""What fails while grpc's thread drives a sync call fails that call, and not every later call of the channel."""

import subprocess
import sys

from tests.support.patience import PATIENCE

# In a process of its own: a channel whose thread has died cannot be closed any more.
PROGRAM = """
import grpc
from interpose import Kind, Side, errors
from interpose.testing import FakeClock, Place, Stub, failed

class Broken(FakeClock):
    def call_later(self, seconds, callback):
        raise LookupError("no timers here")

def again(call):
    outcome = yield call
    if not outcome.ok:
        yield call.after(1)

script = [failed(grpc.StatusCode.UNAVAILABLE)]
with Place(asyncio=False, side=Side.CLIENT, kind=Kind.UNARY_UNARY).open(again, script=script, clock=Broken()) as rpc:
    stub = Stub(rpc.channel).unary_unary
    try:
        stub.future("a", timeout=5).result()
    except errors.Internal as error:
        print(error.details())
    print(stub.future("b", timeout=5).result(), flush=True)
"""


def test_the_next_call_of_the_channel_is_answered() -> None:
    """The clock breaks on the channel's one thread; the call ends with INTERNAL, and another one gets its answer."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=PATIENCE, check=False
    )

    assert done.stdout.splitlines() == ["interpose failed: LookupError", "b"]
    assert done.returncode == 0
