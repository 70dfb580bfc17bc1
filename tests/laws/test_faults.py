"""Laws of blame: whatever an interceptor does wrong ends the RPC, names it, and hides no failure that it was told."""

import logging
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interpose import Call, Flow, Interceptor, Outcome, errors, wait
from interpose._flow import MAX_RESENDS
from tests.laws.family import BREAKING_AFTER, BUGS, HARMLESS, NONSENSE, NOT_FOUND, UNAVAILABLE, Log, Spec, build
from tests.laws.interpreter import CALL, OK, Given, Player, answer

pytestmark = pytest.mark.usefixtures("quiet")


@pytest.fixture(scope="module")
def quiet() -> Any:
    """The faults are logged, thousands of them."""
    logging.getLogger("interpose").disabled = True
    yield
    logging.getLogger("interpose").disabled = False


def blamed(outcome: Outcome, name: str) -> bool:
    """Is this an INTERNAL, made here, that names the interceptor?"""
    return outcome.code is grpc.StatusCode.INTERNAL and outcome.local and f"interceptor {name}" in outcome.details


def noted(outcome: Outcome) -> str:
    """The notes on a failure."""
    return "\n".join(getattr(outcome.error, "__notes__", ()))


def made(bug: str) -> BaseException:
    """One of the exceptions that a broken interceptor may raise."""
    return BUGS[bug]()


def name_of(interceptor: Interceptor) -> str:
    return getattr(interceptor, "__qualname__", "").replace("<locals>.", "")


# - by example ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bug", sorted(BUGS))
def test_raising_before_the_yield_is_internal(bug: str) -> None:
    """Nothing is sent, the RPC ends with INTERNAL, its details name the interceptor and not what the exception says."""
    raised = BUGS[bug]()

    def breaks(call: Call) -> Flow:
        raise raised
        yield call

    player = Player()
    outcome = player.play(breaks)

    assert blamed(outcome, name_of(breaks))
    assert not player.sent
    assert outcome.attempts == 0
    assert "secret" not in outcome.details
    assert outcome.error is not None
    assert isinstance(outcome.error.__cause__, BaseException)


@pytest.mark.parametrize("bug", sorted(BUGS))
def test_raising_after_success_is_internal(bug: str) -> None:
    """The RPC had succeeded: INTERNAL, which says that it the outcome it was given was OK, and counts what had been sent."""

    def breaks(call: Call) -> Flow:
        yield call
        raise made(bug)

    outcome = Player().play(breaks)

    assert blamed(outcome, name_of(breaks))
    assert "the outcome it was given was OK" in outcome.details
    assert outcome.attempts == 1
    assert outcome.requests == 1


@pytest.mark.parametrize("bug", sorted(BUGS))
def test_raising_after_a_failure_leaves_the_failure(bug: str) -> None:
    """The failure that the interceptor was told stands, with a note that names the interceptor."""

    def breaks(call: Call) -> Flow:
        yield call
        raise made(bug)

    told = answer(NOT_FOUND)
    outcome = Player([told]).play(breaks)

    assert outcome is told
    assert outcome.details == "from the peer"
    assert name_of(breaks) in noted(outcome)


def test_stop_iteration_raised_inside_is_no_end() -> None:
    """`raise StopIteration` inside a flow, or a `next()` that finds nothing, is a fault and not a return (PEP 479)."""

    def breaks(call: Call) -> Flow:
        next(iter([]))
        yield call

    outcome = Player().play(breaks)

    assert blamed(outcome, name_of(breaks))
    assert "raised RuntimeError" in outcome.details


def test_a_status_raised_before_the_yield_is_the_status() -> None:
    """A StatusError is no bug: it ends the RPC with that status, unsent."""

    def refuses(call: Call) -> Flow:
        raise errors.PermissionDenied("not you", trailing_metadata=[("x-why", "unknown")])
        yield call

    player = Player()
    outcome = player.play(refuses)

    assert outcome.code is grpc.StatusCode.PERMISSION_DENIED
    assert outcome.details == "not you"
    assert outcome.trailing_metadata["x-why"] == "unknown"
    assert not player.sent


