"""Samples in training order: a map-style dataset over memory-mapped shards, and the sampler that says which image comes when.

The order follows from (seed, epoch) and each augmentation from (seed, epoch, image), never from who computes it. So training
resumes anywhere exactly, and loader processes and workers can be as many as there are, with the same batches.
"""

from collections.abc import Callable, Iterator
from functools import cached_property

import cv2
import numpy as np
import torch
from numpy.random import Generator, Philox
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from training.config import InputError
from training.data.shards import LocalSplit
from training.data.sources import BadData
from training.data.transforms import View, decode_image, decode_mask

Key = tuple[int, int]  # epoch, position among the dataset's rows


class SegmentationDataset(Dataset[dict[str, Tensor | int]]):
    """The images at `rows` of a split, as `transform(image, mask, rng=...)` cuts them.

    `label_map`: uint8 [256], mask value -> target, or one such row for each of `rows`. None for weak supervision: no byte of
    any mask is then read.
    """

    def __init__(
        self, split: LocalSplit, rows: np.ndarray, *, transform: Callable[..., View], label_map: np.ndarray | None, seed: int
    ) -> None:
        self.split = split
        self.rows = rows
        self.transform = transform
        self.label_map = label_map
        self.seed = seed

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: Key) -> dict[str, Tensor | int]:
        """image uint8 [3, H, W]; mask uint8 [H, W] unless weak; row in the split."""
        epoch, position = key
        row = int(self.rows[position])
        index = self.split.index
        try:
            image = decode_image(self._bytes(row, index.image_range))
            mask = None if self.label_map is None else decode_mask(self._bytes(row, index.mask_range))
        except BadData as error:
            raise BadData(f"row {row} (id {index.ids[row]}) of shard {self.split.shards[index.shard[row]]}: {error}") from None
        rng = Generator(Philox(key=[self.seed, epoch], counter=[0, 0, 0, row + 1]))  # counter 0 is the epoch's order
        image, mask = self.transform(image, mask, rng=rng)
        item: dict[str, Tensor | int] = {"image": torch.from_numpy(image).permute(2, 0, 1).contiguous(), "row": row}
        if mask is not None and self.label_map is not None:
            table = self.label_map if self.label_map.ndim == 1 else self.label_map[position]
            item["mask"] = torch.from_numpy(cv2.LUT(mask, table))
        return item

    def _bytes(self, row: int, ranges: np.ndarray) -> np.ndarray:
        first, count = ranges[row]
        return self._shards[self.split.index.shard[row]][first : first + count]

    @cached_property
    def _shards(self) -> list[np.ndarray]:
        """The shards' bytes, mapped by the process that first reads one; OpenCV gets one thread there: cores are shared."""
        cv2.setNumThreads(0)
        return [np.memmap(path, np.uint8, mode="r") for path in self.split.shards]


class GlobalBatches(Sampler[list[Key]]):
    """One worker's share of each global batch, from `start_iteration` up to `total_iterations`.

    Each epoch is a permutation of the `count` images, cut into batches; the incomplete last one is dropped. Worker r of R takes
    the r-th of R equal slices of each batch. Raises InputError when the slices would be unequal or an epoch has no batch.
    """

    def __init__(
        self, count: int, batch: int, seed: int, rank: int, world_size: int, start_iteration: int, total_iterations: int
    ) -> None:
        if batch % world_size:
            raise InputError(
                f"{world_size} workers cannot share a global batch of {batch} equally; use a worker count that divides it"
            )
        if batch > count:
            raise InputError(f"the step selects {count} images, fewer than a global batch of {batch}; lower optimization.batch")
        self.count = count
        self.batch = batch
        self.seed = seed
        self.share = slice(rank * batch // world_size, (rank + 1) * batch // world_size)
        self.iterations = range(start_iteration, total_iterations)

    def __len__(self) -> int:
        return len(self.iterations)

    def __iter__(self) -> Iterator[list[Key]]:
        order, ordered = np.empty(0, np.int64), -1
        for iteration in self.iterations:
            epoch, number = divmod(iteration, self.count // self.batch)
            if epoch != ordered:
                order, ordered = Generator(Philox(key=[self.seed, epoch])).permutation(self.count), epoch
            batch = order[number * self.batch : (number + 1) * self.batch]
            yield [(epoch, position) for position in batch[self.share].tolist()]


def make_loader(dataset: SegmentationDataset, batches: GlobalBatches, workers: int) -> DataLoader:
    """Batches of the dataset's items, stacked, in the sampler's order; the same with any number of loader processes."""
    return DataLoader(dataset, batch_sampler=batches, num_workers=workers, pin_memory=torch.cuda.is_available())
