"""The tables of a campaign: old, new and all with the best in bold, every class after every step, forgetting, and flow.

Every number is a mean over a cell's seeds, with its standard deviation where there are several.
"""

from collections.abc import Hashable
from dataclasses import replace

from orchestrator.report.campaign_results import CampaignResult, VariantResult
from orchestrator.report.chain_tables import CONTINUAL, MEANS, headline_fields, shown_means
from orchestrator.report.table import Column, Measured, Row, Table, Value, with_best
from training.config import BACKGROUND, flatten_groups
from training.metrics import DEFINITIONS

FLOW = {
    "right": "right",
    "background": "as background",
    "new": "as new",
    "other_old": "as other old",
}
SEEDS = "Means over seeds, ± their standard deviation (n − 1) where there are several."


def scores_table(result: CampaignResult) -> Table:
    """Old, new and all after the last step, beside the papers' numbers; the best of each scenario are marked."""
    table = result.scores
    return with_best(
        table,
        [index for index, column in enumerate(table.columns) if column.name == "mean"],
        _alike(result),
    )


def class_table(result: CampaignResult) -> Table:
    """Per class and step, cells side by side: IoU of every class, then the means over classes."""
    cells = [cell for cell in result.cells if cell.seeds]
    shown = [(cell, step) for cell in cells for step in range(len(cell.seeds[0].scores))]
    columns = tuple(Column(cell.name, f"step {step}") for cell, step in shown)
    chains = [cell.seeds[0].chain for cell in cells]
    names = {c: chain.class_name(c) for chain in chains for c in flatten_groups(chain.groups)}
    rows = [
        Row("classes", name, tuple(_iou(cell, step, class_id) for cell, step in shown))
        for class_id, name in ({BACKGROUND: "background"} | names).items()
    ]
    for field in shown_means(chains):
        values = (
            cell.average(lambda seed, s=step, f=field: getattr(seed.scores[s], f))
            for cell, step in shown
        )
        rows.append(
            Row(
                "means",
                MEANS[field],
                tuple(values),
                field in headline_fields(result.convention),
                DEFINITIONS[field],
            )
        )
    caption = (
        f"Per cent. {SEEDS} “x”: not learned yet; “–”: does not exist. {result.convention.words}"
    )
    return Table("IoU of every class after every step", caption, "class", columns, tuple(rows))


def forgetting_table(result: CampaignResult) -> Table | None:
    """What each cell forgot, by each definition; None when no chain has a second step."""
    if not any(len(seed.scores) > 1 for seed in result.published):
        return None
    columns = tuple(
        Column("", name, meaning=DEFINITIONS[field], spare=field.startswith("average"))
        for field, name in CONTINUAL.items()
    )
    rows = tuple(
        Row(
            "",
            cell.name,
            tuple(
                cell.average(lambda seed, f=field: getattr(seed.continual, f))
                for field in CONTINUAL
            ),
        )
        for cell in result.cells
    )
    caption = (
        f"Percentage points; averages over steps in per cent. {SEEDS} {result.convention.words}"
    )
    table = Table("Forgetting", caption, "variant", columns, rows)
    return with_best(table, range(len(columns)), _alike(result), lowest=(0, 1))


def flow_table(result: CampaignResult) -> Table | None:
    """What became of the pixels of all old classes, by cell; None when nothing is old."""
    if not any(seed.flow for seed in result.published):
        return None
    rows = tuple(
        Row(
            "",
            cell.name,
            tuple(cell.average(lambda seed, p=part: getattr(seed.flow, p, None)) for part in FLOW),
        )
        for cell in result.cells
    )
    caption = (
        "Share, in per cent, of the ground-truth pixels of all classes that the last step did not bring, after that step: "
        "kept, lost to background (background shift), to the newest classes (their pull), or to other old ones. "
        f"{SEEDS} {result.convention.words}"
    )
    table = Table(
        "What became of old classes' pixels",
        caption,
        "variant",
        tuple(Column("", n) for n in FLOW.values()),
        rows,
    )
    return with_best(table, (0,), _alike(result))


def paired(table: Table) -> Table:
    """The table with each mean and its standard deviation in one column: for people, who read `71.2 ± 0.4`."""
    deviations = {
        index for index, column in enumerate(table.columns) if column.name == "std"
    }  # each follows its mean
    kept = [index for index in range(len(table.columns)) if index not in deviations]

    def cell(row: Row, index: int) -> Value:
        mean, deviation = (
            row.values[index],
            row.values[index + 1] if index + 1 in deviations else None,
        )
        return (
            Measured(mean, deviation)
            if isinstance(mean, float) and isinstance(deviation, float)
            else mean
        )

    columns = [table.columns[index] for index in kept]
    columns = [
        c._replace(name="mean ± std") if i + 1 in deviations else c
        for i, c in zip(kept, columns, strict=True)
    ]
    rows = tuple(
        row._replace(
            values=tuple(cell(row, index) for index in kept),
            best=frozenset(place for place, index in enumerate(kept) if index in row.best),
        )
        for row in table.rows
    )
    return replace(table, columns=tuple(columns), rows=rows)


def _alike(result: CampaignResult) -> list[Hashable]:
    """What each cell's problem is: others do not compare. Who may see which masks is part of the method."""
    views = [row.section for row in result.scores.rows]
    return [
        (view, cell.scenario.dataset, cell.scenario.groups, cell.scenario.setting)
        for view, cell in zip(views, result.cells, strict=True)
    ]


def _iou(cell: VariantResult, step: int, class_id: int) -> Value:
    if class_id not in cell.seeds[0].scores[step].iou:
        return "x"
    return cell.average(lambda seed: seed.scores[step].iou[class_id])
