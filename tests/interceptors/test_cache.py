"""Cache: what is answered without sending, to whom, for how long; and how much is kept."""

import asyncio
import gc
import os
import weakref
from typing import Any

import grpc
import grpc.aio
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from interpose import Call, Flow, Kind, Outcome, Side, chain, errors, intercept_channel, testing
from interpose.interceptors import Cache, CacheState, Fallback, Retry
from interpose.testing import PLACES, Echo, FakeClock, Place, Played, Stub, failed, incoming, ok
from interpose.testing.echo import decode, encode, path
from tests.interceptors.driving import each, requests
from tests.protos.compiled import Generated
from tests.support.examples import examples

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
LEDGER = "/interpose.tests.idempotency.Ledger"
UNARY = [place for place in PLACES if place.kind is Kind.UNARY_UNARY and place.side is Side.CLIENT]
OTHERS = [place for place in PLACES if place not in UNARY]

UNSENT: Any = [ok("sent all the same"), ...]


def always(ttl: float = 60, **options: Any) -> Cache:
    """A cache for methods of which no proto says anything."""
    return Cache(ttl, **({"safe": True} | options))


def play(cache: Any, script: Any, *, requests: Any = ("hello",), **options: Any) -> Played:
    """Played with requests in bytes: no stub is there that would serialize them."""
    return testing.play(cache, script, requests=[request.encode() for request in requests], **options)


def ask(cache: Any, answer: Any = "new", **options: Any) -> tuple[Any, bool]:
    """What a call is answered, and whether it was sent; it would be answered `answer`."""
    played = play(cache, [ok(answer), ...], **options)
    assert played.outcome.ok
    return played.outcome.response, bool(played.sent)


def signed(name: str) -> dict[str, Any]:
    """The options of a call by this person."""
    return {"metadata": [("authorization", f"Bearer {name}")]}


# --- where it works -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", UNARY, ids=str)
def test_the_same_call_is_answered_here(place: Place) -> None:
    """The second of two is not sent; it has the answer of the first, its metadata, and a mark."""
    outcomes: list[Outcome] = []
    script = [ok("a", initial=(("x-first", "1"),), trailing=(("x-page", "2"), ("x-cache", "miss"))), ok("b")]

    with place.open(each(outcomes), always(), script=script) as rpc:
        first, second, other = rpc.call("q"), rpc.call("q"), rpc.call("another")

    assert [reply.messages for reply in (first, second, other)] == [["a"], ["a"], ["b"]]
    assert len(rpc.attempts) == 2
    assert [(outcome.attempts, outcome.ok) for outcome in outcomes] == [(1, True), (0, True), (1, True)]
    assert first.trailing_metadata.get_all("x-cache") == ["miss"]
    assert second.trailing_metadata.get_all("x-cache") == ["hit"]
    assert second.trailing_metadata.get("x-page") == "2"
    assert second.initial_metadata.get("x-first") == "1"


@pytest.mark.parametrize("place", OTHERS, ids=str)
def test_streams_and_servers_pass_untouched(place: Place) -> None:
    """Only a client's methods with one request and one response are cached, whatever `safe` says."""
    outcomes: list[Outcome] = []
    cache = always()

    with place.open(each(outcomes), cache) as rpc:
        replies = [rpc.call(*requests(place)) for _ in range(2)]

    assert all(reply.ok and "x-cache" not in reply.trailing_metadata for reply in replies)
    assert len(rpc.attempts) == 2
    assert [outcome.responses for outcome in outcomes] == [len(reply.messages) for reply in replies]
    assert cache.snapshot() == CacheState(entries=0)


def test_a_future_is_answered_here() -> None:
    """`future()` of a sync stub, too: it is done at once."""
    echo = Echo([ok("a")])
    with echo.serve() as target, intercept_channel(grpc.insecure_channel(target), always()) as channel:
        stub = Stub(channel)
        first = stub.unary_unary.future("q").result(20)
        second = stub.unary_unary.future("q")
        done = second.done()

    assert (first, second.result(), done) == ("a", "a", True)
    assert len(echo.attempts) == 1


