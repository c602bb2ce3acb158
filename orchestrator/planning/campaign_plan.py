"""Plan a campaign: which steps its chains need, which of them exist, and what the others cost.

A plan reads the store and writes nothing. A run takes the same plan, so nothing is planned twice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

from orchestrator.cluster.resources import Request, check_steps
from orchestrator.planning.campaign import Campaign, campaign_with_current_recipes
from orchestrator.planning.chain import Chain
from orchestrator.planning.cost import (
    CostEstimate,
    Costs,
    estimate_cost,
    images,
    measure,
    past_records,
)
from orchestrator.planning.memory import MemoryNeed, memory_needs
from orchestrator.planning.planner import Planner
from orchestrator.planning.search_plan import SearchEstimate, estimate_search
from orchestrator.planning.step_tree import Node, StepTree, build_tree, first_steps
from orchestrator.planning.store_state import StepState, StoredStep, look_up_steps
from training.config import InputError


@dataclass(frozen=True)
class CampaignPlan:
    """A campaign, the steps of it that are asked for, their states in the store, and costs."""

    campaign: Campaign
    tree: StepTree
    stored: Mapping[str, StoredStep]
    costs: Costs
    planner: Planner
    request: Request  # the workers of each step

    @cached_property
    def estimate(self) -> CostEstimate:
        """Return what the campaign costs from here on."""
        return estimate_cost(self.tree, self.stored, self.costs)

    @cached_property
    def search(self) -> SearchEstimate | None:
        """Return what the samples to come of a searched campaign will cost."""
        search = self.campaign.search
        return estimate_search(search, self.planner, self.costs) if search else None

    @cached_property
    def memory(self) -> tuple[MemoryNeed, ...]:
        """Return what each worker needs of the most demanding step, of each kind if these differ.

        Empty if all steps are published.
        """
        left = [
            node.planned
            for node in self.tree.nodes.values()
            if self.stored[node.key].record is None
        ]
        return memory_needs(left, self.request)

    @cached_property
    def whole_tree(self) -> StepTree:
        """Return the steps of all chains of the campaign, also of those that are not asked for."""
        if self.campaign.search:
            return self.tree
        chains = tuple(plan.chain for plan in self.tree.chains if plan.whole)
        if chains == self.campaign.chains:
            return self.tree
        return build_tree([self.planner.plan(chain) for chain in self.campaign.chains])


def make_plan(
    campaign: Campaign,
    planner: Planner,
    *,
    patterns: Sequence[str] = (),
    last_step: int | None = None,
    request: Request | None = None,
    images_per_second: float | None = None,
) -> CampaignPlan:
    """Plan a campaign, look up its steps and estimate what is left to do.

    Args:
        campaign: Its chains are complete, with the digests of the encoder's weights.
        planner: Plans over the store's datasets.
        patterns: Which chains are asked for: see `choose_chains`.
        last_step: Index of the last step of each chain that is asked for; None asks for all.
        request: The workers of each step.
        images_per_second: A guess of one worker's speed, for kinds of steps without a past record.

    Raises:
        InputError: The campaign cannot be trained as it is asked for. Everything that can be
            refused is refused here.
        StoreError: The store does not answer.
    """
    if campaign.search and (patterns or last_step is not None):
        raise InputError(
            "a searched campaign is judged by whole samples: leave out --only and --until-step"
        )
    request = request or Request()
    # Of two gifts the later counts, and options come later than the campaign's file.
    request = request.model_copy(update={"give": (*campaign.give, *request.give)})
    campaign = campaign_with_current_recipes(campaign)
    tree = plan_tree(campaign, planner, patterns=patterns, last_step=last_step)
    check_steps(request, [each for chain in tree.chains for each in chain.batches])
    stored = look_up_steps(tree, planner.store)
    costs = measure(past_records(planner.store, stored), request, images_per_second)
    return CampaignPlan(campaign, tree, stored, costs, planner, request)


def plan_tree(
    campaign: Campaign,
    planner: Planner,
    *,
    patterns: Sequence[str] = (),
    last_step: int | None = None,
) -> StepTree:
    """Return the steps of the campaign, or of the part of it that is asked for.

    The arguments and exceptions are those of `make_plan`.
    """
    if last_step is not None and last_step < 0:
        raise InputError(f"--until-step counts from step 0, and {last_step} comes before it")
    chains = choose_chains(campaign, patterns)
    return build_tree([first_steps(planner.plan(chain), last_step) for chain in chains])


def choose_chains(campaign: Campaign, patterns: Sequence[str]) -> tuple[Chain, ...]:
    """Return the chains whose name, or a word of it, matches one of the patterns.

    Without patterns, return all chains. Raise InputError for a pattern that matches nothing.
    """
    if not patterns:
        return campaign.chains
    chosen: set[str] = set()
    for pattern in patterns:
        matching = {chain.name for chain in campaign.chains if _matches(chain.name, pattern)}
        if not matching:
            names = ", ".join(repr(chain.name) for chain in campaign.chains[:4])
            raise InputError(
                f"--only {pattern!r} matches no chain of {campaign.name!r}, "
                f"whose chains are called {names} ..."
            )
        chosen |= matching
    return tuple(chain for chain in campaign.chains if chain.name in chosen)


def _matches(name: str, pattern: str) -> bool:
    return any(fnmatchcase(text, pattern) for text in (name, *name.split()))


def plan_document(plan: CampaignPlan) -> dict[str, Any]:
    """Return the plan as a JSON document. What is not known is None."""
    estimate = plan.estimate
    critical_path = estimate.critical_path
    published = [step for step in plan.stored.values() if step.state == StepState.PUBLISHED]
    return {
        "campaign": plan.campaign.name,
        "chains": len(plan.tree.chains),
        "unique_steps": len(plan.tree.nodes),
        "naive_steps": plan.tree.naive_steps,
        "published_steps": len(published),
        "images": estimate.images,
        "naive_images": estimate.naive_images,
        "gpu_hours": estimate.gpu_hours,
        "naive_gpu_hours": estimate.naive_gpu_hours,
        "critical_path_hours": None if critical_path is None else critical_path / 3600,
        "memory_gigabytes": max((need.estimate.needed / 1e9 for need in plan.memory), default=None),
        "search": plan.search.document() if plan.search else None,
        "steps": [_step_document(node, plan) for node in plan.tree.nodes.values()],
    }


def _step_document(node: Node, plan: CampaignPlan) -> dict[str, Any]:
    stored = plan.stored[node.key]
    return {
        "key": node.key,
        "parent": node.parent,
        "index": node.planned.index,
        "title": node.planned.title,
        "state": stored.state,
        "holder": stored.holder.owner if stored.holder else None,
        "images": images(node.planned),
        "gpu_hours": plan.costs.step_gpu_hours(node.planned),
        "chains": [plan.tree.chains[number].chain.name for number in node.chains],
    }
