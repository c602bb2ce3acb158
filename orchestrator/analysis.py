"""Why did it forget? Records of two steps and the answers to probes, told in sentences, tables and figures.

Everything is about the classes that the earlier step knew. Where forgetting sits follows from stitching and similarity, layer
by layer; how much of it is background shift and how much is the pull of new classes follows from what those classes' pixels
became, and from correcting the classifier afterwards; whether anything is left to recover, from decoders trained anew.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from orchestrator.probes import ProbeRecord
from orchestrator.results import ChainResult, StepResult
from orchestrator.table import Column, Row, Table, Value, percent
from training.metrics import Flow, flow, wilson
from training.probes.measure import Bias, Similarity, Stitching

JOINTS = {
    "identity": "no translation: what is left of 100 % is drift of the features themselves",
    "least_squares": "a 1x1 layer fitted in closed form to the earlier model's features",
    "trained": "that layer trained further until the stitched outputs are the earlier model's",
}
KEPT = 0.95  # of the earlier mIoU: more counts as nothing lost


@dataclass(frozen=True)
class Layer:
    """What is left behind one cut, as fractions of the earlier model's mIoU, and how alike the features are."""

    cut: str
    kept: Mapping[str, float | None]  # by joint
    cka: float | None


@dataclass(frozen=True)
class Analysis:
    """All that is told of one pair of steps."""

    chain: ChainResult
    earlier: StepResult
    later: StepResult
    before: float | None  # mIoU of the earlier classes, after the earlier step and after the later one
    after: float | None
    flow_before: Flow | None
    flow_after: Flow | None
    background_taken: float | None  # share of background's own pixels that became a new class
    layers: tuple[Layer, ...]
    bias: ProbeRecord | None
    retrained: Mapping[str, float | None]  # mIoU of the earlier classes with what was trained anew: classifier, decoder

    @property
    def title(self) -> str:
        return f"{self.chain.name}: step {self.earlier.record.index} to step {self.later.record.index}"


def analyse(
    chain: ChainResult,
    earlier: StepResult,
    later: StepResult,
    answers: Sequence[ProbeRecord],
    retrained: Mapping[str, StepResult] | None = None,
) -> Analysis:
    """Bring together what records and probes say. `retrained`: steps that trained a part of the later model anew."""
    convention = wilson()
    known = [class_id for group in earlier.groups for class_id in group]
    before, after = (_mean_iou(step, known) for step in (earlier, later))
    background = flow(later.matrix(convention), later.groups, [0])
    return Analysis(
        chain=chain,
        earlier=earlier,
        later=later,
        before=before,
        after=after,
        flow_before=flow(earlier.matrix(convention), (*earlier.groups, ()), known),
        flow_after=flow(later.matrix(convention), _as_one_step(later, earlier), known),
        background_taken=background.new if background else None,
        layers=_layers(answers, before),
        bias=next((answer for answer in answers if isinstance(answer.probe, Bias)), None),
        retrained={name: _mean_iou(step, known) for name, step in (retrained or {}).items()},
    )


def _as_one_step(later: StepResult, earlier: StepResult) -> tuple[tuple[int, ...], ...]:
    """The later step's groups with all that came after the earlier one as one new group."""
    count = len(earlier.groups)
    return (*earlier.groups, tuple(class_id for group in later.groups[count:] for class_id in group))


def _mean_iou(step: StepResult, classes: Sequence[int]) -> float | None:
    iou = step.scores(wilson()).iou
    values = [value for class_id in classes if (value := iou.get(class_id)) is not None]
    return sum(values) / len(values) if values else None


def _layers(answers: Sequence[ProbeRecord], before: float | None) -> tuple[Layer, ...]:
    kept: dict[str, dict[str, float | None]] = {}
    cka: dict[str, float | None] = {}
    for answer in answers:
        probe = answer.probe
        if isinstance(probe, Stitching):
            miou = answer.answer["miou"]
            kept.setdefault(probe.cut, {})[probe.joint] = miou / before if miou is not None and before else None
        elif isinstance(probe, Similarity):
            cka[probe.cut] = answer.answer["cka"]
    return tuple(Layer(cut, kept.get(cut, {}), cka.get(cut)) for cut in {**kept, **cka})


def sentences(analysis: Analysis) -> list[str]:
    """What the numbers say, in words; each sentence names the quantity it rests on."""
    told = [_fall(analysis)]
    if analysis.flow_after and analysis.flow_before:
        told.append(_causes(analysis.flow_before, analysis.flow_after))
    if analysis.background_taken is not None:
        told.append(f"Of background's own pixels, {percent(analysis.background_taken)} % became a new class.")
    if place := _where(analysis.layers):
        told.append(place)
    if analysis.bias:
        told.append(_leaning(analysis.bias))
    told += [_retrained(name, value, analysis.before) for name, value in analysis.retrained.items()]
    return told