async def test_tasks_are_answered_here() -> None:
    """A hundred tasks, one after the first answer came: one execution."""
    echo = Echo()
    async with echo.serve_aio() as target, intercept_channel(grpc.aio.insecure_channel(target), always()) as channel:
        stub = Stub(channel)
        await stub.unary_unary("q")
        answers = await asyncio.gather(*(stub.unary_unary("q") for _ in range(100)))

    assert answers == ["q"] * 100
    assert len(echo.attempts) == 1


# --- which methods --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "safe", "hits"),
    [
        ("Read", None, True),
        ("Put", None, False),
        ("Add", None, False),
        ("Read", False, False),
        ("Add", True, True),
        ("Add", lambda call: call.method.name == "Add", True),
        ("Read", lambda call: call.method.name == "Add", False),
    ],
)
def test_the_proto_says_which_methods(generated: Generated, name: str, safe: Any, hits: bool) -> None:
    """NO_SIDE_EFFECTS, unless `safe` says otherwise."""
    generated("idempotency_pb2")
    cache = Cache(60, safe=safe)
    method = {"method": f"{LEDGER}/{name}"}

    sent = [ask(cache, **method)[1] for _ in range(2)]

    assert sent == [True, not hits]


def test_without_a_descriptor_nothing_is_cached() -> None:
    """Of a method that nobody describes nothing is known."""
    cache = Cache(60)

    assert [ask(cache)[1] for _ in range(2)] == [True, True]


def test_a_safe_that_fails_costs_nobody_the_call(caplog: pytest.LogCaptureFixture) -> None:
    """The call is sent, and the log says why."""

    def broken(call: Call) -> bool:
        raise KeyError("x-safe")

    cache = Cache(60, safe=broken)

    assert [ask(cache)[1] for _ in range(2)] == [True, True]
    assert "Cache: safe failed" in caplog.text


# --- what is kept ---------------------------------------------------------------------------------------------------


def test_an_answer_has_its_time() -> None:
    """It is given for `ttl` seconds from when its call was sent."""
    clock = FakeClock()
    cache = always(10)
    play(cache, [ok("old", delay=4)], clock=clock)

    clock.advance(5.5)
    before = ask(cache, clock=clock)
    clock.advance(0.5)
    after = ask(cache, clock=clock)

    assert before == ("old", False)
    assert after == ("new", True)


@pytest.mark.parametrize(
    "code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK], ids=lambda code: code.name
)
def test_a_failure_is_not_kept(code: grpc.StatusCode) -> None:
    """Whatever it is; the next call is sent."""
    cache = always()
    play(cache, [failed(code)])

    assert ask(cache) == ("new", True)


def test_a_failure_takes_nothing_away() -> None:
    """A call that was sent before an answer came, and fails after it did, leaves it there."""
    cache = always()
    slow, quick = cache(call_of("q")), cache(call_of("q"))
    next(slow)
    next(quick)
    end(quick, Outcome(response="good", responses=1))
    end(slow, Outcome.failure(errors.Unavailable("late")))

    assert ask(cache, requests=["q"], method=path(Kind.UNARY_UNARY)) == ("good", False)


def test_the_answer_to_an_older_call_does_not_replace_a_newer_one() -> None:
    """Of two calls under way at once the answer to the later one is kept, whichever comes last."""
    clock = FakeClock()
    cache = always(10)
    early, late = cache(call_of("q", clock)), cache(call_of("q", clock))
    next(early)
    clock.advance(1)
    next(late)
    end(late, Outcome(response="new", responses=1))
    end(early, Outcome(response="old", responses=1))
    clock.advance(9.5)

    assert ask(cache, requests=["q"], clock=clock) == ("new", False)


