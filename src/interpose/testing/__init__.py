"""For tests: an echo service with scripted outcomes, the sixteen places, and leak checks."""

from interpose.testing.echo import Act, Attempt, Echo, failed, ok
from interpose.testing.leaks import Leak, no_leaks
from interpose.testing.places import PLACES, Place, Reply, Rpc

__all__ = ["PLACES", "Act", "Attempt", "Echo", "Leak", "Place", "Reply", "Rpc", "failed", "no_leaks", "ok"]
