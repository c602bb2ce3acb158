"""Wait until Ray runs on every node of an allocation: `python -m infra.slurm.wait_for_nodes 4`."""

import logging
import sys
import time
from collections.abc import Callable

import ray

SECONDS = 300  # that the nodes may take to start Ray


def wait_for_nodes(
    wanted: int,
    living: Callable[[], int],
    seconds: float = SECONDS,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Return once there are so many nodes.

    Args:
        wanted: Nodes of the allocation.
        living: Returns how many nodes of Ray's there are, and 0 while Ray does not answer.
        seconds: How long to wait.
        clock: Returns seconds.
        sleep: Waits so many seconds.

    Raises:
        TimeoutError: Some nodes did not come.
    """
    end = clock() + seconds
    while (found := living()) < wanted:
        if clock() >= end:
            raise TimeoutError(
                f"Ray runs on {found} of {wanted} nodes after {seconds:g} s: look above for what "
                "`ray start` says, and whether the nodes reach the first one"
            )
        sleep(1)


def count_living() -> int:
    """Return how many nodes Ray has, or 0 while it does not answer."""
    try:
        if not ray.is_initialized():
            ray.init("auto", log_to_driver=False, logging_level=logging.ERROR)
    except ConnectionError:
        return 0
    return sum(node["Alive"] for node in ray.nodes())


if __name__ == "__main__":
    try:
        wait_for_nodes(int(sys.argv[1]), count_living)
    except TimeoutError as error:
        sys.exit(str(error))