def test_what_was_made_up_here_is_not_kept() -> None:
    """The answer of a Fallback further in is for one bad moment."""
    cache = always()
    stack = chain(cache, Fallback("made up"))

    first = play(stack, [failed(UNAVAILABLE)]).outcome.response

    assert first == "made up"
    assert cache.snapshot() == CacheState(entries=0)
    assert ask(stack) == ("new", True)


def test_clear_forgets_what_is_under_way_too() -> None:
    """After `clear()` no answer is given that was on its way before."""
    cache = always()
    ask(cache, "old", requests=["a"])
    slow = cache(call_of("b"))
    next(slow)
    cache.clear()
    end(slow, Outcome(response="old", responses=1))

    assert cache.snapshot() == CacheState(entries=0)
    assert [ask(cache, requests=[request])[1] for request in "ab"] == [True, True]


@pytest.mark.slow
def test_it_stays_bounded() -> None:
    """10,000 different requests leave no more than `max_entries` answers, the latest ones."""
    cache = always(max_entries=50)
    for number in range(10_000):
        flow = cache(call_of(f"q{number}"))
        next(flow)
        end(flow, Outcome(response=number, responses=1))

    assert cache.snapshot() == CacheState(entries=50)
    assert ask(cache, requests=["q9950"]) == (9950, False)
    assert ask(cache, requests=["q9949"]) == ("new", True)


def test_nothing_of_a_request_is_kept() -> None:
    """Neither the request nor a secret can be found in what the cache holds; nor is the native call kept."""
    secret = os.urandom(8).hex()
    cache = always()
    play(cache, [ok("answer")], requests=[f"request {secret}"], **signed(secret))
    seen, found = set[int](), list[object](gc.get_referents(cache))
    while found:
        thing = found.pop()
        if id(thing) in seen or isinstance(thing, type) or callable(thing):
            continue
        seen.add(id(thing))
        assert not isinstance(thing, Call)
        assert not (isinstance(thing, (str, bytes)) and secret in str(thing))
        found += gc.get_referents(thing)

    assert len(seen) > 10


# --- copies ---------------------------------------------------------------------------------------------------------


def test_each_caller_has_a_response_of_its_own(generated: Generated) -> None:
    """What one of them writes into it the others do not see, nor does the cache."""
    pb = generated("idempotency_pb2")
    cache = always()

    def answered() -> Any:
        response, _ = ask(cache, pb.Receipt(text="good"))
        text, response.text = response.text, "scribbled over"
        return text

    assert [answered() for _ in range(3)] == ["good"] * 3


def test_one_object_for_all_if_told_so() -> None:
    """`copy=None`, where nobody can change it."""
    cache = always(copy=None)
    answer = ["one"]

    given = [ask(cache, answer)[0] for _ in range(3)]

    assert all(response is answer for response in given)


def test_what_cannot_be_copied_is_not_kept(caplog: pytest.LogCaptureFixture) -> None:
    """The caller has its answer all the same, and the log says why the next call is sent."""

    def broken(response: Any) -> Any:
        raise TypeError("cannot copy a socket")

    cache = always(copy=broken)

    assert [ask(cache) for _ in range(2)] == [("new", True)] * 2
    assert "could not be copied" in caplog.text


def test_taps_and_maps_further_out_see_each_answer() -> None:
    """A hit passes those of its own call, as if it had come now; what is kept is what the server sent."""
    seen: list[str] = []

    def personal(name: str) -> Any:
        def greet(call: Call) -> Flow:
            mapped = call.map(responses=lambda text: f"{text}, {name}")
            yield mapped.tap(responses=seen.append, initial_metadata=lambda pairs: seen.append(f"{name} begins"))

        return greet

    cache = always()
    answers = [ask(chain(personal(name), cache), "hello") for name in ("anna", "bert")]

    assert answers == [("hello, anna", True), ("hello, bert", False)]
    assert seen == ["anna begins", "hello", "bert begins", "hello"]


