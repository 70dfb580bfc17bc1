"""The scenarios that are compared: among them is everything that a caller can do."""

import pytest
from hypothesis import given, settings

from interpose import Kind
from tests.conformance.calls.scenario import ENDS, Model, Scenario, scenarios

ALWAYS = {"done", "cancelled", "time_remaining", "repr", "kinship", "add_done_callback", "cancel", "settle"}
STATUS = {"code", "details", "initial_metadata", "trailing_metadata", "debug_error_string", "server: initial"}
SYNC = {"is_active", "running", "add_callback", "result", "exception", "traceback", "early: exception", "drop"}
WAITING = {"result soon", "exception soon", "traceback soon"}
ASYNCIO = {"wait_for_connection", "give up", "early: code"}


def expected(kind: Kind, asyncio: bool) -> set[str]:
    """The steps that must occur."""
    steps = ALWAYS | STATUS | {f"server: {end}" for end in ENDS} | (ASYNCIO if asyncio else SYNC | WAITING)
    if kind.response_streaming:
        steps |= {"server: message", *(("read", "iterate", "read all") if asyncio else ("next",)), "iterate all"}
    elif asyncio:
        steps |= {"await"}
    return steps | ({"say", "hush"} if kind.request_streaming else set())


@pytest.mark.slow
@pytest.mark.parametrize("stack", ["sync", "asyncio"])
@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.value)
def test_every_step_occurs(kind: Kind, stack: str) -> None:
    """Among two hundred scenarios each step is found that a caller, or a server, can do."""
    seen: set[str] = set()

    @settings(max_examples=200, derandomize=True, deadline=None)
    @given(scenarios(kind, asyncio=stack == "asyncio"))
    def look(scenario: Scenario) -> None:
        seen.update(scenario.steps)

    look()
    assert expected(kind, stack == "asyncio") <= seen


@pytest.mark.parametrize("kind", [Kind.UNARY_STREAM, Kind.STREAM_STREAM], ids=lambda kind: kind.value)
def test_the_end_comes_behind_the_messages(kind: Kind) -> None:
    """The model takes a stream for over once its messages are read and the server has ended it, not before."""
    model = Model(kind, False, "one")
    for step in ("server: message", "server: OK"):
        model.do(step)
    before = model.over
    model.do("next")

    assert not before
    assert model.over
    assert model.steps[-1] == "settle"
