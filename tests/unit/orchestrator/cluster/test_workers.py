"""Work is done again when workers are lost, and side by side.

Real workers run in an integration test.
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from functools import partial

import pytest
from ray.exceptions import OutOfMemoryError

from orchestrator.cluster import crew, waiting, workers
from orchestrator.cluster.failures import NeverStarted
from orchestrator.cluster.packing import Growth, Machines
from orchestrator.cluster.resources import Resources
from orchestrator.cluster.waiting import Waiting
from orchestrator.store.lease import LeaseLost
from orchestrator.store.retries import DEFAULT_RETRIES, Retries
from training.runtime import Runtime

ONE = Resources(
    workers=1, cpus_per_worker=1, gpus_per_worker=0, loader_workers=0, checkpoint_every=60
)
ROOM = Machines(({"CPU": 1.0},))
LOST = workers.WorkersFailed("workers were lost", None, "")


class Here:
    """Replaces workers.run: runs the work in this process, after a few losses."""

    def __init__(self, losses: int = 0) -> None:
        self.losses = losses
        self.runs = 0

    def run(self, work: Callable[[Runtime], object], resources: Resources, **_: object) -> object:
        self.runs += 1
        if self.runs <= self.losses:
            raise LOST
        try:
            return work(Runtime())
        except ValueError as error:  # as a team reports it
            raise workers.WorkersFailed("ValueError", error, "") from error


def fail(runtime: Runtime) -> None:
    raise ValueError("no")


@pytest.mark.parametrize(("losses", "runs"), [(0, 1), (2, 3)])
def test_lost_workers_are_replaced(losses: int, runs: int, monkeypatch: pytest.MonkeyPatch):
    here = Here(losses)
    monkeypatch.setattr(workers, "run", here.run)
    assert workers.run_until_done(lambda runtime: "done", ONE, Retries(restarts=2)) == "done"
    assert here.runs == runs


def test_workers_that_are_lost_each_time_are_given_up(monkeypatch: pytest.MonkeyPatch):
    here = Here(losses=9)
    monkeypatch.setattr(workers, "run", here.run)
    with pytest.raises(workers.WorkersFailed, match="workers were lost"):
        workers.run_until_done(lambda runtime: "done", ONE, Retries(restarts=2))
    assert here.runs == 3


def test_what_raises_is_not_tried_again(monkeypatch: pytest.MonkeyPatch):
    here = Here()
    monkeypatch.setattr(workers, "run", here.run)
    with pytest.raises(workers.WorkersFailed, match="ValueError"):
        workers.run_until_done(fail, ONE, DEFAULT_RETRIES)
    assert here.runs == 1


def test_work_runs_side_by_side_as_often_as_there_is_room(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(workers, "run", Here().run)
    monkeypatch.setattr(crew, "steps_at_once", lambda resources: 2)
    both = threading.Barrier(2, timeout=20)

    def meet(runtime: Runtime) -> int:
        return both.wait()

    results = list(crew.run_side_by_side([meet] * 4, ONE, DEFAULT_RETRIES))
    assert sorted(results) == [0, 0, 1, 1]


def test_a_failure_reaches_the_caller_and_nothing_more_begins(monkeypatch: pytest.MonkeyPatch):
    here = Here()
    monkeypatch.setattr(workers, "run", here.run)
    monkeypatch.setattr(crew, "steps_at_once", lambda resources: 1)

    def rest(runtime: Runtime) -> None:
        time.sleep(0.2)

    with pytest.raises(workers.WorkersFailed, match="ValueError"):
        list(crew.run_side_by_side([fail, *[rest] * 50], ONE, DEFAULT_RETRIES))
    begun = here.runs
    time.sleep(0.5)
    assert here.runs <= begun + 1


def test_work_side_by_side_follows_a_cluster_that_grows_and_shrinks(
    monkeypatch: pytest.MonkeyPatch,
):
    # After each result there is another room: one step at a time, then three, then one again.
    room = iter([1, 1, 3, 3, 3, 3, 3, 1])
    monkeypatch.setattr(workers, "run", Here().run)
    monkeypatch.setattr(crew, "steps_at_once", lambda resources: next(room, 1))
    lock, at_once, seen = threading.Lock(), [0], []

    def count(number: int, runtime: Runtime) -> int:
        with lock:
            at_once[0] += 1
            seen.append((number, at_once[0]))
        time.sleep(0.1)
        with lock:
            at_once[0] -= 1
        return number

    works = [partial(count, number) for number in range(20)]
    results = sorted(crew.run_side_by_side(works, ONE, DEFAULT_RETRIES))
    assert results == list(range(20))
    together = dict(seen)
    assert [together[number] for number in (0, 1)] == [1, 1]
    assert max(together.values()) == 3
    assert all(together[number] == 1 for number in range(14, 20))


class TeamWithoutMailbox:
    """Replaces Team: its workers live on, and it can take no work."""

    alive = True
    busy = False

    def __init__(self, resources: Resources, retries: Retries) -> None:
        self.resources = resources

    def started(self, waiting: Waiting) -> bool:
        return True

    def give(self, work: Callable[[Runtime], object]) -> int:
        raise LOST

    def leave(self, wait_seconds: float) -> None:
        pass


class WholeTeam(TeamWithoutMailbox):
    def give(self, work: Callable[[Runtime], object]) -> int:
        return 0

    def result(self, number: int) -> str:
        return "done"


class PatientTeam(WholeTeam):
    """Replaces Team: it finds room at its third try."""

    tries = 0

    def started(self, waiting: Waiting) -> bool:
        PatientTeam.tries += 1
        waiting.look(self.resources, Retries(full_seconds=0, room_look_seconds=0))
        if PatientTeam.tries < 3:
            raise NeverStarted("no room was found for the workers", None, "")
        return True


def look_at(monkeypatch: pytest.MonkeyPatch, look: Callable[[], Machines]) -> None:
    """Let the machines be what `look` returns."""
    for name in ("machines", "living_machines"):
        monkeypatch.setattr(workers, name, look)
    for name in ("connect", "give_lost_rooms_back"):
        monkeypatch.setattr(workers, name, lambda: None)
    monkeypatch.setattr(workers, "_teams", [])


def test_a_team_that_was_lost_gets_no_more_work(monkeypatch: pytest.MonkeyPatch):
    look_at(monkeypatch, lambda: ROOM)
    teams = iter([TeamWithoutMailbox, WholeTeam])
    monkeypatch.setattr(workers, "Team", lambda *arguments: next(teams)(*arguments))
    assert workers.run_until_done(fail, ONE, Retries(restarts=1)) == "done"


def test_a_machine_that_left_is_waited_for_and_this_is_said(monkeypatch: pytest.MonkeyPatch):
    seen = iter([Machines(())] * 6)
    look_at(monkeypatch, lambda: next(seen, ROOM))
    monkeypatch.setattr(workers, "Team", WholeTeam)
    told: list[str] = []
    quick = Retries(room_look_seconds=0.01)
    watched = Waiting(told.append)
    assert workers.run(fail, ONE, retries=quick, waiting=watched) == "done"
    assert told == [
        "the cluster has room for 0 of 1 workers with 1 CPU each, because it lost machines: "
        "waiting up to 30 minutes for one",
        "a machine is back: training goes on",
    ]


def test_a_machine_that_never_comes_back_is_given_up_once(monkeypatch: pytest.MonkeyPatch):
    look_at(monkeypatch, lambda: Machines(()))
    quick = Retries(room_look_seconds=0.01, room_seconds=0.06, restarts=9)
    began = time.monotonic()
    with pytest.raises(workers.WorkersFailed, match=r"and none came back in 0\.001 minutes"):
        workers.run_until_done(fail, ONE, quick)
    assert time.monotonic() - began < 5


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let teams find room at their third try."""
    look_at(monkeypatch, lambda: ROOM)
    monkeypatch.setattr(waiting, "waits_for_room", lambda resources: True)
    monkeypatch.setattr(waiting, "give_lost_rooms_back", lambda: None)
    monkeypatch.setattr(workers, "Team", PatientTeam)
    monkeypatch.setattr(PatientTeam, "tries", 0)


