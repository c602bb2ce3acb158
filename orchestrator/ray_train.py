"""Run a function on the workers of a Ray cluster, as Ray Train starts them; the only file that knows TorchTrainer.

Ray Train finds room for the workers, starts them, connects them with torch.distributed, notices when one dies and gives the room
back. Nothing is reported to it and nothing is kept by it: progress, checkpoints and results are in the store, where
they outlive the cluster. So its own state is a folder that is thrown away, and a worker that is lost is answered by calling again.
"""

import os
from collections.abc import Callable
from tempfile import TemporaryDirectory
from typing import TypeVar

import ray
import ray.train
import torch
from ray.exceptions import RayError
from ray.train.torch import TorchConfig, TorchTrainer, get_device

from orchestrator.resources import Resources, autoscales, check_cluster, cluster_nodes, connect
from orchestrator.store import StoreError
from training.runtime import Runtime

Result = TypeVar("Result")
START_SECONDS = 600  # to find room for the workers, and then to start them, before it counts as a failure


class WorkersLost(Exception):
    """Workers died, or could not reach what they need: trying again may help."""


class TrainingFailed(Exception):
    """The workers' code raised an error, and would raise it again; `details` holds the traceback."""

    def __init__(self, reason: BaseException, details: str) -> None:
        super().__init__(f"{type(reason).__name__}: {reason}")
        self.reason = reason
        self.details = details


def run(work: Callable[[Runtime], Result], resources: Resources, name: str) -> Result:
    """Call `work(runtime)` on every worker at once; returns what rank 0 returned. Results are pickled, and so is `work`.

    Raises WorkersLost, or TrainingFailed with what the workers raised, or ValueError when the cluster can never hold the workers.
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
                num_workers=resources.workers, use_gpu=gpu, resources_per_worker=dict(resources.bundle)
            ),
            run_config=ray.train.RunConfig(
                name=name,
                storage_path=disposable,
                failure_config=ray.train.FailureConfig(max_failures=0, controller_failure_limit=3),
                logging_config=ray.train.LoggingConfig(log_level="WARNING"),
            ),
        )
        try:
            return trainer.fit().return_value  # pyright: ignore[reportReturnType]
        except ray.train.WorkerGroupError as error:
            failures = list(error.worker_failures.values())
            # When one worker dies the others fail with it, in ways of their own.
            if any(isinstance(failure, RayError | StoreError | OSError) for failure in failures):
                raise WorkersLost(str(error)) from error
            raise TrainingFailed(failures[0], str(error)) from error
        except (ray.train.TrainingFailedError, RayError) as error:
            raise WorkersLost(str(error)) from error


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