def test_maps_further_in_are_applied_once() -> None:
    """They belong to what is kept."""

    def louder(call: Call) -> Flow:
        yield call.map(responses=lambda text: text + "!")

    stack = chain(always(), louder)

    assert [ask(stack, "hello") for _ in range(2)] == [("hello!", True), ("hello!", False)]


def test_hooks_further_out_see_what_they_would_without_it() -> None:
    """Not an answer that an interceptor has made up, and not one that an interceptor further in has refused."""

    def refuse(message: Any) -> Any:
        raise errors.DataLoss("unreadable")

    def strict(call: Call) -> Flow:
        yield call.map(responses=refuse)

    def seen_by(*stack: Any) -> tuple[list[Any], Outcome]:
        seen: list[Any] = []

        def look(call: Call) -> Flow:
            yield call.tap(responses=seen.append)

        return seen, play(chain(look, *stack), [failed(UNAVAILABLE) if len(stack) > 1 else ok("a")]).outcome

    made_up, without = seen_by(always(), Fallback("made up")), seen_by(Fallback("made up"), chain())
    cache = always()
    refused = seen_by(chain(cache, strict))

    assert (made_up[0], made_up[1].response) == (without[0], without[1].response) == ([], "made up")
    assert (refused[0], refused[1].code) == ([], grpc.StatusCode.DATA_LOSS)
    assert cache.snapshot() == CacheState(entries=0)


def test_a_map_that_refuses_refuses_a_hit() -> None:
    """Its status is that of the RPC; the answer is kept for others."""

    def refuse(message: Any) -> Any:
        raise errors.DataLoss("unreadable")

    def strict(call: Call) -> Flow:
        yield call.map(responses=refuse)

    cache = always()
    outcomes = [play(chain(strict, cache), script).outcome for script in ([ok("a")], UNSENT)]

    assert [outcome.code for outcome in outcomes] == [grpc.StatusCode.DATA_LOSS] * 2
    assert ask(cache) == ("a", False)


def test_a_map_of_the_request_makes_another_call() -> None:
    """What counts is what is sent."""
    cache = always()

    def asking(word: str) -> Any:
        def other(call: Call) -> Flow:
            yield call.map(requests=lambda text: word.encode())

        return chain(other, cache)

    assert [ask(asking(word), word) for word in ("a", "b", "a")] == [("a", True), ("b", True), ("a", False)]


# --- the same call --------------------------------------------------------------------------------------------------


def test_never_across_identities() -> None:
    """Who asks with other credentials in the metadata gets an answer of its own, each key and each value."""
    people: list[Any] = [
        [],
        [("authorization", "Bearer anna")],
        [("authorization", "Bearer bert")],
        [("authorization", "Bearer anna"), ("authorization", "Bearer bert")],
        [("authorization", "Bearer bert"), ("authorization", "Bearer anna")],
        [("cookie", "Bearer anna")],
        [("grpcgateway-authorization", "Bearer anna")],
        [("x-authorization-bin", b"\x00anna")],
        [("x-authorization-bin", b"\x00bert")],
    ]
    cache = always()

    for number, person in enumerate(people):
        assert ask(cache, number, metadata=person) == (number, True)
    assert [ask(cache, metadata=person) for person in people] == [(number, False) for number in range(len(people))]


@pytest.mark.parametrize("place", UNARY, ids=str)
def test_two_callers_of_one_server(place: Place) -> None:
    """Anna's answer is never Bert's, and each finds the own one again."""
    with place.open(always(), script=[ok("anna's"), ok("bert's")]) as rpc:
        replies = [
            rpc.call("q", metadata=(("authorization", name),)).messages for name in ("anna", "bert", "anna", "bert")
        ]

    assert replies == [["anna's"], ["bert's"], ["anna's"], ["bert's"]]


