"""`call.resumed()`: a response stream that broke goes on, behind the messages that were delivered."""

import grpc
import pytest

from interpose import Call, Flow, Kind, Method, Outcome, Side, chain
from interpose._flow import MAX_RESENDS
from interpose.testing import PLACES, Place, died, failed, incoming, ok, play

PLACES_OF_STREAMS = [place for place in PLACES if place.side is Side.CLIENT and place.kind is Kind.UNARY_STREAM]
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE

client_streams = pytest.mark.parametrize("place", PLACES_OF_STREAMS, ids=str)


class Resuming:
    """Asks for what comes behind the last message, as often as a stream breaks."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.last = "nothing"

    def hear(self, message: str) -> None:
        self.last = message

    def __call__(self, call: Call) -> Flow:
        call = call.tap(responses=self.hear)
        self.outcomes.append((yield call))
        while not self.outcomes[-1].ok and len(self.outcomes) <= 2 * MAX_RESENDS:
            self.outcomes.append((yield call.with_request(f"after {self.last}").resumed()))


@client_streams
def test_the_caller_sees_one_stream(place: Place) -> None:
    """It broke twice, once with the connection; each message came once, and in order."""
    resuming = Resuming()
    script = [
        failed(UNAVAILABLE, responses=("1", "2", "3"), after=2),
        died(responses=("3", "4"), after=1),
        ok("4", "5"),
    ]

    with place.open(resuming, script=script) as rpc:
        reply = rpc.call("start")

    assert reply.ok and reply.messages == ["1", "2", "3", "4", "5"]
    assert [attempt.requests for attempt in rpc.attempts] == [["start"], ["after 2"], ["after 3"]]
    # While the connection is made anew, an attempt may fail that has brought nothing.
    assert all(outcome.replayable is (outcome.responses == 0) for outcome in resuming.outcomes)


@client_streams
def test_without_it_nothing_is_sent_again(place: Place) -> None:
    """Once a message was delivered, a call that only sends again is at fault, as ever."""

    def again(call: Call) -> Flow:
        yield call
        yield call

    with place.open(again, script=[failed(UNAVAILABLE, after=1), ...]) as rpc:
        reply = rpc.call("a")

    assert reply.code is UNAVAILABLE and len(rpc.attempts) == 1


@client_streams
def test_a_hedged_stream_that_breaks_goes_on_in_its_copy(place: Place) -> None:
    """An interceptor inside of the hedging resumes the copy that won; the caller sees one stream."""

    def hedging(call: Call) -> Flow:
        yield call.hedged(copies=2, delay=3600)

    resuming = Resuming()
    script = [failed(UNAVAILABLE, responses=("1", "2"), after=1), ok("2", "3")]

    with place.open(hedging, resuming, script=script) as rpc:
        reply = rpc.call("start")

    assert reply.ok and reply.messages == ["1", "2", "3"] and len(rpc.attempts) == 2


def test_a_stream_may_break_for_ever_if_it_makes_progress() -> None:
    """The limit on sending again counts attempts that brought nothing."""
    resuming = Resuming()
    script = [*[failed(UNAVAILABLE, responses=("m",), after=1)] * (MAX_RESENDS + 50), ok("end")]

    played = play(resuming, script, kind=Kind.UNARY_STREAM)

    assert played.outcome.ok and len(played.sent) == MAX_RESENDS + 51
    assert played.responses == ["m"] * (MAX_RESENDS + 50) + ["end"]


def test_without_progress_there_is_a_limit() -> None:
    """A spin would go unnoticed otherwise."""
    resuming = Resuming()

    played = play(resuming, [failed(UNAVAILABLE), ...], kind=Kind.UNARY_STREAM)

    assert played.outcome.code is UNAVAILABLE and len(played.sent) == MAX_RESENDS + 1


def test_a_chain_that_is_called_again_is_no_resumption() -> None:
    """What a chain is given has to be a call that resumes itself."""

    def again(call: Call) -> Flow:
        yield call
        yield from chain()(call.resumed())

    played = play(again, [failed(UNAVAILABLE, after=1)], kind=Kind.UNARY_STREAM)

    assert played.outcome.code is UNAVAILABLE


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.UNARY_STREAM], ids=lambda kind: kind.value)
def test_other_kinds_cannot_be_resumed(kind: Kind) -> None:
    """There is nothing to go on behind, or nobody knows which requests were read."""
    with pytest.raises(ValueError, match="one request and a response stream"):
        Call(Method("/a/b", kind)).resumed()


def test_a_server_cannot_resume() -> None:
    """Its handler generates what it generates."""
    with pytest.raises(ValueError, match="only a client's call"):
        incoming(Kind.UNARY_STREAM).resumed()
