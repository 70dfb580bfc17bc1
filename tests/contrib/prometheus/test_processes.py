"""Many processes, one of which is killed: what they have counted is all there."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry, values
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from interpose import Kind, Side
from interpose.contrib.prometheus import PrometheusMetrics, processes
from interpose.interceptors import Retry
from interpose.testing import Place, Stub, failed, ok, play
from tests.contrib.prometheus.reading import codes, shown, total
from tests.contrib.prometheus.workers import ANSWERS
from tests.interceptors.driving import failing, incoming, outgoing

ROOT = Path(__file__).parents[3]
WORKERS = 4
Code = grpc.StatusCode


@contextmanager
def workers(folder: Path, forked: bool) -> Iterator[list[tuple[int, str]]]:
    """So many processes: their ids, and where they serve."""
    env = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder), "PYTHONPATH": str(ROOT)}
    argument, count = (str(WORKERS), 1) if forked else ("0", WORKERS)
    command = [sys.executable, "-m", "tests.contrib.prometheus.workers", argument]
    with ExitStack() as stack:
        started = [
            stack.enter_context(
                subprocess.Popen(command, cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            for _ in range(count)
        ]
        lines = [one.stdout.readline() for one in started for _ in range(WORKERS // count) if one.stdout]
        yield [(int(pid), target) for pid, target in map(str.split, lines)]
        # Leaving the block ends their input, and so the processes.


def read(folder: Path) -> CollectorRegistry:
    """What a scrape shows of all processes."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(folder))  # type: ignore[no-untyped-call]  # it has no types
    return registry


@pytest.mark.slow
@pytest.mark.parametrize("forked", [True, False], ids=["forked", "spawned"])
def test_one_of_four_is_killed(forked: bool, tmp_path: Path) -> None:
    """What started has been handled, but for the call that was in flight; that is gone when the process is told dead."""
    with workers(tmp_path, forked) as running:
        for _, target in running:
            with grpc.insecure_channel(target) as channel:
                stub = Stub(channel)
                assert [stub.unary_unary("a") for _ in range(ANSWERS)] == ["a"] * ANSWERS
        victim, target = running[0]
        with grpc.insecure_channel(target) as channel:
            hanging = Stub(channel).unary_unary.future("a")
            while total(read(tmp_path), "interpose_server_rpcs_in_flight") < 1:
                assert not hanging.done()
            os.kill(victim, signal.SIGKILL)
            assert hanging.code() is Code.UNAVAILABLE
        before = total(read(tmp_path), "interpose_server_rpcs_in_flight")
        mark_process_dead(victim, str(tmp_path))  # type: ignore[no-untyped-call]  # it has no types

    found = read(tmp_path)
    makers = 1 if forked else WORKERS  # which have counted one RPC before they served or forked
    assert codes(found, "server") == {"OK": WORKERS * ANSWERS, "Aborted": makers}
    assert total(found, "grpc_server_started_total") == WORKERS * ANSWERS + makers + 1
    assert total(found, "grpc_server_handling_seconds_count") == WORKERS * ANSWERS + makers
    assert total(found, "grpc_server_msg_sent_total") == WORKERS * ANSWERS + makers
    assert (before, total(found, "interpose_server_rpcs_in_flight")) == (1, 0)


# --- in one process -------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The mode is on, as if it had been when prometheus_client was imported."""
    opened = list[MmapedDict]()

    class Noted(MmapedDict):
        def __init__(self, filename: str) -> None:
            super().__init__(filename)  # type: ignore[no-untyped-call]  # it has no types
            opened.append(self)

    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    monkeypatch.setattr(values, "MmapedDict", Noted)
    monkeypatch.setattr(values, "ValueClass", values.MultiProcessValue())  # type: ignore[no-untyped-call]
    yield tmp_path
    for file in opened:
        file.close()  # type: ignore[no-untyped-call]


def test_the_same_counts(folder: Path) -> None:
    """In the files of all processes, and in the snapshot of this one, as without the mode."""
    metrics = PrometheusMetrics(registry=CollectorRegistry(), histogram=(1.0,), labels={"zone": "a"})
    for kind in Kind:
        for side in Side:
            place = Place(asyncio=False, side=side, kind=kind)
            with place.open(metrics, script=[ok("a", "b"), failed(Code.NOT_FOUND)]) as rpc:
                rpc.call("x")
                rpc.call("x")

    found = read(folder)
    for side in ("client", "server"):
        assert codes(found, side) == {"OK": 4, "NotFound": 4}
        assert total(found, f"interpose_{side}_rpcs_in_flight") == 0
        started = {state.name: state.requests for state in metrics.snapshot() if state.side.value == side}
        assert shown(found, f"grpc_{side}_started_total", "grpc_method") == started == dict.fromkeys(started, 2)
        for way in ("sent", "received"):
            told = {
                state.name: getattr(state, f"messages_{way}")
                for state in metrics.snapshot()
                if state.side.value == side
            }
            assert shown(found, f"grpc_{side}_msg_{way}_total", "grpc_method") == told
    assert total(found, "interpose_client_attempts_total") == 8
    assert set(shown(found, "grpc_server_handled_total", "zone")) == {"a"}


def test_attempts_and_refusals(folder: Path) -> None:
    """Are written too."""
    metrics = PrometheusMetrics(registry=CollectorRegistry())
    place = Place(asyncio=False, side=Side.CLIENT, kind=Kind.UNARY_UNARY)
    retry = Retry(safe=True, backoff=lambda _: 0.0)

    with place.open(metrics, retry, script=[failed(Code.UNAVAILABLE), ok()]) as rpc:
        rpc.call("a")
    play(metrics, [failing(Code.ABORTED)], **incoming())
    counts = metrics._counted.together(Side.CLIENT)
    counts.begun()
    counts.ended(Code.ABORTED, 0.0, 0, None)

    found = read(folder)
    assert total(found, "interpose_client_attempts_total") == 2
    assert total(found, "interpose_client_refused_total") == 1
    assert total(found, "interpose_server_refused_total") == 0


def test_files_that_cannot_be_written(folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: Any) -> None:
    """The RPC passes, and it is said once."""
    metrics = PrometheusMetrics(registry=CollectorRegistry())
    monkeypatch.setattr(processes, "_unsaid", [True])
    play(metrics, [failing(Code.ABORTED)], **outgoing())
    monkeypatch.setattr(values.ValueClass, "inc", lambda *_: 1 / 0)

    for _ in range(2):
        played = play(metrics, [failing(Code.ABORTED)], **outgoing())
        assert played.outcome.code is Code.ABORTED

    told = [record.getMessage() for record in caplog.records if record.name == "interpose"]
    assert told == ["PrometheusMetrics could not write to its files; later failures are not logged"]


def test_what_a_stack_says_of_itself_is_of_one_process(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The log says so; a scrape of this process shows it."""
    registry = CollectorRegistry()
    metrics = PrometheusMetrics(registry=registry)
    with caplog.at_level(logging.WARNING, "interpose"):
        metrics.watch("shop", Retry())

    assert "seen by a scrape of this process alone" in caplog.text
    assert shown(registry, "interpose_retries_total", "stack") == {"shop": 0}
