"""Laws of composition: nesting changes nothing."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from interpose import Call, Flow, Outcome, chain, errors, when
from tests.laws.family import LEAVES, NOT_FOUND, UNAVAILABLE, Log, Spec, build, flattened, nested
from tests.laws.interpreter import CALL, METHOD, OK, Player, answer, seen, wished

Script = list[tuple[grpc.StatusCode, bool]]

scripts = st.lists(st.tuples(st.sampled_from([OK, NOT_FOUND, UNAVAILABLE]), st.booleans()), max_size=5)


@pytest.fixture(autouse=True, scope="module")
def silence() -> Iterator[None]:
    """The faults of broken interceptors are logged; thousands of them would only be slow."""
    logging.getLogger("interpose").disabled = True
    yield
    logging.getLogger("interpose").disabled = False


@dataclass
class Told:
    """All that can be observed of an RPC."""

    outcome: tuple[Any, ...]
    sent: list[tuple[Any, ...]]
    log: Log
    left: int  # flows that have not ended


def told(specs: list[Spec], script: Script) -> Told:
    """Play the stack that these descriptions mean."""
    log: Log = []
    player = Player(answer(code, replayable=again) for code, again in script)
    outcome = player.play(*[build(spec, log) for spec in specs])
    return Told(seen(outcome), list(map(wished, player.sent)), log, sum(driver.frames for driver in player.started))


@given(nested(("chain", "when")), scripts)
def test_a_nested_chain_behaves_as_a_flat_one(specs: list[Spec], script: Script) -> None:
    """chain(a, chain(b, c)) behaves as chain(a, b, c): same calls sent, same outcome, same sights in each flow."""
    assert told([("chain", specs)], script) == told(flattened(specs), script)


@given(nested(("chain", "when", "calls")), scripts)
@example([("insists", 2), ("calls", True, [("passes",)])], [])  # attempts counted once
@example([("calls", False, [("replaces", NOT_FOUND)])], [])  # a replaced outcome stands
@example([("calls", False, [("answers", None)])], [])  # so does one that was never sent
@example([("hedges", 2), ("calls", True, [("hedges", 2), ("passes",)])], [(UNAVAILABLE, True)] * 3)
def test_a_chain_called_inside_a_flow_behaves_as_part_of_the_stack(specs: list[Spec], script: Script) -> None:
    """A flow that does `yield from chain(b, c)(call)` behaves as if b and c stood below it."""
    assert told(specs, script) == told(flattened(specs), script)


@given(st.lists(LEAVES, max_size=3), st.lists(LEAVES, max_size=3), scripts)
def test_an_empty_chain_changes_nothing(above: list[Spec], below: list[Spec], script: Script) -> None:
    """chain() may stand anywhere in a stack."""
    assert told([*above, ("chain", []), *below], script) == told([*above, *below], script)


@given(nested(("chain", "when", "calls")), scripts)
def test_every_flow_that_begins_ends(specs: list[Spec], script: Script) -> None:
    """Whatever a stack does, each flow that was begun has ended with the RPC, and the RPC has an outcome."""
    observed = told(specs, script)

    begun = [entry[1] for entry in observed.log if entry[0] == "begins"]
    ended = [entry[1] for entry in observed.log if entry[0] == "ends"]
    assert observed.left == 0
    assert sorted(map(repr, begun)) == sorted(map(repr, ended))
    assert isinstance(observed.outcome[0], grpc.StatusCode)


@given(nested(("chain", "when", "calls")), scripts)
def test_every_attempt_has_exactly_one_outcome(specs: list[Spec], script: Script) -> None:
    """A flow at the bottom of the stack is begun once for each call that is sent, and told once."""
    bottom: Spec = ("passes", "bottom")
    log: Log = []
    player = Player(answer(code, replayable=again) for code, again in script)

    player.play(*[build(spec, log) for spec in specs], build_bottom(bottom, log))

    begun = sum(entry == ("begins", bottom) for entry in log)
    answered = sum(entry[:2] == ("told", bottom) for entry in log)
    assert begun == answered == len(player.sent)


def build_bottom(spec: Spec, log: Log) -> Any:
    """An observer whose entries can be told from those of others."""

    def observes(call: Call) -> Flow:
        log.append(("begins", spec))
        outcome = yield call
        log.append(("told", spec, *seen(outcome)))

    return observes


def test_a_call_inside_a_flow_may_be_repeated() -> None:
    """A flow may call one chain and then another: each is in the stack only while it answers."""
    names: list[str] = []

    def named(name: str) -> Any:
        def flow(call: Call) -> Flow:
            names.append(name)
            yield call

        return flow

    def tries(call: Call) -> Flow:
        yield from chain(named("first"))(call)
        yield from chain(named("second"), named("third"))(call)
        yield call

    player = Player([answer(UNAVAILABLE)] * 3)

    outcome = player.play(tries, named("below"))

    assert names == ["first", "below", "second", "third", "below", "below"]
    assert outcome.attempts == 3
    assert outcome.code is UNAVAILABLE


def test_what_a_called_chain_told_is_not_hidden() -> None:
    """A flow that breaks after its inner chain failed does not hide that failure."""

    def maps(call: Call) -> Flow:
        yield call
        raise errors.NotFound("mapped")

    def breaks(call: Call) -> Flow:
        yield from chain(maps)(call)
        raise ValueError

    outcome = Player([answer(UNAVAILABLE)]).play(breaks)

    assert outcome.code is NOT_FOUND
    assert outcome.details == "mapped"


def test_a_hedged_call_races_through_a_called_chain() -> None:
    """A chain that is called with a hedged call runs once in each lane."""
    runs: list[str] = []

    def inner(call: Call) -> Flow:
        runs.append("inner")
        yield call

    def hedges(call: Call) -> Flow:
        return (yield from chain(inner)(call.hedged(copies=2, delay=0)))

    player = Player([answer(UNAVAILABLE)])

    outcome = player.play(hedges)

    assert outcome.ok
    assert outcome.attempts == 2
    assert len(runs) == len(player.sent) == 2


def test_a_chain_when_called_asks_its_condition() -> None:
    """`when` may be called inside a flow as well: where it does not apply it changes nothing."""

    def refuses(call: Call) -> Flow:
        raise errors.PermissionDenied("not here")
        yield call

    def calls(call: Call) -> Flow:
        yield from when("/laws.Court/*", chain())(call)
        return (yield from when("/other.Court/*", refuses)(call))

    outcome = Player().play(calls)

    assert outcome.ok
    assert outcome.attempts == 2


def test_an_outcome_may_answer_many_rpcs() -> None:
    """A flow may keep an outcome, of its own or of another RPC, and answer with it: it is never changed."""
    kept: list[Outcome] = []

    def keeps(call: Call) -> Flow:
        if not kept:
            kept.append((yield call))
        return kept[0]

    def told_more(call: Call) -> Flow:
        yield call
        return kept[0]

    first, second, third = Player().play(keeps), Player().play(keeps), Player([answer(UNAVAILABLE)]).play(told_more)

    assert first is kept[0]
    assert first.attempts == 1
    assert first.requests == 1
    assert second.ok
    assert second.attempts == 0
    assert second.requests == 0
    assert second.response == first.response
    assert third.ok
    assert third.attempts == 1
    assert kept[0].attempts == 1


def test_a_waiting_flow_names_itself() -> None:
    """The driver writes on a step to await who asked for it, so that a sync shell can say so."""
    from interpose._flow import Driver, Wait, layers, wait
    from tests.laws.interpreter import Given

    def needs_a_token(call: Call) -> Flow:
        yield from wait(Given())
        yield call

    step = Driver(layers((needs_a_token,), METHOD)).start(CALL)

    assert isinstance(step, Wait)
    assert step.asker.endswith("needs_a_token")
