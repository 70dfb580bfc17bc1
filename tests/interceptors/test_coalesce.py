"""Coalesce: what is sent once, for which calls, and what each of those that asked gets."""

import asyncio
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import Call, Flow, Kind, Outcome, Side, chain, context, errors, intercept_channel
from interpose.interceptors import Cache, Coalesce, CoalesceState
from interpose.interceptors.coalesce import _leading
from interpose.testing import PLACES, Echo, FakeClock, Place, Stub, failed, incoming, ok, play
from tests.interceptors.coalescing import NONE, UNAVAILABLE, Asked, always, answer, call_of, failure
from tests.interceptors.driving import each, requests
from tests.protos.compiled import Generated
from tests.support.patience import PATIENCE

DEADLINE_EXCEEDED = grpc.StatusCode.DEADLINE_EXCEEDED
CANCELLED = grpc.StatusCode.CANCELLED
LEDGER = "/interpose.tests.idempotency.Ledger"
UNARY = [place for place in PLACES if place.kind is Kind.UNARY_UNARY and place.side is Side.CLIENT]
OTHERS = [place for place in PLACES if place not in UNARY]

CROWD = 100


# --- where it works -------------------------------------------------------------------------------------------------


def test_a_crowd_of_threads() -> None:
    """A hundred of them ask at once: one execution at the server, and an answer for each."""
    clock, coalesce, echo, outcomes = FakeClock(), always(), Echo([ok(hang=True)]), list[Outcome]()
    with (
        echo.serve() as target,
        intercept_channel(grpc.insecure_channel(target), each(outcomes), coalesce, clock=clock) as channel,
        ThreadPoolExecutor(CROWD) as pool,
    ):
        stub = Stub(channel)
        asked = [pool.submit(stub.unary_unary, "q") for _ in range(CROWD)]
        clock.wait_for(CROWD - 1)
        during = coalesce.snapshot()
        echo.close()
        answers = [future.result(PATIENCE) for future in asked]

    assert during == CoalesceState(flights=1, waiting=CROWD - 1)
    assert answers == ["q"] * CROWD
    assert len(echo.attempts) == 1
    assert sorted(outcome.attempts for outcome in outcomes) == [0] * (CROWD - 1) + [1]
    assert [outcome.trailing_metadata.get("x-coalesced") for outcome in outcomes].count("true") == CROWD - 1
    assert coalesce.snapshot() == NONE


def test_a_crowd_of_futures() -> None:
    """`future()` never blocks: a hundred are begun by one thread, and one is sent."""
    coalesce, echo = always(), Echo([ok(hang=True)])
    with echo.serve() as target, intercept_channel(grpc.insecure_channel(target), coalesce) as channel:
        stub = Stub(channel)
        asked = [stub.unary_unary.future("q") for _ in range(CROWD)]
        during = coalesce.snapshot()
        echo.close()
        answers = [future.result(PATIENCE) for future in asked]

    assert during == CoalesceState(flights=1, waiting=CROWD - 1)
    assert answers == ["q"] * CROWD
    assert len(echo.attempts) == 1
    assert coalesce.snapshot() == NONE


async def test_a_crowd_of_tasks() -> None:
    """A hundred tasks: one execution, and an answer for each."""
    coalesce, echo = always(), Echo([ok(hang=True)])
    async with echo.serve_aio() as target, intercept_channel(grpc.aio.insecure_channel(target), coalesce) as channel:
        stub = Stub(channel)
        asked = [stub.unary_unary("q") for _ in range(CROWD)]
        during = coalesce.snapshot()
        echo.close()
        answers = await asyncio.gather(*asked)

    assert during == CoalesceState(flights=1, waiting=CROWD - 1)
    assert answers == ["q"] * CROWD
    assert len(echo.attempts) == 1
    assert coalesce.snapshot() == NONE


def test_blocking_calls_and_futures_together() -> None:
    """They wait for each other, whichever was first."""
    for blocking_first in (True, False):
        clock, echo = FakeClock(), Echo([ok(hang=True)])
        with (
            echo.serve() as target,
            intercept_channel(grpc.insecure_channel(target), always(), clock=clock) as channel,
            ThreadPoolExecutor(1) as pool,
        ):
            stub = Stub(channel)
            if blocking_first:
                blocking = pool.submit(stub.unary_unary, "q")
                echo.wait_begun()
                future = stub.unary_unary.future("q")
            else:
                future = stub.unary_unary.future("q")
                blocking = pool.submit(stub.unary_unary, "q")
                clock.wait_for(1)
            echo.close()
            answers = [blocking.result(PATIENCE), future.result(PATIENCE)]

        assert answers == ["q", "q"]
        assert len(echo.attempts) == 1


