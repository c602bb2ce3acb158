"""Build the tables of a campaign: scores, classes, forgetting and prediction breakdown.

All numbers are means over the seeds of a variant, with their standard deviation where there are
several. A variant appears from the start, and its numbers as its chains are published.
"""

from collections.abc import Hashable, Sequence
from dataclasses import replace

from orchestrator.planning.paper_numbers import PaperNumber
from orchestrator.records.results import StepResult, counting_words, start_words
from orchestrator.report.campaign_results import CampaignResult
from orchestrator.report.chain_tables import (
    BREAKDOWN,
    BREAKDOWN_TITLE,
    background_of,
    headline_fields,
    shown_continual,
    shown_means,
)
from orchestrator.report.chain_tables import MEANS as CLASS_MEANS
from orchestrator.report.search_caption import search_caption
from orchestrator.report.table import Column, Measured, Row, Table, Value, with_best
from orchestrator.report.variant_results import MEANS, VariantResult
from training.config import flatten_groups
from training.score_definitions import DEFINITIONS

SEEDS = "Means over seeds, ± their standard deviation (n − 1) where there are several."
PUBLISHED = "how many seeds are published, of how many asked for"
DEVIATION = "standard deviation over seeds, with n − 1"
INTERVAL = "half the 95 % confidence interval of the mean, by Student's t"


def scores_table(result: CampaignResult, *, mark_best: bool = True) -> Table:
    """Return old, new and all after the last step of each variant, beside the paper's numbers.

    Differences are ours minus the paper's, where the paper counts as we do and on as many images,
    and ours is no reconstruction.

    Args:
        result: The numbers of the campaign.
        mark_best: Whether to mark the best variant of each scenario.
    """
    columns = _score_columns(result.variants)
    sections = len({variant.scored_on for variant in result.variants}) > 1
    rows = [
        Row(
            variant.scored_on if sections else "",
            variant.name,
            _score_values(variant, columns),
            meaning=_source(variant.paper),
        )
        for variant in result.variants
    ]
    title = "The campaign so far"
    starts = start_words(result.records)
    found = search_caption(result)
    caption = " ".join(filter(None, (_score_caption(result), found, starts)))
    table = Table(title, caption, "variant", columns, tuple(rows))
    if not mark_best:
        return table
    means = [index for index, column in enumerate(columns) if column.name == "mean"]
    return with_best(table, means, _problems(result))


def _score_columns(variants: Sequence[VariantResult]) -> tuple[Column, ...]:
    """Return the columns that hold anything.

    There are no deviations without several seeds, and no columns of papers without their numbers.
    """
    several = any(len(variant.variant.chains) > 1 for variant in variants)
    columns = [Column("", "seeds", meaning=PUBLISHED)]
    for mean in MEANS:
        columns.append(Column(mean, "mean"))
        if several:
            columns.append(Column(mean, "std", meaning=DEVIATION))
            columns.append(Column(mean, "95 % ±", meaning=INTERVAL, spare=True))
    if any(variant.paper for variant in variants):
        columns += [Column("paper", mean) for mean in MEANS]
    if any(variant.comparable for variant in variants):
        columns += [Column("ours − paper", mean) for mean in MEANS]
    return tuple(columns)


def _score_values(variant: VariantResult, columns: Sequence[Column]) -> tuple[Value, ...]:
    """Return the values of a variant below these columns."""
    seeds = f"{len(variant.seeds)}/{len(variant.variant.chains)}"
    if variant.stopped:
        seeds += f" ({variant.stopped} stopped)"
    values: dict[tuple[str, str], Value] = {("", "seeds"): seeds}
    for mean, ours in zip(MEANS, variant.means, strict=True):
        if ours:
            values[mean, "mean"] = ours.mean
            values[mean, "std"] = ours.deviation
            values[mean, "95 % ±"] = ours.margin
        values["paper", mean] = getattr(variant.paper, mean, None)
        values["ours − paper", mean] = variant.difference(mean)
    return tuple(values.get((column.group, column.name)) for column in columns)


def _source(paper: PaperNumber | None) -> str:
    if paper is None:
        return ""
    source = f"paper: {paper.source}, {paper.variant}, convention {paper.convention}"
    return f"{source}; ours is a reconstruction" if paper.reconstruction else source


def _score_caption(result: CampaignResult) -> str:
    """Return what the numbers of the table mean."""
    views = {variant.scored_on for variant in result.variants}
    different = "Sections were scored on different pixels and do not compare."
    sentences = [
        views.pop() if len(views) == 1 else different,
        "Per cent mIoU after the last step; "
        "old: classes of step 0, new: classes of all later steps.",
    ]
    if any(len(variant.variant.chains) > 1 for variant in result.variants):
        sentences.append(
            "Mean over seeds, their standard deviation (n − 1), "
            "and half the 95 % confidence interval of the mean."
        )
    sentences += _missing_words(result)
    sources = dict.fromkeys(each.paper.source for each in result.variants if each.paper)
    if sources:
        sentences.append(
            f"Paper: {', '.join(sources)}. "
            "Differences only where it counts as we do, on as many images."
        )
    steps: list[StepResult] = []
    for variant in result.variants:
        for seed in variant.seeds:
            steps += seed.chain.steps
    return " ".join([*sentences, counting_words(result.convention, steps)])


