"""Build the tables that compare chains.

The tables are the IoU of every class after every step, the chains at a glance, forgetting, and the
prediction breakdown of old classes.
"""

from collections.abc import Iterable, Sequence

from orchestrator.records.results import ChainResult, counting_words, fitting, start_words
from orchestrator.records.schema import DataSource
from orchestrator.report.table import Column, Row, Table, Value
from training.config import BACKGROUND, EvaluationConfig, flatten_groups
from training.continual_metrics import Continual, Retention
from training.metrics import Convention, Scores
from training.prediction_breakdown import PredictionBreakdown, break_down_old_classes
from training.score_definitions import DEFINITIONS

# Names of the means below the classes, by field of Scores.
MEANS = {
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
# Names of the scores that only a whole chain has, by field of Continual.
CONTINUAL = {
    "forgetting_first_minus_last": "forgetting, first − last",
    "forgetting_best_minus_last": "forgetting, best − last",
    "backward_transfer": "backward transfer",
    "average_over_steps_without_background": "average over steps",
    "average_over_steps": "average over steps with background",
}
FORGETTING = {
    "forgetting_first_minus_last": "first − last",
    "forgetting_best_minus_last": "best − last",
}
# Papers print as old and new after several steps: the classes of step 0 and of all later steps.
PRINTED = {
    "miou_old": "miou_base",
    "miou_old_with_background": "miou_base_with_background",
    "miou_new": "miou_added",
}
# Names of what pixels were predicted as, by field of PredictionBreakdown.
BREAKDOWN = {
    "right": "right",
    "background": "as background",
    "new": "as new",
    "other_old": "as other old",
}
BREAKDOWN_TITLE = "What old classes' pixels were predicted as"


def class_table(chains: Sequence[ChainResult], convention: Convention) -> Table:
    """Return the IoU of every class and the means over classes after every step.

    Args:
        chains: Chains that were scored alike. They stand side by side.
        convention: What to count.
    """
    convention = fitting(convention, chains)
    columns: list[Column] = []
    scores: list[Scores] = []
    for chain in chains:
        for step in chain.steps:
            columns.append(Column(chain.name, f"step {step.record.index}", step.record.key))
            scores.append(step.scores(convention))
    rows = [_class_row(class_id, chains, scores) for class_id in _learned_classes(chains)]
    rows += _mean_rows(chains, scores, convention)
    counted = counting_words(convention, [step for chain in chains for step in chain.steps])
    caption = (
        f"{_scored_on(chains)} Per cent. Rows of classes: IoU ({DEFINITIONS['iou']}). "
        f"“x”: not learned yet; “–”: does not exist. {counted} "
        "Bold: the means that this convention prints."
    )
    return Table(
        "IoU of every class after every step", caption, "class", tuple(columns), tuple(rows)
    )


def _learned_classes(chains: Sequence[ChainResult]) -> list[int]:
    """Return background, if a chain has it, and the classes learned, in learning order."""
    learned = flatten_groups(flatten_groups(chain.groups) for chain in chains)
    return list(dict.fromkeys((*background_of(chains), *learned)))


def background_of(chains: Iterable[ChainResult]) -> tuple[int, ...]:
    """Return the class id of background if any of the chains has it, else nothing."""
    return (BACKGROUND,) if any(chain.background == "class" for chain in chains) else ()


def _class_row(class_id: int, chains: Sequence[ChainResult], scores: Sequence[Scores]) -> Row:
    """Return the row of a class: its IoU after each step."""
    name = next(
        chain.class_name(class_id)
        for chain in chains
        if class_id in chain.steps[-1].evaluation.class_names
    )
    values: list[Value] = [step.iou.get(class_id, "x") for step in scores]
    return Row(_class_section(class_id, chains), name, tuple(values))


def _class_section(class_id: int, chains: Sequence[ChainResult]) -> str:
    """Return the heading above a class: the step that learns it, where that is one step."""
    steps: set[int] = set()
    for chain in chains:
        steps.update(step for step, group in enumerate(chain.groups) if class_id in group)
    if not steps:
        return ""
    return f"learned in step {steps.pop()}" if len(steps) == 1 else "classes"


def _mean_rows(
    chains: Sequence[ChainResult], scores: Sequence[Scores], convention: Convention
) -> list[Row]:
    """Return the rows of the means over classes. Those that papers print are strong."""
    headline = headline_fields(convention)
    if has_later_steps(chains):
        headline = tuple(PRINTED.get(field, field) for field in headline)
    rows = []
    for field in shown_means(chains):
        values = tuple(getattr(step, field) for step in scores)
        rows.append(Row("means", MEANS[field], values, field in headline, DEFINITIONS[field]))
    return rows


def summary_table(chains: Sequence[ChainResult], convention: Convention) -> Table:
    """Return one row per chain: its means after the last step and what it forgot until then.

    Args:
        chains: Chains that were scored alike.
        convention: What to count.
    """
    convention = fitting(convention, chains)
    means = {field: MEANS[field] for field in shown_means(chains) if field != "pixel_accuracy"}
    chain_scores = shown_continual(chains)
    names = means | chain_scores
    columns = [Column("", name, meaning=DEFINITIONS[field]) for field, name in names.items()]
    rows = []
    for chain in chains:
        last = chain.scores(convention)[-1]
        continual = chain.continual(convention)
        values = [getattr(last, field) for field in means]
        values += [getattr(continual, field) for field in chain_scores]
        rows.append(Row("", chain.name, tuple(values)))
    caption = (
        f"{_scored_on(chains)} Per cent, after the last step; "
        f"forgetting and transfer in percentage points. {convention.words}"
    )
    return Table("Chains at a glance", caption, "chain", tuple(columns), tuple(rows))


def forgetting_table(chains: Sequence[ChainResult], convention: Convention) -> Table | None:
    """Return what was lost of each class and group since it was learned.

    Args:
        chains: Chains that were scored alike. They stand side by side.
        convention: What to count.

    Returns:
        The table, or None when no chain has a second step.
    """
    if all(len(chain.steps) == 1 for chain in chains):
        return None
    convention = fitting(convention, chains)
    continual = [chain.continual(convention) for chain in chains]
    columns = [Column(chain.name, name) for chain in chains for name in FORGETTING.values()]
    rows = _forgotten_classes(chains, continual)
    rows += _forgotten_groups(chains, continual)
    rows.append(
        Row(
            "means",
            "mean over classes",
            _forgetting(continual),
            strong=True,
            meaning="over the classes of earlier steps, background left out",
        )
    )
    caption = (
        "Percentage points of IoU. First − last: right after the class was learned, minus after "
        "the last step. Best − last: its best after any earlier step, minus after the last; "
        f"negative when the last step is its best. {convention.words}"
    )
    return Table("Forgetting", caption, "class", tuple(columns), tuple(rows))


def _forgotten_classes(chains: Sequence[ChainResult], continual: Sequence[Continual]) -> list[Row]:
    """Return the rows of background and of the classes of earlier steps."""
    old = flatten_groups(flatten_groups(chain.groups[:-1]) for chain in chains)
    rows = []
    for class_id in dict.fromkeys((*background_of(chains), *old)):
        kept = [each.classes.get(class_id) for each in continual]
        rows.append(Row("classes", chains[0].class_name(class_id), _forgetting(kept)))
    return rows


def _forgotten_groups(chains: Sequence[ChainResult], continual: Sequence[Continual]) -> list[Row]:
    """Return the rows of the class groups of earlier steps."""
    rows = []
    for index in range(max(len(chain.groups) for chain in chains) - 1):
        kept = [each.groups[index] if index < len(each.groups) else None for each in continual]
        name = f"group of step {index}"
        meaning = "of the mean IoU of the group's classes"
        rows.append(Row("groups", name, _forgetting(kept), meaning=meaning))
    return rows


def _forgetting(kept: Iterable[Retention | Continual | None]) -> tuple[Value, ...]:
    """Return the values of a row: two per chain, None where the chain has none."""
    values: list[Value] = []
    for each in kept:
        values += [getattr(each, field, None) for field in FORGETTING]
    return tuple(values)


def breakdown_table(chains: Sequence[ChainResult], convention: Convention) -> Table | None:
    """Return what the pixels of old classes were predicted as after the last step.

    Args:
        chains: Chains that were scored alike. Each is a section.
        convention: What to count.

    Returns:
        The table, or None when no chain has a second step.
    """
    convention = fitting(convention, chains)
    rows = []
    for chain in chains:
        old = break_down_old_classes(chain.steps[-1].matrix(convention), chain.groups)
        for class_id, shares in old.by_class.items():
            rows.append(Row(chain.name, chain.class_name(class_id), _shares(shares)))
        if old.by_class:
            rows.append(Row(chain.name, "all old classes", _shares(old.pooled), strong=True))
    if not rows:
        return None
    caption = (
        "Share, in per cent, of a class's ground-truth pixels, after the last step. Its right "
        "share is its recall, not its IoU: pixels of other classes that were predicted as it do "
        f"not show here. {convention.words}"
    )
    columns = tuple(Column("", name) for name in BREAKDOWN.values())
    return Table(BREAKDOWN_TITLE, caption, "class", columns, tuple(rows))


def _shares(breakdown: PredictionBreakdown | None) -> tuple[Value, ...]:
    return tuple(getattr(breakdown, field, None) for field in BREAKDOWN)


def has_later_steps(chains: Sequence[ChainResult]) -> bool:
    """Return whether any chain has several steps after step 0."""
    return any(len(chain.groups) > 2 for chain in chains)


def shown_means(chains: Sequence[ChainResult]) -> list[str]:
    """Return the fields of MEANS to show.

    Means over base and added classes are left out unless a chain has several steps after step 0,
    because they repeat old and new otherwise. Means with background are left out where no chain has
    it.
    """
    hidden = set() if has_later_steps(chains) else set(PRINTED.values())
    if not background_of(chains):
        hidden |= {"miou_all", "miou_old_with_background", "miou_base_with_background"}
    return [field for field in MEANS if field not in hidden]


def shown_continual(chains: Sequence[ChainResult]) -> dict[str, str]:
    """Return the names of the scores of whole chains to show, by field of Continual."""
    hidden = () if background_of(chains) else ("average_over_steps",)
    return {field: name for field, name in CONTINUAL.items() if field not in hidden}


def headline_fields(convention: Convention) -> tuple[str, ...]:
    """Return the fields of Scores that the convention prints as old, new and all."""
    old = "miou_old_with_background" if convention.background_in_old else "miou_old"
    both = "miou_all" if convention.background_in_all else "miou_all_without_background"
    return old, "miou_new", both


def scored_on(data: DataSource, images: int, size: EvaluationConfig) -> str:
    """Return in words what was scored."""
    side = f"shorter side {size.short_side}" if size.short_side else "original resolution"
    crop = f"centre crop {size.crop}" if size.crop else "no crop"
    return f"{data.name}/{data.split}, {images} images, {side}, {crop}."


def _scored_on(chains: Sequence[ChainResult]) -> str:
    """Return in words what the chains were scored on and what their training did with void."""
    evaluation = chains[0].steps[-1].evaluation
    records = [step.record for chain in chains for step in chain.steps]
    void = {each.step.task.void for each in records if not each.adoption} or {"not known"}
    scored = scored_on(evaluation.data, evaluation.images, evaluation.config)
    words = f"{scored} Void pixels in training: {' or '.join(sorted(void))}."
    return f"{words} {start_words(records)}".rstrip()