@pytest.mark.usefixtures("patient")
def test_room_that_other_work_holds_is_waited_for_however_long():
    told: list[str] = []
    watched = Waiting(told.append)
    assert workers.run(fail, ONE, retries=Retries(restarts=0), waiting=watched) == "done"
    assert told == [
        "no room is free for a worker with 1 CPU: waiting until other work ends or a machine comes"
    ]
    assert watched.seconds > 0


@pytest.mark.usefixtures("patient")
def test_room_that_the_cluster_is_not_known_to_have_is_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch,
):
    look_at(monkeypatch, lambda: Machines((), Growth((), 0, known=False)))
    with pytest.raises(workers.WorkersFailed, match="no room was found"):
        workers.run(fail, ONE)
    assert PatientTeam.tries == 1
    # Before it has a lease, a step waits as long as an attempt would.
    workers.await_team(ONE, Retries(restarts=1), Waiting())
    assert PatientTeam.tries == 3


@pytest.mark.usefixtures("patient")
def test_a_team_that_nobody_waits_for_any_more_keeps_its_place_in_the_queue_for_room():
    def check() -> None:
        raise LeaseLost("the driver took it")

    with pytest.raises(LeaseLost):
        workers.run(fail, ONE, waiting=Waiting(check=check))
    (team,) = workers._teams
    with pytest.raises(LeaseLost):
        workers.await_team(ONE, DEFAULT_RETRIES, Waiting(check=check))
    assert workers._teams == [team]
    assert workers.run(fail, ONE) == "done"
    assert workers._teams == [team]
    assert PatientTeam.tries == 3


