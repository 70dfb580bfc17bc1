"""The straight path of clients, which knows no driver, cannot be told from a driver's way."""

from typing import Any

import grpc
from hypothesis import example, given
from hypothesis import strategies as st

from interpose import Call, Interceptor, Outcome
from interpose._flow import layers
from interpose._shell.straight import begin, end
from tests.laws.family import LEAVES, NOT_FOUND, UNAVAILABLE, Log, Spec, build
from tests.laws.interpreter import CALL, OK, Player, answer, seen, wished
from tests.laws.test_chains import silence

__all__ = ["silence"]


class Straight(Player):
    """Begins and ends without a driver, for as long as the flows ask for no more."""

    def play(self, *stack: Interceptor, call: Call = CALL) -> Outcome:
        """One RPC from its start to its end."""
        compiled = layers(stack, call.method)
        frames, asked, taken = begin(compiled, call)
        if taken is None:
            outcome = self._send(asked)
            outcome._attempts = 1
            taken = end(compiled, frames, outcome)
            if taken is None:
                return outcome
        return self.go_on(*taken)


def told(player: type[Player], specs: list[Spec], script: list[grpc.StatusCode]) -> tuple[Any, ...]:
    """All that can be seen of an RPC: how it ends, what is sent, and what each flow sees."""
    log: Log = []
    player_ = player(map(answer, script))
    ended = player_.play(*(build(spec, log) for spec in specs))
    return seen(ended), [wished(call)[:-1] for call in player_.sent], log


codes = st.sampled_from([OK, NOT_FOUND, UNAVAILABLE])


@given(st.lists(LEAVES, max_size=4), st.lists(codes, max_size=3))
@example([("passes",), ("replaces", None), ("passes",)], [UNAVAILABLE])
@example([("passes",), ("retries", 2), ("passes",)], [UNAVAILABLE, NOT_FOUND])
@example([("passes",), ("adds", "x-a"), ("passes",)], [OK])
@example([("adds", "x-a"), ("breaks", "ValueError", True)], [OK])
@example([("passes",), ("breaks", "ValueError", False), ("passes",)], [])
@example([("passes",), ("returns", 3, True), ("passes",)], [])
@example([("passes",), ("refuses", True), ("passes",)], [NOT_FOUND])
def test_the_straight_path_is_no_other_way(specs: list[Spec], script: list[grpc.StatusCode]) -> None:
    """Same end, same calls sent, and same sights in each flow, in the same order."""
    assert told(Straight, specs, script) == told(Player, specs, script)
