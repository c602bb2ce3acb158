"""What a campaign changes in Ray Tune while it runs: its output, what it tells, what ends it, and
how its processes start.

Four of these rest on names inside Ray. Tests say when they change.
"""

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import ray
from ray._private import worker as ray_worker
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.tune.execution import class_cache
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial

# So many processes of trials start at once, which takes each some seconds on the head.
STARTS = 8
# A trial whose process is not there after this long takes any that is free.
START_SECONDS = 60.0


@contextmanager
def changed_tune() -> Iterator[None]:
    """Make all changes of this module."""
    with quiet(), keyless(), losses_end_trials(), processes_start_side_by_side():
        yield


@contextmanager
def quiet() -> Iterator[None]:
    """Turn off Tune's output, and its handling of signals (see `ray_tune._signals`)."""
    changed = {
        "RAY_AIR_NEW_OUTPUT": "0",
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
    }
    log = logging.getLogger("ray.tune")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with _variables(changed):
            yield
    finally:
        log.setLevel(level)


@contextmanager
def keyless() -> Iterator[None]:
    """Keep AWS keys out of the trials' runtime environment, because Ray logs it.

    Each machine has its own keys.
    """
    before = class_cache.ENV_VARS_TO_PROPAGATE
    class_cache.ENV_VARS_TO_PROPAGATE = {name for name in before if not name.startswith("AWS_")}
    try:
        yield
    finally:
        class_cache.ENV_VARS_TO_PROPAGATE = before


@contextmanager
def losses_end_trials() -> Iterator[None]:
    """Let Tune take whatever Ray raises of a lost process as the loss of that trial.

    Tune knows one such exception, of an actor that died. Another one, as of a process that was
    killed because the machine is short of memory, ends Tune with all trials. A test says when the
    method that is replaced here changes.
    """
    original = RayActorManager._actor_task_failed

    def failed(self: RayActorManager, tracked_actor_task: Any, exception: Exception) -> None:
        known = isinstance(exception, RayActorError | RayTaskError)
        if isinstance(exception, RayError) and not known:
            exception = RayActorError(error_msg=f"{type(exception).__name__}: {exception}")
        original(self, tracked_actor_task, exception)

    RayActorManager._actor_task_failed = failed
    try:
        yield
    finally:
        RayActorManager._actor_task_failed = original


@contextmanager
def processes_start_side_by_side() -> Iterator[None]:
    """Let several processes start at once, and each serve the trial for which it starts.

    By itself Tune starts one at a time. If a running trial ends meanwhile, Tune gives its process
    to the trial that waits, and ends the one that starts. So where trials end more often than a
    process takes to start, no further one ever comes up, and the cluster stays idle. Here the free
    process serves the next trial. A test says when the method that is replaced here changes.
    """
    original = TuneController._maybe_reuse_cached_actor
    starting: WeakKeyDictionary[Any, float] = WeakKeyDictionary()

    def reuse(self: TuneController, trial: Trial) -> bool:
        process = self._trial_to_actor.get(trial)
        if process is not None and trial not in self._resetting_trials:
            began = starting.setdefault(process, time.monotonic())
            if time.monotonic() - began < START_SECONDS:
                return False
        return original(self, trial)

    at_once = os.environ.get("TUNE_MAX_PENDING_TRIALS_PG", str(STARTS))
    TuneController._maybe_reuse_cached_actor = reuse
    try:
        with _variables({"TUNE_MAX_PENDING_TRIALS_PG": at_once}):
            yield
    finally:
        TuneController._maybe_reuse_cached_actor = original


@contextmanager
def _variables(changed: dict[str, str]) -> Iterator[None]:
    """Set variables of this process, and set them back afterwards."""
    before = {name: os.environ.get(name) for name in changed}
    os.environ |= changed
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def forget(handle: ray.ObjectRef) -> None:
    """Let Ray drop an object whose handle was pickled once, which would keep it for ever."""
    core: Any = ray_worker.global_worker
    core.core_worker.remove_object_ref_reference(handle)
