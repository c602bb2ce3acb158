"""Combine records of two steps with answers to probes, to find why the later model forgot.

Every quantity is about the classes that the earlier step knew.

* Stitching and CKA show, layer by layer, where in the network forgetting sits.
* The predictions of those classes' pixels show how much is background shift and how much is bias
towards new classes.
* Correcting the classifier's logits afterwards shows how much of the forgetting that bias explains.
* Retraining the classifier or the decoder shows how much information the kept layers still hold.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from orchestrator.analysis.probe_record import ProbeRecord
from orchestrator.records.results import ChainResult, StepResult
from training.config import flatten_groups
from training.metrics import mean_of_known, wilson
from training.prediction_breakdown import PredictionBreakdown, prediction_breakdown
from training.probes.questions import Bias, Similarity, Stitching

CORRECTIONS = ("new_corrected", "both_corrected")


class Means(NamedTuple):
    """Mean IoU of the classes that the earlier step knew, and of those learned since."""

    earlier: float | None
    new: float | None


@dataclass(frozen=True)
class Layer:
    """What the probes measured at one cut of the network."""

    cut: str
    kept: Mapping[str, float | None]  # by joint; fraction of the earlier model's mIoU
    cka: float | None


@dataclass(frozen=True)
class Analysis:
    """Everything that is known about why one step of a chain forgot another."""

    chain: ChainResult
    earlier: StepResult
    later: StepResult
    before: Means  # after the earlier step
    after: Means  # after the later step
    breakdown_before: PredictionBreakdown | None
    breakdown_after: PredictionBreakdown | None
    background_taken: float | None  # share of background's pixels predicted as a new class
    layers: tuple[Layer, ...]
    bias: ProbeRecord | None
    # Steps that retrained a part of the later model, by part (classifier, decoder).
    retrained_steps: Mapping[str, StepResult]

    @property
    def title(self) -> str:
        before, after = self.earlier.record.index, self.later.record.index
        return f"{self.chain.name}: step {before} to step {after}"

    @property
    def retrained(self) -> Mapping[str, Means]:
        """Return the mean IoU with a part of the later model retrained, by part."""
        known = flatten_groups(self.earlier.groups)
        return {part: _means(step, known) for part, step in self.retrained_steps.items()}

    @property
    def corrected(self) -> Mapping[str, Means]:
        """Return the later model's mean IoU with corrected logits, by the name in CORRECTIONS."""
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
    """Combine the records of two steps with the answers to probes of them.

    Args:
        chain: The chain that holds both steps.
        earlier: The step whose classes may have been forgotten.
        later: A later step of the chain.
        answers: Answers to probes of the two steps.
        retrained: Steps that retrained a part of the later model, by part.
    """
    convention = wilson()
    known = flatten_groups(earlier.groups)
    before, after = _means(earlier, known), _means(later, known)
    background = prediction_breakdown(later.matrix(convention), later.groups, [0])
    # To the breakdown, all classes learned since the earlier step are one new group.
    since = tuple(flatten_groups(later.groups[len(earlier.groups) :]))
    return Analysis(
        chain=chain,
        earlier=earlier,
        later=later,
        before=before,
        after=after,
        breakdown_before=prediction_breakdown(
            earlier.matrix(convention), (*earlier.groups, ()), known
        ),
        breakdown_after=prediction_breakdown(
            later.matrix(convention), (*earlier.groups, since), known
        ),
        background_taken=background.new if background else None,
        layers=_layers(answers, before.earlier),
        bias=next((answer for answer in answers if isinstance(answer.probe, Bias)), None),
        retrained_steps=retrained or {},
    )


def _means(step: StepResult, known: Sequence[int]) -> Means:
    iou = step.scores(wilson()).iou
    since = [class_id for class_id in iou if class_id and class_id not in known]
    return Means(
        earlier=mean_of_known(iou[class_id] for class_id in known),
        new=mean_of_known(iou[class_id] for class_id in since),
    )


def _layers(answers: Sequence[ProbeRecord], miou_before: float | None) -> tuple[Layer, ...]:
    kept: dict[str, dict[str, float | None]] = {}
    cka: dict[str, float | None] = {}
    for answer in answers:
        probe = answer.probe
        if isinstance(probe, Stitching):
            miou = answer.answer["miou"]
            share = miou / miou_before if miou is not None and miou_before else None
            kept.setdefault(probe.cut, {})[probe.joint] = share
        elif isinstance(probe, Similarity):
            cka[probe.cut] = answer.answer["cka"]
    return tuple(Layer(cut, kept.get(cut, {}), cka.get(cut)) for cut in {**kept, **cka})
