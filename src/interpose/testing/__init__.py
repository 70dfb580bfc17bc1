"""For tests of interceptors, and of what uses them; needs nothing but grpcio. The page "Testing your interceptors" shows how.

play            run an interceptor by hand, without any I/O
Echo, Stub      a service scripted per attempt, and its client
PLACES, Place   the sixteen places, each behind one way to call; the pytest fixture `rpc` runs a test in all of them
FakeClock       time that a test moves
FaultProxy      faults of the network
no_…leaks       checks that nothing is left behind
"""

from interpose.testing.acts import Act, died, failed, ok, raised
from interpose.testing.clock import FakeClock
from interpose.testing.codec import decode, encode
from interpose.testing.echo import Attempt, Echo, Stub
from interpose.testing.leaks import Leak, no_generator_leaks, no_leaks, no_rpc_leaks, no_task_leaks, no_thread_leaks
from interpose.testing.places import PLACES, Place, Reply, Rpc
from interpose.testing.play import Played, ScriptError, Sent, incoming, play
from interpose.testing.proxy import FaultProxy

__all__ = [
    "PLACES",
    "Act",
    "Attempt",
    "Echo",
    "FakeClock",
    "FaultProxy",
    "Leak",
    "Place",
    "Played",
    "Reply",
    "Rpc",
    "ScriptError",
    "Sent",
    "Stub",
    "decode",
    "died",
    "encode",
    "failed",
    "incoming",
    "no_generator_leaks",
    "no_leaks",
    "no_rpc_leaks",
    "no_task_leaks",
    "no_thread_leaks",
    "ok",
    "play",
    "raised",
]