def test_a_status_raised_after_the_yield_replaces_the_outcome() -> None:
    """It takes over what had happened to the RPC, and whether it may be sent again."""

    def maps(call: Call) -> Flow:
        yield call
        raise errors.Aborted("mapped")

    outcome = Player([answer(UNAVAILABLE, replayable=False)]).play(maps)

    assert outcome.code is grpc.StatusCode.ABORTED
    assert outcome.details == "mapped"
    assert outcome.attempts == 1
    assert outcome.requests == 1
    assert not outcome.replayable


def test_raising_the_error_that_was_told_changes_nothing() -> None:
    """`raise outcome.error` is the same as letting the outcome stand."""

    def raises(call: Call) -> Flow:
        outcome = yield call
        assert outcome.error is not None
        raise outcome.error

    told = answer(UNAVAILABLE)
    outcome = Player([told]).play(raises)

    assert outcome is told
    assert not noted(outcome)


@pytest.mark.parametrize("word", NONSENSE, ids=lambda word: type(word).__name__)
def test_yielding_nonsense_is_internal(word: Any) -> None:
    """What is no call cannot be sent: the interceptor is named, and told what to yield."""

    def mumbles(call: Call) -> Flow:
        yield word

    player = Player()
    outcome = player.play(mumbles)

    assert blamed(outcome, name_of(mumbles))
    assert "yield the call" in outcome.details
    assert not player.sent


def test_yielding_an_awaitable_tells_how_to_wait() -> None:
    """Whoever yields an awaitable is told of `wait`."""

    def forgets(call: Call) -> Flow:
        yield Given()  # type: ignore[misc]

    outcome = Player().play(forgets)

    assert "yield from wait(" in outcome.details


@pytest.mark.parametrize("word", [0, "OK", [], object], ids=repr)
def test_returning_nonsense_is_internal(word: Any) -> None:
    """A flow returns an Outcome or nothing."""

    def returns(call: Call) -> Flow:
        yield call
        return word

    outcome = Player().play(returns)

    assert blamed(outcome, name_of(returns))
    assert "return the outcome" in outcome.details


def test_never_yielding_is_internal() -> None:
    """A flow that ends without a yield and without an outcome has lost the call."""

    def loses(call: Call) -> Flow:
        if call.request == "another request":
            yield call

    player = Player()
    outcome = player.play(loses)

    assert blamed(outcome, name_of(loses))
    assert "without a yield" in outcome.details
    assert not player.sent


def test_sending_again_what_cannot_bear_it() -> None:
    """The call is not sent again, and a failure that was told stands, with a note that says what to check."""

    def insists(call: Call) -> Flow:
        yield call
        yield call

    told = answer(UNAVAILABLE, replayable=False)
    player = Player([told])
    outcome = player.play(insists)

    assert outcome is told
    assert len(player.sent) == 1
    assert name_of(insists) in noted(outcome)
    assert "check outcome.replayable" in noted(outcome)


def test_sending_again_after_a_success_that_cannot_bear_it() -> None:
    """Where no failure stands, the misuse itself ends the RPC."""

    def insists(call: Call) -> Flow:
        yield call
        yield call

    player = Player([answer(OK, replayable=False)])
    outcome = player.play(insists)

    assert blamed(outcome, name_of(insists))
    assert len(player.sent) == 1


@pytest.mark.parametrize("code", [OK, UNAVAILABLE], ids=str)
def test_yielding_for_ever_ends(code: grpc.StatusCode) -> None:
    """A flow that sends again and again is stopped, named, and closed."""
    closed: list[bool] = []

    def spins(call: Call) -> Flow:
        try:
            while True:
                yield call
        finally:
            closed.append(True)

    player = Player(answer(code) for _ in range(2 * MAX_RESENDS))
    outcome = player.play(spins)

    assert len(player.sent) == MAX_RESENDS + 1
    assert closed
    assert name_of(spins) in (noted(outcome) if code is UNAVAILABLE else outcome.details)
    assert outcome.code is (UNAVAILABLE if code is UNAVAILABLE else grpc.StatusCode.INTERNAL)


