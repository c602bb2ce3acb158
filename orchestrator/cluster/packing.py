"""Define the machines of a cluster, and count what fits on them at once.

Ray gives fractions of a GPU from one GPU: two workers with 0.4 of one share it, and a third needs
another GPU although 0.2 of the first is left.

This module is pure and does not import Ray.
"""

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from orchestrator.cluster.resources import Resources

# The resources of a machine of the cluster by name: CPU, GPU, memory, ...
Node = dict[str, float]
HEAD = "node:__internal_head__"  # a resource that only the head has
TINY = 1e-6  # amounts are floats: ten times 0.1 is 1


class NodeType(NamedTuple):
    """A kind of machine that an autoscaler adds when it is needed."""

    name: str
    resources: Node
    most: int  # machines of this kind at once


class Growth(NamedTuple):
    """What an autoscaler can add to a cluster."""

    types: tuple[NodeType, ...]  # empty on a cluster of fixed size
    most: int  # machines of all kinds at once
    known: bool = True  # False where the autoscaler's configuration cannot be read


class Machines(NamedTuple):
    """The machines of a cluster."""

    living: tuple[Node, ...]
    growth: Growth = Growth((), 0)

    @property
    def fixed(self) -> bool:
        """Return whether no machine will be added."""
        return self.growth.known and not self.growth.types

    def kinds(self) -> list[Node]:
        """Return each machine that there is or may be."""
        return [*self.living, *(each.resources for each in self.growth.types)]

    def room(self, resources: "Resources") -> int:
        """Return how many workers the cluster holds at once when it is at its largest."""
        living = sum(workers_on(resources, node) for node in self.living)
        return max(living, sum(workers_on(resources, node) for node in self.largest(resources)))

    def steps(self, resources: "Resources") -> int:
        """Return how many steps the cluster holds at once when it is at its largest."""
        return max(steps_on(resources, nodes) for nodes in (self.living, self.largest(resources)))

    def hold(self, wanted: "Sequence[Resources]") -> bool:
        """Return whether the cluster at its largest holds steps with these resources at once."""
        added = [kind.resources for kind in self.growth.types for _ in range(kind.most)]
        return hold_at_once(wanted, self.living, len(self.living)) or hold_at_once(
            wanted, added, self.growth.most, self._staying
        )

    def held(self, resources: "Resources") -> dict[str, int]:
        """Return how many machines that hold workers are added of each kind, the roomiest first."""
        each = {kind.name: workers_on(resources, kind.resources) for kind in self.growth.types}
        held, left = {}, self.growth.most
        for kind in sorted(self.growth.types, key=lambda kind: -each[kind.name]):
            count = min(left, kind.most)
            if each[kind.name] and count:
                held[kind.name] = count
                left -= count
        return held

    def largest(self, resources: "Resources") -> list[Node]:
        """Return the machines that stay, and those that are added for many workers."""
        of = {kind.name: kind.resources for kind in self.growth.types}
        held = self.held(resources).items()
        return [*self._staying, *(of[name] for name, count in held for _ in range(count))]

    @property
    def _staying(self) -> list[Node]:
        """Return the head and other living machines that the autoscaler did not add."""
        return [node for node in self.living if HEAD in node or not self._may_be_added(node)]

    def _may_be_added(self, node: Node) -> bool:
        """Return whether a living machine may be one that the autoscaler added."""
        return any(_is_of(node, kind) for kind in self.growth.types)


def _is_of(node: Node, kind: NodeType) -> bool:
    """Return whether a machine is of a kind."""
    # What a machine has besides, and its memory, are found out when it starts.
    named = {name: amount for name, amount in kind.resources.items() if name != "memory"}
    return all(node.get(name) == amount for name, amount in named.items())


