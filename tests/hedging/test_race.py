"""Hedging: copies of a call that race, blocking, as a future, and on asyncio."""

import asyncio
import itertools
import threading
from concurrent import futures
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import Call, Flow, Kind, Outcome, errors, intercept_channel
from interpose.testing.echo import decode, encode
from tests.hedging.serving import FAR, NO_CORE_RETRIES, PATH, SOON, UNAVAILABLE, Service, Way, hedge, served, watch
from tests.support.patience import PATIENCE


def test_the_first_good_answer_wins(way: Way) -> None:
    """The first copy hangs, the second answers; the first is cancelled, and its handler knows."""
    above: list[Outcome] = []
    below: list[Outcome] = []

    with served("hang", "second") as service:
        response = way.call(service, watch(above), hedge(), watch(below))
        assert service.copies[0].cancelled.wait(PATIENCE)

    assert response == "second"
    lost, won = (copy.requests for copy in service.copies)
    assert won == way.requests
    assert lost == way.requests[: len(lost)]  # it may be cancelled before it has read all
    [outcome] = above
    assert outcome.ok
    assert outcome.attempts == 2
    assert sorted(outcome.code.name for outcome in below) == ["CANCELLED", "OK"]


def test_a_quick_answer_needs_one_copy(way: Way) -> None:
    """If the first answers before the delay has passed, no second is sent, and nothing is left that would send it."""
    outcomes: list[Outcome] = []

    with served("first") as service:
        response = way.call(service, watch(outcomes), hedge(3, FAR))

    assert response == "first"
    assert len(service.copies) == outcomes[0].attempts == 1


def test_a_failure_lets_the_next_copy_go_at_once(way: Way) -> None:
    """Nobody waits for the delay after a copy has failed."""
    outcomes: list[Outcome] = []

    with served(UNAVAILABLE, UNAVAILABLE, "third") as service:
        response = way.call(service, watch(outcomes), hedge(3, FAR))

    assert response == "third"
    assert len(service.copies) == outcomes[0].attempts == 3


def test_if_all_fail_the_last_failure_stands(way: Way) -> None:
    """The caller sees the failure of the last copy, typed and native."""
    outcomes: list[Outcome] = []

    with (
        served(UNAVAILABLE, grpc.StatusCode.ABORTED, grpc.StatusCode.NOT_FOUND) as service,
        pytest.raises(errors.NotFound, match="copy 3") as failure,
    ):
        way.call(service, watch(outcomes), hedge(3, FAR))

    assert isinstance(failure.value, grpc.RpcError)
    assert outcomes[0].attempts == len(service.copies) == 3
    assert not outcomes[0].local


def test_a_failure_while_another_copy_runs(way: Way) -> None:
    """A copy that fails when all have been sent leaves the answer to those that run."""
    failed = threading.Event()

    def tell(call: Call) -> Flow:
        outcome = yield call
        if not outcome.ok:
            failed.set()

    with served(failed, UNAVAILABLE) as service:
        assert way.call(service, hedge(), tell) == "slow"

    assert len(service.copies) == 2


def test_the_deadline_is_that_of_all_copies(way: Way) -> None:
    """It is fixed when the stub is called; at its end all copies end."""
    outcomes: list[Outcome] = []

    with served("hang", "hang") as service:
        with pytest.raises(errors.DeadlineExceeded):
            way.call(service, watch(outcomes), hedge(2, SOON), timeout=1.0)
        assert all(copy.cancelled.wait(PATIENCE) for copy in service.copies)

    assert outcomes[0].code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert outcomes[0].attempts == len(service.copies) == 2


@pytest.mark.parametrize("kind", [Kind.UNARY_UNARY, Kind.STREAM_UNARY], ids=lambda kind: kind.value)
def test_cancelling_a_future_cancels_every_copy(kind: Kind) -> None:
    """`cancel()` ends the race; the flows are told, once, and each handler knows."""
    way, outcomes = Way("future", kind), list[Outcome]()

    with served("hang", "hang", "hang") as service:
        stack = (watch(outcomes), hedge(3, SOON))
        with intercept_channel(grpc.insecure_channel(service.address, NO_CORE_RETRIES), *stack) as channel:
            call = way.stub(channel).future(way.request, timeout=PATIENCE)
            for _ in range(2):
                assert service.started.acquire(timeout=PATIENCE)
            assert call.cancel()
            assert not call.cancel()
            with pytest.raises(grpc.FutureCancelledError):
                call.result(PATIENCE)
            assert call.code() is grpc.StatusCode.CANCELLED
            assert all(copy.cancelled.wait(PATIENCE) for copy in service.copies[:2])

    assert [outcome.code for outcome in outcomes] == [grpc.StatusCode.CANCELLED]