def test_spinning_over_an_interceptor_that_answers_ends_too() -> None:
    """A retry without an end over a breaker that never sends is stopped as well."""

    def spins(call: Call) -> Flow:
        while True:
            yield call

    def open_breaker(call: Call) -> Flow:
        raise errors.Unavailable("the breaker is open", local=True)
        yield call

    player = Player()
    outcome = player.play(spins, open_breaker)

    assert outcome.code is UNAVAILABLE
    assert name_of(spins) in noted(outcome)
    assert not player.sent


def test_a_flow_that_yields_while_it_is_closed() -> None:
    """A flow that is stopped and yields in its `finally` is left behind, and the RPC ends all the same."""

    def clings(call: Call) -> Flow:
        try:
            yield call
            yield "nonsense"  # type: ignore[misc]
        finally:
            yield call

    outcome = Player([answer(UNAVAILABLE)]).play(clings)

    assert outcome.code is UNAVAILABLE
    assert name_of(clings) in noted(outcome)


def test_a_hand_made_failure_without_an_error_stands_too() -> None:
    """Also a failure without an exception to hang a note on is not hidden."""

    def breaks(call: Call) -> Flow:
        yield call
        raise ValueError

    outcome = Player([Outcome(NOT_FOUND, None, "bare")]).play(breaks)

    assert outcome.code is NOT_FOUND
    assert outcome.details == "bare"


# - waiting ------------------------------------------------------------------------------------------------------------


def test_a_flow_waits_for_a_value() -> None:
    """`yield from wait(x)` gives what x gives, plain or awaited, as often as asked."""

    def waits(call: Call) -> Flow:
        words = ""
        for word in (Given("a"), "b", Given("c")):
            words += yield from wait(word)
        outcome = yield call.with_metadata(("x-words", words))
        return outcome.with_response((yield from wait(Given("late"))))

    player = Player()
    outcome = player.play(waits)

    assert player.sent[0].metadata["x-words"] == "abc"
    assert outcome.response == "late"


def test_what_was_awaited_raises_in_the_flow() -> None:
    """An exception of what a flow waits for comes out of its `wait`; it may catch it, and wait again."""

    def waits(call: Call) -> Flow:
        try:
            yield from wait(Given(error=LookupError()))
        except LookupError:
            call = call.with_request((yield from wait(Given("second try"))))
        yield call

    player = Player()

    assert player.play(waits).ok
    assert player.sent[0].request == "second try"


def test_what_was_awaited_may_end_the_flow() -> None:
    """Uncaught, it is the interceptor's; a status ends the RPC with that status."""

    def waits(error: BaseException) -> Interceptor:
        def flow(call: Call) -> Flow:
            yield from wait(Given(error=error))
            yield call

        return flow

    player = Player()
    broken, refused = player.play(waits(LookupError())), player.play(waits(errors.Unauthenticated("expired")))

    assert broken.code is grpc.StatusCode.INTERNAL
    assert "raised LookupError" in broken.details
    assert refused.code is grpc.StatusCode.UNAUTHENTICATED
    assert not player.sent


def test_waiting_after_a_failure_does_not_hide_it() -> None:
    """What a flow waits for after the RPC may fail; the RPC's own failure stands."""

    def waits(call: Call) -> Flow:
        yield call
        yield from wait(Given())
        yield from wait(Given(error=LookupError()))

    told = answer(NOT_FOUND)
    outcome = Player([told]).play(waits)

    assert outcome is told
    assert name_of(waits) in noted(outcome)


def test_waiting_between_two_attempts() -> None:
    """A flow may wait between attempts; what it was told still decides whether it may send again."""

    def waits(call: Call) -> Flow:
        yield call
        yield from wait(Given())
        yield call
        yield from wait(Given())
        yield call

    player = Player([answer(UNAVAILABLE), answer(UNAVAILABLE, replayable=False)])
    outcome = player.play(waits)

    assert len(player.sent) == 2
    assert outcome.attempts == 2
    assert "check outcome.replayable" in noted(outcome)


# - races --------------------------------------------------------------------------------------------------------------


def hedges(call: Call) -> Flow:
    """Send up to three."""
    yield call.hedged(copies=3, delay=0.1)


