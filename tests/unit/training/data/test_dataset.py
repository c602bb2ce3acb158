import time
from collections.abc import Iterable
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.config import Augmentation, EvaluationConfig
from training.data.dataset import GlobalBatches, SegmentationDataset
from training.data.loader import load_batches
from training.data.shards import LocalSplit
from training.data.source import BadData
from training.data.transforms import decode_image, decode_mask, evaluation_view, random_resized_crop
from training.data.voc import Voc

IDENTITY = np.arange(256, dtype=np.uint8)
CROP = partial(random_resized_crop, augmentation=Augmentation(crop=32))
WHOLE = partial(evaluation_view, config=EvaluationConfig(short_side=None, crop=None))


@pytest.fixture
def split(voc_folder: Path, local_split) -> LocalSplit:
    return local_split(Voc(voc_folder), shard_bytes=50_000)


def batches(
    count: int, total: int, start: int = 0, rank: int = 0, world_size: int = 1, batch: int = 4
) -> list:
    return list(GlobalBatches(count, batch, 7, rank, world_size, start, total))


def tensor(item: dict[str, torch.Tensor | int], name: str) -> torch.Tensor:
    """Return an entry of an item that is a tensor."""
    value = item[name]
    assert isinstance(value, torch.Tensor)
    return value


def halved(total: int, start: int = 0, rank: int = 0, world_size: int = 1) -> list:
    """Return batches of four, of which two are of the last three of eleven images."""
    order = GlobalBatches(11, 4, 7, rank, world_size, start, total, kept=3, kept_per_batch=2)
    assert sorted(set(order.upcoming())) == list(range(11))
    return list(order)


def positions(keys: Iterable[tuple[int, int]]) -> tuple[int, ...]:
    return tuple(position for _, position in keys)


def is_kept(batch: Iterable[tuple[int, int]]) -> list[bool]:
    return [position >= 8 for position in positions(batch)]


def test_half_of_each_batch_are_kept_images_in_permutations_of_their_own():
    wanted = halved(12)
    for batch in wanted:
        assert is_kept(batch) == [False, True, False, True]
    keys = list(chain.from_iterable(wanted))
    own = [key for key in keys if key[1] < 8]
    kept = [key for key in keys if key[1] >= 8]
    # Four batches are an epoch of the eight, and one and a half a pass over the three.
    for epoch in range(3):
        assert sorted(own[8 * epoch : 8 * epoch + 8]) == [(epoch, p) for p in range(8)]
    for passes in range(8):
        assert sorted(kept[3 * passes : 3 * passes + 3]) == [(passes, p) for p in (8, 9, 10)]
    orders = [tuple(kept[3 * passes : 3 * passes + 3]) for passes in range(8)]
    assert len({positions(order) for order in orders}) > 1


def test_half_batches_go_on_anywhere_and_are_shared_equally():
    wanted = halved(12)
    assert halved(12, start=5) == wanted[5:]
    shares = [halved(12, rank=rank, world_size=2) for rank in range(2)]
    assert [one + other for one, other in zip(*shares, strict=True)] == wanted
    assert all(is_kept(batch) == [False, True] for batch in shares[0])


def test_items_are_the_original_pixels(split: LocalSplit, voc_folder: Path):
    dataset = SegmentationDataset(
        split, np.array([20, 3]), transform=WHOLE, label_map=IDENTITY, seed=0
    )
    assert len(dataset) == 2
    sample = Voc(voc_folder).read("train", split.index.ids[3])
    item = dataset[0, 1]
    assert item["row"] == 3
    np.testing.assert_array_equal(
        tensor(item, "image").permute(1, 2, 0), decode_image(sample.image)
    )
    np.testing.assert_array_equal(item["mask"], decode_mask(sample.mask))


def test_masks_pass_through_the_label_map(split: LocalSplit):
    table = np.zeros(256, np.uint8)
    table[8] = 3
    rows = np.flatnonzero(split.index.labels[:, 7])
    make = partial(SegmentationDataset, split, rows, transform=WHOLE, seed=0)
    mapped = tensor(make(label_map=table)[0, 0], "mask")
    original = tensor(make(label_map=IDENTITY)[0, 0], "mask")
    assert set(mapped.unique().tolist()) == {0, 3}
    assert torch.equal(mapped == 3, original == 8)


def test_weak_items_are_the_same_when_every_mask_is_garbage(split: LocalSplit, tmp_path: Path):
    """Image labels come from the index; no byte of any mask reaches a weak step."""
    rows = np.arange(len(split.index.ids))
    garbage = []
    for number, shard in enumerate(split.shards):
        data = bytearray(shard.read_bytes())
        for first, count in split.index.mask_range[split.index.shard == number]:
            data[first : first + count] = np.random.default_rng(number).bytes(count)
        garbage.append(tmp_path / f"garbage{number}.arrow")
        garbage[-1].write_bytes(data)
    damaged = LocalSplit(split.index, tuple(garbage), split.classes, split.content)
    make = partial(SegmentationDataset, rows=rows, transform=CROP, seed=1)
    for row in range(len(rows)):
        expected = make(split, label_map=None)[0, row]
        item = make(damaged, label_map=None)[0, row]
        assert expected.keys() == item.keys() == {"image", "row"}
        assert torch.equal(tensor(expected, "image"), tensor(item, "image"))
    with pytest.raises(BadData, match="mask"):
        make(damaged, label_map=IDENTITY)[0, 0]


