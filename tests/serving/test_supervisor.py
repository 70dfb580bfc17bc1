"""The supervisor: which workers run, which are started anew and when, and how all are replaced. Without any process."""

import signal
from typing import Any

import pytest

from interpose.serving.supervisor import ENDED, READY, RENEW, STOP, Note, Notes, Supervisor


class Fake:
    """A worker that does what the test says."""

    def __init__(self, notes: Notes, pid: int) -> None:
        self.pid = pid
        self.status: int | None = None
        self.line: dict[str, str] = {}
        self.told: list[int] = []
        self._notes = notes

    def signal(self, number: int) -> None:
        self.told.append(number)

    def ready(self) -> Note:
        return READY, self

    def end(self, status: int = 0) -> Note:
        self.status = status
        return ENDED, self

    def __repr__(self) -> str:
        return f"worker {self.pid}"


class Fleet:
    """A supervisor with workers that are none, and a clock that the test moves."""

    def __init__(self, count: int = 2) -> None:
        self.now = 0.0
        self.made: list[Fake] = []
        self.gone: list[int] = []
        self.supervisor = Supervisor(self._spawn, count, self.gone.append, lambda: self.now)

    def _spawn(self, notes: Notes) -> Fake:
        self.made.append(Fake(notes, len(self.made) + 1))
        return self.made[-1]

    def running(self) -> "Fleet":
        """All workers serve."""
        for _ in range(self.supervisor._count):
            worker: Any = self.supervisor._begin()
            self.act(worker.ready())
        return self

    def act(self, *notes: Note) -> None:
        for note in notes:
            self.supervisor.act(note)

    @property
    def alive(self) -> list[int]:
        return [worker.pid for worker in self.supervisor._born]


def test_a_worker_that_dies_is_started_anew_at_once() -> None:
    """The others serve on meanwhile."""
    fleet = Fleet().running()
    fleet.now = 100.0

    fleet.act(fleet.made[0].end(-signal.SIGKILL))

    assert fleet.alive == [2, 3]
    assert fleet.gone == [1]


def test_one_that_dies_again_and_again_is_started_after_longer_and_longer_pauses() -> None:
    """At once, then after half a second, doubled up to thirty; after ten quiet seconds from the beginning."""
    fleet = Fleet(1).running()
    pauses = []

    for _ in range(9):
        fleet.act(fleet.made[-1].end(1))
        pauses.append(fleet.supervisor._pause() or 0.0)
        fleet.now += pauses[-1]
        fleet.act(("", None))
    fleet.now += 10.0
    fleet.act(fleet.made[-1].end(1))

    assert pauses == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    assert fleet.supervisor._pause() is None
    assert len(fleet.alive) == 1


def test_workers_are_replaced_one_after_the_other() -> None:
    """A new one serves before the old one is asked to drain, and the next is begun when that has ended."""
    fleet = Fleet().running()
    first, second = fleet.made

    fleet.act((RENEW, None))
    begun = fleet.alive, list(first.told)
    fleet.act(fleet.made[2].ready())
    draining = list(first.told), list(second.told), fleet.alive
    fleet.act(first.end())
    next_begun = fleet.alive
    fleet.act(fleet.made[3].ready(), second.end())

    assert begun == ([1, 2, 3], [])
    assert draining == ([signal.SIGTERM], [], [1, 2, 3])
    assert next_begun == [2, 3, 4]
    assert fleet.alive == [3, 4]


def test_a_successor_that_cannot_start_leaves_all_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    """The old ones serve on, and the next request is a new attempt."""
    fleet = Fleet().running()

    fleet.act((RENEW, None))
    fleet.act(fleet.made[2].end(1))
    kept = fleet.alive
    fleet.act((RENEW, None))

    assert kept == [1, 2]
    assert fleet.made[0].told == fleet.made[1].told == []
    assert fleet.alive == [1, 2, 4]
    assert "worker 3 could not start (status 1)" in caplog.text


