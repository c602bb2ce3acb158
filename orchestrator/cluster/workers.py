"""Run a function on workers of the cluster, which stay for the next one.

A process keeps the teams of workers that it started (`orchestrator.cluster.ray_train`). A team that
has the resources asked for serves again. A team with other resources leaves first, so that its room
can be used.
"""

import atexit
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from orchestrator.cluster.connection import connect
from orchestrator.cluster.failures import NeverStarted, WorkersFailed
from orchestrator.cluster.lost_rooms import give_lost_rooms_back
from orchestrator.cluster.machines import living_machines, machines
from orchestrator.cluster.packing import Machines
from orchestrator.cluster.ray_train import Team
from orchestrator.cluster.resource_words import shares
from orchestrator.cluster.resources import Resources
from orchestrator.cluster.stop_signals import send_again, stop_signals, takes
from orchestrator.cluster.waiting import Waiting
from orchestrator.store.retries import DEFAULT_RETRIES, Retries

if TYPE_CHECKING:
    from training.runtime import Runtime

__all__ = ["NoRoom", "WorkersFailed", "await_team", "dismiss", "run", "run_until_done"]

Result = TypeVar("Result")
_teams: list[Team] = []
_lock = threading.Lock()


class NoRoom(Exception):
    """No machine came back that can hold the workers, so that another team would wait as long."""


def run(
    work: "Callable[[Runtime], Result]",
    resources: Resources,
    ask_to_end: Callable[[], None] | None = None,
    retries: Retries = DEFAULT_RETRIES,
    waiting: Waiting | None = None,
) -> Result:
    """Call `work(runtime)` on every worker at once, and return what rank 0 returned.

    Threads may call it at the same time; each gets a team of its own.

    Args:
        work: Pickled, and so is its result.
        resources: Of the workers.
        ask_to_end: Called on a signal that stops the job. `work` should then raise within
            `retries.stop_grace_seconds`.
        retries: How long the workers may take to start and to stop.
        waiting: Is told what happens until the workers start.

    Raises:
        WorkersFailed: The workers did not finish, or no machine came that can hold them.
        Exception: `waiting.check` raised it.
        KeyboardInterrupt: A signal came; its argument is the signal's number.
    """
    connect()
    waiting = waiting or Waiting()
    with _interruptible(ask_to_end, retries.stop_grace_seconds):
        while True:
            team = _started_team(resources, retries, waiting)
            # An interrupted team stays busy: its workers end with this process.
            try:
                number = team.give(work)
                if number is not None:
                    result = team.result(number)
                    team.busy = False
                    return result
            except WorkersFailed:
                _part_with(team, retries)
                raise
            # The team was leaving.
            _part_with(team, retries)


def await_team(resources: Resources, retries: Retries, waiting: Waiting) -> None:
    """Wait until a team of this process with these resources has started, which `run` then finds.

    Teams that are lost before are started again, `retries.restarts` times at most.

    Raises:
        WorkersFailed: No team started, or no machine came that can hold the workers.
        Exception: `waiting.check` raised it. A team is there when there is room for it.
        KeyboardInterrupt: A signal came; its argument is the signal's number.
    """
    connect()
    with _interruptible(None, retries.stop_grace_seconds):
        team = _again_when_lost(lambda: _started_team(resources, retries, waiting), retries)
        team.busy = False


def run_until_done(
    work: "Callable[[Runtime], Result]", resources: Resources, retries: Retries
) -> Result:
    """Call `run`, and call it again when workers are lost, `retries.restarts` times at most.

    Raises:
        WorkersFailed: The work raised, or workers were lost each time.
    """
    return _again_when_lost(lambda: run(work, resources, retries=retries), retries)


def dismiss(wait_seconds: float = DEFAULT_RETRIES.team_leave_seconds) -> None:
    """Let the teams of this process leave that have no work, so that their room can be used."""
    with _lock:
        _dismiss(list(_teams), wait_seconds)


def _again_when_lost(try_once: Callable[[], Result], retries: Retries) -> Result:
    """Return what `try_once` returns; call it again, a few times, when workers are lost."""
    for left in reversed(range(retries.restarts + 1)):
        try:
            return try_once()
        except WorkersFailed as error:
            if error.reason is not None or not left:
                raise
    raise AssertionError("the last try returns or raises")


def _started_team(resources: Resources, retries: Retries, waiting: Waiting) -> Team:
    """Return a team with these resources, marked busy, once its workers have started."""
    while True:
        team = _find_team(resources, retries, waiting)
        try:
            if team.started(waiting):
                waiting.started()
                return team
        except NeverStarted:
            _part_with(team, retries)
            # Other work may hold the room for days, which is no failure.
            if not _can_hold(resources):
                raise
            continue
        except WorkersFailed:
            _part_with(team, retries)
            raise
        except BaseException:
            # Nobody wants its workers now. The next step's will not have to queue for room again.
            team.busy = False
            raise
        # The team was leaving.
        _part_with(team, retries)


