"""Run a tree of jobs as Ray Tune trials, each as soon as its parent is done.

This is the only file that runs Ray Tune; `tune_seams` is what it changes there.

Tune asks a search algorithm for the next trial whenever it can start one. `_SearchAlgorithm` passes
the question to a `TrialSource`, which knows the tree. The source names a job, or None, which Tune
takes as "ask again later". Trials run in processes that are reused. They reserve no CPU and no GPU,
because the workers that they start would otherwise wait forever for what their trial holds.

Nothing that Tune writes is kept. Results are in the store, Tune's folder is temporary, and a
campaign is resumed by running it again.
"""

import base64
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any, Protocol, TypeVar

import ray
from ray import tune
from ray.cloudpickle import dumps  # pyright: ignore[reportAttributeAccessIssue]
from ray.exceptions import RayError
from ray.tune.experiment import Trial
from ray.tune.search import Searcher

from orchestrator.cluster.stop_signals import stop_signals, takes
from orchestrator.cluster.tune_seams import changed_tune, forget
from orchestrator.store.retries import DEFAULT_RETRIES

Message = TypeVar("Message", contravariant=True)
Spec = TypeVar("Spec")
# Trials run on the head of the cluster, which every cluster has.
HEAD = {"node:__internal_head__": 0.001}


class TrialSource(Protocol[Message]):
    """Names the next job and receives its messages; all calls come from one thread."""

    @property
    def finished(self) -> bool:
        """Return whether nothing runs and nothing is left to run."""
        ...

    def next(self) -> str | None:
        """Return the job to start now, or None while no job is ready."""
        ...

    def on_message(self, id: str, message: Message) -> None:
        """Handle a message of a running job."""
        ...

    def on_end(self, id: str, lost: str | None = None) -> None:
        """Handle the end of a job; `lost` says why if its process died more often than allowed."""
        ...

    def stop(self) -> None:
        """Name no more jobs, and ask the running ones to end gracefully."""
        ...

    @property
    def idle(self) -> bool:
        """Return whether no running job would lose work if stopped now."""
        ...

    def on_stopped(self) -> None:
        """Handle the end of the run before all jobs were finished."""
        ...


def run(
    source: TrialSource[Message],
    work: Callable[[Spec, Callable[[Message], None]], None],
    spec_of: Callable[[str], Spec],
    losses: int,
    as_message: Callable[[str], Message],
    grace_seconds: float = DEFAULT_RETRIES.stop_grace_seconds,
) -> None:
    """Call `work(spec_of(job), on_message)` in a process of the cluster for each job of the source.

    Return when the source is finished. Messages are transported pickled and never interpreted here.

    Args:
        source: Names the jobs and receives their messages.
        work: Runs one job; pickled.
        spec_of: Returns the argument of a job when it starts; pickled.
        losses: How often a job whose process dies is started again.
        as_message: Turns the traceback of an exception in `work` into a message; pickled.
        grace_seconds: How long the running jobs may take to end after a signal.

    Raises:
        KeyboardInterrupt: On a signal that stops jobs, with its number. All trials have ended.
    """
    trial = tune.with_resources(
        tune.with_parameters(_trial, work=work, as_message=as_message), _resources()
    )
    with (
        TemporaryDirectory(prefix="stepchain-tune-") as disposable,
        changed_tune(),
        _signals(source, grace_seconds) as stopping,
    ):
        algorithm = _SearchAlgorithm(source, spec_of, stopping)
        tuner = tune.Tuner(
            trial,
            tune_config=tune.TuneConfig(search_alg=algorithm, num_samples=-1, reuse_actors=True),
            run_config=tune.RunConfig(
                name="campaign",
                storage_path=disposable,
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=losses),
                callbacks=[_TellLosses(algorithm)],
            ),
        )
        try:
            tuner.fit()
        finally:
            if not source.finished:
                source.on_stopped()
    if not source.finished:
        # Tune returns normally after a signal.
        raise KeyboardInterrupt(*stopping.caught[:1])


class _Stopping:
    """Records the signals received, and ends Tune by SIGUSR1, which Tune handles."""

    def __init__(self) -> None:
        self.caught: list[int] = []
        self._listens = signal.getsignal(signal.SIGUSR1)

    @property
    def tune_runs(self) -> bool:
        return signal.getsignal(signal.SIGUSR1) != self._listens

    def end(self) -> None:
        if self.tune_runs:
            os.kill(os.getpid(), signal.SIGUSR1)