def workers_on(resources: "Resources", node: Node) -> int:
    """Return how many workers a machine holds."""
    counts = [
        _times(amount, _offered(node, name))
        for name, amount in resources.bundle.items()
        if name != "GPU" and amount
    ]
    if resources.gpus_per_worker:
        counts.append(int(node.get("GPU", 0)) * _times(resources.gpus_per_worker, 1.0))
    return min(counts, default=0)


def steps_on(resources: "Resources", nodes: Iterable[Node]) -> int:
    """Return how many steps these machines hold at once, placed as the resources ask."""
    counts = [workers_on(resources, node) for node in nodes]
    match resources.placement:
        case "STRICT_PACK":
            return sum(count // resources.workers for count in counts)
        case "STRICT_SPREAD":
            steps = 0
            while sum(min(count, steps + 1) for count in counts) >= (steps + 1) * resources.workers:
                steps += 1
            return steps
        case _:
            return sum(counts) // resources.workers


def hold_at_once(
    wanted: "Iterable[Resources]", nodes: Sequence[Node], most: int, besides: Sequence[Node] = ()
) -> bool:
    """Return whether the machines hold all these steps at once.

    The largest steps are placed first, each where it fits first. Rarely, they fit otherwise.

    Args:
        wanted: The resources of each step.
        nodes: The machines, and those that can be added.
        most: How many of them there may be.
        besides: Machines that there are besides them.
    """
    free = [_Free.of(node, used=True) for node in besides] + [_Free.of(node) for node in nodes]
    most += len(besides)
    by_size = sorted(wanted, key=lambda each: (each.gpus_per_worker, each.cpus_per_worker))
    return all(_place(each, free, most) for each in reversed(by_size))


@dataclass
class _Free:
    """What is left of a machine."""

    gpus: list[float]
    others: dict[str, float]
    used: bool = False

    @classmethod
    def of(cls, node: Node, used: bool = False) -> "_Free":
        others = {name: amount for name, amount in node.items() if name != "GPU"}
        return cls([1.0] * int(node.get("GPU", 0)), others, used)

    def take(self, resources: "Resources") -> bool:
        """Take what one worker needs. Return False, and take nothing, if it is not there."""
        needs = {name: amount for name, amount in resources.bundle.items() if name != "GPU"}
        if any(_offered(self.others, name) < amount - TINY for name, amount in needs.items()):
            return False
        gpus = resources.gpus_per_worker
        if gpus:
            fitting = [number for number, left in enumerate(self.gpus) if left >= gpus - TINY]
            if not fitting:
                return False
            # The fullest GPU that still has room leaves the others whole.
            self.gpus[min(fitting, key=lambda number: self.gpus[number])] -= gpus
        for name, amount in needs.items():
            self.others[name] = _offered(self.others, name) - amount
        self.used = True
        return True


def _place(resources: "Resources", free: list[_Free], most: int) -> bool:
    """Place the workers of a step. Return False if they do not fit."""
    placed = 0
    # Machines that are used already come first.
    for node in sorted(free, key=lambda node: not node.used):
        if not node.used and sum(each.used for each in free) >= most:
            break
        if resources.placement == "STRICT_PACK":
            before = list(node.gpus), dict(node.others), node.used
            if all(node.take(resources) for _ in range(resources.workers)):
                return True
            node.gpus, node.others, node.used = before
            continue
        apart = resources.placement in ("SPREAD", "STRICT_SPREAD")
        while placed < resources.workers and node.take(resources):
            placed += 1
            if apart:
                break
        if placed == resources.workers:
            return True
    if resources.placement == "SPREAD":
        # Ray spreads as far as it can, and no further.
        for node in free:
            while node.used and placed < resources.workers and node.take(resources):
                placed += 1
    return placed == resources.workers


def _offered(node: Node, name: str) -> float:
    """Return how much a machine offers. The memory of one that may be added can be unknown."""
    return node.get(name, math.inf if name == "memory" else 0.0)


def _times(amount: float, available: float) -> int:
    """Return how often an amount is in what is available."""
    return sys.maxsize if math.isinf(available) else int(available / amount + TINY)
