"""Say what each worker gets, and refuse steps that no machine can hold, before any is trained."""

from collections.abc import Sequence

from orchestrator.cluster.connection import connect
from orchestrator.cluster.give import Kind, step_kind
from orchestrator.cluster.machines import machines
from orchestrator.cluster.resource_words import describe
from orchestrator.cluster.resources import Resources
from orchestrator.execution.context import RunContext
from orchestrator.planning.memory import MemoryNeed, check_memory


def check_machines(needs: Sequence[MemoryNeed], context: RunContext) -> None:
    """Print what each worker gets; start Ray to see the machines.

    A cluster that adds machines by itself is not judged by the memory of those that it has now.

    Args:
        needs: The most that a step needs, of each kind. Empty: nothing is to be trained.
        context: The resources that are asked for.

    Raises:
        InputError: The cluster can never hold the workers, or no machine has the memory.
    """
    if not needs:
        return
    connect()
    found = machines()
    given: dict[Kind, Resources] = {}
    for need in needs:
        kind = step_kind(need.planned.index)
        given[kind] = context.resources(kind)
        if found.fixed:
            check_memory(need, given[kind], found.living)
    if not context.request.give:
        context.notify(describe(context.resources(), found))
        return
    if context.request.gives("evaluation"):
        given["evaluation"] = context.resources("evaluation")
    for kind, resources in given.items():
        context.notify(f"{kind}: {describe(resources, found, kind)}")