@pytest.mark.parametrize("place", OTHERS, ids=str)
def test_streams_and_servers_pass_untouched(place: Place) -> None:
    """Only a client's methods with one request and one response are coalesced, whatever `safe` says."""
    coalesce, seen = always(), list[CoalesceState]()

    def look(call: Call) -> Flow:
        yield call
        seen.append(coalesce.snapshot())

    with place.open(coalesce, look) as rpc:
        reply = rpc.call(*requests(place))

    assert reply.ok and "x-coalesced" not in reply.trailing_metadata
    assert len(rpc.attempts) == 1
    assert seen == [NONE]


@pytest.mark.parametrize("place", UNARY, ids=str)
def test_one_after_the_other_are_two(place: Place) -> None:
    """It keeps no answer: once a call has ended the next one is sent."""
    with place.open(always(), script=[ok("first"), ok("second")]) as rpc:
        replies = [rpc.call("q") for _ in range(2)]

    assert [reply.messages for reply in replies] == [["first"], ["second"]]
    assert not any("x-coalesced" in reply.trailing_metadata for reply in replies)


def test_in_a_play_it_is_not_seen() -> None:
    """A call that is alone is sent as it is."""
    played = play(always(), [ok("a")], requests=[b"q"])

    assert played.outcome.response == "a"
    assert not played.waits


# --- which calls ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "safe", "waits"),
    [
        ("Read", None, True),
        ("Put", None, False),
        ("Add", None, False),
        ("Read", False, False),
        ("Add", True, True),
        ("Add", lambda call: call.method.name == "Add", True),
    ],
)
def test_the_proto_says_which_methods(generated: Generated, name: str, safe: Any, waits: bool) -> None:
    """NO_SIDE_EFFECTS, unless `safe` says otherwise."""
    generated("idempotency_pb2")
    coalesce = Coalesce(safe=safe)
    first, second = (Asked(coalesce, call_of(method=f"{LEDGER}/{name}")) for _ in range(2))

    assert first.sends
    assert (second.waits, second.sends) == (waits, not waits)


ANNA, BERT = (dict[str, Any](metadata=(("authorization", name),)) for name in ("anna", "bert"))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({}, {}, True),
        ({"timeout": 1}, {}, True),
        ({"request": "other"}, {}, False),
        ({"method": "/a.B/C"}, {}, False),
        (ANNA, ANNA, True),
        (ANNA, BERT, False),
        (ANNA, {}, False),
        ({"metadata": (("cookie", "anna"),)}, {"metadata": (("cookie", "bert"),)}, False),
        ({"metadata": (("x-tenant", "a"),)}, {"metadata": (("x-tenant", "b"),)}, False),
        ({"metadata": (("x-other", "a"),)}, {"metadata": (("x-other", "b"),)}, True),
        ({"credentials": grpc.access_token_call_credentials("anna")}, {}, False),
        # Who fails at once if the server is away must not wait for one who waits for it, nor the other way round.
        ({"wait_for_ready": True}, {}, False),
        ({"wait_for_ready": True}, {"wait_for_ready": True}, True),
    ],
)
def test_which_calls_are_the_same(one: Any, other: Any, same: bool) -> None:
    """What is asked, where, and who asks."""
    coalesce = always(metadata=("x-tenant",))
    first, second = Asked(coalesce, call_of(**one)), Asked(coalesce, call_of(**other))

    assert first.sends
    assert (second.waits, second.sends) == (same, not same)


def test_who_asked_the_handler_counts() -> None:
    """A call that a handler makes for Bert does not wait for the one that another makes for Anna."""
    coalesce = always()
    asked = []
    for name in ("anna", "bert", "anna"):
        context.set_current_call(incoming(metadata=[("authorization", name)]))
        asked.append(Asked(coalesce, call_of()))

    assert [one.sends for one in asked] == [True, True, False]


def test_shared_answers_are_for_everybody() -> None:
    """`shared=True`: who asks does not count."""
    coalesce = always(shared=True)
    first, second = Asked(coalesce, call_of(**ANNA)), Asked(coalesce, call_of(**BERT))
    first.end(answer())

    assert second.go_on().response == "good"


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED])
@pytest.mark.parametrize("shared", [True, False])
def test_a_refusal_is_for_who_was_refused(code: grpc.StatusCode, shared: bool) -> None:
    """With `shared=True` the next may be somebody else, and is sent; else it is the same one."""
    coalesce = always(shared=shared)
    first, second = Asked(coalesce, call_of()), Asked(coalesce, call_of())
    first.end(failure(code))
    second.go_on()

    assert second.sends == shared
    assert shared or second.outcome.code is code