def test_a_request_amid_a_replacement_is_not_lost() -> None:
    """All are replaced once more afterwards, however often it was asked for meanwhile."""
    fleet = Fleet(1).running()

    fleet.act((RENEW, None), (RENEW, None), (RENEW, None))
    fleet.act(fleet.made[1].ready(), fleet.made[0].end())
    again = fleet.alive
    fleet.act(fleet.made[2].ready(), fleet.made[1].end())

    assert again == [2, 3]
    assert fleet.alive == [3]
    assert len(fleet.made) == 3


def test_one_that_dies_before_its_turn_is_not_waited_for() -> None:
    """It is started anew as ever, and the replacement goes on with the others."""
    fleet = Fleet().running()
    fleet.act((RENEW, None))
    fleet.now = 60.0

    fleet.act(fleet.made[0].end(-9), fleet.made[1].end(-9))
    fleet.act(fleet.made[2].ready(), fleet.made[3].ready(), fleet.made[4].ready())

    assert fleet.alive == [3, 4, 5]
    assert fleet.supervisor._old == type(fleet.supervisor._old)()
    assert fleet.supervisor._successor is None


# --- from its start to its end ----------------------------------------------------------------------------------------


class Obedient(Fake):
    """Serves at once, and ends when it is asked to."""

    def __init__(self, notes: Notes, pid: int) -> None:
        super().__init__(notes, pid)
        notes.put(self.ready())

    def signal(self, number: int) -> None:
        super().signal(number)
        self._notes.put(self.end())


class Failing(Fake):
    """Ends at once."""

    def __init__(self, notes: Notes, pid: int, status: int) -> None:
        super().__init__(notes, pid)
        notes.put(self.end(status))


def test_all_serve_before_it_is_announced_and_all_end_after_the_signal() -> None:
    """Status 0, and each was asked once."""
    made: list[Obedient] = []

    def spawn(notes: Notes) -> Obedient:
        made.append(Obedient(notes, len(made) + 1))
        return made[-1]

    supervisor = Supervisor(spawn, 3)
    announced: list[int] = []

    def announce(workers: list[Any]) -> None:
        announced.extend(worker.pid for worker in workers)
        supervisor.notes.put((STOP, None))

    assert supervisor.run(announce) == 0
    assert announced == [1, 2, 3]
    assert [worker.told for worker in made] == [[signal.SIGTERM]] * 3


@pytest.mark.parametrize(("status", "shown"), [(2, 2), (1, 1), (0, 1), (-11, 139)])
def test_a_worker_that_cannot_start_ends_the_whole(status: int, shown: int) -> None:
    """With its status; nothing is announced, and those that serve are stopped."""
    made: list[Fake] = []

    def spawn(notes: Notes) -> Fake:
        made.append(Failing(notes, 2, status) if made else Obedient(notes, 1))
        return made[-1]

    supervisor = Supervisor(spawn, 2)

    assert supervisor.run(lambda _: pytest.fail("nothing serves")) == shown
    assert made[0].told == [signal.SIGTERM]


def test_a_signal_before_all_serve() -> None:
    """It stops what has been started."""
    supervisor = Supervisor(lambda notes: Obedient(notes, 1), 1)
    supervisor.notes.put((STOP, None))

    assert supervisor.run(lambda _: pytest.fail("nothing is announced")) == 0


@pytest.mark.parametrize(("renews", "made"), [(True, 2), (False, 1)])
def test_a_terminal_that_is_closed_ends_a_server_under_development(renews: bool, made: int) -> None:
    """SIGHUP replaces workers; but those of --reload would serve on, with the port, for nobody."""
    workers: list[Obedient] = []

    def spawn(notes: Notes) -> Obedient:
        workers.append(Obedient(notes, len(workers) + 1))
        if len(workers) == 2:
            notes.put((STOP, None))
        return workers[-1]

    supervisor = Supervisor(spawn, 1, renews=renews)

    assert supervisor.run(lambda _: signal.raise_signal(signal.SIGHUP)) == 0
    assert len(workers) == made
