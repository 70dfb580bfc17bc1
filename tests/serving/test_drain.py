"""How a server stops: in which order, and what its clients and handlers see of it."""

import asyncio
import logging
import signal
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import pytest

from interpose import Call, Flow, Interceptor
from interpose.serving import CannotServe
from interpose.serving.drain import drain, play
from interpose.serving.options import FLUSH
from tests.serving.driving import KINDS, Client, Shop, Status, ended, serve
from tests.support.patience import PATIENCE

Code = grpc.StatusCode
both = pytest.mark.parametrize("on_loop", [False, True], ids=["sync", "asyncio"])


class Steps:
    """A host that notes what it is asked for. pressed: a signal comes in the drain delay. done: calls end in time."""

    def __init__(self, *, pressed: bool = False, done: bool = True) -> None:
        self.taken: list[Any] = []
        self._answers = {"pause": pressed, "finished": done}

    def __getattr__(self, name: str) -> Any:
        def step(*seconds: float) -> Any:
            self.taken.append((name, *seconds) if seconds else name)
            return self._answers.get(name)

        return step


def taken(host: Any) -> list[Any]:
    play(drain(host, 5.0, 20.0))
    steps: list[Any] = host.taken
    return steps


def into(codes: list[Code]) -> Interceptor:
    """An interceptor that notes how each call has ended."""

    def note(call: Call) -> Flow:
        outcome = yield call
        codes.append(outcome.code)

    return note


CLOSING = [("left", 5.0), "stop", "clean_up"]


def test_the_order_of_a_drain() -> None:
    """NOT_SERVING, the delay, no new calls, time for those under way; then it closes and cleans up."""
    assert taken(Steps()) == ["not_serving", ("pause", 5.0), "refuse", ("finished", 20.0), *CLOSING]


def test_what_does_not_finish_is_ended_before_the_stop() -> None:
    """Calls that outlive the grace are ended by us; what that says has time to leave before grpc's stop is called."""
    assert taken(Steps(done=False))[3:] == [("finished", 20.0), "end", ("pause", FLUSH), *CLOSING]


def test_a_signal_in_the_delay_takes_the_grace_away() -> None:
    """A second signal: what runs has no more time."""
    assert taken(Steps(pressed=True, done=False))[2:] == [
        "refuse",
        ("finished", 0.0),
        "end",
        ("pause", FLUSH),
        *CLOSING,
    ]


@both
def test_a_call_under_way_is_answered(path: Path, on_loop: bool) -> None:
    """A call that is under way when the signal comes ends with OK, and the application cleans up after it."""
    shop = Shop(asyncio=on_loop)

    def script(client: Client) -> Any:
        pending = client.start("unary_unary")
        assert shop.entered.acquire(timeout=PATIENCE)
        watch = client.watch()
        first = next(watch).status
        client.signal()
        seen = [first, next(watch).status]
        shop.release.set()
        return seen, pending.result(PATIENCE), watch.code()

    seen, answer, ended = serve(shop.app, script, path)

    assert seen == [Status.SERVING, Status.NOT_SERVING]
    assert answer == "wait!"
    assert ended is Code.UNAVAILABLE
    assert shop.log == ["begun", "ended", "cleaned up"]
    assert not path.exists()


@both
def test_a_terminal_that_is_closed_loses_no_call(path: Path, on_loop: bool) -> None:
    """Its SIGHUP drains, where it would end the process in the midst of a call."""
    shop = Shop(asyncio=on_loop)

    def script(client: Client) -> Any:
        pending = client.start("unary_unary")
        assert shop.entered.acquire(timeout=PATIENCE)
        client.signal(signal.SIGHUP)
        shop.release.set()
        return pending.result()

    assert serve(shop.app, script, path) == "wait!"


@both
def test_all_who_watch_its_health_hear_of_it(path: Path, on_loop: bool) -> None:
    """Also without a drain delay, before their streams are ended."""
    shop = Shop(asyncio=on_loop)

    def script(client: Client) -> Any:
        watches = [client.watch() for _ in range(8)]
        assert {next(watch).status for watch in watches} == {Status.SERVING}
        client.signal()
        return {next(watch).status for watch in watches}

    assert serve(shop.app, script, path) == {Status.NOT_SERVING}


@both
def test_in_the_drain_delay_it_serves_on(path: Path, on_loop: bool) -> None:
    """Between NOT_SERVING and the end of the delay new calls are answered; a second signal ends the delay."""
    shop = Shop(asyncio=on_loop)

    def script(client: Client) -> Any:
        watch = client.watch("test.Shop")
        assert next(watch).status == Status.SERVING
        client.signal()
        assert next(watch).status == Status.NOT_SERVING
        answer = client.call(), client.health()
        client.signal()
        return answer

    began = time.monotonic()
    answer = serve(shop.app, script, path, drain_delay=3600)

    assert answer == ("hello!", Status.NOT_SERVING)
    assert time.monotonic() - began < 60
    assert shop.log == ["begun", "ended", "cleaned up"]


