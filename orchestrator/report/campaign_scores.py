"""The table of a campaign so far: one row per variant, its seeds averaged, the papers' numbers beside ours.

What counts are the scores after a chain's last step. A variant appears from the start, and its numbers as its chains come to
be published, so a table of a campaign that still runs says of each mean over how many seeds it is.
"""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from orchestrator.planning.paper_numbers import IMAGES, Expected, PaperNumber, find_paper_number
from orchestrator.planning.planner import PlannedChain
from orchestrator.planning.resolver import class_ids
from orchestrator.planning.step_tree import StepTree
from orchestrator.planning.store_state import StoredStep
from orchestrator.planning.variants import Variant, group_variants
from orchestrator.records.repository import Repository
from orchestrator.report.chain_tables import scored_on
from orchestrator.report.statistics import Summary, summarize
from orchestrator.report.table import Column, Row, Table, Value
from orchestrator.store.base import Store
from training.config import BACKGROUND, flatten_groups
from training.metrics import Convention, Groups, Scores, score

MEANS = ("old", "new", "all")


class Means(NamedTuple):
    """mIoU after a chain's last step, as papers print it: classes of step 0, of all later steps, and of all steps."""

    old: float | None
    new: float | None
    all: float | None


class _Variant(NamedTuple):
    """What a row shows."""

    cell: Variant
    view: str  # what it is scored on, in words: variants that differ in it do not compare
    published: int  # of its seeds
    spreads: tuple[Summary | None, ...]  # of MEANS
    paper: PaperNumber | None
    comparable: (
        bool  # whether a difference to the paper means anything: counted alike, on as many images
    )


def campaign_table(
    tree: StepTree,
    standings: Mapping[str, StoredStep],
    store: Store,
    paper: Sequence[Expected],
    convention: Convention,
) -> Table:
    """What the campaign's chains scored, as far as they are published. Raises StoreError, CorruptedObject for damaged counts.

    `standings`: as `survey` found them. Differences are ours minus the paper's, where the convention is the same.
    """
    repository = Repository(store)
    found = repository.in_parallel(
        lambda plan: final_means(plan, standings[plan.steps[-1].key], repository, convention),
        tree.chains,
    )
    variants = [
        _variant(
            cell,
            tree.chains[cell.chains[0]],
            [found[index] for index in cell.chains],
            paper,
            convention,
        )
        for cell in group_variants([plan.chain for plan in tree.chains])
    ]
    columns = _columns(variants)
    sections = len({variant.view for variant in variants}) > 1
    rows = tuple(
        Row(
            variant.view if sections else "",
            variant.cell.name,
            _values(variant, columns),
            meaning=_source(variant.paper),
        )
        for variant in variants
    )
    return Table("The campaign so far", _caption(variants, convention), "variant", columns, rows)


def final_means(
    plan: PlannedChain, standing: StoredStep, repository: Repository, convention: Convention
) -> Means | None:
    """The scores after the chain's last step, None while that is not published. `standing`: of that step."""
    record = standing.record
    evaluation = repository.find_evaluation(record, plan.scoring) if record else None
    if evaluation is None:
        return None
    groups = _groups(plan)
    return means(score(repository.counts(evaluation), groups, convention), groups, convention)


def means(scores: Scores, groups: Groups, convention: Convention) -> Means:
    """Old, new and all as the convention has them; classes without ground truth enter no mean."""
    learned = flatten_groups(groups)
    base, added = (groups[0], learned[len(groups[0]) :]) if len(groups) > 1 else ((), learned)
    old = (BACKGROUND, *base) if base and convention.background_in_old else base
    both = (BACKGROUND, *learned) if convention.background_in_all else learned
    return Means(
        *(_mean(scores.iou[class_id] for class_id in classes) for classes in (old, added, both))
    )


def _groups(plan: PlannedChain) -> Groups:
    """Dataset ids of the classes learned, by the scenario's groups, also where one step learned all of them."""
    scenario = plan.chain.scenario
    groups = (
        scenario.groups if plan.chain.method.all_at_once else scenario.groups[: len(plan.steps)]
    )
    return tuple(class_ids(group, plan.manifest.classes, scenario.dataset) for group in groups)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _variant(
    cell: Variant,
    plan: PlannedChain,
    found: Sequence[Means | None],
    expected: Sequence[Expected],
    convention: Convention,
) -> _Variant:
    """`plan`: one of the cell's chains; `found`: the scores of all of them."""
    published = [each for each in found if each]
    split = plan.manifest.splits[plan.scoring.split]
    paper = find_paper_number(plan.chain, expected, convention.name) if plan.whole else None
    return _Variant(
        cell=cell,
        view=scored_on(plan.source(plan.scoring.split), split.rows, plan.chain.evaluation),
        published=len(published),
        spreads=tuple(summarize(getattr(each, name) for each in published) for name in MEANS),
        paper=paper,
        comparable=paper is not None
        and paper.convention == convention.name
        and split.rows == IMAGES[paper.dataset],
    )


def _columns(variants: Sequence[_Variant]) -> tuple[Column, ...]:
    """Those that hold anything: no spread without several seeds, nothing of papers where they have no number."""
    columns = [Column("", "seeds", meaning="how many seeds are published, of how many asked for")]
    for name in MEANS:
        columns.append(Column(name, "mean"))
        if any(len(variant.cell.chains) > 1 for variant in variants):
            columns.append(Column(name, "std", meaning="standard deviation over seeds, with n − 1"))
            interval = "half the 95 % confidence interval of the mean, by Student's t"
            columns.append(Column(name, "95 % ±", meaning=interval, spare=True))
    if any(variant.paper for variant in variants):
        columns += [Column("paper", name) for name in MEANS]
    if any(variant.comparable for variant in variants):
        columns += [Column("ours − paper", name) for name in MEANS]
    return tuple(columns)


def _values(variant: _Variant, columns: Sequence[Column]) -> tuple[Value, ...]:
    """The row's cells under these columns."""
    shown: dict[tuple[str, str], Value] = {
        ("", "seeds"): f"{variant.published}/{len(variant.cell.chains)}"
    }
    for name, ours in zip(MEANS, variant.spreads, strict=True):
        their = getattr(variant.paper, name) if variant.paper else None
        if ours:
            shown |= {
                (name, "mean"): ours.mean,
                (name, "std"): ours.deviation,
                (name, "95 % ±"): ours.margin,
            }
        shown["paper", name] = their
        if ours and their is not None and variant.comparable:
            shown["ours − paper", name] = ours.mean - their
    return tuple(shown.get((column.group, column.name)) for column in columns)


def _source(paper: PaperNumber | None) -> str:
    return f"paper: {paper.source}, {paper.variant}, convention {paper.convention}" if paper else ""


def _caption(variants: Sequence[_Variant], convention: Convention) -> str:
    views = {variant.view for variant in variants}
    parts = [
        views.pop()
        if len(views) == 1
        else "Sections were scored on different pixels and do not compare."
    ]
    parts.append(
        "Per cent mIoU after the last step; old: classes of step 0, new: classes of all later steps."
    )
    if any(len(variant.cell.chains) > 1 for variant in variants):
        parts.append(
            "Mean over seeds, their standard deviation (n − 1), and half the 95 % confidence interval of the mean."
        )
    sources = dict.fromkeys(variant.paper.source for variant in variants if variant.paper)
    if sources:
        parts.append(
            f"Paper: {', '.join(sources)}. Differences only where it counts as we do, on as many images."
        )
    return " ".join([*parts, convention.words])
