"""Tables of an analysis: layer by layer, what pixels became, what would have helped; and several chains at a glance.

Chains that differ by seed alone are one row of what is seen at a glance, with the mean and the standard deviation.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from orchestrator.analysis.diagnosis import Analysis, Layer, Means
from orchestrator.planning.chain import Chain
from orchestrator.planning.variants import group_variants
from orchestrator.report.statistics import summarize
from orchestrator.report.table import Column, Measured, Row, Table, Value
from training.prediction_breakdown import PredictionBreakdown

JOINTS = {
    "identity": "no translation: what is left of 100 % is drift of the features themselves",
    "least_squares": "a 1x1 layer fitted in closed form to the earlier model's features",
    "trained": "that layer trained further until the stitched outputs are the earlier model's",
}
CKA = "debiased linear centred kernel alignment of both models' features there: 100 is the same but for rotation"
PARTS = {
    "right": "right",
    "background": "background",
    "new": "a new class",
    "other_old": "another earlier class",
}
REMEDIES = {
    "new_corrected": (
        "new classes' logits lowered",
        "the later model, the gap of new classes' logits subtracted afterwards",
    ),
    "both_corrected": (
        "background's logit lowered, too",
        "likewise, and background's own gap subtracted from its logit",
    ),
    "classifier": (
        "classifier trained anew",
        "encoder and head kept, the classifier trained from a random start on all labels",
    ),
    "decoder": (
        "decoder trained anew",
        "the encoder kept, head and classifier trained from a random start on all labels",
    ),
}
SEEDS = "Means over seeds, ± their standard deviation where there are several."
MEASURES: tuple[tuple[str, str, Callable[[Layer], float | None]], ...] = (
    (
        "Kept up to each layer, translated by a trained 1x1 layer",
        "Per cent of the earlier classes' mean IoU before.",
        lambda layer: layer.kept.get("trained"),
    ),
    (
        "Kept up to each layer, without translation",
        "Per cent of the earlier classes' mean IoU before: less than above is drift.",
        lambda layer: layer.kept.get("identity"),
    ),
    ("How alike the features of each layer are", "CKA, per cent.", lambda layer: layer.cka),
)


def layer_table(analysis: Analysis) -> Table:
    """What is left behind each cut, by joint, and the similarity of the features."""
    columns = tuple(
        Column("joined by a 1x1 layer", name.replace("_", " "), "", meaning)
        for name, meaning in JOINTS.items()
    )
    rows = tuple(
        Row("", layer.cut, (*(layer.kept.get(joint) for joint in JOINTS), layer.cka))
        for layer in analysis.layers
    )
    caption = (
        "Per cent. The later model up to the layer, a 1x1 layer, and the earlier model from there on: mean IoU of the earlier "
        "classes, relative to the earlier model's own. Where it falls, the layers in between no longer say what the "
        "earlier model needs."
    )
    return Table(
        f"Layer by layer, {analysis.title}",
        caption,
        "up to",
        (*columns, Column("features", "CKA", "", CKA)),
        rows,
    )


def flow_table(analysis: Analysis) -> Table:
    """What the earlier classes' pixels were predicted as, before and after."""
    both = (analysis.flow_before, analysis.flow_after)
    rows = tuple(
        Row("", name, tuple(_part(each, field) for each in both)) for field, name in PARTS.items()
    )
    columns = tuple(
        Column("", f"after step {step.record.index}") for step in (analysis.earlier, analysis.later)
    )
    caption = (
        "Per cent of the pixels of classes known after the earlier step. Columns add up to 100."
    )
    return Table(
        f"What their pixels became, {analysis.title}", caption, "predicted as", columns, rows
    )


def remedy_table(analysis: Analysis) -> Table:
    """Mean IoU before, after, and with what could have been done about it."""
    known = {**analysis.corrected, **analysis.retrained}
    rows = [
        Row("", f"after step {step.record.index}", tuple(means))
        for step, means in ((analysis.earlier, analysis.before), (analysis.later, analysis.after))
    ]
    rows += [
        Row("", name, tuple(known[field]), meaning=words)
        for field, (name, words) in REMEDIES.items()
        if field in known
    ]
    caption = (
        "Mean IoU, per cent. Corrections of logits use the masks of earlier classes, training anew uses all masks of all "
        "classes: they say what was still there, and are no methods to compare."
    )
    columns = (Column("", "earlier classes"), Column("", "new classes"))
    return Table(f"What would have helped, {analysis.title}", caption, "", columns, tuple(rows))


def overview(analyses: Sequence[Analysis]) -> tuple[Table, ...]:
    """All analyses, chains that differ by seed alone as one row: causes and remedies, what each layer keeps, and CKA."""
    causes: dict[tuple[str, str], Callable[[Analysis], float | None]] = {
        ("mean IoU", "before"): lambda each: each.before.earlier,
        ("mean IoU", "after"): lambda each: each.after.earlier,
        ("their pixels became", "right"): lambda each: _part(each.flow_after, "right"),
        ("their pixels became", "background"): lambda each: _part(each.flow_after, "background"),
        ("their pixels became", "new"): lambda each: _part(each.flow_after, "new"),
        ("background's pixels", "became new"): lambda each: each.background_taken,
        ("mean IoU with", "new lowered"): lambda each: _remedy(each, "new_corrected"),
        ("mean IoU with", "both lowered"): lambda each: _remedy(each, "both_corrected"),
        ("mean IoU with", "classifier anew"): lambda each: _remedy(each, "classifier"),
        ("mean IoU with", "decoder anew"): lambda each: _remedy(each, "decoder"),
    }
    groups = group_variants([Chain.model_validate(each.chain.record.chain) for each in analyses])
    members = {cell.name: [analyses[index] for index in cell.chains] for cell in groups}
    rows = [
        Row("", name, tuple(_mean(map(number, each)) for number in causes.values()))
        for name, each in members.items()
    ]
    caption = f"Per cent; everything is about the classes known after the earlier step. {SEEDS}"
    table = Table(
        "Causes at a glance",
        caption,
        "chain",
        tuple(Column(*names) for names in causes),
        tuple(rows),
    )
    return table, *(_layers_at_a_glance(*measure, members) for measure in MEASURES)


def _layers_at_a_glance(
    title: str,
    caption: str,
    measure: Callable[[Layer], float | None],
    members: Mapping[str, Sequence[Analysis]],
) -> Table:
    cuts = dict.fromkeys(
        layer.cut for analyses in members.values() for each in analyses for layer in each.layers
    )
    rows = []
    for name, analyses in members.items():
        found = [{layer.cut: measure(layer) for layer in each.layers} for each in analyses]
        rows.append(
            Row("", name, tuple(_mean(layers.get(cut) for layers in found) for cut in cuts))
        )
    return Table(
        title, f"{caption} {SEEDS}", "chain", tuple(Column("", cut) for cut in cuts), tuple(rows)
    )


def _mean(values: Iterable[float | None]) -> Value:
    found = summarize(values)
    if found is None or found.deviation is None:
        return found and found.mean
    return Measured(found.mean, found.deviation)


def _part(flow: PredictionBreakdown | None, field: str) -> float | None:
    return getattr(flow, field) if flow else None


def _remedy(analysis: Analysis, field: str) -> float | None:
    return {**analysis.corrected, **analysis.retrained}.get(field, Means(None, None)).earlier