class _SearchAlgorithm(Searcher):
    """Passes each question of Tune's to the source."""

    def __init__(
        self, source: TrialSource[Any], spec_of: Callable[[str], Any], stopping: _Stopping
    ) -> None:
        super().__init__()
        self._source = source
        self._spec_of = spec_of
        # Of running trials, to specifications.
        self._handles: dict[str, ray.ObjectRef] = {}
        self._stopping = stopping
        self._job_of_trial: dict[str, str] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing, because a campaign resumes from the store and not from Tune's pickle."""
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        job = self._source.next()
        if job is None:
            return Searcher.FINISHED if self._source.finished else None
        self._job_of_trial[trial_id] = job
        self._handles[trial_id] = ray.put(self._spec_of(job))
        return {"job": job, "spec": _encode(self._handles[trial_id])}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        self._source.on_message(self._job_of_trial[trial_id], _decode(result["message"]))
        self._end_when_idle()

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        if not error:  # `_TellLosses` knows why a trial was lost
            self.end(trial_id)

    def end(self, trial_id: str, lost: str | None = None) -> None:
        """Tell the source that the job of a trial has ended."""
        if trial_id in self._handles:
            forget(self._handles.pop(trial_id))
        self._source.on_end(self._job_of_trial[trial_id], lost)
        self._end_when_idle()

    def _end_when_idle(self) -> None:
        if self._stopping.caught and self._source.idle:
            self._stopping.end()

    def save(self, checkpoint_path: str) -> None:
        """Write nothing, because a campaign resumes from the store."""

    def restore(self, checkpoint_path: str) -> None:
        """Read nothing, because nothing was saved."""


class _TellLosses(tune.Callback):
    """Tells the search algorithm why a trial was lost."""

    def __init__(self, algorithm: _SearchAlgorithm) -> None:
        self._algorithm = algorithm

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: object
    ) -> None:
        """Handle a trial whose process was lost more often than is tolerated."""
        self._algorithm.end(trial.trial_id, lost=_reason(str(trial.get_error() or "")))


def _reason(told: str) -> str:
    """Return the first line of the last reason in what Tune tells of the losses of a trial.

    Each loss begins with a line like "Failure # 2 (occurred at 2026-01-31_12-00-00)".
    """
    lines = [line.strip() for line in told.splitlines() if line.strip()]
    starts = [number for number, line in enumerate(lines) if line.startswith("Failure # ")]
    after = lines[starts[-1] + 1 :] if starts else lines
    return after[0] if after else "Ray does not say why"


def _trial(
    config: dict[str, str],
    work: Callable[[Any, Callable[[Any], None]], None],
    as_message: Callable[[str], Any],
) -> None:
    """Run one job in a trial's process."""

    def on_message(message: Any) -> None:
        tune.report({"message": _encode(message)})

    try:
        work(ray.get(_decode(config["spec"])), on_message)
    except RayError:
        raise  # the trial is lost, and Tune tries it again
    except Exception:  # noqa: BLE001 - sent to the driver, which reports it
        on_message(as_message(traceback.format_exc()))


def _encode(message: object) -> str:
    """Return a message as text, because Tune treats the values of a report as metrics."""
    return base64.b64encode(dumps(message)).decode()


def _decode(text: str) -> Any:
    """Return the message that `_encode` encoded."""
    return pickle.loads(base64.b64decode(text))


def _resources() -> dict[str, float]:
    """Return a reservation of the resource for trials, or of the head if there is none."""
    return {"orchestrator": 1} if "orchestrator" in ray.cluster_resources() else HEAD


@contextmanager
def _signals(source: TrialSource[Any], grace_seconds: float) -> Iterator[_Stopping]:
    """Stop the source on a signal that stops jobs, and end Tune once the source is idle.

    Tune ends after `grace_seconds` at the latest, and at once on a second signal.
    """
    stopping = _Stopping()
    if threading.current_thread() is not threading.main_thread():
        yield stopping
        return
    handled = stop_signals()
    before = {number: signal.getsignal(number) for number in (*handled, signal.SIGUSR1)}
    timeout = threading.Timer(grace_seconds, stopping.end)
    timeout.daemon = True

    def stop(number: int, frame: object) -> None:
        if not takes(number, stopping.caught):
            return
        if len(stopping.caught) > 1:
            raise KeyboardInterrupt(number)
        # The signal may also come before Tune runs, or after.
        runs = stopping.tune_runs
        if runs:
            timeout.start()
        source.stop()
        if not runs:
            raise KeyboardInterrupt(number)
        if source.idle:
            stopping.end()

    for number in handled:
        signal.signal(number, stop)
    try:
        yield stopping
    finally:
        timeout.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)
