"""Why did it forget? Records of two steps and the answers to probes, brought together and told in sentences.

Everything is about the classes that the earlier step knew. Where forgetting sits follows from stitching and similarity, layer
by layer; how much of it is background shift and how much is the pull of new classes follows from what those classes' pixels
became, and from correcting the classifier afterwards; whether anything is left to recover, from decoders trained anew.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import NamedTuple

from orchestrator.analysis.probes import ProbeRecord
from orchestrator.records.results import ChainResult, StepResult
from orchestrator.report.table import percent
from training.config import flatten_groups
from training.metrics import mean_of_known, wilson
from training.prediction_breakdown import PredictionBreakdown, prediction_breakdown
from training.probes.measure import Bias, Similarity, Stitching

KEPT = 0.95  # of the earlier mIoU: more counts as nothing lost
CORRECTIONS = ("new_corrected", "both_corrected")


class Means(NamedTuple):
    """Mean IoU of the classes that the earlier step knew, and of those learned since."""

    earlier: float | None
    new: float | None


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
    before: Means  # after the earlier step, and after the later one
    after: Means
    flow_before: PredictionBreakdown | None
    flow_after: PredictionBreakdown | None
    background_taken: float | None  # share of background's own pixels that became a new class
    layers: tuple[Layer, ...]
    bias: ProbeRecord | None
    anew: Mapping[
        str, StepResult
    ]  # steps that trained a part of the later model anew, by part: classifier, decoder

    @property
    def title(self) -> str:
        return (
            f"{self.chain.name}: step {self.earlier.record.index} to step {self.later.record.index}"
        )

    @property
    def retrained(self) -> Mapping[str, Means]:
        """By what was trained anew."""
        known = flatten_groups(self.earlier.groups)
        return {part: _means(step, known) for part, step in self.anew.items()}

    @property
    def corrected(self) -> Mapping[str, Means]:
        """The later model with its logits corrected afterwards, by what is lowered: new_corrected, both_corrected."""
        answer = self.bias.answer if self.bias else {}
        return {
            name: Means(answer[name]["earlier"], answer[name]["new"])
            for name in CORRECTIONS
            if name in answer
        }


def analyse(
    chain: ChainResult,
    earlier: StepResult,
    later: StepResult,
    answers: Sequence[ProbeRecord],
    retrained: Mapping[str, StepResult] | None = None,
) -> Analysis:
    """Bring together what records and probes say. `retrained`: steps that trained a part of the later model anew."""
    convention = wilson()
    known = flatten_groups(earlier.groups)
    before, after = (_means(step, known) for step in (earlier, later))
    background = prediction_breakdown(later.matrix(convention), later.groups, [0])
    return Analysis(
        chain=chain,
        earlier=earlier,
        later=later,
        before=before,
        after=after,
        flow_before=prediction_breakdown(earlier.matrix(convention), (*earlier.groups, ()), known),
        flow_after=prediction_breakdown(
            later.matrix(convention), _as_one_step(later, earlier), known
        ),
        background_taken=background.new if background else None,
        layers=_layers(answers, before.earlier),
        bias=next((answer for answer in answers if isinstance(answer.probe, Bias)), None),
        anew=retrained or {},
    )


def _as_one_step(later: StepResult, earlier: StepResult) -> tuple[tuple[int, ...], ...]:
    """The later step's groups with all that came after the earlier one as one new group."""
    count = len(earlier.groups)
    return (
        *earlier.groups,
        flatten_groups(later.groups[count:]),
    )


def _means(step: StepResult, known: Sequence[int]) -> Means:
    iou = step.scores(wilson()).iou
    since = [class_id for class_id in iou if class_id and class_id not in known]
    both = (
        mean_of_known(iou[class_id] for class_id in known),
        mean_of_known(iou[class_id] for class_id in since),
    )
    return Means(*both)


def _layers(answers: Sequence[ProbeRecord], before: float | None) -> tuple[Layer, ...]:
    kept: dict[str, dict[str, float | None]] = {}
    cka: dict[str, float | None] = {}
    for answer in answers:
        probe = answer.probe
        if isinstance(probe, Stitching):
            miou = answer.answer["miou"]
            kept.setdefault(probe.cut, {})[probe.joint] = (
                miou / before if miou is not None and before else None
            )
        elif isinstance(probe, Similarity):
            cka[probe.cut] = answer.answer["cka"]
    return tuple(Layer(cut, kept.get(cut, {}), cka.get(cut)) for cut in {**kept, **cka})


