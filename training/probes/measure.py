"""Answer a probe of a pair of models with numbers."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from training.checkpoint import ModelDocument, load_model
from training.config import VOID, EvaluationConfig, flatten_groups
from training.data.loader import load_items
from training.data.shards import Index, LocalSplit
from training.evaluate import confusion, same_sized, views
from training.metrics import Confusion, mean_of_known, score, wilson
from training.models.segmenter import Segmenter, normalise, upsample
from training.precision import set_precision
from training.probes.bias import LogitGap, classifier_weights, correct_logits, logit_gap
from training.probes.cka import LinearCka
from training.probes.questions import Answer, AnyProbe, Bias, Similarity, Stitching
from training.probes.stitching import (
    identity_joint,
    least_squares_joint,
    run_parts,
    train_joint,
)
from training.scenario import hashed_order

# Grid positions along each side of a map at which representations are compared.
GRID = 8


@dataclass(frozen=True)
class Pair:
    """Two models and the images on which they are compared."""

    earlier: Segmenter
    later: Segmenter
    earlier_document: ModelDocument
    later_document: ModelDocument
    train: LocalSplit
    val: LocalSplit
    config: EvaluationConfig
    device: torch.device


def open_pair(
    earlier: Path,
    later: Path,
    train: LocalSplit,
    val: LocalSplit,
    config: EvaluationConfig,
    device: torch.device,
) -> Pair:
    """Load two published models.

    Args:
        earlier: Folder of the earlier model.
        later: Folder of the later model, which continues the earlier one.
        train: The training split.
        val: The split on which mIoU is measured.
        config: How images are viewed.
        device: Where the models run.

    Raises:
        ValueError: The later model's classes do not continue the earlier model's.
    """
    first, first_document = load_model(earlier)
    second, second_document = load_model(later)
    groups = first_document.groups
    if second_document.groups[: len(groups)] != groups:
        raise ValueError(
            f"the later model does not continue the earlier one: {second_document.groups} "
            f"after {groups}"
        )
    return Pair(
        first.to(device),
        second.to(device),
        first_document,
        second_document,
        train,
        val,
        config,
        device,
    )


def measure(probe: AnyProbe, pair: Pair) -> Answer:
    """Return the answer to one probe; its fields depend on the probe."""
    # The process may have trained a step with other settings before.
    set_precision("float32", pair.device, fixed_shapes=False)
    if isinstance(probe, Stitching):
        return _stitching(probe, pair)
    if isinstance(probe, Similarity):
        return _similarity(probe, pair)
    return _bias(probe, pair)


def _stitching(probe: Stitching, pair: Pair) -> Answer:
    torch.manual_seed(0)
    joint = _fit_joint(probe, pair).to(pair.device)
    if probe.joint == "trained":

        def batches() -> Iterator[tuple[Tensor, Tensor, tuple[int, int]]]:
            for images, _ in _fixed_images(pair, probe.images):
                features = _run_frozen(pair.later, images, upto=probe.cut)
                size = images.shape[-2], images.shape[-1]
                yield features, _run_frozen(pair.earlier, images), size

        train_joint(joint, pair.earlier, probe.cut, batches, probe.epochs, probe.learning_rate)
    document = pair.earlier_document
    counts = _counts(pair, partial(_stitched_logits, pair, probe.cut, joint), document)
    scores = score(counts, document.groups, wilson())
    return {"miou": scores.miou_all_without_background}


def _fit_joint(probe: Stitching, pair: Pair) -> nn.Conv2d:
    """Return the joint as it is before any training."""

    def features(model: Segmenter) -> Iterator[Tensor]:
        for images, _ in _fixed_images(pair, probe.images):
            yield _run_frozen(model, images, upto=probe.cut)

    if probe.joint == "identity":
        inputs, outputs = (next(features(model)).shape[1] for model in (pair.later, pair.earlier))
        return identity_joint(inputs, outputs)
    return least_squares_joint(zip(features(pair.later), features(pair.earlier), strict=True))


def _similarity(probe: Similarity, pair: Pair) -> Answer:
    similarity = LinearCka()
    for images, _ in _fixed_images(pair, probe.images):
        earlier, later = (
            _grid(_run_frozen(model, images, upto=probe.cut))
            for model in (pair.earlier, pair.later)
        )
        similarity.update(earlier, later)
    value = similarity.value
    return {"cka": value if np.isfinite(value) else None}


def _bias(probe: Bias, pair: Pair) -> Answer:
    previous = sum(pair.earlier_document.channels)
    gap = logit_gap(_logits_and_truth(probe, pair), previous)
    weights = classifier_weights(pair.later)
    answer: Answer = {
        "classes": list(pair.later_document.class_ids),
        "norms": list(weights.norms),
        "biases": list(weights.biases),
        "gap": gap.model_dump() if gap else None,
    }
    if gap is None:
        return answer
    lowered = partial(_corrected_logits, pair, previous, gap)
    for name, logits in (
        ("as_it_is", partial(_run_frozen, pair.later)),
        ("new_corrected", partial(lowered, False)),
        ("both_corrected", partial(lowered, True)),
    ):
        answer[name] = _mean_iou(pair, logits)
    return answer


def _logits_and_truth(probe: Bias, pair: Pair) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the later model's logits [B, C, H, W] and the truth [B, H, W] of the fixed images."""
    for images, truth in _fixed_images(pair, probe.images):
        yield upsample(_run_frozen(pair.later, images), truth.shape[-2:]), truth