def test_channels_do_not_share() -> None:
    """One instance on two channels to the same server: they may have other credentials."""
    coalesce, echo = always(), Echo([ok(hang=True), ...])
    with (
        echo.serve() as target,
        intercept_channel(grpc.insecure_channel(target), coalesce) as one,
        intercept_channel(grpc.insecure_channel(target), coalesce) as other,
    ):
        asked = [Stub(channel).unary_unary.future("q") for channel in (one, other, one)]
        echo.wait_begun(2)
        during = coalesce.snapshot()
        echo.close()
        answers = [future.result(PATIENCE) for future in asked]

    assert during == CoalesceState(flights=2, waiting=1)
    assert answers == ["q"] * 3


# --- what they get --------------------------------------------------------------------------------------------------


def test_an_answer_comes_with_its_metadata() -> None:
    """Theirs has all that came with it, and a mark that the first one's has not."""
    coalesce = always()
    first, second = Asked(coalesce, call_of()), Asked(coalesce, call_of())
    mine = first.end(
        answer(initial_metadata=(meta := incoming(metadata=[("x-first", "1")]).metadata), trailing_metadata=meta)
    )
    theirs = second.go_on()

    assert theirs.initial_metadata == mine.initial_metadata == (("x-first", "1"),)
    assert theirs.trailing_metadata == (("x-first", "1"), ("x-coalesced", "true"))
    assert mine.trailing_metadata == (("x-first", "1"),)


def test_each_caller_has_a_response_of_its_own(generated: Generated) -> None:
    """What one of them writes into it the others do not see."""
    pb = generated("idempotency_pb2")
    coalesce = always()
    first, *others = (Asked(coalesce, call_of()) for _ in range(4))
    first.end(answer(pb.Receipt(text="good"))).response.text = "scribbled over"
    texts = []
    for other in others:
        response = other.go_on().response
        texts.append(response.text)
        response.text = "scribbled over"

    assert texts == ["good"] * 3


def test_one_object_for_all_if_told_so() -> None:
    """`copy=None`, where nobody can change it."""
    coalesce = always(copy=None)
    first, second = Asked(coalesce, call_of()), Asked(coalesce, call_of())
    mine = first.end(answer(["one"]))

    assert second.go_on().response is mine.response


def test_what_cannot_be_copied_is_asked_for_again(caplog: pytest.LogCaptureFixture) -> None:
    """The first has its answer, the others are sent, and the log says why."""

    def broken(response: Any) -> Any:
        raise TypeError("cannot copy a socket")

    coalesce = always(copy=broken)
    first, second = Asked(coalesce, call_of()), Asked(coalesce, call_of())
    mine = first.end(answer())
    second.go_on()

    assert mine.response == "good"
    assert second.sends
    assert "could not be copied" in caplog.text


def test_a_failure_is_everybodys() -> None:
    """Each has an error of its own, with all that it says; a note on one is not on the others."""
    coalesce = always()
    first, *others = (Asked(coalesce, call_of()) for _ in range(3))
    cause = OSError("refused")
    told = failure(trailing_metadata=[("x-why", "down")], local=True)
    assert told.error is not None
    told.error.add_note("of the first")
    told.error.__cause__ = cause
    first.end(told)
    outcomes = [other.go_on() for other in others]
    outcomes[0].error.add_note("of the second")

    assert [outcome.code for outcome in outcomes] == [UNAVAILABLE] * 2
    assert len({id(outcome.error) for outcome in [told, *outcomes]}) == 3
    assert all(type(outcome.error) is errors.Unavailable and outcome.error.local for outcome in outcomes)
    assert all(outcome.error.__cause__ is cause for outcome in outcomes)
    assert outcomes[1].trailing_metadata.get("x-why") == "down"
    assert told.error.__notes__ == ["of the first"]
    assert outcomes[1].error.__notes__ == ["of the first", "Coalesce: the failure of the same call, under way already"]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_what_a_stub_raises_is_native(asynchronous: bool) -> None:
    """For those that waited as for the one that was sent."""
    echo, coalesce = Echo([failed(UNAVAILABLE, "closed today", hang=True, trailing=[("x-why", "rest")])]), always()
    if asynchronous:
        async with echo.serve_aio() as target, intercept_channel(grpc.aio.insecure_channel(target), coalesce) as aio:
            calls = [Stub(aio).unary_unary("q") for _ in range(3)]
            await asyncio.to_thread(echo.wait_begun)
            echo.close()
            raised = await asyncio.gather(*calls, return_exceptions=True)
    else:
        with echo.serve() as target, intercept_channel(grpc.insecure_channel(target), coalesce) as channel:
            futures = [Stub(channel).unary_unary.future("q") for _ in range(3)]
            echo.wait_begun()
            echo.close()
            raised = [future.exception(PATIENCE) for future in futures]

    assert len(echo.attempts) == 1
    assert len(set(map(id, raised))) == 3
    for error in raised:
        assert isinstance(error, errors.Unavailable)
        assert isinstance(error, grpc.aio.AioRpcError if asynchronous else grpc.Call)
        assert (error.details(), error.trailing_metadata().get("x-why")) == ("closed today", "rest")