def _missing_words(result: CampaignResult) -> list[str]:
    """Say why chains have no last score, and what that does to the table."""
    missing = len(result.chains) - len(result.published)
    stopped = len(result.stopped)
    why = []
    if stopped:
        rules = {f"--{verdict.rule}" for verdict in result.stopped.values()}
        why.append(f"stopped by {' and '.join(sorted(rules))}: {stopped}")
    if missing > stopped:
        why.append(f"not finished, or failed: {missing - stopped}")
    if not why:
        return []
    sentences = [
        f"{missing} of {len(result.chains)} chains have no last score and count in no mean "
        f"({'; '.join(why)})."
    ]
    if stopped:
        sentences.append(
            "A stopped chain might have caught up, so such a table favours what learns fast."
        )
    return sentences


def class_table(result: CampaignResult) -> Table:
    """Return the IoU of every class and the means over classes, variants side by side."""
    shown = []
    for variant in result.variants:
        shown += [(variant, step) for step in range(variant.steps)]
    columns = [Column(variant.name, f"step {step}") for variant, step in shown]
    rows = []
    for class_id, name in _class_names(result).items():
        values = tuple(_iou(variant, step, class_id) for variant, step in shown)
        rows.append(Row("classes", name, values))
    for field in shown_means([seed.chain for seed in result.published]):
        values = tuple(variant.average_score(step, field) for variant, step in shown)
        strong = field in headline_fields(result.convention)
        rows.append(Row("means", CLASS_MEANS[field], values, strong, DEFINITIONS[field]))
    caption = (
        f"Per cent. {SEEDS} “x”: not learned yet; “–”: does not exist. {result.convention.words}"
    )
    return Table(
        "IoU of every class after every step", caption, "class", tuple(columns), tuple(rows)
    )


def _class_names(result: CampaignResult) -> dict[int, str]:
    """Return the names of all classes that published chains learned, and of background."""
    chains = [seed.chain for seed in result.published]
    names = dict.fromkeys(background_of(chains), "background")
    for seed in result.published:
        for class_id in flatten_groups(seed.chain.groups):
            names[class_id] = seed.chain.class_name(class_id)
    return names


def _iou(variant: VariantResult, step: int, class_id: int) -> Value:
    if class_id not in variant.seeds[0].scores[step].iou:
        return "x"
    return variant.average(lambda seed: seed.scores[step].iou[class_id])


def forgetting_table(result: CampaignResult) -> Table | None:
    """Return what each variant forgot, or None when no published chain has a second step."""
    if not any(len(seed.scores) > 1 for seed in result.published):
        return None
    shown = shown_continual([seed.chain for seed in result.published])
    columns = [
        Column("", name, meaning=DEFINITIONS[field], spare=field.startswith("average"))
        for field, name in shown.items()
    ]
    rows = []
    for variant in result.variants:
        values = tuple(variant.average_continual(field) for field in shown)
        rows.append(Row("", variant.name, values))
    caption = (
        f"Percentage points; averages over steps in per cent. {SEEDS} {result.convention.words}"
    )
    table = Table("Forgetting", caption, "variant", tuple(columns), tuple(rows))
    return with_best(table, range(len(columns)), _problems(result), lowest=(0, 1))


def breakdown_table(result: CampaignResult) -> Table | None:
    """Return what the pixels of old classes were predicted as, or None when nothing is old."""
    if not any(seed.breakdown for seed in result.published):
        return None
    rows = []
    for variant in result.variants:
        values = tuple(variant.average_share(field) for field in BREAKDOWN)
        rows.append(Row("", variant.name, values))
    caption = (
        "Share, in per cent, of the ground-truth pixels of all classes that the last step did not "
        "bring, after that step: kept, lost to background (background shift), to the newest "
        f"classes (their pull), or to other old ones. {SEEDS} {result.convention.words}"
    )
    columns = tuple(Column("", name) for name in BREAKDOWN.values())
    table = Table(BREAKDOWN_TITLE, caption, "variant", columns, tuple(rows))
    return with_best(table, (0,), _problems(result))


def _problems(result: CampaignResult) -> list[Hashable]:
    """Return the problem of each variant. Only variants with the same problem compare.

    Which masks a method may see is part of the method, not of the problem.
    """
    problems: list[Hashable] = []
    for variant in result.variants:
        scenario = variant.scenario
        problems.append((variant.scored_on, scenario.dataset, scenario.groups, scenario.setting))
    return problems


def paired(table: Table) -> Table:
    """Return the scores table with each mean and its deviation in one column: `71.2 ± 0.4`.

    People read it like that. In `scores_table` the two are columns of their own.
    """
    # Each deviation follows its mean.
    deviations = {index for index, column in enumerate(table.columns) if column.name == "std"}
    kept = [index for index in range(len(table.columns)) if index not in deviations]
    columns = []
    for index in kept:
        column = table.columns[index]
        columns.append(column._replace(name="mean ± std") if index + 1 in deviations else column)
    rows = []
    for row in table.rows:
        values = tuple(_pair(row, index, index + 1 in deviations) for index in kept)
        best = frozenset(position for position, index in enumerate(kept) if index in row.best)
        rows.append(row._replace(values=values, best=best))
    return replace(table, columns=tuple(columns), rows=tuple(rows))


def _pair(row: Row, index: int, has_deviation: bool) -> Value:
    """Return the value at `index`, with the deviation that follows it if there is one."""
    mean = row.values[index]
    deviation = row.values[index + 1] if has_deviation else None
    if isinstance(mean, float) and isinstance(deviation, float):
        return Measured(mean, deviation)
    return mean