def sentences(analysis: Analysis) -> list[str]:
    """What the numbers say, in words; each sentence names the quantity it rests on."""
    told = [_fall(analysis)]
    if analysis.flow_after and analysis.flow_before:
        told.append(_causes(analysis.flow_before, analysis.flow_after))
    if analysis.background_taken is not None:
        told.append(
            f"Of background's own pixels, {percent(analysis.background_taken)} % became a new class."
        )
    if place := _where(analysis.layers):
        told.append(place)
    if analysis.bias:
        told.append(_leaning(analysis.bias))
    told += [_retrained(name, value, analysis.before) for name, value in analysis.retrained.items()]
    return told


def _fall(analysis: Analysis) -> str:
    count = sum(map(len, analysis.earlier.groups))
    return (
        f"The {count} classes known after step {analysis.earlier.record.index} had a mean IoU of "
        f"{percent(analysis.before.earlier)} % then, and have {percent(analysis.after.earlier)} % after step "
        f"{analysis.later.record.index}."
    )


def _causes(before: PredictionBreakdown, after: PredictionBreakdown) -> str:
    changes = {
        "background (background shift)": after.background - before.background,
        "a new class (bias towards new classes)": after.new - before.new,
        "another earlier class": after.other_old - before.other_old,
    }
    parts = [
        f"{percent(abs(change))} points {'more' if change >= 0 else 'fewer'} became {name}"
        for name, change in sorted(changes.items(), key=lambda each: -each[1])
    ]
    return f"Of their pixels {percent(before.right)} % were right and {percent(after.right)} % are: {', '.join(parts)}."


def _where(layers: Sequence[Layer]) -> str | None:
    """The layer in which most is lost, by the trained joint.

    What a joint recovers behind a layer was there before it, too, so a layer keeps at least what any later one does.
    """
    known = [
        (layer.cut, value) for layer in layers if (value := layer.kept.get("trained")) is not None
    ]
    if not known:
        return None
    names = ["images", *(cut for cut, _ in known)]
    proven = [1.0, *reversed([*accumulate((value for _, value in reversed(known)), max)])]
    drop, where = max(
        (first - second, name)
        for (first, second), name in zip(pairwise(proven), names[1:], strict=True)
    )
    if drop < 1 - KEPT:
        return f"No layer loses much: joined anywhere, at least {percent(min(proven))} % of that is kept."
    intact = [name for name, value in zip(names, proven, strict=True) if value >= KEPT][-1]
    start = "Something of it is lost from the first layers on"
    if intact != "images":
        start = f"Up to {_the(intact)} nothing of it is lost (a 1x1 layer recovers {100 * KEPT:.0f} % of it or more)"
    return f"{start}; the largest loss, {percent(drop)} points, is in {_the(where)}."


def _the(part: str) -> str:
    """A part of the network as a sentence names it: stage 2, the head."""
    return part if part.startswith("stage") else f"the {part}"


def _leaning(record: ProbeRecord) -> str:
    answer = record.answer
    gap = answer["gap"]
    if gap is None:
        return "There was no pixel of an earlier class to measure the classifier's bias on."
    new, background = gap["new_minus_previous"], gap["background_minus_previous"]
    start = (
        f"On pixels of earlier classes the highest logit of a new class is {_beside(new)} the highest of an earlier one on "
        f"average, background's {_beside(background)} it."
    )
    if max(new, background) <= 0:
        return f"{start} There is nothing to correct."
    shown = {name: percent(answer[name]["earlier"]) for name in ("as_it_is", *CORRECTIONS)}
    return (
        f"{start} With new classes' logits lowered by that their mean IoU goes from {shown['as_it_is']} % to "
        f"{shown['new_corrected']} %, with background's, too, to {shown['both_corrected']} %: what comes back was outvoted."
    )


def _beside(gap: float) -> str:
    return f"{abs(gap):.1f} {'above' if gap > 0 else 'below'}"


def _retrained(name: str, now: Means, before: Means) -> str:
    share = (
        percent(now.earlier / before.earlier) if now.earlier is not None and before.earlier else "–"
    )
    return (
        f"With the {name} trained anew on all labels, and what lies before it kept, they reach {percent(now.earlier)} % "
        f"({share} % of before): that much information is still there."
    )
