"""Run a function over many items as plain Ray tasks, or once on every machine of the cluster."""

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Generic, NamedTuple, TypeVar

from orchestrator.cluster.connection import connect

Item = TypeVar("Item")
Result = TypeVar("Result")
# A fraction of a GPU, because a task that asks for no GPU sees none.
SMALLEST_GPU = 0.001
# So many tasks run or wait at least: an autoscaler's cluster may have no CPU yet.
FEWEST = 16


class NodeAnswer(NamedTuple, Generic[Result]):
    """What a function returned on one machine."""

    result: Result
    gpus: float  # that Ray counts on the machine
    asked: float  # Unix time of this machine before the call
    answered: float  # and after it


class NodeFailure(NamedTuple):
    """Why a machine gave no answer."""

    host: str
    reason: str


def run_tasks(
    function: Callable[[Item], Result], items: Iterable[Item]
) -> Iterator[tuple[Item, Result]]:
    """Call `function(item)` on one CPU for each item, and yield the results as they come.

    When the caller stops early, or a task fails, no further tasks start. Two for each CPU of the
    cluster run or wait at a time, so that an autoscaler sees that there is more to do.

    Args:
        function: Pickled, and sent to each machine once.
        items: Pickled.

    Yields:
        Each item with its result.

    Raises:
        Exception: What `function` raised.
    """
    import ray
    from ray.exceptions import RayTaskError

    connect()
    # An object of the store travels once to each machine, and a task's argument with each task.
    shared = ray.put(function)
    task = ray.remote(num_cpus=1, num_gpus=0)(_call)
    # When one fails, those that run end by themselves. To cancel them could abort this process: Ray
    # does that when a task ends in the same moment.
    left = iter(items)
    running: dict[Any, Item] = {}
    while True:
        at_once = max(FEWEST, 2 * int(ray.cluster_resources().get("CPU", 0)))
        for item in islice(left, max(0, at_once - len(running))):
            running[task.remote(shared, item)] = item
        if not running:
            return
        (ready, *_), _ = ray.wait(list(running))
        try:
            result = ray.get(ready)
        except RayTaskError as error:
            raise error.cause from error
        yield running.pop(ready), result


def run_on_every_node(
    function: Callable[[], Result], timeout: float
) -> list[NodeAnswer[Result] | NodeFailure]:
    """Call `function()` on each living machine, one after the other, and return the answers.

    A machine that does not answer, or where the function raises, does not keep others from theirs.

    Args:
        function: Pickled. It runs without a reserved CPU, so that it runs on a busy machine too.
        timeout: Seconds for a machine to answer.
    """
    import ray

    connect()
    shared = ray.put(function)
    living = [node for node in ray.nodes() if node["Alive"]]
    return [_ask(node, shared, timeout) for node in living]


def _ask(node: dict[str, Any], function: Any, timeout: float) -> NodeAnswer[Any] | NodeFailure:
    """Call a function of Ray's object store on one machine."""
    import ray
    from ray.exceptions import GetTimeoutError, RayError, RayTaskError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    gpus = node["Resources"].get("GPU", 0)
    task: Any = ray.remote(_run)
    pinned = task.options(
        num_cpus=0,
        num_gpus=SMALLEST_GPU if gpus else 0,
        scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
    )
    asked = time.time()
    answer = pinned.remote(function)
    try:
        return NodeAnswer(ray.get(answer, timeout=timeout), gpus, asked, time.time())
    except GetTimeoutError:
        ray.cancel(answer, force=True)
        reason = f"does not answer within {timeout:g} s"
    except RayTaskError as error:
        reason = f"{type(error.cause).__name__}: {error.cause}"
    except RayError as error:
        reason = f"{type(error).__name__}: {error}"
    return NodeFailure(node["NodeManagerHostname"], " ".join(reason.split())[:400])


def _call(function: Callable[[Any], Any], item: Any) -> Any:
    """Run one task."""
    return function(item)


def _run(function: Callable[[], Any]) -> Any:
    """Run the task of one machine."""
    return function()
