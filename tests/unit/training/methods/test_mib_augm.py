"""Check MiB-AugM's losses against a slow sum over pixels, and that labels of kept images count."""

import numpy as np
import pytest
from pydantic import ValidationError

from tests.support.methods import START, build_batch, build_method, build_step, image_logits
from training.methods import mib_augm
from training.step_config import StepConfig

OLD = 4  # channels of the previous model


def test_each_half_has_its_own_cross_entropy() -> None:
    document = build_step(mib_augm.Config(distillation_weight=3))
    method = build_method(document)
    batch = build_batch(document)
    batch.masks[1, :7] = 255
    batch.masks[3, :9] = 255
    now, before = image_logits(method, batch.images)
    sums, counts = np.zeros(2), np.zeros(2)
    distilled = 0.0
    for number, (logits, previous) in enumerate(zip(now, before, strict=True)):
        kept = number >= 2
        p = np.exp(logits) / np.exp(logits).sum(0)
        q = np.exp(previous) / np.exp(previous).sum(0)
        mask = batch.masks[number].numpy()
        new = p[OLD:].sum(0)
        for row, column in np.ndindex(mask.shape):
            label = mask[row, column]
            at = p[:, row, column]
            folded = [at[0] + new[row, column], *at[1:OLD]]
            distilled -= (q[:, row, column] * np.log(folded)).sum() / OLD
            if label == 255:
                continue
            if kept:
                likely = folded[label]
            else:
                likely = at[label] if label >= OLD else at[:OLD].sum()
            sums[int(kept)] -= np.log(likely)
            counts[int(kept)] += 1
    losses = method(batch, START)
    assert losses["segmentation"].item() == pytest.approx(0.5 * sums[0] / counts[0], rel=1e-9)
    assert losses["memory"].item() == pytest.approx(0.5 * sums[1] / counts[1], rel=1e-9)
    pixels = batch.masks.numel()
    assert losses["distillation"].item() == pytest.approx(3 * distilled / pixels, rel=1e-9)


def test_what_a_kept_images_mask_names_changes_the_loss() -> None:
    document = build_step(mib_augm.Config())
    method = build_method(document)
    found = []
    for label in (0, 1, 2):
        batch = build_batch(document)
        batch.masks[2:] = label
        found.append(method(batch, START)["memory"].item())
    assert len(set(found)) == 3


def test_a_step_without_kept_images_is_refused() -> None:
    document = build_step(mib_augm.Config())
    task = document.task.model_copy(update={"memory": None, "memory_images": 0})
    with pytest.raises(ValidationError, match=r"keeps no images .* scenario\.memory"):
        StepConfig.model_validate(dict(document) | {"task": task})


def test_half_of_the_batch_counts_for_the_epoch() -> None:
    document = build_step(mib_augm.Config())
    assert (document.kept_per_batch, document.iterations_per_epoch) == (2, 4)
