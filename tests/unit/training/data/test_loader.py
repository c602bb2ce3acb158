"""Batches are pinned only when that is asked for, and single images come in order."""

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.support.datasets import build_dataset, open_split
from training.config import Augmentation, EvaluationConfig
from training.data.dataset import GlobalBatches, SegmentationDataset
from training.data.digits import Digits
from training.data.loader import load_batches, load_items
from training.data.shards import LocalSplit
from training.data.transforms import evaluation_view, random_resized_crop

EVERY_VALUE = np.arange(256, dtype=np.uint8)


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> LocalSplit:
    folder = tmp_path_factory.mktemp("digits")
    manifest, _ = build_dataset(Digits(seed=1, train=8, val=1), folder)
    return open_split(manifest, "train", folder)


@pytest.mark.parametrize("pinned", [False, True])
def test_only_pinned_batches_touch_the_gpu(
    split: LocalSplit, monkeypatch: pytest.MonkeyPatch, pinned: bool
):
    """A step on the CPU of a machine that has a GPU must not open the GPU."""
    asked: list[torch.Size] = []

    def pin(values: Tensor) -> Tensor:
        asked.append(values.shape)
        return values.clone()

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(Tensor, "pin_memory", pin)
    transform = partial(random_resized_crop, augmentation=Augmentation(crop=32))
    dataset = SegmentationDataset(
        split, np.arange(8), transform=transform, label_map=EVERY_VALUE, seed=0
    )
    order = GlobalBatches(8, 4, 0, 0, 1, 0, 1)
    (batch,) = load_batches(dataset, order, 32, 0, pinned=pinned)
    assert set(batch) == {"image", "mask", "row"}
    assert asked == ([(4, 3, 32, 32), (4, 32, 32)] if pinned else [])


def test_images_come_in_order_from_any_number_of_processes(split: LocalSplit):
    rows = np.array([5, 0, 7, 2])
    transform = partial(evaluation_view, config=EvaluationConfig(short_side=None, crop=None))
    dataset = SegmentationDataset(split, rows, transform=transform, label_map=EVERY_VALUE, seed=0)
    alone = list(load_items(dataset, 0))
    assert [item["row"] for item in alone] == rows.tolist()
    for one, other in zip(alone, load_items(dataset, 2), strict=True):
        assert one["row"] == other["row"]
        assert torch.equal(one["image"], other["image"])
        assert torch.equal(one["mask"], other["mask"])


@pytest.mark.parametrize("batches", [True, False])
def test_processes_are_forked_before_threads_fetch_shards(split: LocalSplit, batches: bool):
    """A process forked while a thread holds a lock would wait for it forever."""
    forked: list[int] = []

    class Watching(LocalSplit):
        @contextmanager
        def prefetching(self, rows: np.ndarray) -> Iterator[None]:
            forked.append(len(multiprocessing.active_children()))
            yield

    watching = Watching(split.index, split.shards, split.classes, split.content)
    transform = partial(evaluation_view, config=EvaluationConfig(short_side=64, crop=64))
    if batches:
        transform = partial(random_resized_crop, augmentation=Augmentation(crop=32))
    dataset = SegmentationDataset(
        watching, np.arange(4), transform=transform, label_map=EVERY_VALUE, seed=0
    )
    before = len(multiprocessing.active_children())
    order = GlobalBatches(4, 4, 0, 0, 1, 0, 1)
    list(load_batches(dataset, order, 32, 2) if batches else load_items(dataset, 2))
    assert forked == [before + 2]
