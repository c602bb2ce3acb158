"""Run a tree of jobs as Ray Tune trials, each as soon as what it waits for is done; the only file that knows Ray Tune.

Tune asks a search algorithm for the next trial whenever it can start one. Ours (`_Hand`) passes the question to a `Desk`, which
knows the tree: it names a job, or none for now, which Tune takes as "ask again later". Trials run on processes that are used
again and again. They hold no CPU and no GPU, or the workers that they start would wait for ever for what their trial keeps.

Nothing of Tune's is kept: what jobs leave is in the store, its folder is thrown away, and resuming is running again.
"""

import json
import logging
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any, Protocol, TypeVar

import ray
from ray import tune
from ray.tune.execution import class_cache
from ray.tune.search import Searcher

from orchestrator.store.lease import GRACE_SECONDS

Part = TypeVar("Part")
Tell = Callable[[dict[str, str]], None]
HEAD = {"node:__internal_head__": 0.001}  # every cluster has it: trials run beside its head


class TrialSource(Protocol):
    """Who knows which job comes next, and hears what becomes of it. All calls come from one thread."""

    @property
    def finished(self) -> bool:
        """Whether nothing runs and nothing is left to run."""
        ...

    def next(self) -> str | None:
        """A job to start now; None while there is none."""
        ...

    def heard(self, id: str, message: dict[str, str]) -> None:
        """A running job says something."""
        ...

    def ended(self, id: str, lost: bool) -> None:
        """A job runs no more. `lost`: its process died, again and again."""
        ...

    def stop(self) -> None:
        """Name no more jobs, and ask those that run to end well."""
        ...

    @property
    def still(self) -> bool:
        """Whether what runs does nothing any more that is worth waiting for."""
        ...

    def stopped(self) -> None:
        """Nothing runs any more."""
        ...


def run(
    desk: TrialSource, work: Callable[[Part, Tell], None], parts: Mapping[str, Part], losses: int
) -> None:
    """Call `work(part, tell)` in a process of the cluster for each job that the desk names, until it is finished.

    `parts`: what is handed to each job, by id; pickled, and so is `work`. What `work` tells, the desk hears, and what it raises
    too, as {"failed": traceback}. `losses`: how often a job whose process dies is started again.
    Raises KeyboardInterrupt(number) on SIGINT and SIGTERM, with all trials stopped.
    """
    handles = {id: ray.put(part) for id, part in parts.items()}
    trial = tune.with_resources(
        tune.with_parameters(_trial, work=work, handles=handles), _resources()
    )
    with (
        TemporaryDirectory(prefix="stepchain-tune-") as disposable,
        _quiet(),
        _keyless(),
        _signals(desk) as stopping,
    ):
        tuner = tune.Tuner(
            trial,
            tune_config=tune.TuneConfig(
                search_alg=_Hand(desk, stopping), num_samples=-1, reuse_actors=True
            ),
            run_config=tune.RunConfig(
                name="campaign",
                storage_path=disposable,
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=losses),
            ),
        )
        try:
            tuner.fit()
        finally:
            if not desk.finished:
                desk.stopped()
    if not desk.finished:  # Tune takes a signal as the wish to end well, and returns
        raise KeyboardInterrupt(*stopping.caught[:1])


class _Stopping:
    """What signals came, and the end of Tune, which listens to SIGUSR1."""

    def __init__(self) -> None:
        self.caught: list[int] = []
        self._listens = signal.getsignal(signal.SIGUSR1)

    @property
    def tune_runs(self) -> bool:
        return signal.getsignal(signal.SIGUSR1) != self._listens

    def end(self) -> None:
        if self.tune_runs:
            os.kill(os.getpid(), signal.SIGUSR1)


class _Hand(Searcher):
    """Tune's search algorithm: it searches nothing."""

    def __init__(self, desk: TrialSource, stopping: _Stopping) -> None:
        super().__init__()
        self._desk, self._stopping = desk, stopping
        self._jobs: dict[str, str] = {}  # by trial

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its search algorithm to resume from; a campaign resumes from the store."""
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        job = self._desk.next()
        if job is None:
            return Searcher.FINISHED if self._desk.finished else None
        self._jobs[trial_id] = job
        return {"job": job}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        self._desk.heard(self._jobs[trial_id], json.loads(result["message"]))
        self._end_when_still()

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        self._desk.ended(self._jobs[trial_id], lost=error)
        self._end_when_still()

    def _end_when_still(self) -> None:
        if self._stopping.caught and self._desk.still:
            self._stopping.end()

    def save(self, checkpoint_path: str) -> None:
        """Nothing, for the same reason."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, as nothing was saved."""


def _trial(
    config: dict[str, str], work: Callable[[Any, Tell], None], handles: dict[str, ray.ObjectRef]
) -> None:
    """What runs in a trial's process."""

    def tell(message: dict[str, str]) -> None:
        tune.report({"message": json.dumps(message)})

    try:
        work(ray.get(handles[config["job"]]), tell)
    except Exception:  # noqa: BLE001 - passed on, and reported there
        tell({"failed": traceback.format_exc()})


def _resources() -> dict[str, float]:
    """What a trial holds: a place for one where the cluster declares such places, else a grain of its head."""
    return {"orchestrator": 1} if "orchestrator" in ray.cluster_resources() else HEAD


@contextmanager
def _quiet() -> Iterator[None]:
    """Tune tells at length of trials, files and folders; a campaign tells of steps. Signals are ours (`_signals`)."""
    changed = {
        "RAY_AIR_NEW_OUTPUT": "0",
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
    }
    before = {name: os.environ.get(name) for name in changed}
    log = logging.getLogger("ray.tune")
    level = log.level
    os.environ |= changed
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _keyless() -> Iterator[None]:
    """Tune gives trials the driver's AWS keys in a runtime environment, which Ray logs. Machines have their own."""
    before = class_cache.ENV_VARS_TO_PROPAGATE
    class_cache.ENV_VARS_TO_PROPAGATE = {name for name in before if not name.startswith("AWS_")}
    try:
        yield
    finally:
        class_cache.ENV_VARS_TO_PROPAGATE = before


@contextmanager
def _signals(desk: TrialSource) -> Iterator[_Stopping]:
    """SIGTERM, with which schedulers stop jobs, ends a campaign as Ctrl-C does: when the desk is still, or patience at its end.

    A second signal waits for nothing.
    """
    stopping = _Stopping()
    if threading.current_thread() is not threading.main_thread():
        yield stopping
        return
    before = {
        number: signal.getsignal(number)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    }
    patience = threading.Timer(GRACE_SECONDS, stopping.end)
    patience.daemon = True

    def stop(number: int, frame: object) -> None:
        stopping.caught.append(number)
        if len(stopping.caught) > 1:
            raise KeyboardInterrupt(number)
        runs = stopping.tune_runs  # or not yet, or not any more
        if runs:
            patience.start()
        desk.stop()
        if not runs:
            raise KeyboardInterrupt(number)
        if desk.still:
            stopping.end()

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    try:
        yield stopping
    finally:
        patience.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)