def test_each_copy_of_a_race_goes_through_the_layers_below() -> None:
    """Layers above a race are told once, layers below once per copy; attempts are those of all copies."""
    log: Log = []
    player = Player([answer(UNAVAILABLE), answer(UNAVAILABLE)])

    outcome = player.play(above_named(log), hedges, below_named(log))

    assert outcome.ok
    assert outcome.attempts == 3
    assert len(player.sent) == 3
    assert [name for name, _ in log] == ["below"] * 3 + ["above"]
    assert log[-1][1] == 3


def above_named(log: Log) -> Interceptor:
    def above(call: Call) -> Flow:
        outcome = yield call
        log.append(("above", outcome.attempts))

    return above


def below_named(log: Log) -> Interceptor:
    def below(call: Call) -> Flow:
        outcome = yield call
        log.append(("below", outcome.attempts))

    return below


def test_all_copies_fail() -> None:
    """The last failure is the outcome of the race, and a flow above may send the race again."""

    def twice(call: Call) -> Flow:
        outcome = yield call
        if outcome.replayable and not outcome.ok:
            yield call

    player = Player([answer(UNAVAILABLE, text=str(n)) for n in range(6)])
    outcome = player.play(twice, hedges)

    assert outcome.details == "5"
    assert outcome.attempts == len(player.sent) == 6


def test_a_race_of_what_cannot_be_sent_again() -> None:
    """A race after an outcome that is not replayable is the same misuse as a plain second send."""

    def late(call: Call) -> Flow:
        yield call
        yield call.hedged(copies=2, delay=0)

    told = answer(UNAVAILABLE, replayable=False)
    player = Player([told])

    assert player.play(late) is told
    assert len(player.sent) == 1


def test_a_broken_layer_below_a_race_fails_its_lane_only() -> None:
    """A bug in one lane ends that lane; another copy may still answer."""
    runs: list[int] = []

    def breaks_once(call: Call) -> Flow:
        runs.append(1)
        if len(runs) == 1:
            raise ValueError
        yield call

    outcome = Player().play(hedges, breaks_once)

    assert outcome.ok
    assert len(runs) == 2
    assert outcome.attempts == 1


# - by law -------------------------------------------------------------------------------------------------------------


@given(st.lists(st.one_of(HARMLESS, BREAKING_AFTER), max_size=5), st.sampled_from([NOT_FOUND, UNAVAILABLE]))
def test_no_bug_hides_a_failure(specs: list[Spec], code: grpc.StatusCode) -> None:
    """However many interceptors break after they were told a failure: it reaches the caller, and each is noted."""
    told = answer(code, replayable=False)
    log: Log = []

    outcome = Player([told]).play(*[build(spec, log) for spec in specs])

    broken = [spec for spec in specs if spec[-1] is True and spec != ("waits", None, True)]
    assert outcome is told
    assert len(getattr(told.error, "__notes__", ())) == len(broken)


@given(
    st.lists(HARMLESS, max_size=3),
    st.lists(HARMLESS, max_size=3),
    st.one_of(
        st.tuples(st.just("breaks"), st.sampled_from(sorted(BUGS)), st.booleans()),
        st.tuples(st.just("mumbles"), st.integers(0, len(NONSENSE) - 1), st.booleans()),
        st.tuples(st.just("returns"), st.sampled_from([1, 2, 4, 5]), st.booleans()),
        st.just(("returns", 0, False)),
    ),
)
def test_a_bug_where_all_went_well_is_internal(above: list[Spec], below: list[Spec], broken: Spec) -> None:
    """One broken interceptor among good ones, and a peer that answers OK: INTERNAL, made here, that names it."""
    log: Log = []
    breaks = build(broken, log)

    outcome = Player().play(*[build(spec, log) for spec in above], breaks, *[build(spec, log) for spec in below])

    assert blamed(outcome, name_of(breaks))
    assert all(entry[2] is grpc.StatusCode.INTERNAL for entry in log if entry[0] == "told" and entry[1] in above) or (
        set(above) & set(below)
    )


def test_the_exception_stands_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """The peer is told the interceptor's name; the log has the exception."""
    logging.getLogger("interpose").disabled = False

    def breaks(call: Call) -> Flow:
        raise ValueError("a secret")
        yield call

    outcome = Player().play(breaks, call=CALL)

    assert "a secret" not in outcome.details
    assert "a secret" in caplog.text
    assert name_of(breaks) in caplog.text
