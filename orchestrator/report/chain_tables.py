"""The tables people ask for: every class after every step, chains at a glance, forgetting, and what old pixels became."""

from collections.abc import Iterable, Sequence

from orchestrator.records.results import ChainResult
from orchestrator.records.schema import DataSource
from orchestrator.report.table import Column, Row, Table, Value
from training.config import BACKGROUND, EvaluationConfig, flatten_groups
from training.continual_metrics import Retention
from training.metrics import DEFINITIONS, Convention, Scores
from training.prediction_breakdown import prediction_breakdown

MEANS = {  # the rows below the classes, by the field of Scores that they show
    "miou_old": "old",
    "miou_old_with_background": "old with background",
    "miou_new": "new",
    "miou_base": "base",
    "miou_base_with_background": "base with background",
    "miou_added": "added",
    "miou_all_without_background": "all",
    "miou_all": "all with background",
    "pixel_accuracy": "pixel accuracy",
}
CONTINUAL = {  # what only a whole chain has, by the field of Continual
    "forgetting_first_minus_last": "forgetting, first − last",
    "forgetting_best_minus_last": "forgetting, best − last",
    "backward_transfer": "backward transfer",
    "average_over_steps_without_background": "average over steps",
    "average_over_steps": "average over steps with background",
}
# What papers print as old and new after several steps: the classes of step 0, and those of all later steps.
PRINTED = {
    "miou_old": "miou_base",
    "miou_old_with_background": "miou_base_with_background",
    "miou_new": "miou_added",
}


def class_table(chains: Sequence[ChainResult], convention: Convention) -> Table:
    """Per class and step, chains side by side: IoU of every class, then the means over old, new and all classes."""
    scored = [(chain, step, step.scores(convention)) for chain in chains for step in chain.steps]
    columns = tuple(
        Column(chain.name, f"step {step.record.index}", step.record.key)
        for chain, step, _ in scored
    )
    ids = dict.fromkeys(
        [BACKGROUND, *(c for chain in chains for c in flatten_groups(chain.groups))]
    )
    rows = []
    for class_id in ids:
        learned = {
            g for chain in chains for g, group in enumerate(chain.groups) if class_id in group
        }
        section = (
            f"learned in step {learned.pop()}"
            if len(learned) == 1
            else ""
            if not learned
            else "classes"
        )
        values: tuple[Value, ...] = tuple(scores.iou.get(class_id, "x") for _, _, scores in scored)
        name = next(
            chain.class_name(class_id)
            for chain in chains
            if class_id in chain.steps[-1].evaluation.class_names
        )
        rows.append(Row(section, name, values))
    headline = headline_fields(convention)
    if any(len(chain.groups) > 2 for chain in chains):
        headline = tuple(PRINTED.get(field, field) for field in headline)
    for field in shown_means(chains):
        values = tuple(getattr(scores, field) for _, _, scores in scored)
        rows.append(Row("means", MEANS[field], values, field in headline, DEFINITIONS[field]))
    caption = (
        f"{_scored_on(chains)} Per cent. Rows of classes: IoU ({DEFINITIONS['iou']}). “x”: not learned yet; “–”: does not "
        f"exist. {convention.words} Bold: the means that this convention prints."
    )
    return Table("IoU of every class after every step", caption, "class", columns, tuple(rows))


def summary_table(chains: Sequence[ChainResult], convention: Convention) -> Table:
    """One row per chain: its means after the last step, and what it forgot on the way there."""
    means = {field: MEANS[field] for field in shown_means(chains) if field != "pixel_accuracy"}
    columns = tuple(
        Column("", name, meaning=DEFINITIONS[field]) for field, name in (means | CONTINUAL).items()
    )
    rows = []
    for chain in chains:
        last, over = chain.scores(convention)[-1], chain.continual(convention)
        values = (
            *(getattr(last, field) for field in means),
            *(getattr(over, field) for field in CONTINUAL),
        )
        rows.append(Row("", chain.name, values))
    caption = f"{_scored_on(chains)} Per cent, after the last step; forgetting and transfer in percentage points. {convention.words}"
    return Table("Chains at a glance", caption, "chain", columns, tuple(rows))