def _fall(analysis: Analysis) -> str:
    count = sum(map(len, analysis.earlier.groups))
    return (
        f"The {count} classes known after step {analysis.earlier.record.index} had a mean IoU of {percent(analysis.before)} % "
        f"then, and have {percent(analysis.after)} % after step {analysis.later.record.index}."
    )


def _causes(before: Flow, after: Flow) -> str:
    lost = {
        "background (background shift)": after.background - before.background,
        "new classes (bias towards them)": after.new - before.new,
        "other earlier classes": after.other_old - before.other_old,
    }
    parts = ", ".join(f"{percent(change)} points to {name}" for name, change in lost.items())
    return f"Of their pixels {percent(before.right)} % were right and {percent(after.right)} % are: they went {parts}."


def _where(layers: Sequence[Layer]) -> str | None:
    """The cut behind which most is lost, by the trained joint."""
    known = [(layer.cut, value) for layer in layers if (value := layer.kept.get("trained")) is not None]
    if not known:
        return None
    intact = [cut for cut, value in known if value >= KEPT]
    drops = [(first - second, name) for (_, first), (name, second) in pairwise([("images", 1.0), *known])]
    drop, where = max(drops)
    if drop < 1 - KEPT:
        return f"No layer loses much: joined anywhere, at least {percent(min(value for _, value in known))} % of that is kept."
    start = f"Up to the {intact[-1]} nothing of it is lost" if intact else "Something of it is lost from the first layers on"
    return (
        f"{start} (at least {KEPT:.0%} is recovered by a 1x1 layer); the largest loss, {percent(drop)} points, is "
        f"in the {where}."
    )


def _leaning(record: ProbeRecord) -> str:
    answer = record.answer
    gap = answer["gap"]
    if gap is None:
        return "There was no pixel of an earlier class to measure the classifier's bias on."
    shown = {name: percent(answer[name]["earlier"]) for name in ("as_it_is", "new_corrected", "both_corrected")}
    return (
        f"On pixels of earlier classes the highest logit of a new class exceeds the highest of an earlier one by "
        f"{gap['new_minus_previous']:.1f} on average, background's by {gap['background_minus_previous']:.1f}. With the first "
        f"gap subtracted their mean IoU goes from {shown['as_it_is']} % to {shown['new_corrected']} %, with both to "
        f"{shown['both_corrected']} %: what comes back so was only outvoted."
    )


def _retrained(name: str, value: float | None, before: float | None) -> str:
    share = percent(value / before) if value is not None and before else "–"
    return (
        f"With the {name} trained anew on all labels, and what lies before it kept, they reach {percent(value)} % ({share} % "
        "of before): that much information is still there."
    )


def layer_table(analysis: Analysis) -> Table:
    """What is left behind each cut, by joint, and the similarity of the features."""
    columns = tuple(Column("joined by a 1x1 layer", name.replace("_", " "), "", meaning) for name, meaning in JOINTS.items())
    meaning = "debiased linear centred kernel alignment of both models' features there: 100 is the same but for rotation"
    rows = []
    for layer in analysis.layers:
        values: tuple[Value, ...] = (*(layer.kept.get(joint) for joint in JOINTS), layer.cka)
        rows.append(Row("", layer.cut, values))
    caption = (
        "Per cent. The later model up to the layer, a 1x1 layer, and the earlier model from there on: mean IoU of the earlier "
        "classes, relative to the earlier model's own. Where it falls, the layers in between no longer say what the "
        "earlier model needs."
    )
    return Table(
        f"Layer by layer, {analysis.title}", caption, "up to", (*columns, Column("features", "CKA", "", meaning)), tuple(rows)
    )


def flow_before_after(analysis: Analysis) -> Table:
    """What the earlier classes' pixels were predicted as, before and after."""
    names = {"right": "right", "background": "background", "new": "a new class", "other_old": "another earlier class"}
    rows = tuple(
        Row("", name, tuple(getattr(each, field) if each else None for each in (analysis.flow_before, analysis.flow_after)))
        for field, name in names.items()
    )
    columns = tuple(Column("", f"after step {step.record.index}") for step in (analysis.earlier, analysis.later))
    caption = "Per cent of the pixels of classes known after the earlier step. Columns add up to 100."
    return Table(f"What their pixels became, {analysis.title}", caption, "predicted as", columns, rows)
