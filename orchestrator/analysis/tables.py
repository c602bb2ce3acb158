"""Make the tables of an analysis: layer by layer, what pixels became, what would have helped.

Several chains also have an overview. There, chains that differ in nothing but the seed are one row
with the mean and the standard deviation.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from orchestrator.analysis.diagnosis import Analysis, Layer
from orchestrator.planning.chain import Chain
from orchestrator.planning.variants import group_variants
from orchestrator.report.table import Column, Row, Table, average
from training.prediction_breakdown import PredictionBreakdown

JOINTS = {
    "identity": "no translation: what is left of 100 % is drift of the features themselves",
    "least_squares": "a 1x1 layer fitted in closed form to the earlier model's features",
    "trained": "that layer trained further until the stitched outputs are the earlier model's",
}
CKA = (
    "debiased linear centred kernel alignment of both models' features there: "
    "100 is the same but for rotation"
)
PREDICTIONS = {
    "right": "right",
    "background": "background",
    "new": "a new class",
    "other_old": "another earlier class",
}
SEEDS = "Means over seeds, ± their standard deviation where there are several."


class Remedy(NamedTuple):
    """What could have been done against forgetting, in words."""

    name: str
    meaning: str


REMEDIES = {
    "new_corrected": Remedy(
        "new classes' logits lowered",
        "the later model, the gap of new classes' logits subtracted afterwards",
    ),
    "both_corrected": Remedy(
        "background's logit lowered, too",
        "likewise, and background's own gap subtracted from its logit",
    ),
    "classifier": Remedy(
        "classifier retrained",
        "encoder and head kept, the classifier trained from a random start on all labels",
    ),
    "decoder": Remedy(
        "decoder retrained",
        "the encoder kept, head and classifier trained from a random start on all labels",
    ),
}


class LayerMeasure(NamedTuple):
    """A number of each layer that has a table of its own in the overview."""

    title: str
    caption: str
    number: Callable[[Layer], float | None]


LAYER_MEASURES = (
    LayerMeasure(
        "Kept up to each layer, translated by a trained 1x1 layer",
        "Per cent of the earlier classes' mean IoU before.",
        lambda layer: layer.kept.get("trained"),
    ),
    LayerMeasure(
        "Kept up to each layer, without translation",
        "Per cent of the earlier classes' mean IoU before: less than above is drift.",
        lambda layer: layer.kept.get("identity"),
    ),
    LayerMeasure(
        "How similar the features of each layer are", "CKA, per cent.", lambda layer: layer.cka
    ),
)
CAUSES: dict[tuple[str, str], Callable[[Analysis], float | None]] = {
    ("mean IoU", "before"): lambda each: each.before.earlier,
    ("mean IoU", "after"): lambda each: each.after.earlier,
    ("their pixels became", "right"): lambda each: _share(each.breakdown_after, "right"),
    ("their pixels became", "background"): lambda each: _share(each.breakdown_after, "background"),
    ("their pixels became", "new"): lambda each: _share(each.breakdown_after, "new"),
    ("background's pixels", "became new"): lambda each: each.background_taken,
    ("mean IoU with", "new lowered"): lambda each: _miou_with(each, "new_corrected"),
    ("mean IoU with", "both lowered"): lambda each: _miou_with(each, "both_corrected"),
    ("mean IoU with", "classifier retrained"): lambda each: _miou_with(each, "classifier"),
    ("mean IoU with", "decoder retrained"): lambda each: _miou_with(each, "decoder"),
}


def layer_table(analysis: Analysis) -> Table | None:
    """Return what is kept up to each cut, by joint, and the similarity of the features.

    None if no probe of layers was run.
    """
    if not analysis.layers:
        return None
    joined = [
        Column("joined by a 1x1 layer", name.replace("_", " "), "", meaning)
        for name, meaning in JOINTS.items()
    ]
    rows = []
    for layer in analysis.layers:
        kept = [layer.kept.get(joint) for joint in JOINTS]
        rows.append(Row("", layer.cut, (*kept, layer.cka)))
    caption = (
        "Per cent. The later model up to the layer, a 1x1 layer, and the earlier model from there "
        "on: mean IoU of the earlier classes, relative to the earlier model's own. Where it falls, "
        "the layers in between no longer compute what the earlier model needs."
    )
    columns = (*joined, Column("features", "CKA", "", CKA))
    return Table(f"Layer by layer, {analysis.title}", caption, "up to", columns, tuple(rows))


def breakdown_table(analysis: Analysis) -> Table:
    """Return what the earlier classes' pixels were predicted as, before and after."""
    columns = [
        Column("", f"after step {step.record.index}") for step in (analysis.earlier, analysis.later)
    ]
    rows = []
    for field, name in PREDICTIONS.items():
        before = _share(analysis.breakdown_before, field)
        after = _share(analysis.breakdown_after, field)
        rows.append(Row("", name, (before, after)))
    return Table(
        title=f"What their pixels became, {analysis.title}",
        caption="Per cent of the pixels of classes known after the earlier step. "
        "Columns add up to 100.",
        corner="predicted as",
        columns=tuple(columns),
        rows=tuple(rows),
    )