def forgetting_table(chains: Sequence[ChainResult], convention: Convention) -> Table | None:
    """Per class and per group, what was lost since it was learned; None when no chain has a second step."""
    if all(len(chain.steps) == 1 for chain in chains):
        return None
    over = [chain.continual(convention) for chain in chains]
    fields = {
        "forgetting_first_minus_last": "first − last",
        "forgetting_best_minus_last": "best − last",
    }
    columns = tuple(Column(chain.name, name) for chain in chains for name in fields.values())

    def values(each: Iterable[Retention | None]) -> tuple[Value, ...]:
        return tuple(getattr(kept, field) if kept else None for kept in each for field in fields)

    ids = dict.fromkeys(
        [BACKGROUND, *(c for chain in chains for c in flatten_groups(chain.groups[:-1]))]
    )
    rows = [
        Row("classes", chains[0].class_name(c), values(chain.classes.get(c) for chain in over))
        for c in ids
    ]
    for g in range(max(len(chain.groups) for chain in chains) - 1):
        kept = [chain.groups[g] if g < len(chain.groups) else None for chain in over]
        rows.append(
            Row(
                "groups",
                f"group of step {g}",
                values(kept),
                meaning="of the mean IoU of the group's classes",
            )
        )
    means = tuple(getattr(chain, field) for chain in over for field in fields)
    rows.append(
        Row(
            "means",
            "mean over classes",
            means,
            True,
            "over the classes of earlier steps, background left out",
        )
    )
    caption = (
        "Percentage points of IoU. First − last: right after the class was learned, minus after the last step. Best − last: "
        "its best after any earlier step, minus after the last; negative when the last step is its best. "
        f"{convention.words}"
    )
    return Table("Forgetting", caption, "class", columns, tuple(rows))


def flow_table(chains: Sequence[ChainResult], convention: Convention) -> Table | None:
    """What the pixels of old classes were predicted as after the last step; None when nothing is old."""
    columns = tuple(
        Column("", name) for name in ("right", "as background", "as new", "as other old")
    )
    rows = []
    for chain in chains:
        matrix = chain.steps[-1].matrix(convention)
        old = flatten_groups(chain.groups[:-1])
        for classes, name in (
            [*(([c], chain.class_name(c)) for c in old), (old, "all old classes")] if old else []
        ):
            shares = prediction_breakdown(matrix, chain.groups, classes)
            values = tuple(shares.model_dump().values()) if shares else (None,) * 4
            rows.append(Row(chain.name, name, values, strong=len(classes) > 1))
    if not rows:
        return None
    caption = (
        "Share, in per cent, of a class's ground-truth pixels, after the last step. Its right share is its recall, not its "
        "IoU: pixels of other classes that were predicted as it do not show here. "
        f"{convention.words}"
    )
    return Table("What became of old classes' pixels", caption, "class", columns, tuple(rows))


def shown_means(chains: Sequence[ChainResult]) -> list[str]:
    """Fields of MEANS to show: base and added classes only where chains have several steps after step 0."""
    several = any(len(chain.groups) > 2 for chain in chains)
    return [field for field in MEANS if several or field not in PRINTED.values()]


def headline_fields(convention: Convention) -> tuple[str, str, str]:
    """The fields of Scores that the convention prints as old, new and all."""
    old = "miou_old_with_background" if convention.background_in_old else "miou_old"
    both = "miou_all" if convention.background_in_all else "miou_all_without_background"
    return old, "miou_new", both


def headline(
    scores: Scores, convention: Convention
) -> tuple[float | None, float | None, float | None]:
    """Old, new and all as the convention prints them."""
    old, new, both = (getattr(scores, field) for field in headline_fields(convention))
    return old, new, both


def scored_on(data: DataSource, images: int, size: EvaluationConfig) -> str:
    """What was scored, in words."""
    side = f"shorter side {size.short_side}" if size.short_side else "original resolution"
    crop = f"centre crop {size.crop}" if size.crop else "no crop"
    return f"{data.name}/{data.split}, {images} images, {side}, {crop}."


def _scored_on(chains: Sequence[ChainResult]) -> str:
    evaluation = chains[0].steps[-1].evaluation
    void = " or ".join(
        sorted({step.record.step.task.void for chain in chains for step in chain.steps})
    )
    return f"{scored_on(evaluation.data, evaluation.images, evaluation.config)} Void pixels in training: {void}."