@both
def test_what_still_runs_is_ended_by_us(path: Path, on_loop: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Each kind of call reads UNAVAILABLE, when to come again, and that it may have run; and its handler ends first."""
    shop = Shop(asyncio=on_loop)
    flows: list[Code] = []

    def script(client: Client) -> Any:
        calls = [client.start(kind) for kind in KINDS]
        for _ in calls:
            assert shop.entered.acquire(timeout=PATIENCE)
        client.signal()
        return [ended(call, kind) for call, kind in zip(calls, KINDS, strict=True)]

    with caplog.at_level(logging.ERROR):
        ends = serve(shop.app, script, path, stack=[into(flows)], bare=["health"], timeout_graceful_shutdown=0)

    assert ends == [
        (
            Code.UNAVAILABLE,
            "the server is stopping",
            {"grpc-retry-pushback-ms": "1000", "interpose-not-executed": "unknown"},
        )
    ] * len(KINDS)
    assert shop.log == ["begun"] * 4 + ["ended"] * 4 + ["cleaned up"]
    assert flows == [Code.UNAVAILABLE] * 4
    assert not caplog.records


@both
def test_a_server_that_ends_by_itself_is_an_error(path: Path, on_loop: bool) -> None:
    """Nothing would serve any more: the function raises, so that whoever runs the program starts it anew."""
    shop = Shop(asyncio=on_loop)
    end: list[Any] = []

    def app(server: Any) -> None:
        shop.register(server)
        end.append(lambda: server.stop(None))

    async def async_app(server: Any) -> None:
        shop.register(server)
        loop = asyncio.get_running_loop()
        end.append(lambda: asyncio.run_coroutine_threadsafe(server.stop(None), loop))

    def script(client: Client) -> None:
        client.call()
        client.signalled = True  # it needs no signal
        end[0]()

    with pytest.raises(RuntimeError, match="the server has ended by itself"):
        serve(async_app if on_loop else app, script, path)


def test_uvloop_is_used_where_it_is_asked_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its loop runs the server; where it is missing, the error says how to get it."""
    made: list[asyncio.AbstractEventLoop] = []

    def new_event_loop() -> asyncio.AbstractEventLoop:
        made.append(asyncio.new_event_loop())
        return made[-1]

    module = ModuleType("uvloop")
    module.new_event_loop = new_event_loop  # type: ignore[attr-defined]
    shop = Shop(asyncio=True)
    monkeypatch.setitem(sys.modules, "uvloop", module)
    answer = serve(shop.app, lambda client: client.call(), path, loop="uvloop")
    monkeypatch.setitem(sys.modules, "uvloop", None)

    assert answer == "hello!"
    assert len(made) == 1
    with pytest.raises(CannotServe, match="pip install uvloop"):
        serve(shop.app, lambda client: None, path, loop="uvloop")


@both
def test_a_second_signal_ends_what_runs(path: Path, on_loop: bool) -> None:
    """With an hour of grace, a second signal ends the calls at once."""
    shop = Shop(asyncio=on_loop)

    def script(client: Client) -> Any:
        pending = client.start("unary_unary")
        assert shop.entered.acquire(timeout=PATIENCE)
        watch = client.watch()
        next(watch)
        client.signal()
        assert [status.status for status in (next(watch),)] == [Status.NOT_SERVING]
        client.signal()
        return pending.code()

    assert serve(shop.app, script, path, timeout_graceful_shutdown=3600) is Code.UNAVAILABLE
    assert shop.log == ["begun", "ended", "cleaned up"]


def test_plain_handlers_of_an_asyncio_server_are_ended_too(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """On an event loop plain handlers run in threads: their calls read the same status, and so do flows."""
    shop = Shop(asyncio=False)
    flows: list[Code] = []

    def script(client: Client) -> Any:
        calls = [client.start(kind) for kind in KINDS]
        for _ in calls:
            assert shop.entered.acquire(timeout=PATIENCE)
        client.signal()
        return [ended(call, kind)[:2] for call, kind in zip(calls, KINDS, strict=True)]

    with caplog.at_level(logging.ERROR):
        ends = serve(
            shop.app, script, path, stack=[into(flows)], bare=["health"], loop="asyncio", timeout_graceful_shutdown=0
        )

    assert ends == [(Code.UNAVAILABLE, "the server is stopping")] * len(KINDS)
    assert shop.log == ["begun"] * 4 + ["ended"] * 4 + ["cleaned up"]
    assert flows == [Code.UNAVAILABLE] * 4
    assert not caplog.records
