"""Start a team of workers with Ray Train. This is the only file that uses Ray Train.

Ray Train reserves resources for the workers, starts them, connects them with torch.distributed,
notices when one dies and releases the resources. That takes 8 to 15 seconds. The function it runs
therefore takes one piece of work after another from a mailbox, and the workers leave when nothing
arrives for a while. What a piece of work raises ends the team.

Progress, checkpoints and results are in the store, where they outlive the cluster. Ray Train's own
state is therefore a temporary folder, and the answer to a lost team is to start another.

Importing Ray takes a second, so the functions import it when they are called.
"""

import logging
import os
import pickle
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from orchestrator.cluster.failures import NeverStarted, WorkersFailed, judge
from orchestrator.cluster.mailbox import Mailbox
from orchestrator.cluster.resources import Resources
from orchestrator.cluster.waiting import Waiting
from orchestrator.store.cache import default_cache
from orchestrator.store.retries import Retries

if TYPE_CHECKING:
    import ray
    from ray.train.torch import TorchTrainer

    from training.runtime import Runtime

log = logging.getLogger(__name__)
LOOK_SECONDS = 0.5  # between looks whether a team that works still lives
# Parts of Ray Train that a team does without, each a process: one hands out Ray datasets, and one
# does a part of what `lost_rooms` does.
LEFT_OUT = {"DatasetsCallback", "PlacementGroupCleanerCallback"}


class Team:
    """Workers of one Ray Train run, which do one piece of work after another.

    Attributes:
        resources: Of the workers.
        busy: Whether a piece of work is being done. The owner of the team sets it.
    """

    def __init__(self, resources: Resources, retries: Retries) -> None:
        """Start the workers in the background.

        Args:
            resources: Of the workers.
            retries: How long they may take to start, and how long they stay without work.
        """
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self.resources = resources
        self.busy = False
        self._retries = retries
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        actor: Any = ray.remote(Mailbox)
        self._mailbox = actor.options(num_cpus=0, scheduling_strategy=here).remote()
        self._failure: BaseException | None = None
        self._room: bytes | None = None  # what names the resources of the workers
        self._thread = threading.Thread(target=self._fit, daemon=True, name="stepchain-team")
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Return whether the workers are starting, working or waiting for work."""
        return self._thread.is_alive()

    def give(self, work: "Callable[[Runtime], object]") -> int | None:
        """Give the team a piece of work, which all workers do at once.

        Returns:
            Its number, or None when the team is leaving.

        Raises:
            WorkersFailed: The team is lost.
        """
        import ray
        from ray.exceptions import RayError

        pickled = _pickle(work)
        try:
            return ray.get(self._mailbox.give.remote(pickled))
        except RayError as error:
            raise _lost(error) from error

    def started(self, waiting: Waiting) -> bool:
        """Wait until the workers have started. Return False if the team is leaving.

        Args:
            waiting: Is told what happens meanwhile.

        Raises:
            NeverStarted: No room was found for the workers in time.
            WorkersFailed: They could not be started.
        """
        look = partial(waiting.look, self.resources, self._retries)
        room = self._await(self._mailbox.started.remote(), look)
        self._room = room or self._room
        return room is not None

    def result(self, number: int) -> Any:
        """Return what rank 0 returned for the piece of work with this number.

        Raises:
            WorkersFailed: The workers did not finish.
        """
        return pickle.loads(self._await(self._mailbox.result.remote(number)))

    def leave(self, wait_seconds: float) -> None:
        """Let the workers leave after their present work, and wait for it if they have started."""
        from ray.exceptions import RayError

        # Without their mailbox the workers leave, too.
        started = False
        with suppress(RayError):
            started = _get(self._mailbox.close.remote())
        self._thread.join(wait_seconds if started else 0)

    def _await(self, answer: "ray.ObjectRef", meanwhile: Callable[[], None] = lambda: None) -> Any:
        """Return the mailbox's answer. Raise WorkersFailed if the team ends before it comes."""
        import ray
        from ray.exceptions import RayError

        try:
            while not ray.wait([answer], timeout=LOOK_SECONDS)[0]:
                if not self.alive:
                    raise _explain(self._failure)
                meanwhile()
            return _get(answer)
        except RayError as error:
            # Workers that are at work notice only at its end that their mailbox is lost.
            self._give_room_back()
            raise _lost(error) from error

    def _fit(self) -> None:
        """Run Ray Train until the workers have left, and keep what ended it."""
        with TemporaryDirectory(prefix="stepchain-ray-") as disposable:
            try:
                _trainer(self.resources, self._mailbox, disposable, self._retries).fit()
            # Ray raises SystemExit in a thread that waits when this process leaves the cluster.
            except (Exception, SystemExit) as error:  # noqa: BLE001 - raised by `result`
                self._failure = error
                self._give_room_back()

    def _give_room_back(self) -> None:
        """Remove the placement group, which outlives a killed controller, and end its workers."""
        import ray
        from ray.exceptions import RayError
        from ray.util import remove_placement_group

        if not ray.is_initialized():
            return  # this process has left the cluster, which ends all that it started
        try:
            room = self._room or _get(self._mailbox.room.remote())
            if room:
                remove_placement_group(pickle.loads(room))
        except RayError as error:
            log.warning("the resources of lost workers may still be reserved: %s", error)