def _mean_iou(pair: Pair, logits: Callable[[Tensor], Tensor]) -> dict[str, float | None]:
    """Return the mIoU of earlier, new and all classes when `logits` predicts."""
    document = pair.later_document
    values = score(_counts(pair, logits, document), document.groups, wilson())
    known = flatten_groups(pair.earlier_document.groups)
    earlier = mean_of_known(values.iou[class_id] for class_id in known)
    return {"earlier": earlier, "new": values.miou_new, "all": values.miou_all}


def fixed_rows(index: Index, groups: Sequence[Sequence[int]], count: int) -> np.ndarray:
    """Return the rows of the images that a probe shows to the models.

    The same images are chosen for the same classes, in an order that their names decide.

    Args:
        index: Index of the training split.
        groups: Dataset ids of the classes that the earlier model knows.
        count: The number of images at most.

    Returns:
        Rows [n] of the index, n <= count, of images that show one of the classes.
    """
    known = np.asarray(flatten_groups(groups))
    shown = np.flatnonzero(index.labels[:, known - 1].any(1))
    return hashed_order(shown, index.ids)[:count]


def _fixed_images(pair: Pair, count: int, batch: int = 16) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield normalised images [B, 3, H, W], always the same, and their truth [B, H, W].

    Truth is in the earlier model's channels. Pixels of classes that it does not know are 255,
    like void.
    """
    rows = fixed_rows(pair.train.index, pair.earlier_document.groups, count)
    known = list(pair.earlier_document.class_ids)
    channel_of = np.full(256, VOID, np.uint8)
    channel_of[known] = np.arange(len(known))
    dtype = next(pair.earlier.parameters()).dtype
    for items in same_sized(load_items(views(pair.train, rows, pair.config), 0), batch):
        images = torch.stack([item["image"] for item in items]).to(pair.device)
        masks = np.stack([item["mask"].numpy() for item in items])
        truth = torch.from_numpy(channel_of[masks]).to(pair.device).long()
        yield normalise(images, dtype), truth


@torch.no_grad()
def _run_frozen(model: Segmenter, images: Tensor, upto: str | None = None) -> Tensor:
    return run_parts(model, images, upto=upto)


@torch.no_grad()
def _stitched_logits(pair: Pair, cut: str, joint: nn.Conv2d, images: Tensor) -> Tensor:
    features = run_parts(pair.later, images, upto=cut)
    size = images.shape[-2], images.shape[-1]
    return run_parts(pair.earlier, joint(features), after=cut, size=size)


def _corrected_logits(
    pair: Pair, previous: int, gap: LogitGap, background: bool, images: Tensor
) -> Tensor:
    return correct_logits(_run_frozen(pair.later, images), previous, gap, background)


def _grid(features: Tensor) -> Tensor:
    """Sample [B, C, h, w] at an even grid of at most GRID x GRID positions.

    Returns:
        The samples as examples [B x positions, C].
    """
    rows, columns = (
        torch.linspace(0, side - 1, min(side, GRID), device=features.device).round().long()
        for side in features.shape[-2:]
    )
    return features[:, :, rows][:, :, :, columns].permute(0, 2, 3, 1).flatten(0, 2)


def _counts(pair: Pair, logits: Callable[[Tensor], Tensor], document: ModelDocument) -> Confusion:
    """Count the confusions of a network on the validation images.

    Args:
        pair: Holds the images.
        logits: Maps normalised images [B, 3, H, W] to logits [B, C, h, w].
        document: Maps channels to classes.
    """
    class_ids = torch.tensor(document.class_ids, dtype=torch.uint8, device=pair.device)
    dtype = next(pair.earlier.parameters()).dtype

    def predictor(pixels: Tensor) -> Tensor:
        return class_ids[upsample(logits(normalise(pixels, dtype)), pixels.shape[-2:]).argmax(1)]

    rows = np.arange(len(pair.val.index.ids))
    table = confusion(predictor, pair.val, rows, pair.config, pair.device)
    return Confusion(*(table[name].to_numpy() for name in Confusion._fields))
