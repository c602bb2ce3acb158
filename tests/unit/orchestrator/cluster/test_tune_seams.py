"""What is changed inside Ray Tune is still there to be changed."""

from types import SimpleNamespace

import pytest
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import (
    ActorDiedError,
    NodeDiedError,
    OutOfMemoryError,
    OwnerDiedError,
    RayActorError,
    RayError,
    WorkerCrashedError,
)

from orchestrator.cluster.tune_seams import losses_end_trials


def lose(error: Exception) -> list[Exception]:
    """Let a task of an actor fail, and return what Tune hears of it."""
    heard: list[Exception] = []

    def hear(actor: object, exception: Exception) -> None:
        heard.append(exception)

    actor = SimpleNamespace(actor_id=1, _on_error=None)
    task = SimpleNamespace(_tracked_actor=actor, _on_error=hear)
    manager = SimpleNamespace(_failed_actor_ids=set(), _cleanup_actor=lambda tracked_actor: None)
    RayActorManager._actor_task_failed(
        manager,  # pyright: ignore[reportArgumentType]
        tracked_actor_task=task,  # pyright: ignore[reportArgumentType]
        exception=error,
    )
    return heard


@pytest.mark.parametrize(
    "error",
    [
        OutOfMemoryError("the node is short of memory"),
        NodeDiedError("the node is gone"),
        OwnerDiedError("ff", owner_address=b"", call_site=""),
        WorkerCrashedError(),
        ActorDiedError(),
    ],
)
def test_whatever_ray_raises_of_a_lost_process_is_the_loss_of_a_trial(error: RayError):
    with losses_end_trials():
        (heard,) = lose(error)
    assert isinstance(heard, RayActorError)
    if not isinstance(error, RayActorError):
        assert type(error).__name__ in str(heard)


def test_without_the_change_tune_would_end():
    with pytest.raises(RuntimeError, match="unexpected exception"):
        lose(OutOfMemoryError("the node is short of memory"))


def test_a_fault_of_tunes_own_still_ends_it():
    with losses_end_trials(), pytest.raises(RuntimeError, match="unexpected exception"):
        lose(ValueError("a fault"))