def test_weak_items_show_what_items_with_masks_show(split: LocalSplit):
    rows = np.arange(6)
    weak = SegmentationDataset(split, rows, transform=CROP, label_map=None, seed=1)
    full = SegmentationDataset(split, rows, transform=CROP, label_map=IDENTITY, seed=1)
    for n in range(6):
        assert torch.equal(tensor(weak[2, n], "image"), tensor(full[2, n], "image"))


def test_augmentation_follows_from_seed_epoch_and_image_alone(split: LocalSplit):
    def crop(seed: int, epoch: int, rows: list[int], position: int) -> torch.Tensor:
        dataset = SegmentationDataset(
            split, np.array(rows), transform=CROP, label_map=None, seed=seed
        )
        return tensor(dataset[epoch, position], "image")

    first = crop(1, 0, [4, 9], 1)
    assert torch.equal(first, crop(1, 0, [9, 4, 5], 0))
    assert not torch.equal(first, crop(1, 1, [4, 9], 1))
    assert not torch.equal(first, crop(2, 0, [4, 9], 1))


# A small machine has fewer cores than the four processes.
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [0, 1, 4])
def test_loader_processes_change_nothing(split: LocalSplit, workers: int):
    dataset = SegmentationDataset(split, np.arange(24), transform=CROP, label_map=IDENTITY, seed=3)
    order = GlobalBatches(24, 8, 3, 0, 1, start_iteration=2, total_iterations=16)
    loaded = 0
    for keys, batch in zip(order, load_batches(dataset, order, 32, workers), strict=True):
        time.sleep(0.02)  # so that processes run ahead, into buffers that were used before
        items = [dataset[key] for key in keys]
        assert batch["row"].tolist() == [item["row"] for item in items]
        for name in ("image", "mask"):
            assert batch[name].dtype == torch.uint8
            assert torch.equal(batch[name], torch.stack([tensor(item, name) for item in items]))
        loaded += 1
    assert loaded == 14


def test_a_row_that_does_not_decode_is_named(split: LocalSplit, tmp_path: Path):
    data = bytearray(split.shards[0].read_bytes())
    first, count = split.index.image_range[2]
    data[first : first + count] = bytes(count)
    broken = tmp_path / "broken.arrow"
    broken.write_bytes(data)
    damaged = LocalSplit(split.index, (broken, *split.shards[1:]), split.classes, split.content)
    dataset = SegmentationDataset(damaged, np.arange(5), transform=CROP, label_map=None, seed=0)
    with pytest.raises(BadData, match=f"row 2 .id {split.index.ids[2]}. of shard .*broken.arrow"):
        dataset[0, 2]


@given(count=st.integers(4, 60), start=st.integers(0, 20), more=st.integers(0, 20))
def test_starting_later_gives_the_rest_of_the_same_batches(count: int, start: int, more: int):
    whole = batches(count, start + more)
    assert len(whole) == start + more
    assert batches(count, start + more, start) == whole[start:]


@given(count=st.integers(12, 60), world_size=st.sampled_from([1, 2, 3, 4, 6, 12]))
def test_workers_shares_together_are_the_global_batch_in_order(count: int, world_size: int):
    shares = [
        batches(count, 7, rank=rank, world_size=world_size, batch=12) for rank in range(world_size)
    ]
    together = [list(chain(*shares_of_batch)) for shares_of_batch in zip(*shares, strict=True)]
    assert together == batches(count, 7, batch=12)


@given(count=st.integers(4, 60))
def test_an_epoch_visits_no_image_twice_and_drops_less_than_a_batch(count: int):
    per_epoch = count // 4
    keys = [key for batch in batches(count, 2 * per_epoch) for key in batch]
    for epoch in range(2):
        positions = [position for e, position in keys if e == epoch]
        assert len(set(positions)) == len(positions) == 4 * per_epoch
        assert set(positions) <= set(range(count))


def test_epochs_and_seeds_have_orders_of_their_own():
    first, second = (batches(40, 20)[start : start + 10] for start in (0, 10))
    assert [p for b in first for _, p in b] != [p for b in second for _, p in b]
    assert list(GlobalBatches(40, 4, 8, 0, 1, 0, 10)) != first


def test_a_batch_that_cannot_be_shared_or_filled_is_refused():
    with pytest.raises(ValueError, match="3 workers cannot share a global batch of 4"):
        batches(10, 1, world_size=3)
    with pytest.raises(
        ValueError,
        match=r"3 images, fewer than a global batch takes of them .4.; lower optimization\.batch",
    ):
        batches(3, 1)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_row_is_one_sentence_from_whatever_process(
    split: LocalSplit, tmp_path: Path, workers: int
):
    broken = [tmp_path / f"{number}.arrow" for number in range(len(split.shards))]
    for path, shard in zip(broken, split.shards, strict=True):
        path.write_bytes(bytes(shard.stat().st_size))
    damaged = LocalSplit(
        split.index, tuple(broken), split.classes, split.content, "voc, split train"
    )
    dataset = SegmentationDataset(damaged, np.arange(24), transform=CROP, label_map=None, seed=0)
    with pytest.raises(
        BadData, match=r"row \d+ \(id .*\) of shard .*\.arrow of voc, split train: the image"
    ) as caught:
        next(load_batches(dataset, GlobalBatches(24, 4, 0, 0, 1, 0, 6), 32, workers))
    assert "Traceback" not in str(caught.value)