def _find_team(resources: Resources, retries: Retries, waiting: Waiting) -> Team:
    """Return a team with these resources, marked busy, once there is room for it.

    Raise WorkersFailed if none comes, or if Ray loses a process that looks or starts.
    """
    from ray.exceptions import RayError

    try:
        _await_room(resources, retries, waiting)
        return _engage(resources, retries)
    except RayError as error:
        text = f"the workers could not be started ({type(error).__name__})"
        raise WorkersFailed(text, None, str(error)) from error


def _await_room(resources: Resources, retries: Retries, waiting: Waiting) -> None:
    """Wait while a cluster of fixed size has lost so many machines that it cannot hold the workers.

    Raise WorkersFailed if no machine comes back.
    """
    began = time.monotonic()
    told = False
    # What can be added is asked for only if the living machines are too few.
    while not living_machines().steps(resources) and not _holds(found := machines(), resources):
        needed = (
            f"the cluster has room for {found.room(resources)} of {resources.workers} workers with "
            f"{shares(resources)} each, because it lost machines"
        )
        if time.monotonic() - began >= retries.room_seconds:
            text = f"{needed}, and none came back in {retries.room_seconds / 60:g} minutes"
            raise WorkersFailed(text, NoRoom(text), text)
        if not told:
            waiting.tell(f"{needed}: waiting up to {retries.room_seconds / 60:g} minutes for one")
        told = True
        waiting.check()
        time.sleep(retries.room_look_seconds)
    waiting.begin()
    if told:
        waiting.tell("a machine is back: training goes on")


def _holds(found: Machines, resources: Resources) -> bool:
    """Return whether the workers fit, as far as can be seen."""
    return not found.growth.known or found.steps(resources) > 0


def _can_hold(resources: Resources) -> bool:
    """Return whether the cluster is known to hold the workers when nothing else is there."""
    from ray.exceptions import RayError

    try:
        return machines().steps(resources) > 0
    except RayError:
        return False  # the next try will show


def _engage(resources: Resources, retries: Retries) -> Team:
    """Return a team with these resources that has no work, and mark it busy."""
    with _lock:
        _teams[:] = [team for team in _teams if team.alive]
        idle = [team for team in _teams if not team.busy]
        others = [team for team in idle if team.resources != resources]
        _dismiss(others, retries.team_leave_seconds)
        fitting = [team for team in idle if team.resources == resources]
        if fitting:
            team = fitting[0]
        else:
            if not _teams:
                # Exit handlers run in reverse order: the teams leave before Ray ends.
                atexit.unregister(dismiss)
                atexit.register(dismiss)
            give_lost_rooms_back()
            team = Team(resources, retries)
            _teams.append(team)
        team.busy = True
        return team


def _part_with(team: Team, retries: Retries) -> None:
    """Give a team no more work, even if its workers live on for a while without their mailbox."""
    with _lock:
        _teams[:] = [each for each in _teams if each is not team]
    team.leave(retries.team_leave_seconds)


def _dismiss(teams: list[Team], wait_seconds: float) -> None:
    for team in teams:
        if team.alive and not team.busy:
            team.leave(wait_seconds)
            _teams.remove(team)


@contextmanager
def _interruptible(ask_to_end: Callable[[], None] | None, grace_seconds: float) -> Iterator[None]:
    """Let signals that stop a job stop the work and then raise KeyboardInterrupt(number).

    The workers get `grace_seconds` if they can be asked to end. A second signal interrupts at once.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in stop_signals()}
    caught: list[int] = []
    late = threading.Event()

    def give_up() -> None:
        late.set()
        # The same signal again: this block may be left by now, and another handler take it.
        send_again(caught[0])

    timeout = threading.Timer(grace_seconds, give_up)
    timeout.daemon = True

    def stop(number: int, frame: object) -> None:
        if late.is_set():
            raise KeyboardInterrupt(caught[0])
        if not takes(number, caught):
            return
        if ask_to_end is None or len(caught) > 1:
            raise KeyboardInterrupt(caught[0])
        timeout.start()
        ask_to_end()

    for number in before:
        signal.signal(number, stop)
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        # The workers ended because they were asked to, or Ray raised the interrupt anew.
        if caught:
            raise KeyboardInterrupt(caught[0]) from error
        raise
    else:
        if caught:
            raise KeyboardInterrupt(caught[0])
    finally:
        timeout.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)
