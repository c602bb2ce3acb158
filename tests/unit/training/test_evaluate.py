"""Confusions are the same however images are decoded and counted."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow
import pytest
import torch
from torch import Tensor

from tests.support.datasets import build_dataset, open_split
from tests.support.methods import build_method, build_step
from training.checkpoint import save_model
from training.config import EvaluationConfig, Precision
from training.data.digits import Digits
from training.data.shards import LocalSplit
from training.data.source import BadData
from training.evaluate import (
    confusion,
    count_confusions,
    count_each_alone,
    evaluate,
    outside_the_crop,
    same_sized,
)
from training.methods import fine_tuning
from training.metrics import Confusion, confusion_counts, mib, score
from training.runtime import Runtime

CPU = torch.device("cpu")
WHOLE = EvaluationConfig(short_side=None, crop=None)


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> LocalSplit:
    folder = tmp_path_factory.mktemp("digits")
    manifest, _ = build_dataset(Digits(seed=3, train=1, val=5), folder)
    return open_split(manifest, "val", folder)


def red_channel(pixels: Tensor) -> Tensor:
    return pixels[:, 0] // 16


@pytest.mark.parametrize("count", [count_confusions, count_each_alone])
def test_counts_are_those_of_each_image_by_itself(count: Callable[..., tuple[np.ndarray, ...]]):
    generator = torch.Generator().manual_seed(0)
    truth, predicted = (
        torch.randint(0, 256, (3, 9, 7), generator=generator, dtype=torch.uint8) for _ in range(2)
    )
    truth[1] = 255
    predicted[1] = 255
    image, *counted = count(truth, predicted)
    for number in range(3):
        expected = confusion_counts(truth[number].numpy(), predicted[number].numpy())
        for found, column in zip(counted, expected, strict=True):
            assert found.dtype == column.dtype
            assert found[image == number].tolist() == column.tolist()


@pytest.mark.parametrize(("batch", "processes"), [(2, 0), (16, 0), (2, 2)])
def test_batches_and_processes_change_no_count(split: LocalSplit, batch: int, processes: int):
    rows = np.array([4, 0, 2])
    expected = confusion(red_channel, split, rows, WHOLE, CPU, batch=1)
    assert expected["image"].unique().to_pylist() == [4, 0, 2]
    assert confusion(red_channel, split, rows, WHOLE, CPU, batch, processes) == expected


@pytest.mark.parametrize("processes", [0, 1])
def test_a_damaged_image_is_named(split: LocalSplit, tmp_path: Path, processes: int):
    (shard,) = split.shards
    damaged = bytearray(shard.read_bytes())
    start, length = split.index.image_range[3].tolist()
    damaged[start : start + length] = bytes(length)
    path = tmp_path / "damaged.arrow"
    path.write_bytes(damaged)
    broken = replace(split, shards=(path,))
    with pytest.raises(BadData, match=r"^row 3 \(id val-.*\) of shard .*: the image cannot"):
        confusion(red_channel, broken, np.arange(5), WHOLE, CPU, 2, processes)


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_a_cpu_scores_a_step_of_any_precision_without_rounding(
    split: LocalSplit, tmp_path: Path, precision: Precision
):
    method = build_method(build_step(fine_tuning.Config()))
    save_model(tmp_path, method, [])
    expected = evaluate(tmp_path, split, WHOLE, Runtime())
    assert evaluate(tmp_path, split, WHOLE, Runtime(), precision=precision) == expected


def test_only_images_of_one_size_are_predicted_together():
    sizes = [4, 4, 4, 5, 4]
    items = [{"image": torch.zeros(3, size, size)} for size in sizes]
    assert [len(part) for part in same_sized(items, 2)] == [2, 1, 1, 1]


def test_a_class_outside_of_the_crop_has_a_row_of_no_pixels(split: LocalSplit):
    """Under MiB's convention an image counts if any learned class is in the whole of it."""
    rows = np.arange(5)
    corner = EvaluationConfig(short_side=None, crop=8)
    counted = confusion(lambda pixels: pixels[:, 0] * 0, split, rows, corner, CPU)
    more = outside_the_crop(counted, split, rows)
    both = pyarrow.concat_tables([counted, more]).to_pydict()
    named = {(image, truth) for image, truth in zip(both["image"], both["truth"], strict=True)}
    shown = {(row, column + 1) for row, column in np.argwhere(split.index.labels).tolist()}
    assert shown <= named
    assert more.num_rows > 0
    assert set(more["pixels"].to_pylist()) == {0}
    lost = more["truth"][0].as_py()
    images = []
    for table in (counted.to_pydict(), both):
        counts = Confusion(*(np.array(table[name]) for name in Confusion._fields))
        images.append(score(counts, ((lost,),), mib()).images)
    assert images[0] < images[1] == split.index.labels[:, lost - 1].sum()
    whole = confusion(lambda pixels: pixels[:, 0] * 0, split, rows, WHOLE, CPU)
    assert outside_the_crop(whole, split, rows).num_rows == 0
