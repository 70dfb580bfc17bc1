"""The small parts of the report."""

from __future__ import annotations

import io

import grpc
import pytest

pytest.importorskip("grpc_tools")

from interpose.demo.chain import Trip
from interpose.demo.delivery import Visit
from interpose.demo.interceptors import Faults
from interpose.demo.progress import ProgressLine
from interpose.demo.report import _chain as report_chain
from interpose.demo.report import hops, quantile
from interpose.demo.run import Story


def trip(*, cancelled: float | None) -> Trip:
    """An order that came to the shop only."""
    visit = Visit("shop", "order-1", left=None, stopped=cancelled is not None, ended=7.0125)
    return Trip("sync", "order-1", grpc.StatusCode.CANCELLED, (), (visit,), cancelled)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("share", "value"), [(0.0, 1.0), (0.5, 3.0), (0.99, 5.0), (1.0, 5.0)])
def test_a_quantile_is_one_of_the_values(share: float, value: float) -> None:
    """Of five values, the middle one is the median."""
    assert quantile([5.0, 1.0, 3.0, 2.0, 4.0], share) == value


def test_a_quantile_of_nothing_is_zero() -> None:
    """A place that nothing went through has no latency."""
    assert quantile([], 0.5) == 0.0


def test_a_hop_tells_when_it_was_stopped() -> None:
    """How long after the cancel, in milliseconds; a deadline that is not there is never."""
    story = Story(1, [], trips=[trip(cancelled=None), trip(cancelled=7.0)])

    *_, line = report_chain(story)
    assert line.split() == ["sync", "shop", "sync", "order-1", "never", "12.5"]


def test_a_hop_that_was_not_stopped_says_so() -> None:
    """Where no order was cancelled, or its handler answered all the same."""
    story = Story(1, [], trips=[trip(cancelled=None)])

    assert [hop.stopped_ms for hop in hops(story)] == [None]
    assert list(report_chain(story))[-1].endswith("never")


def test_progress_writes_one_line_over_and_over() -> None:
    """A terminal sees the line change in place, and an empty line in the end."""
    terminal = Terminal()
    progress = ProgressLine(terminal, clock=iter((0.0, 0.05, 0.2)).__next__)
    step = progress.leg("going", 3)
    for _ in range(3):
        step()
    progress.clear()

    assert terminal.getvalue().split("\r") == ["", "going: 1 of 3", "going: 3 of 3", " " * 13, ""]


def test_progress_is_silent_in_a_pipe() -> None:
    """What is no terminal gets nothing at all."""
    pipe = io.StringIO()
    progress = ProgressLine(pipe)
    progress.leg("going", 1)()
    progress.clear()

    assert pipe.getvalue() == ""


def test_faults_are_foretold() -> None:
    """The share is met, and a seed gives the same faults again."""
    ids = [f"call-{number}" for number in range(2000)]
    first, again, other = Faults(1, 0.3), Faults(1, 0.3), Faults(2, 0.3)
    served = [first.foretell(request_id, 1).served for request_id in ids]

    assert served == [again.foretell(request_id, 1).served for request_id in ids]
    assert served != [other.foretell(request_id, 1).served for request_id in ids]
    assert 0.66 < sum(served) / len(served) < 0.74
    assert all(first.foretell(request_id, 30).served for request_id in ids)