def remedy_table(analysis: Analysis) -> Table:
    """Return the mean IoU before, after, and with each remedy that was measured."""
    rows = [
        Row("", f"after step {analysis.earlier.record.index}", tuple(analysis.before)),
        Row("", f"after step {analysis.later.record.index}", tuple(analysis.after)),
    ]
    means = {**analysis.corrected, **analysis.retrained}
    for field, remedy in REMEDIES.items():
        if field in means:
            rows.append(Row("", remedy.name, tuple(means[field]), meaning=remedy.meaning))
    caption = (
        "Mean IoU, per cent. Corrections of logits use the masks of earlier classes. Retraining "
        "uses all masks of all classes. They show what was still there, and are no methods to "
        "compare."
    )
    columns = (Column("", "earlier classes"), Column("", "new classes"))
    return Table(f"What would have helped, {analysis.title}", caption, "", columns, tuple(rows))


def overview(analyses: Sequence[Analysis]) -> tuple[Table, ...]:
    """Return tables of all analyses: causes and remedies, what each layer keeps, and CKA.

    Chains that differ in nothing but the seed are one row.
    """
    chains = [Chain.model_validate(each.chain.record.chain) for each in analyses]
    members: dict[str, list[Analysis]] = {}
    for variant in group_variants(chains):
        members[variant.name] = [analyses[index] for index in variant.chains]
    rows = []
    for name, each in members.items():
        values = [average(map(number, each)) for number in CAUSES.values()]
        rows.append(Row("", name, tuple(values)))
    causes = Table(
        title="Causes at a glance",
        caption=f"Per cent, of the classes known after the earlier step. {SEEDS}",
        corner="chain",
        columns=tuple(Column(*names) for names in CAUSES),
        rows=tuple(rows),
    )
    if not any(each.layers for each in analyses):
        return (causes,)
    return causes, *(_layer_overview(measure, members) for measure in LAYER_MEASURES)


def _layer_overview(measure: LayerMeasure, members: Mapping[str, Sequence[Analysis]]) -> Table:
    """Return the table of one measure: a row for each variant, a column for each cut."""
    measured = {name: _by_cut(measure, analyses) for name, analyses in members.items()}
    cuts: dict[str, None] = {}
    for numbers in measured.values():
        cuts |= dict.fromkeys(numbers)
    rows = []
    for name, numbers in measured.items():
        values = [average(numbers.get(cut, ())) for cut in cuts]
        rows.append(Row("", name, tuple(values)))
    columns = tuple(Column("", cut) for cut in cuts)
    return Table(measure.title, f"{measure.caption} {SEEDS}", "chain", columns, tuple(rows))


def _by_cut(measure: LayerMeasure, analyses: Sequence[Analysis]) -> dict[str, list[float | None]]:
    """Return the numbers of all analyses at each cut."""
    numbers: dict[str, list[float | None]] = {}
    for analysis in analyses:
        for layer in analysis.layers:
            numbers.setdefault(layer.cut, []).append(measure.number(layer))
    return numbers


def _share(breakdown: PredictionBreakdown | None, field: str) -> float | None:
    return getattr(breakdown, field) if breakdown else None


def _miou_with(analysis: Analysis, remedy: str) -> float | None:
    means = {**analysis.corrected, **analysis.retrained}.get(remedy)
    return means.earlier if means else None
