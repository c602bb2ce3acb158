"""One question to a pair of models, the same one before and after some steps, answered with numbers.

Each probe is a document; with the two models, the images and the way they are viewed, it decides the answer. All of it is
asked on the earlier model's classes: what it knew is what can be forgotten.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from training.checkpoint import ModelDocument, load_model
from training.config import VOID, Document, EvaluationConfig, flatten_groups
from training.data.shards import Index, LocalSplit
from training.evaluate import confusion, same_sized, views
from training.metrics import Confusion, mean_of_known, score, wilson
from training.models.segmenter import Segmenter, normalise, upsample
from training.probes.bias import LogitGap, classifier_weights, corrected, logit_gap
from training.probes.cka import LinearCka
from training.probes.stitching import Joint, identity_joint, least_squares_joint, run, train_joint
from training.scenario import hashed_order

Answer = dict[str, Any]  # JSON: numbers by name
EXAMPLES = 8  # grid positions along each side of a map at which representations are compared


class Stitching(Document):
    """The later model up to `cut`, a 1x1 joint, and the earlier model from there on: its mIoU on the earlier classes."""

    probe: Literal["stitching"] = "stitching"
    cut: str
    joint: Joint
    images: int = Field(default=128, ge=1)  # that the joint is fitted to
    epochs: int = Field(default=10, ge=1)  # of training the joint
    learning_rate: float = Field(default=1e-3, gt=0)


class Similarity(Document):
    """Debiased linear CKA of what the two models compute behind `cut`, on a grid of positions of the same images."""

    probe: Literal["similarity"] = "similarity"
    cut: str
    images: int = Field(default=128, ge=1)


class Bias(Document):
    """Classifier weights, logit gaps on earlier classes' pixels, and the later model's mIoU with the gaps subtracted."""

    probe: Literal["bias"] = "bias"
    images: int = Field(
        default=128, ge=1
    )  # of the earlier classes, from the training split: the gap is measured on them


Probe = Annotated[Stitching | Similarity | Bias, Field(discriminator="probe")]


@dataclass(frozen=True)
class Pair:
    """The models, and the images they are asked on."""

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
    """Two published folders, the later one grown from the earlier. Raises ValueError when their classes do not continue."""
    (first, first_document), (second, second_document) = load_model(earlier), load_model(later)
    groups = first_document.groups
    if second_document.groups[: len(groups)] != groups:
        raise ValueError(
            f"the later model does not continue the earlier one: {second_document.groups} after {groups}"
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


def measure(probe: Stitching | Similarity | Bias, pair: Pair) -> Answer:
    """The answer to one probe."""
    if isinstance(probe, Stitching):
        return _stitching(probe, pair)
    if isinstance(probe, Similarity):
        return _similarity(probe, pair)
    return _bias(probe, pair)


def _stitching(probe: Stitching, pair: Pair) -> Answer:
    torch.manual_seed(0)

    def features(model: Segmenter) -> Iterator[Tensor]:
        return (
            _run_frozen(model, images, upto=probe.cut)
            for images, _ in _fixed_images(pair, probe.images)
        )

    channels = [next(features(model)).shape[1] for model in (pair.later, pair.earlier)]
    if probe.joint == "identity":
        joint = identity_joint(*channels)
    else:
        joint = least_squares_joint(zip(features(pair.later), features(pair.earlier), strict=True))
    joint = joint.to(pair.device)
    if probe.joint == "trained":

        def batches() -> Iterator[tuple[Tensor, Tensor]]:
            for images, _ in _fixed_images(pair, probe.images):
                yield (
                    _run_frozen(pair.later, images, upto=probe.cut),
                    _run_frozen(pair.earlier, images),
                )

        train_joint(joint, pair.earlier, probe.cut, batches, probe.epochs, probe.learning_rate)
    stitched = partial(_stitched_logits, pair, probe.cut, joint)
    scores = score(
        _counts(pair, stitched, pair.earlier_document), pair.earlier_document.groups, wilson()
    )
    return {"miou": scores.miou_all_without_background}


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
    gap = logit_gap(
        (
            (upsample(_run_frozen(pair.later, images), truth.shape[-2:]), truth)
            for images, truth in _fixed_images(pair, probe.images)
        ),
        previous,
    )
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
        values = score(
            _counts(pair, logits, pair.later_document), pair.later_document.groups, wilson()
        )
        earlier = [
            values.iou[class_id] for class_id in flatten_groups(pair.earlier_document.groups)
        ]
        answer[name] = {
            "earlier": mean_of_known(earlier),
            "new": values.miou_new,
            "all": values.miou_all,
        }
    return answer


def fixed_rows(index: Index, groups: Sequence[Sequence[int]], count: int) -> np.ndarray:
    """Rows of the images, `count` at most, that a probe shows to models which learned `groups` of dataset class ids."""
    known = flatten_groups(groups)
    return hashed_order(np.flatnonzero(index.labels[:, np.asarray(known) - 1].any(1)), index.ids)[
        :count
    ]


def _fixed_images(pair: Pair, count: int, batch: int = 16) -> Iterator[tuple[Tensor, Tensor]]:
    """Normalised images [B, 3, H, W] of the earlier classes, always the same, and truth [B, H, W] in the earlier channels.

    Pixels of classes that the earlier model does not know are 255, like void.
    """
    rows = fixed_rows(pair.train.index, pair.earlier_document.groups, count)
    table = np.full(256, VOID, np.uint8)
    table[list(pair.earlier_document.class_ids)] = np.arange(len(pair.earlier_document.class_ids))
    dtype = next(pair.earlier.parameters()).dtype
    for items in same_sized(views(pair.train, rows, pair.config), batch):
        images = torch.stack([item["image"] for item in items]).to(pair.device)
        truth = (
            torch.from_numpy(table[np.stack([item["mask"].numpy() for item in items])])
            .to(pair.device)
            .long()
        )
        yield normalise(images, dtype), truth


@torch.no_grad()
def _run_frozen(model: Segmenter, images: Tensor, upto: str | None = None) -> Tensor:
    return run(model, images, upto=upto)


@torch.no_grad()
def _stitched_logits(pair: Pair, cut: str, joint: nn.Conv2d, images: Tensor) -> Tensor:
    return run(pair.earlier, joint(run(pair.later, images, upto=cut)), after=cut)


def _corrected_logits(
    pair: Pair, previous: int, gap: LogitGap, background: bool, images: Tensor
) -> Tensor:
    return corrected(_run_frozen(pair.later, images), previous, gap, background)


def _grid(features: Tensor) -> Tensor:
    """[B, C, h, w] -> [B x positions, C] at an even grid of at most EXAMPLES x EXAMPLES positions."""
    rows, columns = (
        torch.linspace(0, side - 1, min(side, EXAMPLES), device=features.device).round().long()
        for side in features.shape[-2:]
    )
    return features[:, :, rows][:, :, :, columns].permute(0, 2, 3, 1).flatten(0, 2)


def _counts(pair: Pair, logits: Callable[[Tensor], Tensor], document: ModelDocument) -> Confusion:
    """What a network confuses on the validation images; `logits` of normalised images, channels as the document says."""
    class_ids = torch.tensor(document.class_ids, dtype=torch.uint8, device=pair.device)
    dtype = next(pair.earlier.parameters()).dtype

    def predictor(pixels: Tensor) -> Tensor:
        return class_ids[upsample(logits(normalise(pixels, dtype)), pixels.shape[-2:]).argmax(1)]

    table = confusion(
        predictor, pair.val, np.arange(len(pair.val.index.ids)), pair.config, pair.device
    )
    return Confusion(*(table[name].to_numpy() for name in Confusion._fields))