def test_per_call_credentials_belong_to_who_asks() -> None:
    """The same object is the same caller, another object is another one, also after the first has gone."""
    cache = always()
    anna, bert = (grpc.access_token_call_credentials(name) for name in ("anna", "bert"))
    by = [sent_by(cache, credentials, answer) for credentials, answer in ((anna, 1), (bert, 2), (anna, 3), (None, 4))]
    del anna
    gc.collect()
    others = [sent_by(cache, grpc.access_token_call_credentials("anna"), number) for number in range(5, 100)]

    assert by == [1, 2, 1, 4]
    assert others == list(range(5, 100))


def test_the_cache_keeps_no_credentials_alive() -> None:
    """A token that nobody uses any more is not held for its answers."""
    cache = always()
    credentials = grpc.access_token_call_credentials("anna")
    sent_by(cache, credentials, 1)
    held = weakref.ref(credentials)
    del credentials
    gc.collect()

    assert held() is None
    assert cache.snapshot() == CacheState(entries=1)


def test_channels_do_not_share() -> None:
    """One cache on two channels to the same server: they may have other credentials."""
    cache, echo = always(), Echo()
    with echo.serve() as target:
        for _ in range(2):
            with intercept_channel(grpc.insecure_channel(target), cache) as channel:
                assert [Stub(channel).unary_unary("q") for _ in range(2)] == ["q", "q"]

    assert len(echo.attempts) == 2


def test_stubs_that_read_otherwise_do_not_share() -> None:
    """A stub for bytes is not given the messages of another one."""
    cache, echo = always(), Echo()
    with echo.serve() as target, intercept_channel(grpc.insecure_channel(target), cache) as channel:
        raw: Any = channel.unary_unary(path(Kind.UNARY_UNARY))
        texts = channel.unary_unary(path(Kind.UNARY_UNARY), encode, decode)
        answers = [texts("q"), raw(b"q"), texts("q"), raw(b"q")]

    assert answers == ["q", b"q", "q", b"q"]
    assert len(echo.attempts) == 2


def test_who_asked_the_handler_counts() -> None:
    """A call that a handler makes for Anna is not answered as that for Bert was, though it looks the same so far."""
    cache = always()
    anna, bert = (incoming(**signed(name)) for name in ("anna", "bert"))

    answers = [ask(cache, answer, incoming=who) for who, answer in ((anna, 1), (bert, 2), (anna, 3), (None, 4))]

    assert answers == [(1, True), (2, True), (1, False), (4, True)]


def test_shared_answers_are_for_everybody() -> None:
    """`shared=True`: who asks does not count, in no way."""
    cache = always(shared=True)
    ask(cache, "for all", **signed("anna"))

    assert ask(cache, **signed("bert")) == ("for all", False)
    assert ask(cache, incoming=incoming(**signed("carl"))) == ("for all", False)
    assert sent_by(cache, grpc.access_token_call_credentials("dora"), "own", "hello") == "for all"


@pytest.mark.parametrize("shared", [False, True])
def test_metadata_that_is_named_counts(shared: bool) -> None:
    """All values of it, in their order; a key in -bin too; of the RPC that is handled too. Other metadata does not."""
    cache = always(metadata=("Accept-Language", "x-tenant-bin"), shared=shared)
    different: list[dict[str, Any]] = [
        {},
        {"metadata": [("accept-language", "de")]},
        {"metadata": [("accept-language", "en")]},
        {"metadata": [("accept-language", "")]},
        {"metadata": [("accept-language", "de"), ("accept-language", "en")]},
        {"metadata": [("x-tenant-bin", b"de")]},
        {"incoming": incoming(metadata=[("accept-language", "de")])},
    ]

    for number, options in enumerate(different):
        assert ask(cache, number, **options) == (number, True)
    for number, options in enumerate(different):
        assert ask(cache, **options) == (number, False)
        assert ask(cache, **{**options, "metadata": [("x-request-id", "7"), *options.get("metadata", ())]})[0] == number


texts = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=3)
pairs = st.lists(st.tuples(st.sampled_from(["a", "ab", "authorization"]), texts), max_size=3)