def test_a_team_that_was_waited_for_is_the_one_that_works(monkeypatch: pytest.MonkeyPatch):
    look_at(monkeypatch, lambda: ROOM)
    teams = iter([WholeTeam])
    monkeypatch.setattr(workers, "Team", lambda *arguments: next(teams)(*arguments))
    workers.await_team(ONE, DEFAULT_RETRIES, Waiting())
    assert workers.run(fail, ONE) == "done"


def test_teams_that_are_lost_while_they_start_are_started_again_a_few_times(
    monkeypatch: pytest.MonkeyPatch,
):
    class Broken(WholeTeam):
        def started(self, waiting: Waiting) -> bool:
            raise LOST

    look_at(monkeypatch, lambda: ROOM)
    teams = iter([Broken, Broken, WholeTeam, Broken, Broken])
    monkeypatch.setattr(workers, "Team", lambda *arguments: next(teams)(*arguments))
    workers.await_team(ONE, Retries(restarts=2), Waiting())
    assert workers.run(fail, ONE) == "done"
    look_at(monkeypatch, lambda: ROOM)
    with pytest.raises(workers.WorkersFailed):
        workers.await_team(ONE, Retries(restarts=1), Waiting())
    look_at(monkeypatch, lambda: Machines(()))
    with pytest.raises(workers.WorkersFailed, match="lost machines, and none came back"):
        workers.await_team(ONE, Retries(room_seconds=0), Waiting())


def test_machines_that_may_come_are_not_waited_for_here(monkeypatch: pytest.MonkeyPatch):
    look_at(monkeypatch, lambda: Machines((), Growth((), 0, known=False)))
    monkeypatch.setattr(workers, "Team", WholeTeam)
    assert workers.run(fail, ONE, retries=Retries(room_seconds=0)) == "done"


def test_what_ray_raises_while_room_is_looked_for_is_a_loss(monkeypatch: pytest.MonkeyPatch):
    def look() -> Machines:
        raise OutOfMemoryError("the head is short of memory")

    look_at(monkeypatch, look)
    with pytest.raises(workers.WorkersFailed, match="could not be started") as failed:
        workers.run(fail, ONE)
    assert failed.value.reason is None
    assert "short of memory" in failed.value.details


def be_stopped(number: int, asked: list[str], grace_seconds: float, work_seconds: float) -> None:
    """Receive a signal while workers work."""
    with workers._interruptible(lambda: asked.append("end"), grace_seconds):
        os.kill(os.getpid(), number)
        time.sleep(work_seconds)


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_keeps_its_number_while_workers_are_awaited(
    number: int, monkeypatch: pytest.MonkeyPatch
):
    class Waits(WholeTeam):
        def started(self, waiting: Waiting) -> bool:
            try:
                os.kill(os.getpid(), number)
                time.sleep(20)
            except KeyboardInterrupt:
                raise KeyboardInterrupt from None  # as Ray does
            raise AssertionError("the signal did not come")

    look_at(monkeypatch, lambda: ROOM)
    monkeypatch.setattr(workers, "Team", Waits)
    with pytest.raises(KeyboardInterrupt) as caught:
        workers.await_team(ONE, DEFAULT_RETRIES, Waiting())
    assert caught.value.args == (number,)
    (team,) = workers._teams
    assert not team.busy  # in a notebook, the next try waits for the same team


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_workers_that_do_not_end_in_time_are_left_with_the_signal_that_came(number: int):
    asked: list[str] = []
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt) as caught:
        be_stopped(number, asked, grace_seconds=0.3, work_seconds=20)
    assert caught.value.args == (number,)
    assert asked == ["end"]
    assert 0.3 <= time.monotonic() - began < 10


def test_the_end_of_the_grace_is_not_taken_for_another_signal(monkeypatch: pytest.MonkeyPatch):
    """It may come when the work has just ended, and the handler before is back."""
    seen: list[int] = []
    before = {
        number: signal.signal(number, lambda number, frame: seen.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    monkeypatch.setattr(threading.Timer, "cancel", lambda self: None)  # too late
    try:
        with pytest.raises(KeyboardInterrupt):
            be_stopped(signal.SIGTERM, [], grace_seconds=0.3, work_seconds=0)
        time.sleep(1)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert seen == [signal.SIGTERM]
