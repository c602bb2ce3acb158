"""Describe the findings of an analysis. Each sentence names the quantity that it rests on."""

from collections.abc import Sequence
from itertools import accumulate, pairwise

from orchestrator.analysis.diagnosis import CORRECTIONS, Analysis, Layer, Means
from orchestrator.analysis.probe_record import ProbeRecord
from orchestrator.records.results import adoption_words
from orchestrator.report.table import percent
from training.config import flatten_groups
from training.prediction_breakdown import PredictionBreakdown

# A layer that keeps this share of the earlier mIoU counts as one that loses nothing.
INTACT = 0.95


def describe_analysis(analysis: Analysis) -> list[str]:
    """Return the findings of an analysis, one sentence or two for each kind of number."""
    sentences = [_describe_loss(analysis)]
    if adopted := adoption_words([analysis.earlier.record]):
        sentences.append(adopted)
    if analysis.breakdown_before and analysis.breakdown_after:
        sentences.append(_describe_causes(analysis.breakdown_before, analysis.breakdown_after))
    if analysis.background_taken is not None:
        taken = percent(analysis.background_taken)
        sentences.append(f"Of background's own pixels, {taken} % became a new class.")
    if where := _describe_layers(analysis.layers):
        sentences.append(where)
    if analysis.bias:
        sentences.append(_describe_bias(analysis.bias))
    for part, means in analysis.retrained.items():
        sentences.append(_describe_retrained(part, means, analysis.before))
    return sentences


def _describe_loss(analysis: Analysis) -> str:
    count = len(flatten_groups(analysis.earlier.groups))
    before, after = analysis.earlier.record.index, analysis.later.record.index
    return (
        f"The {count} classes known after step {before} had a mean IoU of "
        f"{percent(analysis.before.earlier)} % then, and have "
        f"{percent(analysis.after.earlier)} % after step {after}."
    )


def _describe_causes(before: PredictionBreakdown, after: PredictionBreakdown) -> str:
    changes = {
        "background (background shift)": after.background - before.background,
        "a new class (bias towards new classes)": after.new - before.new,
        "another earlier class": after.other_old - before.other_old,
    }
    largest_first = sorted(changes.items(), key=lambda each: -each[1])
    causes = [
        f"{percent(abs(change))} points {'more' if change >= 0 else 'fewer'} became {name}"
        for name, change in largest_first
    ]
    return (
        f"Of their pixels {percent(before.right)} % were right and {percent(after.right)} % are: "
        f"{', '.join(causes)}."
    )


def _describe_layers(layers: Sequence[Layer]) -> str | None:
    """Name the layer in which most is lost, by the trained joint; None without such a joint.

    What a joint recovers after a layer was there before the layer, too. Therefore a layer keeps
    at least as much as any later layer does.
    """
    measured = [
        (layer.cut, kept) for layer in layers if (kept := layer.kept.get("trained")) is not None
    ]
    if not measured:
        return None
    cuts = ["images", *(cut for cut, _ in measured)]
    backwards = [kept for _, kept in reversed(measured)]
    proven = [1.0, *reversed(list(accumulate(backwards, max)))]
    losses = [first - second for first, second in pairwise(proven)]
    loss, cut = max(zip(losses, cuts[1:], strict=True))
    if loss < 1 - INTACT:
        least = percent(min(proven))
        return f"No layer loses much: joined anywhere, at least {least} % of that is kept."
    intact = [name for name, value in zip(cuts, proven, strict=True) if value >= INTACT][-1]
    if intact == "images":
        start = "Something of it is lost from the first layers on"
    else:
        start = (
            f"Up to {_with_article(intact)} nothing of it is lost "
            f"(a 1x1 layer recovers {100 * INTACT:.0f} % of it or more)"
        )
    return f"{start}; the largest loss, {percent(loss)} points, is in {_with_article(cut)}."


def _with_article(cut: str) -> str:
    """Return a part of the network as a sentence names it: "stage 2", "the head"."""
    return cut if cut.startswith("stage") else f"the {cut}"


def _describe_bias(record: ProbeRecord) -> str:
    answer = record.answer
    gap = answer["gap"]
    if gap is None:
        return "There was no pixel of an earlier class to measure the classifier's bias on."
    new, background = gap["new_minus_previous"], gap["background_minus_previous"]
    start = (
        f"On pixels of earlier classes the highest logit of a new class is {_above(new)} the "
        f"highest of an earlier one on average, background's {_above(background)} it."
    )
    if max(new, background) <= 0:
        return f"{start} There is nothing to correct."
    miou = {name: percent(answer[name]["earlier"]) for name in ("as_it_is", *CORRECTIONS)}
    return (
        f"{start} With new classes' logits lowered by that their mean IoU goes from "
        f"{miou['as_it_is']} % to {miou['new_corrected']} %, with background's, too, to "
        f"{miou['both_corrected']} %: what comes back was outvoted, not lost."
    )


def _above(gap: float) -> str:
    return f"{abs(gap):.1f} {'above' if gap > 0 else 'below'}"


def _describe_retrained(part: str, now: Means, before: Means) -> str:
    share = "–"
    if now.earlier is not None and before.earlier:
        share = percent(now.earlier / before.earlier)
    return (
        f"With the {part} retrained on all labels, and the layers before it kept, they reach "
        f"{percent(now.earlier)} % ({share} % of before): that much information is still there."
    )
