"""Say in words what workers get, and how much of a cluster that takes."""

import math
from typing import TYPE_CHECKING

from orchestrator.cluster.give import parse_custom
from orchestrator.cluster.packing import Machines, workers_on

if TYPE_CHECKING:
    from orchestrator.cluster.resources import Resources


def describe(resources: "Resources", machines: Machines, of: str = "step") -> str:
    """Return a sentence about what each worker gets, on which machines, and how many steps fit.

    Args:
        resources: What each worker gets.
        machines: Of the cluster.
        of: What is at most so often at once.
    """
    kinds = machines.held(resources)
    place = f" on {', '.join(kinds)}" if kinds else ""
    steps = max(1, machines.steps(resources))
    number = f"up to {steps} {of}{'s' * (steps > 1)} at once"
    return f"each worker gets {shares(resources)}{place}; {number}{_idle_gpus(resources, machines)}"


def _idle_gpus(resources: "Resources", machines: Machines) -> str:
    """Say how many GPUs can get no worker, "" if all can or no worker uses one."""
    share = resources.gpus_per_worker
    fitting = [node for node in machines.largest(resources) if node.get("GPU")] or [
        node for node in machines.living if node.get("GPU")
    ]
    gpus = sum(int(node["GPU"]) for node in fitting)
    used = math.ceil(sum(workers_on(resources, node) for node in fitting) * share)
    if not share or resources.accelerator or resources.custom_resources or used >= gpus:
        return ""
    return f"; {gpus - used} of {gpus} GPUs stay idle, as CPUs or memory are too few beside them"


def shares(resources: "Resources") -> str:
    """Return what each worker gets in words: 1 A100 GPU and 8 CPUs."""
    gpus, cpus = resources.gpus_per_worker, resources.cpus_per_worker
    parts = []
    if gpus:
        name = f"{resources.accelerator} GPU" if resources.accelerator else "GPU"
        parts.append(f"{gpus:g} {name}{'s' * (gpus > 1)}")
    parts.append(f"{cpus} CPU{'s' * (cpus > 1)}")
    if resources.memory_per_worker:
        parts.append(f"{resources.memory_per_worker:g} GB of memory")
    for name, amount in parse_custom(resources.custom_resources).items():
        parts.append(f"{amount:g} {name}")
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last
