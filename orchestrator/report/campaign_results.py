"""What came of a campaign so far, cell by cell: its published chains read back whole.

A cell is a variant, its chains the variant's seeds. Those that are not published yet are counted and otherwise left out, so
a page of a campaign that still runs can say of each mean over how many seeds it is.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from orchestrator.planning.campaign import Campaign
from orchestrator.planning.campaign_record import CampaignRecord, campaign_tree
from orchestrator.planning.planner import PlannedChain
from orchestrator.planning.step_tree import StepTree
from orchestrator.planning.store_state import StoredStep, look_up_steps
from orchestrator.planning.variants import Variant, group_variants
from orchestrator.records.publish import chain_record
from orchestrator.records.repository import Repository
from orchestrator.records.results import ChainResult, load_chains
from orchestrator.report.campaign_scores import campaign_table
from orchestrator.report.statistics import summarize
from orchestrator.report.table import Measured, Table, Value
from orchestrator.store.base import Store
from training.config import flatten_groups
from training.continual_metrics import Continual, continual
from training.metrics import Convention, Scores
from training.prediction_breakdown import PredictionBreakdown, prediction_breakdown
from training.scenario import Scenario


class Scored(NamedTuple):
    """A published chain with all its numbers under the campaign's convention."""

    chain: ChainResult
    scores: tuple[Scores, ...]  # after each step
    continual: Continual
    flow: (
        PredictionBreakdown | None
    )  # what became of the pixels of the classes that the last step did not bring


@dataclass(frozen=True)
class VariantResult:
    """A cell and those of its chains that are published, one of each seed."""

    cell: Variant
    scenario: Scenario
    seeds: tuple[Scored, ...]

    @property
    def name(self) -> str:
        return self.cell.name

    def average(self, number: Callable[[Scored], float | None]) -> Value:
        """Mean over seeds, with the standard deviation where several have that number; None where none has."""
        found = summarize(map(number, self.seeds))
        if found is None:
            return None
        return found.mean if found.deviation is None else Measured(found.mean, found.deviation)


@dataclass(frozen=True)
class CampaignResult:
    """A campaign as far as it is published."""

    name: str
    question: str
    chains: tuple[PlannedChain, ...]
    cells: tuple[VariantResult, ...]
    scores: (
        Table  # old, new and all of each cell, as `orchestrator.report.campaign_scores` makes it
    )
    convention: Convention
    steps: int  # different ones
    naive_steps: int  # if each chain were trained by itself

    @property
    def published(self) -> tuple[Scored, ...]:
        return tuple(seed for cell in self.cells for seed in cell.seeds)

    @property
    def complete(self) -> bool:
        return len(self.published) == sum(len(cell.cell.chains) for cell in self.cells)


def load_campaign_results(
    campaign: Campaign, tree: StepTree, store: Store, convention: Convention
) -> CampaignResult:
    """Look at every step of the campaign and read what is published. Raises StoreError, CorruptedObject for damaged counts."""
    standings = look_up_steps(tree, store)
    repository = Repository(store)
    loaded = [_load(plan, standings, repository, convention) for plan in tree.chains]
    return CampaignResult(
        name=campaign.name,
        question=campaign.question,
        chains=tree.chains,
        cells=tuple(
            VariantResult(
                cell,
                tree.chains[cell.chains[0]].chain.scenario,
                tuple(seed for index in cell.chains if (seed := loaded[index])),
            )
            for cell in group_variants([plan.chain for plan in tree.chains])
        ),
        scores=campaign_table(tree, standings, store, campaign.paper, convention),
        convention=convention,
        steps=len(tree.nodes),
        naive_steps=tree.naive_steps,
    )


def recorded_results(
    record: CampaignRecord, store: Store, convention: Convention
) -> CampaignResult:
    """What came so far of a campaign that was recorded. Raises what `load_campaign_results` does, and what planning does."""
    return load_campaign_results(
        record.campaign, campaign_tree(record.campaign, store), store, convention
    )


def _load(
    plan: PlannedChain,
    standings: Mapping[str, StoredStep],
    repository: Repository,
    convention: Convention,
) -> Scored | None:
    """The chain, or those first steps of it that are asked for, read back; None while a step or its score is missing."""
    records, evaluations = [], []
    for planned in plan.steps:
        record = standings[planned.key].record
        evaluation = repository.find_evaluation(record, plan.scoring) if record else None
        if record is None or evaluation is None:
            return None
        records.append(record)
        evaluations.append(evaluation)
    (chain,) = load_chains(repository, [chain_record(plan.chain, records, evaluations)])
    scores = chain.scores(convention)
    old = flatten_groups(chain.groups[:-1])
    lost = (
        prediction_breakdown(chain.steps[-1].matrix(convention), chain.groups, old) if old else None
    )
    return Scored(chain, scores, continual(scores), lost)
