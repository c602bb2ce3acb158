"""Run a function on the workers of a Ray cluster, as Ray Train starts them; the only file that knows TorchTrainer.

Ray Train finds room for the workers, starts them, connects them with torch.distributed, notices when one dies and gives the
room back. Nothing is reported to it and nothing is kept by it: progress, checkpoints and results are in the store, where they
outlive the cluster. So its own state is a folder that is thrown away, and the answer to lost workers is to call again.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import TypeVar

import ray
import ray.train
import torch
from ray.exceptions import RayError
from ray.train.torch import TorchConfig, TorchTrainer, get_device

from orchestrator.cluster.connection import autoscales, cluster_nodes, connect
from orchestrator.cluster.resources import Resources, check_cluster
from orchestrator.store.base import StoreError
from orchestrator.store.lease import GRACE_SECONDS
from training.runtime import Runtime

Result = TypeVar("Result")
START_SECONDS = (
    600  # to find room for the workers, and then to start them, before it counts as a failure
)


class WorkersFailed(Exception):
    """The workers did not finish.

    `reason`: what their code raised and would raise again; None when workers died or could not reach the store, and trying
    again may help. `details`: the traceback.
    """

    def __init__(self, message: str, reason: BaseException | None, details: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.details = details


def run(
    work: Callable[[Runtime], Result],
    resources: Resources,
    name: str,
    ask_to_end: Callable[[], None] | None = None,
) -> Result:
    """Call `work(runtime)` on every worker at once; returns what rank 0 returned. Results are pickled, and so is `work`.

    `ask_to_end`: called on SIGTERM, whereupon `work` should raise within GRACE_SECONDS.
    Raises WorkersFailed, KeyboardInterrupt, and InputError when the cluster can never hold the workers.
    """
    connect()
    if not autoscales():
        check_cluster(resources, cluster_nodes())
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(START_SECONDS))
    gpu = resources.gpus_per_worker > 0
    with TemporaryDirectory(prefix="stepchain-ray-") as disposable:
        trainer = TorchTrainer(
            _on_worker,
            train_loop_config={"work": work, "resources": resources},
            # On GPUs both: tensors travel by NCCL, and what is small and in no tensor by gloo.
            torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if gpu else "gloo"),
            scaling_config=ray.train.ScalingConfig(
                num_workers=resources.workers,
                use_gpu=gpu,
                resources_per_worker=dict(resources.bundle),
            ),
            run_config=ray.train.RunConfig(
                name=name,
                storage_path=disposable,
                failure_config=ray.train.FailureConfig(max_failures=0, controller_failure_limit=3),
                logging_config=ray.train.LoggingConfig(log_level="WARNING"),
            ),
        )
        try:
            with _interruptible(ask_to_end):
                return trainer.fit().return_value  # pyright: ignore[reportReturnType]
        except ray.train.WorkerGroupError as error:
            raise _explained(error) from error
        except (ray.train.TrainingFailedError, RayError) as error:
            raise WorkersFailed(
                "the workers could not be started or were lost", None, str(error)
            ) from error


@contextmanager
def _interruptible(ask_to_end: Callable[[], None] | None) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM stop the workers and then raise KeyboardInterrupt(number).

    Ray Train listens to Ctrl-C alone, leaves the process, and its handler stays. SIGTERM leaves the workers some time if they
    can be asked to end, once.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    caught: list[int] = []

    patience = threading.Timer(GRACE_SECONDS, os.kill, (os.getpid(), signal.SIGINT))
    patience.daemon = True

    def stop(number: int, frame: object) -> None:
        caught.append(number)
        if ask_to_end is None or len(caught) > 1:
            signal.raise_signal(signal.SIGINT)
        else:
            patience.start()
            ask_to_end()

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except (SystemExit, KeyboardInterrupt) as error:
        raise KeyboardInterrupt(*caught[:1]) from error
    except Exception as error:  # the workers ended, as they were asked to
        if caught:
            raise KeyboardInterrupt(*caught[:1]) from error
        raise
    else:
        if caught:
            raise KeyboardInterrupt(*caught[:1])
    finally:
        patience.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)


def _explained(error: ray.train.WorkerGroupError) -> WorkersFailed:
    """Tell workers that were lost from code that fails."""
    failures = list(error.worker_failures.values())
    # When one worker dies the others fail with it, each in its own way, so the one tells more than the others.
    for failure in failures:
        # What Ray raises itself is about processes and machines, and its classes are not all public.
        if type(failure).__module__.startswith("ray.") or isinstance(failure, StoreError | OSError):
            return WorkersFailed(f"workers were lost ({type(failure).__name__})", None, str(error))
    return WorkersFailed(f"{type(failures[0]).__name__}: {failures[0]}", failures[0], str(error))


def _on_worker(config: dict) -> object:
    """What each worker runs."""
    resources: Resources = config["resources"]
    context = ray.train.get_context()
    # Processes that share a machine each take torch's default of all its cores, and stand in each other's way.
    torch.set_num_threads(resources.cpus_per_worker)
    runtime = Runtime(
        rank=context.get_world_rank(),
        world_size=context.get_world_size(),
        device=get_device(),
        loader_workers=resources.loader_workers,
        checkpoint_every=resources.checkpoint_every,
    )
    return config["work"](runtime)