@pytest.mark.parametrize("kind", [Kind.UNARY_UNARY, Kind.STREAM_UNARY], ids=lambda kind: kind.value)
@pytest.mark.parametrize("how", ["call", "task"])
def test_cancelling_on_asyncio_cancels_every_copy(kind: Kind, how: str) -> None:
    """The call's `cancel()`, or a cancelled task that awaits it, ends the race; each handler knows."""
    way, outcomes = Way("aio", kind), list[Outcome]()

    async def main(service: Service) -> None:
        stack = (watch(outcomes), hedge(2, SOON))
        channel = intercept_channel(grpc.aio.insecure_channel(service.address, NO_CORE_RETRIES), *stack)
        async with channel:
            call = way.stub(channel)(way.request, timeout=PATIENCE)
            task = asyncio.ensure_future(_await(call))
            for _ in range(2):
                assert await asyncio.to_thread(service.started.acquire, timeout=PATIENCE)
            assert (call if how == "call" else task).cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert call.cancelled()
            for copy in service.copies:
                assert await asyncio.to_thread(copy.cancelled.wait, PATIENCE)

    with served("hang", "hang", "hang") as service:
        asyncio.run(main(service))

    assert [outcome.code for outcome in outcomes] == [grpc.StatusCode.CANCELLED]


async def _await(call: Any) -> Any:
    return await call


def test_closing_the_channel_ends_a_race() -> None:
    """A future on a closed channel ends; the copy that was to come is not sent."""
    with served("hang") as service:
        channel = intercept_channel(grpc.insecure_channel(service.address, NO_CORE_RETRIES), hedge(2, FAR))
        call = Way("future", Kind.UNARY_UNARY).stub(channel).future("a")
        assert service.started.acquire(timeout=PATIENCE)

        channel.close()

        assert isinstance(call.exception(PATIENCE), BaseException)
    assert len(service.copies) == 1


def test_each_copy_runs_the_layers_below(way: Way) -> None:
    """What stands below the hedge sees each copy, and may change it."""
    numbers = itertools.count(1)

    def mark(call: Call) -> Flow:
        yield call.with_metadata(("x-copy", str(next(numbers))))

    with served(UNAVAILABLE, "second") as service:
        assert way.call(service, hedge(2, FAR), mark) == "second"

    assert [copy.metadata["x-copy"] for copy in service.copies] == ["1", "2"]


def test_a_layer_below_that_refuses_fails_its_copy(way: Way) -> None:
    """A copy that is refused here was never sent, and lets the next one go."""
    numbers = itertools.count()
    outcomes: list[Outcome] = []

    def refuse_first(call: Call) -> Flow:
        if next(numbers) == 0:
            raise errors.Unavailable("the breaker is open", local=True)
        yield call

    with served("sent") as service:
        assert way.call(service, watch(outcomes), hedge(2, FAR), refuse_first) == "sent"

    assert outcomes[0].attempts == len(service.copies) == 1


def test_if_every_copy_is_refused_here_nothing_is_sent(way: Way) -> None:
    """A race may end before anything was sent."""

    def refuse(call: Call) -> Flow:
        raise errors.Unavailable("the breaker is open", local=True)
        yield call

    with served() as service, pytest.raises(errors.Unavailable, match="the breaker is open") as failure:
        way.call(service, hedge(3, FAR), refuse)

    assert failure.value.local
    assert service.copies == []


def test_a_race_may_be_run_again(way: Way) -> None:
    """A retry above a hedge sends the race again, and counts all copies."""
    outcomes: list[Outcome] = []

    def twice(call: Call) -> Flow:
        outcome = yield call
        outcomes.append(outcome)
        if outcome.replayable:
            outcomes.append((yield call.after(SOON)))

    with served(UNAVAILABLE, UNAVAILABLE, UNAVAILABLE, "fourth") as service:
        assert way.call(service, twice, hedge(2, FAR)) == "fourth"

    assert [outcome.attempts for outcome in outcomes] == [2, 4]


def test_a_race_inside_a_race(way: Way) -> None:
    """Two hedges make copies of copies, and one answer wins over all of them."""
    with served("hang", "hang", "hang", "fourth") as service:
        assert way.call(service, hedge(2, 2 * SOON), hedge(2, SOON)) == "fourth"
        assert all(copy.cancelled.wait(PATIENCE) for copy in service.copies[:3])


@pytest.mark.slow
def test_many_races_at_once() -> None:
    """Under load, with delays as long as answers take, each call has its answer and no copy is left behind."""
    with served(*["first"] * 10_000) as service:
        stack = (hedge(3, 0.001),)
        with intercept_channel(grpc.insecure_channel(service.address, NO_CORE_RETRIES), *stack) as channel:
            stub = channel.unary_unary(PATH, encode, decode)
            with futures.ThreadPoolExecutor(8) as pool:
                blocking = list(pool.map(lambda _: stub("a", timeout=PATIENCE), range(100)))
            futured = [stub.future("a", timeout=PATIENCE) for _ in range(100)]
            assert [call.result(PATIENCE) for call in futured] == ["first"] * 100
    assert blocking == ["first"] * 100
