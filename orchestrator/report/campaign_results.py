"""Load the numbers of a campaign: the scores of its published chains, by variant.

Chains that are not published yet are counted and otherwise left out. The page of a running campaign
can therefore show over how many seeds each mean is. All numbers here are typed fractions.
`orchestrator.report.campaign_tables` turns them into tables.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.planning.campaign import Campaign
from orchestrator.planning.campaign_record import CampaignRecord, campaign_tree, recorded_campaign
from orchestrator.planning.paper_numbers import IMAGES, Expected, find_paper_number
from orchestrator.planning.planner import PlannedChain
from orchestrator.planning.step_tree import StepTree
from orchestrator.planning.variants import Variant, group_variants
from orchestrator.records.publish import chain_record
from orchestrator.records.repository import Repository
from orchestrator.records.results import ChainResult, load_step
from orchestrator.records.schema import StepRecord
from orchestrator.records.verdicts import Verdict, find_verdicts
from orchestrator.report.chain_tables import scored_on
from orchestrator.report.variant_results import ScoredChain, VariantResult, printed_means
from training.continual_metrics import continual
from training.metrics import Convention
from training.prediction_breakdown import break_down_old_classes


@dataclass(frozen=True)
class CampaignResult:
    """The numbers of a campaign, as far as it is published."""

    name: str
    question: str
    chains: tuple[PlannedChain, ...]
    variants: tuple[VariantResult, ...]
    records: tuple[StepRecord, ...]  # of all published steps, those of unfinished chains too
    convention: Convention
    steps: int  # different ones
    naive_steps: int  # if no two chains shared a step
    named_by: str = ""  # the searcher of a searched campaign and its spaces, in words
    stopped: Mapping[int, Verdict] = field(default_factory=dict)  # on chains, by their index

    @property
    def published(self) -> tuple[ScoredChain, ...]:
        """Return the published chains."""
        return tuple(seed for variant in self.variants for seed in variant.seeds)

    @property
    def complete(self) -> bool:
        """Return whether every chain is published, or was stopped as asked."""
        return all(
            len(each.seeds) + each.stopped == len(each.variant.chains) for each in self.variants
        )

    @property
    def axes(self) -> dict[str, list[Any]]:
        """Return the fields in which variants differ, each with its different values."""
        axes: dict[str, list[Any]] = {}
        for variant in self.variants:
            for axis, value in variant.axes.items():
                values = axes.setdefault(axis, [])
                if value not in values:
                    values.append(value)
        return axes


def load_campaign_results(
    campaign: Campaign, tree: StepTree, repository: Repository, convention: Convention
) -> CampaignResult:
    """Read all that is published of a campaign, each object once and many in parallel.

    Args:
        campaign: The campaign.
        tree: Its steps.
        repository: The records.
        convention: What to count.

    Raises:
        StoreError: The store does not answer.
        CorruptedObject: Confusion counts are not those that their record names.
    """
    backgrounds = {plan.chain.scenario.background for plan in tree.chains}
    convention = convention.for_models("none" if backgrounds == {"none"} else "class")
    records = _read_records(tree, repository)
    scored = repository.in_parallel(
        lambda plan: _read_chain(plan, records, repository, convention), tree.chains
    )
    stopped = _find_stopped(campaign.name, tree, records, scored, repository)
    variants = []
    for variant in group_variants([plan.chain for plan in tree.chains]):
        seeds = [scored[index] for index in variant.chains]
        plan = tree.chains[variant.chains[0]]
        found = _to_result(variant, plan, seeds, campaign.paper, convention)
        count = sum(index in stopped for index in variant.chains)
        variants.append(replace(found, stopped=count))
    return CampaignResult(
        name=campaign.name,
        question=campaign.question,
        chains=tree.chains,
        variants=tuple(variants),
        records=tuple(records.values()),
        convention=convention,
        steps=len(tree.nodes),
        naive_steps=tree.naive_steps,
        named_by=campaign.named_by,
        stopped=stopped,
    )


def recorded_results(
    record: CampaignRecord, repository: Repository, convention: Convention
) -> CampaignResult:
    """Read all that is published of a recorded campaign. Its chains are planned again.

    Args:
        record: The record of the campaign.
        repository: The records.
        convention: What to count.

    Raises:
        InputError: The campaign cannot be planned over the datasets of the store.
        StoreError: The store does not answer.
        CorruptedObject: Confusion counts are not those that their record names.
    """
    campaign = recorded_campaign(record, repository.store)
    tree = campaign_tree(campaign, repository.store)
    return load_campaign_results(campaign, tree, repository, convention)


def _read_records(tree: StepTree, repository: Repository) -> dict[str, StepRecord]:
    """Read the records of all published steps, by key. Only children of published steps count."""
    records: dict[str, StepRecord] = {}
    generation = [key for key, node in tree.nodes.items() if node.parent is None]
    while generation:
        found = repository.find_steps(generation)
        published = [record for record in found if record]
        records |= {record.key: record for record in published}
        generation = []
        for record in published:
            generation += tree.nodes[record.key].children
    return records


def _find_stopped(
    campaign: str,
    tree: StepTree,
    records: Mapping[str, StepRecord],
    scored: Sequence[ScoredChain | None],
    repository: Repository,
) -> dict[int, Verdict]:
    """Return the verdicts on chains that a rule did not continue after their newest step."""
    newest: dict[int, str] = {}  # published step of each chain that was begun
    for index, (plan, finished) in enumerate(zip(tree.chains, scored, strict=True)):
        published = [step.key for step in plan.steps if step.key in records]
        if not finished and published:
            newest[index] = published[-1]
    verdicts = find_verdicts(repository, campaign) if newest else {}
    return {index: verdicts[key] for index, key in newest.items() if key in verdicts}


def _read_chain(
    plan: PlannedChain,
    records: Mapping[str, StepRecord],
    repository: Repository,
    convention: Convention,
) -> ScoredChain | None:
    """Read the scores of a chain, or None while one of its steps is not published and scored."""
    groups = plan.chain.scenario.groups
    steps = []
    for planned in plan.steps:
        record = records.get(planned.key)
        evaluation = repository.find_evaluation(record, plan.scoring) if record else None
        if record is None or evaluation is None:
            return None
        # Nothing in a campaign's tables and figures shows the training curves.
        step = load_step(repository, groups, record.key, evaluation.key, with_curves=False)
        steps.append(step)
    record = chain_record(
        plan.chain, [step.record for step in steps], [step.evaluation for step in steps]
    )
    chain = ChainResult(plan.chain.name, record, tuple(steps))
    scores = chain.scores(convention)
    matrix = chain.steps[-1].matrix(convention)
    return ScoredChain(
        chain=chain,
        scores=scores,
        means=printed_means(scores[-1], len(chain.groups), convention),
        continual=continual(scores),
        breakdown=break_down_old_classes(matrix, chain.groups).pooled,
    )


def _to_result(
    variant: Variant,
    plan: PlannedChain,
    seeds: Sequence[ScoredChain | None],
    expected: Sequence[Expected],
    convention: Convention,
) -> VariantResult:
    """Return the result of a variant.

    Args:
        variant: The variant.
        plan: Any of its chains.
        seeds: The scores of all its chains.
        expected: The papers' numbers of the campaign's chains.
        convention: What to count.
    """
    split = plan.manifest.splits[plan.scoring.split]
    source = plan.source(plan.scoring.split)
    paper = find_paper_number(plan.chain, expected, convention.name) if plan.whole else None
    comparable = (
        paper is not None
        and paper.convention == convention.name
        and not paper.reconstruction
        and split.rows == IMAGES[paper.dataset]
    )
    return VariantResult(
        variant=variant,
        scenario=plan.chain.scenario,
        scored_on=scored_on(source, split.rows, plan.chain.evaluation),
        seeds=tuple(seed for seed in seeds if seed),
        paper=paper,
        comparable=comparable,
    )