def _trainer(
    resources: Resources, mailbox: Any, disposable: str, retries: Retries
) -> "TorchTrainer":
    import ray.train
    from ray.train.torch import TorchConfig

    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(retries.start_seconds))
    gpu = resources.gpus_per_worker > 0
    # NCCL carries tensors between GPUs, and gloo small Python objects. One worker needs neither.
    backend = "cpu:gloo,cuda:nccl" if gpu and resources.workers > 1 else "gloo"
    return _lean_trainer()(
        _work_until_idle,
        train_loop_config={
            "mailbox": mailbox,
            "resources": resources,
            "idle_seconds": retries.team_idle_seconds,
        },
        torch_config=TorchConfig(backend=backend),
        scaling_config=ray.train.ScalingConfig(
            num_workers=resources.workers,
            use_gpu=gpu,
            resources_per_worker=dict(resources.bundle),
            placement_strategy=resources.placement,
        ),
        run_config=ray.train.RunConfig(
            name="team",
            storage_path=disposable,
            # Workers that Ray Train starts again would begin with the team's first piece of work,
            # whose step is published. A lost team is answered by another one instead.
            failure_config=ray.train.FailureConfig(
                max_failures=0,
                max_preemption_failures=0,
                controller_failure_limit=retries.controller_failures,
            ),
            logging_config=ray.train.LoggingConfig(log_level="WARNING"),
        ),
    )


def _lean_trainer() -> "type[TorchTrainer]":
    """Return a TorchTrainer that starts no process that a team does not need.

    It rests on the names of two parts inside Ray Train. A test says when they change; until then
    such a process would start again and cost a second or two.
    """
    from ray.train.torch import TorchTrainer

    class LeanTrainer(TorchTrainer):
        def _create_default_callbacks(self) -> list[Any]:
            callbacks = super()._create_default_callbacks()
            return [each for each in callbacks if type(each).__name__ not in LEFT_OUT]

    return LeanTrainer


def _work_until_idle(config: dict[str, Any]) -> None:
    """Do one piece of work after another on a worker, until none has come for a while."""
    import ray
    import ray.train
    import torch
    from ray.train.torch import get_device

    from training.allocator import give_memory_back
    from training.runtime import Runtime

    resources: Resources = config["resources"]
    mailbox = config["mailbox"]
    context = ray.train.get_context()
    # By default torch uses all cores, and processes that share a machine would then slow each other
    # down.
    torch.set_num_threads(resources.cpus_per_worker)
    device = get_device()
    share = resources.gpus_per_worker
    if torch.cuda.is_available() and 0 < share < 1:
        # Then a step that needs more than its share fails alone, and not its neighbours.
        torch.cuda.set_per_process_memory_fraction(share, device)
    runtime = Runtime(
        rank=context.get_world_rank(),
        world_size=context.get_world_size(),
        device=device,
        gpu_share=min(1.0, share) or 1.0,
        loader_workers=resources.loader_workers,
        checkpoint_every=resources.checkpoint_every,
        compile_cache=default_cache() / "compiled" if resources.compile else None,
    )
    if runtime.leads:
        room = _pickle(ray.util.get_current_placement_group())
        ray.get(mailbox.set_room.remote(room))
    number = 0
    rank = runtime.rank
    while pickled := _get(mailbox.take.remote(rank, number, config["idle_seconds"])):
        result = pickle.loads(pickled)(runtime)
        if runtime.leads:
            ray.get(mailbox.put.remote(number, _pickle(result)))
        del result
        give_memory_back(runtime.device)
        number += 1


def _get(reference: Any) -> Any:
    """Return what an actor's method returned."""
    import ray

    return ray.get(reference)


def _pickle(value: object) -> bytes:
    """Pickle a value with Ray's pickler, which takes functions of the main program by value."""
    from ray import cloudpickle

    return cloudpickle.dumps(value)  # pyright: ignore[reportPrivateImportUsage]


def _lost(error: BaseException) -> WorkersFailed:
    """Return what to raise when the mailbox is lost. Workers without a mailbox leave."""
    return WorkersFailed("the workers could not be started or were lost", None, str(error))


def _explain(failure: BaseException | None) -> WorkersFailed:
    """Return a WorkersFailed that distinguishes lost workers from code that fails."""
    from ray.train import ControllerError, WorkerGroupError
    from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError

    if isinstance(failure, ControllerError) and isinstance(
        failure.controller_failure, WorkerGroupStartupTimeoutError
    ):
        return NeverStarted("no room was found for the workers", None, str(failure))
    if not isinstance(failure, WorkerGroupError):
        return _lost(failure or RuntimeError("Ray Train ended before its work"))
    return judge(list(failure.worker_failures.values()), str(failure))
