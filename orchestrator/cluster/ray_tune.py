"""Run a tree of jobs as Ray Tune trials, each as soon as what it waits for is done; the only file that knows Ray Tune.

Tune asks a search algorithm for the next trial whenever it can start one. Ours (`_SearchAlgorithm`) passes the question to a `Desk`, which
knows the tree: it names a job, or none for now, which Tune takes as "ask again later". Trials run on processes that are used
again and again. They hold no CPU and no GPU, or the workers that they start would wait for ever for what their trial keeps.

Nothing of Tune's is kept: what jobs leave is in the store, its folder is thrown away, and resuming is running again.
"""

import base64
import logging
import os
import pickle
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

Message = TypeVar("Message", contravariant=True)
Spec = TypeVar("Spec")
HEAD = {"node:__internal_head__": 0.001}  # every cluster has it: trials run beside its head


class TrialSource(Protocol[Message]):
    """Decides which job comes next, and takes what becomes of it. All calls come from one thread."""

    @property
    def finished(self) -> bool:
        """Whether nothing runs and nothing is left to run."""
        ...

    def next(self) -> str | None:
        """Return the job to start now, or None while there is none."""
        ...

    def on_message(self, id: str, message: Message) -> None:
        """Take a message of a running job."""
        ...

    def on_end(self, id: str, lost: bool) -> None:
        """Take note that a job is over. `lost`: its process died, as often as is tolerated."""
        ...

    def stop(self) -> None:
        """Name no more jobs, and ask the running ones to end gracefully."""
        ...

    @property
    def idle(self) -> bool:
        """Whether no running job would lose work if it was stopped now."""
        ...

    def on_stopped(self) -> None:
        """Take note that no job runs any more though not all were finished."""
        ...


def run(
    source: TrialSource[Message],
    work: Callable[[Spec, Callable[[Message], None]], None],
    specs: Mapping[str, Spec],
    losses: int,
    as_message: Callable[[str], Message],
) -> None:
    """Call `work(spec, on_message)` in a process of the cluster for each job the source names, until it is finished.

    Messages travel pickled, and their meaning is unknown here.

    Args:
        source: Names the jobs and takes their messages.
        work: Runs one job; pickled.
        specs: What each job is given, by id; pickled.
        losses: How often a job whose process dies is started again.
        as_message: Makes a message of the traceback of what `work` raised; pickled.

    Raises:
        KeyboardInterrupt: With the signal's number, on SIGINT and SIGTERM; all trials are stopped then.
    """
    handles = {id: ray.put(spec) for id, spec in specs.items()}
    trial = tune.with_resources(
        tune.with_parameters(_trial, work=work, handles=handles, as_message=as_message),
        _resources(),
    )
    with (
        TemporaryDirectory(prefix="stepchain-tune-") as disposable,
        _quiet(),
        _keyless(),
        _signals(source) as stopping,
    ):
        tuner = tune.Tuner(
            trial,
            tune_config=tune.TuneConfig(
                search_alg=_SearchAlgorithm(source, stopping), num_samples=-1, reuse_actors=True
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
            if not source.finished:
                source.on_stopped()
    if not source.finished:  # Tune takes a signal as the wish to end well, and returns
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


class _SearchAlgorithm(Searcher):
    """Tune's search algorithm: it searches nothing."""

    def __init__(self, source: TrialSource[Any], stopping: _Stopping) -> None:
        super().__init__()
        self._source, self._stopping = source, stopping
        self._jobs: dict[str, str] = {}  # by trial

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its search algorithm to resume from; a campaign resumes from the store."""
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        job = self._source.next()
        if job is None:
            return Searcher.FINISHED if self._source.finished else None
        self._jobs[trial_id] = job
        return {"job": job}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        self._source.on_message(self._jobs[trial_id], _decode(result["message"]))
        self._end_when_idle()

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        self._source.on_end(self._jobs[trial_id], lost=error)
        self._end_when_idle()

    def _end_when_idle(self) -> None:
        if self._stopping.caught and self._source.idle:
            self._stopping.end()

    def save(self, checkpoint_path: str) -> None:
        """Nothing, for the same reason."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, as nothing was saved."""


def _trial(
    config: dict[str, str],
    work: Callable[[Any, Callable[[Any], None]], None],
    handles: dict[str, ray.ObjectRef],
    as_message: Callable[[str], Any],
) -> None:
    """Run one job; this is what a trial's process executes."""

    def on_message(message: Any) -> None:
        tune.report({"message": _encode(message)})

    try:
        work(ray.get(handles[config["job"]]), on_message)
    except Exception:  # noqa: BLE001 - sent to the driver, which reports it
        on_message(as_message(traceback.format_exc()))


def _encode(message: object) -> str:
    """Return a message as text, because Tune treats the values of a report as metrics."""
    return base64.b64encode(pickle.dumps(message)).decode()


def _decode(text: str) -> Any:
    """Return the message that `_encode` made text of."""
    return pickle.loads(base64.b64decode(text))


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
def _signals(source: TrialSource[Any]) -> Iterator[_Stopping]:
    """SIGTERM, with which schedulers stop jobs, ends a campaign as Ctrl-C does: when the source is still, or patience at its end.

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
        source.stop()
        if not runs:
            raise KeyboardInterrupt(number)
        if source.idle:
            stopping.end()

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    try:
        yield stopping
    finally:
        patience.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)
