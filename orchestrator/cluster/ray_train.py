"""Run a function on the workers of a Ray cluster. This is the only file that uses Ray Train.

Ray Train reserves resources for the workers, starts them, connects them with torch.distributed,
notices when one dies and releases the resources. Progress, checkpoints and results are in the
store, where they outlive the cluster. Ray Train's own state is therefore a temporary folder, and
the answer to lost workers is to call `run` again.

Importing Ray takes a second, so the functions import it when they are called.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

from orchestrator.cluster.connection import autoscales, cluster_nodes, connect
from orchestrator.cluster.resources import Resources, check_cluster
from orchestrator.store.base import StoreError
from orchestrator.store.retries import DEFAULT_RETRIES, Retries

if TYPE_CHECKING:
    from training.runtime import Runtime

Result = TypeVar("Result")


class WorkersFailed(Exception):
    """The workers did not finish.

    Attributes:
        reason: What their code raised and would raise again. None when workers died or could not
            reach the store, so that trying again may help.
        details: The traceback.
    """

    def __init__(self, message: str, reason: BaseException | None, details: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.details = details


def run(
    work: "Callable[[Runtime], Result]",
    resources: Resources,
    name: str,
    ask_to_end: Callable[[], None] | None = None,
    retries: Retries = DEFAULT_RETRIES,
) -> Result:
    """Call `work(runtime)` on every worker at once, and return what rank 0 returned.

    Args:
        work: Pickled, and so is its result.
        resources: Of the workers.
        name: Of the run, in Ray's logs.
        ask_to_end: Called on SIGTERM. `work` should then raise within `retries.stop_grace_seconds`.
        retries: How long the workers may take to start and to stop.

    Raises:
        WorkersFailed: The workers did not finish.
        KeyboardInterrupt: A signal came; its argument is the signal's number.
        InputError: The cluster can never hold the workers.
    """
    import ray.train
    from ray.exceptions import RayError
    from ray.train.torch import TorchConfig, TorchTrainer

    connect()
    if not autoscales():
        # An autoscaling cluster is not checked, because Ray Train itself refuses what can never be
        # placed there.
        check_cluster(resources, cluster_nodes())
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(retries.start_seconds))
    gpu = resources.gpus_per_worker > 0
    with TemporaryDirectory(prefix="stepchain-ray-") as disposable:
        trainer = TorchTrainer(
            _on_worker,
            train_loop_config={"work": work, "resources": resources},
            # GPU workers need both: NCCL carries tensors, and gloo carries small Python objects.
            torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if gpu else "gloo"),
            scaling_config=ray.train.ScalingConfig(
                num_workers=resources.workers,
                use_gpu=gpu,
                resources_per_worker=dict(resources.bundle),
            ),
            run_config=ray.train.RunConfig(
                name=name,
                storage_path=disposable,
                failure_config=ray.train.FailureConfig(
                    max_failures=0, controller_failure_limit=retries.controller_failures
                ),
                logging_config=ray.train.LoggingConfig(log_level="WARNING"),
            ),
        )
        try:
            with _interruptible(ask_to_end, retries.stop_grace_seconds):
                return trainer.fit().return_value  # pyright: ignore[reportReturnType]
        except ray.train.WorkerGroupError as error:
            failures = list(error.worker_failures.values())
            raise _explain(failures, str(error)) from error
        except (ray.train.TrainingFailedError, RayError) as error:
            message = "the workers could not be started or were lost"
            raise WorkersFailed(message, None, str(error)) from error


@contextmanager
def _interruptible(ask_to_end: Callable[[], None] | None, grace_seconds: float) -> Iterator[None]:
    """Let SIGINT and SIGTERM stop the workers and then raise KeyboardInterrupt(number).

    Ray Train handles SIGINT alone, ends the process, and leaves its handler behind. On SIGTERM the
    workers get `grace_seconds` if they can be asked to end. A second signal ends them at once.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    caught: list[int] = []
    timeout = threading.Timer(grace_seconds, os.kill, (os.getpid(), signal.SIGINT))
    timeout.daemon = True

    def stop(number: int, frame: object) -> None:
        caught.append(number)
        if ask_to_end is None or len(caught) > 1:
            signal.raise_signal(signal.SIGINT)
        else:
            timeout.start()
            ask_to_end()

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except (SystemExit, KeyboardInterrupt) as error:
        raise KeyboardInterrupt(*caught[:1]) from error
    except Exception as error:
        if caught:  # the workers ended because they were asked to
            raise KeyboardInterrupt(*caught[:1]) from error
        raise
    else:
        if caught:
            raise KeyboardInterrupt(*caught[:1])
    finally:
        timeout.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)


def _explain(failures: Sequence[BaseException], details: str) -> WorkersFailed:
    """Return a WorkersFailed that distinguishes lost workers from code that fails."""
    # When one worker dies, the others fail in ways of their own, so a lost worker is looked for
    # first.
    for failure in failures:
        # Ray's own exceptions are about processes and machines, and not all of their classes are
        # public.
        if type(failure).__module__.startswith("ray.") or isinstance(failure, StoreError | OSError):
            return WorkersFailed(f"workers were lost ({type(failure).__name__})", None, details)
    first = failures[0]
    return WorkersFailed(f"{type(first).__name__}: {first}", first, details)


def _on_worker(config: dict[str, Any]) -> object:
    """Call the work on one worker."""
    import ray.train
    import torch
    from ray.train.torch import get_device

    from training.runtime import Runtime

    resources: Resources = config["resources"]
    context = ray.train.get_context()
    # By default torch uses all cores, and processes that share a machine would then slow each other
    # down.
    torch.set_num_threads(resources.cpus_per_worker)
    runtime = Runtime(
        rank=context.get_world_rank(),
        world_size=context.get_world_size(),
        device=get_device(),
        loader_workers=resources.loader_workers,
        checkpoint_every=resources.checkpoint_every,
    )
    return config["work"](runtime)
