"""The straight path, `begin` and `end` without a driver, cannot be told from a driver's way."""

from hypothesis import example, given

from interpose import Call, Interceptor, Outcome
from interpose._flow import begin, end, layers
from tests.laws.family import NOT_FOUND, UNAVAILABLE, Log, Spec, build, nested
from tests.laws.interpreter import CALL, Player, answer, seen, wished
from tests.laws.test_chains import Script, Told, scripts, silence, told

__all__ = ["silence"]


class Straight(Player):
    """Begins and ends as the shells of servers do: a driver is made when a flow asks for more."""

    def play(self, *stack: Interceptor, call: Call = CALL) -> Outcome:
        flows = layers(stack, call.method)
        begun = begin(flows, call)
        if isinstance(begun, tuple):
            return self.go_on(*begun)
        ended = end(flows, begun, self._send(call))
        assert begun == [] or isinstance(ended, tuple)
        return self.go_on(*ended) if isinstance(ended, tuple) else ended


def straight(specs: list[Spec], script: Script) -> Told:
    """Play the stack that these descriptions mean, on the straight path as far as it goes."""
    log: Log = []
    player = Straight(answer(code, replayable=again) for code, again in script)
    outcome = player.play(*[build(spec, log) for spec in specs])
    return Told(seen(outcome), list(map(wished, player.sent)), log, sum(driver.frames for driver in player.started))


@given(nested(("chain", "when", "calls")), scripts)
@example([("passes",), ("replaces", None), ("passes",)], [(UNAVAILABLE, True)])
@example([("passes",), ("retries", 2), ("passes",)], [(UNAVAILABLE, True)] * 2)
@example([("passes",), ("refuses", True), ("passes",)], [(NOT_FOUND, False)])
@example([("passes",), ("adds", "x-a"), ("passes",)], [])
def test_the_straight_path_is_no_other_way(specs: list[Spec], script: Script) -> None:
    """Same calls sent, same outcome, same sights in each flow, and none left that has not ended."""
    assert straight(specs, script) == told(specs, script)
