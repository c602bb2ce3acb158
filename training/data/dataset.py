"""Read samples in training order, with a map-style dataset over mapped shards and a batch sampler.

The order follows from (seed, epoch), and each augmentation from (seed, epoch, image), whatever
process computes it. Training therefore resumes anywhere exactly, and any number of loader processes
and workers gives the same batches.
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
from training.data.transforms import Buffers, View, decode_image, decode_mask

Key = tuple[int, int]  # epoch, position among the dataset's rows
# Each mapped shard is an open file, and a process may have about a thousand of these.
MAX_MAPPED_SHARDS = 512


class SegmentationDataset(Dataset[dict[str, Tensor | int]]):
    """The images at some rows of a split, cut by a transform.

    Args:
        split: The split.
        rows: int64 [n], the rows of the images.
        transform: Called as `transform(image, mask, rng=...)`, and with `out=` by loaders that own
            the memory.
        label_map: uint8 [256], the target of each mask value, or uint8 [n, 256] with such a row for
            each of `rows`. None for weak supervision: no byte of any mask is then read.
        seed: Decides the augmentations.
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
        """Return image, uint8 [3, H, W]; mask, uint8 [H, W], unless weak; and row, in the split."""
        image, mask, row = self.view(key)
        item: dict[str, Tensor | int] = {
            "image": torch.from_numpy(image).permute(2, 0, 1),
            "row": row,
        }
        if mask is not None:
            item["mask"] = torch.from_numpy(mask)
        return item

    def view(
        self, key: Key, out: Buffers | None = None
    ) -> tuple[np.ndarray, np.ndarray | None, int]:
        """Decode and cut one image.

        Args:
            key: Epoch, and position among the dataset's rows.
            out: Memory for the image and the mask, for transforms that take it.

        Returns:
            The image, uint8 [H, W, 3]; the mask, uint8 [H, W], or None when supervision is weak;
            and the row.

        Raises:
            BadData: The image or its mask cannot be decoded.
            Unavailable: Its shard cannot be read or fetched.
        """
        epoch, position = key
        row = int(self.rows[position])
        image, mask = self._decode(row)
        # GlobalBatches orders the epoch with counter 0.
        rng = Generator(Philox(key=[self.seed, epoch], counter=[0, 0, 0, row + 1]))
        if mask is not None and self.label_map is not None:
            table = self.label_map if self.label_map.ndim == 1 else self.label_map[position]
            cv2.LUT(mask, table, dst=mask)
        memory = {} if out is None else {"out": out}
        image, mask = self.transform(image, mask, rng=rng, **memory)
        return image, mask, row

    def _decode(self, row: int) -> View:
        index = self.split.index
        shard = self._shard(row)
        mask = None
        try:
            image = decode_image(_byte_range(shard, index.image_range[row]))
            if self.label_map is not None:
                mask = decode_mask(_byte_range(shard, index.mask_range[row]))
        except BadData as error:
            path = self.split.shards[index.shard[row]]
            raise BadData(
                f"row {row} (id {index.ids[row]}) of shard {path} of {self.split.name}: {error}"
            ) from None
        return image, mask

    def _shard(self, row: int) -> np.ndarray:
        """Return the bytes of the row's shard, mapped by the process that first reads it."""
        number = int(self.split.index.shard[row])
        if number not in self._mapped:
            # The process is one of many, so OpenCV must not start threads of its own.
            cv2.setNumThreads(0)
            if len(self._mapped) == MAX_MAPPED_SHARDS:
                oldest = next(iter(self._mapped))
                del self._mapped[oldest]
            self._mapped[number] = self.split.open_shard(row)
        return self._mapped[number]


class GlobalBatches(Sampler[list[Key]]):
    """One worker's share of each global batch.

    Each epoch is a permutation of the images, cut into batches; the incomplete last batch is
    dropped. Worker r of R takes the r-th of R equal slices of each batch.

    Args:
        count: Number of images.
        batch: Images of a global batch: of all workers together.
        seed: Decides the order.
        rank: Number of this worker, from 0.
        world_size: Number of workers.
        start_iteration: The first iteration to sample.
        total_iterations: The iteration to end before.

    Raises:
        InputError: The slices would be unequal, or an epoch has no batch.
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
                f"{world_size} workers cannot share a global batch of {batch} equally; "
                "use a worker count that divides it"
            )
        if batch > count:
            raise InputError(
                f"the step selects {count} images, fewer than a global batch of {batch}; "
                "lower optimization.batch"
            )
        self.count = count
        self.batch = batch
        self.seed = seed
        self.share = slice(rank * batch // world_size, (rank + 1) * batch // world_size)
        self.iterations = range(start_iteration, total_iterations)

    def __len__(self) -> int:
        return len(self.iterations)

    def upcoming(self) -> np.ndarray:
        """Return positions in the order in which batches need them, for at least one epoch."""
        epoch, number = divmod(self.iterations.start, self.count // self.batch)
        return np.concatenate([self._order(epoch)[number * self.batch :], self._order(epoch + 1)])

    def __iter__(self) -> Iterator[list[Key]]:
        order = np.empty(0, np.int64)
        ordered_epoch = -1
        for iteration in self.iterations:
            epoch, number = divmod(iteration, self.count // self.batch)
            if epoch != ordered_epoch:
                order = self._order(epoch)
                ordered_epoch = epoch
            batch = order[number * self.batch : (number + 1) * self.batch]
            yield [(epoch, position) for position in batch[self.share].tolist()]

    def _order(self, epoch: int) -> np.ndarray:
        return Generator(Philox(key=[self.seed, epoch])).permutation(self.count)


def _byte_range(shard: np.ndarray, span: np.ndarray) -> np.ndarray:
    first, count = span.tolist()
    return shard[first : first + count]