def test_taps_and_maps_further_out_see_each_answer() -> None:
    """Those that waited have theirs, as if it had come for them."""
    coalesce, seen = always(), list[str]()
    asked = [
        Asked(coalesce, call_of().map(responses=f"{{}}, {name}".format).tap(responses=seen.append))
        for name in ("anna", "bert")
    ]
    asked[0].end(answer("hello"))
    asked[1].go_on()

    assert [one.outcome.response for one in asked] == ["hello, anna", "hello, bert"]
    assert seen == ["hello", "hello"]


# --- with others ----------------------------------------------------------------------------------------------------


def test_inside_of_a_cache() -> None:
    """A crowd is sent once, and the next crowd not at all."""
    echo = Echo([ok(hang=True)])
    stack = chain(Cache(60, safe=True), always())
    with echo.serve() as target, intercept_channel(grpc.insecure_channel(target), stack) as channel:
        stub = Stub(channel)
        crowd = [stub.unary_unary.future("q") for _ in range(10)]
        echo.close()
        answers = [future.result(PATIENCE) for future in crowd]
        answers += [stub.unary_unary("q") for _ in range(10)]

    assert answers == ["q"] * 20
    assert len(echo.attempts) == 1


@pytest.mark.slow
def test_nothing_is_left_of_many_calls() -> None:
    """10,000 different requests, and as many that waited: nothing is held when they have ended."""
    coalesce = always()
    for number in range(10_000):
        first, second = Asked(coalesce, call_of(f"q{number}")), Asked(coalesce, call_of(f"q{number}"))
        first.end(answer(number))
        assert second.go_on().response == number

    assert coalesce.snapshot() == NONE


def test_nothing_is_left_of_many_attempts() -> None:
    """An RPC that is sent again and again remembers only the flight that it is in."""
    held: list[int] = []

    def again(call: Call) -> Flow:
        for _ in range(50):
            yield call

    def look(call: Call) -> Flow:
        held.append(len(_leading.get()))
        yield call

    play(chain(again, always(), look), [ok(), ...], requests=[b"q"])

    assert held == [1] * 50


def test_the_first_ends_just_before_another_begins_to_wait() -> None:
    """Between the moments in which that one is found and waited for: then the other is sent."""
    coalesce = always()
    first = Asked(coalesce, call_of())

    class Meanwhile(dict[Any, Any]):
        def setdefault(self, key: Any, default: Any = None) -> Any:
            found = super().setdefault(key, default)
            if first.sends:
                first.end(answer())
            return found

    coalesce._flights = Meanwhile(coalesce._flights)
    second = Asked(coalesce, call_of())

    assert second.sends
    assert second.end(answer("again")).response == "again"
    assert coalesce.snapshot() == NONE


def test_many_threads_over_and_over() -> None:
    """Whatever the moment in which they come: each has the answer to its own question, and nobody waits for ever."""
    coalesce, wrong = always(), list[Any]()
    numbers = itertools.count()

    def ask(seed: int) -> None:
        try:
            for step in range(300):
                request = str((seed + step) % 3)
                asked = Asked(coalesce, call_of(request))
                while asked.waits:
                    asked.go_on()
                if asked.sends:
                    asked.end(failure(CANCELLED) if next(numbers) % 3 == 0 else answer(request))
                if asked.outcome.ok and asked.outcome.response != request:
                    wrong.append(asked.outcome)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)

    assert not any(thread.is_alive() for thread in threads)
    assert wrong == []
    assert coalesce.snapshot() == NONE


# --- options --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"metadata": "x-tenant"}, "metadata must be a tuple of metadata keys"),
        ({"shared": 1}, "shared must be True or False"),
        ({"safe": "Read"}, "safe must be None, True, False or a function"),
        ({"copy": 3}, "copy must be a function"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], fault: str) -> None:
    """A ValueError when it is made says what to write instead."""
    with pytest.raises(ValueError, match="Coalesce: ") as caught:
        Coalesce(**options)

    assert fault in str(caught.value)


def test_every_fault_is_told_at_once() -> None:
    """One error for all options."""
    with pytest.raises(ValueError, match=r"metadata must .*; shared must .*; safe must .*; copy must"):
        Coalesce(metadata="x", shared=3, safe=3, copy=3)  # type: ignore[arg-type]  # that is the question