@given(st.tuples(texts, pairs), st.tuples(texts, pairs))
@example(("q", [("a", "bc")]), ("q", [("ab", "c")]))
@example(("q1a", []), ("q", [("a", "")]))
def test_only_the_same_is_the_same(one: Any, other: Any) -> None:
    """However request and metadata run into each other: equal calls hit, different ones do not."""
    cache = always(metadata=("a", "ab"))

    def asked(what: Any) -> bool:
        return ask(cache, requests=[what[0]], metadata=what[1])[1]

    def meaning(what: Any) -> Any:
        return what[0], sorted(what[1], key=lambda pair: pair[0])

    assert asked(one)
    assert asked(other) == (meaning(one) != meaning(other))


@pytest.mark.parametrize("place", UNARY, ids=str)
def test_how_it_is_sent_does_not_count(place: Place) -> None:
    """Time, patience and the request id make no other question."""
    ways: list[dict[str, Any]] = [
        {},
        {"timeout": 10},
        {"wait_for_ready": True},
        {"metadata": (("x-request-id", "7"),)},
    ]
    with place.open(always()) as rpc:
        replies = [rpc.call("q", **way) for way in ways]

    assert all(reply.ok for reply in replies)
    assert len(rpc.attempts) == 1


@pytest.mark.parametrize("place", UNARY, ids=str)
def test_a_request_that_cannot_be_sent_fails_for_what_it_is(place: Place) -> None:
    """As it does without the cache: the call passes."""
    cache, request = always(), object()

    with place.open() as bare, place.open(cache) as rpc:
        expected, reply = bare.call(request), rpc.call(request)  # type: ignore[arg-type]  # that is the question

    assert type(reply.error) is type(expected.error)
    assert reply.details == expected.details
    assert cache.snapshot() == CacheState(entries=0)


def test_metadata_that_cannot_be_sent_fails_for_what_it_is() -> None:
    """Grpc judges it, whatever it is."""
    cache = always()
    with Echo().serve() as target, intercept_channel(grpc.insecure_channel(target), cache) as channel:
        for broken in ((("authorization", 7),), (("authorization",),), ((3, "authorization"),)):
            with pytest.raises(Exception) as caught:  # noqa: PT011  the errors of grpc itself are of many kinds
                Stub(channel).unary_unary("q", metadata=broken)
            assert "Cache" not in str(caught.value)

    assert cache.snapshot() == CacheState(entries=0)


# --- with others ----------------------------------------------------------------------------------------------------


def test_outside_of_retry_all_attempts_are_one() -> None:
    """The answer of the last attempt is kept."""
    stack = chain(always(), Retry(3, safe=True, backoff=lambda retry: 0.0))

    first = play(stack, [failed(UNAVAILABLE), ok("at last")])
    second = play(stack, [])

    assert (first.outcome.response, len(first.sent)) == ("at last", 2)
    assert second.outcome.response == "at last"


@pytest.mark.parametrize("place", UNARY, ids=str)
def test_the_answer_of_a_race_is_kept(place: Place) -> None:
    """A hedged call further in has one winner, which is an answer of the server."""

    def hedge(call: Call) -> Flow:
        yield call.hedged(copies=2, delay=100)

    with place.open(always(), hedge, script=[failed(UNAVAILABLE), ok("a")]) as rpc:
        replies = [rpc.call("q") for _ in range(2)]

    assert [reply.messages for reply in replies] == [["a"], ["a"]]
    assert len(rpc.attempts) == 2


# --- a model --------------------------------------------------------------------------------------------------------


