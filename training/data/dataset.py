"""Samples in training order: a map-style dataset over memory-mapped shards, and the sampler that says which image comes when.

The order follows from (seed, epoch) and each augmentation from (seed, epoch, image), never from who computes it. So training
resumes anywhere exactly, and loader processes and workers can be as many as there are, with the same batches.
"""

from collections.abc import Callable, Iterator

import cv2
import numpy as np
import torch
from numpy.random import Generator, Philox
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from training.config import InputError
from training.data.shards import LocalSplit
from training.data.source import BadData
from training.data.transforms import Room, View, decode_image, decode_mask

Key = tuple[int, int]  # epoch, position among the dataset's rows
MAPPED = 512  # shards at most that a process keeps open: each is an open file, of which a process may have about a thousand


class SegmentationDataset(Dataset[dict[str, Tensor | int]]):
    """The images at `rows` of a split, as `transform(image, mask, rng=...)` cuts them.

    `label_map`: uint8 [256], mask value -> target, or one such row for each of `rows`. None for weak supervision: no byte of
    any mask is then read.
    """

    def __init__(
        self,
        split: LocalSplit,
        rows: np.ndarray,
        *,
        transform: Callable[..., View],
        label_map: np.ndarray | None,
        seed: int,
    ) -> None:
        self.split = split
        self.rows = rows
        self.transform = transform
        self.label_map = label_map
        self.seed = seed
        self._mapped: dict[int, np.ndarray] = {}  # shards by number, oldest first

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: Key) -> dict[str, Tensor | int]:
        """image uint8 [3, H, W]; mask uint8 [H, W] unless weak; row in the split."""
        image, mask, row = self.view(key)
        item: dict[str, Tensor | int] = {
            "image": torch.from_numpy(image).permute(2, 0, 1),
            "row": row,
        }
        return item if mask is None else item | {"mask": torch.from_numpy(mask)}

    def view(self, key: Key, out: Room | None = None) -> tuple[np.ndarray, np.ndarray | None, int]:
        """image uint8 [H, W, 3], mask uint8 [H, W] unless weak, row in the split; in `out`, for transforms that take it."""
        epoch, position = key
        row = int(self.rows[position])
        index = self.split.index
        shard = self._shard(row)
        try:
            image = decode_image(_part(shard, index.image_range[row]))
            mask = (
                None if self.label_map is None else decode_mask(_part(shard, index.mask_range[row]))
            )
        except BadData as error:
            place = f"shard {self.split.shards[index.shard[row]]} of {self.split.name}"
            raise BadData(f"row {row} (id {index.ids[row]}) of {place}: {error}") from None
        rng = Generator(
            Philox(key=[self.seed, epoch], counter=[0, 0, 0, row + 1])
        )  # counter 0 is the epoch's order
        if mask is not None and self.label_map is not None:
            table = self.label_map if self.label_map.ndim == 1 else self.label_map[position]
            cv2.LUT(mask, table, dst=mask)
        image, mask = self.transform(image, mask, rng=rng, **({} if out is None else {"out": out}))
        return image, mask, row

    def _shard(self, row: int) -> np.ndarray:
        """The bytes of the row's shard, mapped by the process that first reads it."""
        number = int(self.split.index.shard[row])
        if number not in self._mapped:
            cv2.setNumThreads(0)  # the process is one of many
            if len(self._mapped) == MAPPED:
                del self._mapped[next(iter(self._mapped))]
            self._mapped[number] = self.split.open_shard(row)
        return self._mapped[number]


class GlobalBatches(Sampler[list[Key]]):
    """One worker's share of each global batch, from `start_iteration` up to `total_iterations`.

    Each epoch is a permutation of the `count` images, cut into batches; the incomplete last one is dropped. Worker r of R takes
    the r-th of R equal slices of each batch. Raises InputError when the slices would be unequal or an epoch has no batch.
    """

    def __init__(
        self,
        count: int,
        batch: int,
        seed: int,
        rank: int,
        world_size: int,
        start_iteration: int,
        total_iterations: int,
    ) -> None:
        if batch % world_size:
            raise InputError(
                f"{world_size} workers cannot share a global batch of {batch} equally; use a worker count that divides it"
            )
        if batch > count:
            raise InputError(
                f"the step selects {count} images, fewer than a global batch of {batch}; lower optimization.batch"
            )
        self.count = count
        self.batch = batch
        self.seed = seed
        self.share = slice(rank * batch // world_size, (rank + 1) * batch // world_size)
        self.iterations = range(start_iteration, total_iterations)

    def __len__(self) -> int:
        return len(self.iterations)

    def upcoming(self) -> np.ndarray:
        """Every position, in the order in which the batches come to it first."""
        epoch, number = divmod(self.iterations.start, self.count // self.batch)
        return np.concatenate([self._order(epoch)[number * self.batch :], self._order(epoch + 1)])

    def __iter__(self) -> Iterator[list[Key]]:
        order, ordered = np.empty(0, np.int64), -1
        for iteration in self.iterations:
            epoch, number = divmod(iteration, self.count // self.batch)
            if epoch != ordered:
                order, ordered = self._order(epoch), epoch
            batch = order[number * self.batch : (number + 1) * self.batch]
            yield [(epoch, position) for position in batch[self.share].tolist()]

    def _order(self, epoch: int) -> np.ndarray:
        return Generator(Philox(key=[self.seed, epoch])).permutation(self.count)


def _part(data: np.ndarray, place: np.ndarray) -> np.ndarray:
    first, count = place.tolist()
    return data[first : first + count]
