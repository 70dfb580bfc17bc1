"""Hedging: what `verdict` and `ready` decide about further copies."""

import asyncio
import logging
import math
import threading
from typing import Any

import grpc
import grpc.aio
import pytest

from interpose import Call, Flow, Kind, Outcome, errors, intercept_channel
from interpose.testing import FakeClock
from tests.hedging.serving import FAR, NO_CORE_RETRIES, SOON, UNAVAILABLE, Service, Way, hedge, ruled, served
from tests.support.patience import PATIENCE


def test_a_verdict_may_end_the_race(way: Way) -> None:
    """None: this failure is the answer, whatever else runs; the others are cancelled."""
    with served("hang", UNAVAILABLE) as service, pytest.raises(errors.Unavailable):
        try:
            way.call(service, ruled(lambda outcome: None, copies=2, delay=SOON))
        finally:
            assert service.copies[0].cancelled.wait(PATIENCE)

    assert len(service.copies) == 2


def test_a_verdict_may_choose_a_pause(way: Way) -> None:
    """So many seconds later the next copy goes, though the delay would be an hour."""
    told: list[str] = []

    def soon(outcome: Outcome) -> float:
        told.append(outcome.details)
        return SOON

    with served(UNAVAILABLE, UNAVAILABLE, "third") as service:
        assert way.call(service, ruled(soon)) == "third"

    assert told == ["copy 1", "copy 2"]


def test_a_verdict_may_want_no_more(way: Way) -> None:
    """Infinity: those that run are waited for; where none does, the failure is the answer."""
    clock, failed = FakeClock(), threading.Event()

    def no_more(outcome: Outcome) -> float:
        failed.set()
        return math.inf

    def let_the_delay_pass(copies: int) -> None:
        if copies == 1:
            clock.advance(FAR)

    with served(failed, UNAVAILABLE, "third", on_start=let_the_delay_pass) as service:
        assert way.call(service, ruled(no_more), timeout=None, clock=clock) == "slow"
    with served(UNAVAILABLE, "second") as alone, pytest.raises(errors.Unavailable, match="copy 1"):
        way.call(alone, ruled(no_more), timeout=None)

    assert (len(service.copies), len(alone.copies)) == (2, 1)