class Machine(RuleBasedStateMachine):
    """A cache of two answers beside a list of all that it should hold, used longest ago first."""

    TTL, MOST = 5.0, 2

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.cache = always(self.TTL, max_entries=self.MOST)
        self.model: list[tuple[Any, int, float]] = []
        self.answers = 0

    @rule(quarters=st.integers(0, 30))
    def time_passes(self, quarters: int) -> None:
        self.clock.advance(quarters / 4)

    @rule()
    def clear(self) -> None:
        self.cache.clear()
        self.model.clear()

    @rule(request=st.sampled_from("ab"), person=st.sampled_from(["anna", "bert"]), fails=st.booleans())
    def call(self, request: str, person: str, fails: bool) -> None:
        self.answers += 1
        script = [failed(UNAVAILABLE) if fails else ok(self.answers), ...]
        played = play(self.cache, script, requests=[request], clock=self.clock, **signed(person))

        found = next((entry for entry in self.model if entry[0] == (request, person)), None)
        if found:
            self.model.remove(found)
        if found and self.clock.now() < found[2]:
            self.model.append(found)
            assert (played.outcome.response, len(played.sent)) == (found[1], 0)
        elif fails:
            assert (played.outcome.code, len(played.sent)) == (UNAVAILABLE, 1)
        else:
            entry = ((request, person), self.answers, self.clock.now() + self.TTL)
            self.model = [*self.model, entry][-self.MOST :]
            assert (played.outcome.response, len(played.sent)) == (self.answers, 1)

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        assert self.cache.snapshot().entries == len(self.model)


TestModel = Machine.TestCase
TestModel.settings = settings(max_examples=examples(60), stateful_step_count=30, deadline=None)


# --- options --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"ttl": 0}, "ttl must be above 0"),
        ({"ttl": float("nan")}, "ttl must be above 0"),
        ({"ttl": "60"}, "ttl must be above 0"),
        ({"max_entries": 0}, "max_entries must be a whole number"),
        ({"max_entries": 2.5}, "max_entries must be a whole number"),
        ({"metadata": "x-tenant"}, "metadata must be a tuple of metadata keys, like ('x-tenant',), not 'x-tenant'"),
        ({"metadata": 3}, "metadata must be a tuple of metadata keys"),
        ({"metadata": ("x tenant",)}, "metadata must be a tuple of metadata keys"),
        ({"metadata": (None,)}, "metadata must be a tuple of metadata keys"),
        ({"shared": "anna"}, "shared must be True or False"),
        ({"safe": "Read"}, "safe must be None, True, False or a function"),
        ({"copy": 3}, "copy must be a function"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], fault: str) -> None:
    """A ValueError when it is made says what to write instead."""
    with pytest.raises(ValueError, match="Cache: ") as caught:
        Cache(**({"ttl": 60} | options))

    assert fault in str(caught.value)


def test_every_fault_is_told_at_once() -> None:
    """One error for all options."""
    with pytest.raises(ValueError, match=r"ttl must .*; max_entries must .*; metadata must .*; shared must "):
        Cache(0, max_entries=0, metadata="x", shared=3)  # type: ignore[arg-type]  # that is the question


def test_keys_may_come_from_an_iterator() -> None:
    """It is read once."""
    cache = always(metadata=iter(["x-tenant"]))

    assert [ask(cache, metadata=[("x-tenant", tenant)])[1] for tenant in "aba"] == [True, True, False]


# --- by hand --------------------------------------------------------------------------------------------------------


def call_of(request: str, clock: FakeClock | None = None, *, credentials: Any = None) -> Call:
    """A call like those that are played."""
    played: list[Call] = []
    testing.play(lambda call: played.append(call) or (yield call), clock=clock)  # type: ignore[func-returns-value]
    return played[0]._copy("_credentials", credentials).with_request(request.encode())


def end(flow: Any, outcome: Outcome) -> Outcome:
    """Tell a flow the outcome of its call; gives what it makes of it."""
    with pytest.raises(StopIteration) as ended:
        flow.send(outcome)
    return ended.value.value or outcome


def sent_by(cache: Cache, credentials: Any, answer: Any, request: str = "q") -> Any:
    """What a call with these credentials is answered; `answer` if it is sent."""
    flow = cache(call_of(request, credentials=credentials))
    try:
        next(flow)
    except StopIteration as ended:
        return ended.value.response
    return end(flow, Outcome(response=answer, responses=1)).response