def test_a_pause_with_no_copies_left(way: Way) -> None:
    """The last failure is the answer, at once."""
    with served(UNAVAILABLE, UNAVAILABLE, "third") as service, pytest.raises(errors.Unavailable, match="copy 2"):
        way.call(service, ruled(lambda outcome: SOON, copies=2))

    assert len(service.copies) == 2


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What Interpose logged; older versions of grpc.aio have asyncio log as well."""
    return [record.getMessage() for record in caplog.records if record.name == "interpose"]


def test_a_verdict_that_fails_is_logged(way: Way, caplog: pytest.LogCaptureFixture) -> None:
    """The failure it was told is the answer."""

    def broken(outcome: Outcome) -> float:
        raise KeyError(outcome.details)

    with (
        caplog.at_level(logging.ERROR, "interpose"),
        served(UNAVAILABLE, "second") as service,
        pytest.raises(errors.Unavailable),
    ):
        way.call(service, ruled(broken))

    assert said(caplog) == ["hedge verdict callback raised; using the failed attempt's outcome"]


def test_ready_is_asked_before_each_copy_but_the_first(way: Way) -> None:
    """At false there are no more, and those that run are waited for."""
    answers = iter([True, False])

    with served(UNAVAILABLE, UNAVAILABLE, "third") as service, pytest.raises(errors.Unavailable, match="copy 2"):
        way.call(service, ruled(ready=lambda: next(answers)))

    assert len(service.copies) == 2
    assert list(answers) == []


def test_the_delay_passes_and_no_copy_may_go(way: Way) -> None:
    """The first one is waited for."""
    asked = threading.Event()

    def refuse() -> bool:
        asked.set()
        return False

    with served(asked, "second") as service:
        assert way.call(service, ruled(ready=refuse, delay=SOON)) == "slow"

    assert len(service.copies) == 1


def test_ready_that_fails_is_logged(way: Way, caplog: pytest.LogCaptureFixture) -> None:
    """No more copies are sent."""

    def broken() -> bool:
        raise KeyError

    with (
        caplog.at_level(logging.ERROR, "interpose"),
        served(UNAVAILABLE, "second") as service,
        pytest.raises(errors.Unavailable, match="copy 1"),
    ):
        way.call(service, ruled(ready=broken))

    assert said(caplog) == ["`ready` of a hedged call failed; no more copies are sent"]


def test_a_hundred_copies_that_are_refused_here(way: Way) -> None:
    """Each lets the next one go at once, and the stack bears it."""

    def refuse(call: Call) -> Flow:
        raise errors.Unavailable("the breaker is open", local=True)
        yield call

    with served() as service, pytest.raises(errors.Unavailable, match="the breaker is open"):
        way.call(service, ruled(copies=100), refuse)

    assert service.copies == []


@pytest.mark.parametrize("name", ["blocking", "future"])
def test_the_race_is_decided_while_ready_is_asked(name: str) -> None:
    """A yes that comes too late sends nothing."""
    asked, over = threading.Event(), threading.Event()

    def late_yes() -> bool:
        asked.set()
        return over.wait(PATIENCE)

    def tell(call: Call) -> Flow:
        yield call
        over.set()

    with served(asked, "second") as service:
        assert Way(name, Kind.UNARY_UNARY).call(service, tell, ruled(ready=late_yes, delay=SOON)) == "slow"

    assert len(service.copies) == 1


def test_a_future_is_cancelled_while_the_verdict_is_asked() -> None:
    """A verdict that comes too late changes nothing."""
    begun, asked, cancelled = threading.Event(), threading.Event(), threading.Event()

    def late(outcome: Outcome) -> None:
        asked.set()
        assert cancelled.wait(PATIENCE)

    # It fails only when the application has its future: before, the verdict would be asked on the application's thread.
    with served(UNAVAILABLE, on_start=lambda copies: begun.wait(PATIENCE)) as service:
        channel = intercept_channel(grpc.insecure_channel(service.address, NO_CORE_RETRIES), ruled(late))
        call = Way("future", Kind.UNARY_UNARY).stub(channel).future("a", timeout=PATIENCE)
        begun.set()
        assert asked.wait(PATIENCE)
        assert call.cancel()
        cancelled.set()
        assert call.code() is grpc.StatusCode.CANCELLED
        channel.close()

    assert len(service.copies) == 1


def test_an_asyncio_call_is_cancelled_by_its_verdict() -> None:
    """What the verdict says then changes nothing."""
    calls: list[Any] = []

    def cancel(outcome: Outcome) -> None:
        calls[0].cancel()

    async def main(service: Service) -> None:
        native = grpc.aio.insecure_channel(service.address, NO_CORE_RETRIES)
        async with intercept_channel(native, ruled(cancel)) as channel:
            calls.append(Way("aio", Kind.UNARY_UNARY).stub(channel)("a", timeout=PATIENCE))
            assert await calls[0].code() is grpc.StatusCode.CANCELLED

    with served(UNAVAILABLE) as service:
        asyncio.run(main(service))

    assert len(service.copies) == 1


def test_an_asyncio_call_is_cancelled_when_the_next_copy_is_due() -> None:
    """The loop had been told to start it, and does not."""
    clock = FakeClock()

    async def main(service: Service) -> None:
        native = grpc.aio.insecure_channel(service.address, NO_CORE_RETRIES)
        async with intercept_channel(native, hedge(2, FAR), clock=clock) as channel:
            call = Way("aio", Kind.UNARY_UNARY).stub(channel)("a")
            assert await asyncio.to_thread(service.started.acquire, timeout=PATIENCE)
            clock.advance(FAR)
            assert call.cancel()
            assert await call.code() is grpc.StatusCode.CANCELLED

    with served("hang", "second") as service:
        asyncio.run(main(service))

    assert len(service.copies) == 1
