"""Read samples in training order, with a map-style dataset over mapped shards and a batch sampler.

The order follows from (seed, epoch), and each augmentation from (seed, epoch, image), whatever
process computes it. Training therefore resumes anywhere exactly, and any number of loader processes
and workers gives the same batches.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, zip_longest
from typing import Any

import cv2
import numpy as np
import torch
from numpy.random import Generator, Philox
from torch.utils.data import Dataset, Sampler

from training.config import InputError
from training.data.layers import LayerReader, uncut
from training.data.shards import LocalSplit, byte_range
from training.data.source import BadData
from training.data.transforms import Buffers, View, decode_image, decode_mask

Key = tuple[int, int]  # epoch, position among the dataset's rows
Item = dict[str, Any]  # of a SegmentationDataset: tensors image and mask, int row
# Each mapped shard is an open file, and a process may have about a thousand of these.
MAX_MAPPED_SHARDS = 512


class SegmentationDataset(Dataset[Item]):
    """The images at some rows of a split, cut by a transform.

    Args:
        split: The split.
        rows: int64 [n], the rows of the images.
        transform: Called as `transform(image, mask, rng=...)`, and with `out=` by loaders that own
            the memory.
        label_map: uint8 [256], the target of each mask value, or uint8 [n, 256] with such a row for
            each of `rows`. None for weak supervision: no byte of any mask is then read.
        seed: Decides the augmentations.
        layers: The companion layers of the split to read.
        layer_transform: Cuts a layer's map, called as `layer_transform(values, rng=...)`.
        layers_hold_classes: Whether to refuse values in layers that are no class of the split.
    """

    def __init__(
        self,
        split: LocalSplit,
        rows: np.ndarray,
        *,
        transform: Callable[..., View],
        label_map: np.ndarray | None,
        seed: int,
        layers: Sequence[str] = (),
        layer_transform: Callable[..., np.ndarray] = uncut,
        layers_hold_classes: bool = False,
    ) -> None:
        self.split = split
        self.rows = rows
        self.transform = transform
        self.label_map = label_map
        self.seed = seed
        self.layers = tuple(layers)
        self.layer_transform = layer_transform
        classes = len(split.classes) if layers_hold_classes else None
        self._layer_readers = {
            layer: LayerReader(split.layers[layer], split.layer_rows(layer, rows), classes)
            for layer in layers
        }
        self._mapped: dict[int, np.ndarray] = {}  # shards by number, oldest first

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: Key) -> Item:
        """Return image, uint8 [3, H, W]; mask, uint8 [H, W], unless weak; and row, in the split."""
        return as_item(*self.view(key))

    def layer_view(self, key: Key, layer: str) -> np.ndarray:
        """Decode the map that a companion layer has of one image, and cut it like the image.

        Returns:
            uint16 [H, W].

        Raises:
            BadData: The map cannot be decoded, or holds what it should not.
            Unavailable: Its shard cannot be read or fetched.
        """
        epoch, position = key
        values = self._layer_readers[layer].read(position)
        return self.layer_transform(values, rng=self._rng(epoch, int(self.rows[position])))

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
        rng = self._rng(epoch, row)
        if mask is not None and self.label_map is not None:
            table = self.label_map if self.label_map.ndim == 1 else self.label_map[position]
            cv2.LUT(mask, table, dst=mask)
        memory = {} if out is None else {"out": out}
        image, mask = self.transform(image, mask, rng=rng, **memory)
        return image, mask, row

    def _rng(self, epoch: int, row: int) -> Generator:
        """Return what decides how an image is cut."""
        # GlobalBatches orders the epoch with counter 0.
        return Generator(Philox(key=[self.seed, epoch], counter=[0, 0, 0, row + 1]))

    def _decode(self, row: int) -> View:
        index = self.split.index
        shard = self._shard(row)
        mask = None
        try:
            photo = byte_range(shard, index.image_range[row])
            image = decode_image(photo, int(index.orientation[row]))
            if self.label_map is not None:
                mask = decode_mask(byte_range(shard, index.mask_range[row]), self.split.reading)
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

    Kept images may have a fixed part of each batch. The epochs are then those of the others. Kept
    images are read in permutations of their own, one after another, and alternate with the others
    in a batch, so that each worker has some of both.

    Args:
        count: Number of images.
        batch: Images of a global batch: of all workers together.
        seed: Decides the order.
        rank: Number of this worker, from 0.
        world_size: Number of workers.
        start_iteration: The first iteration to sample.
        total_iterations: The iteration to end before.
        kept: How many of the images, the last ones, are kept of earlier steps.
        kept_per_batch: How many images of a batch are such; 0 draws them like all others.

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
        kept: int = 0,
        kept_per_batch: int = 0,
    ) -> None:
        if batch % world_size:
            raise InputError(
                f"{world_size} workers cannot share a global batch of {batch} equally; "
                "use a worker count that divides it"
            )
        # The images of which epochs are made, and their part of a batch.
        self.count = count - kept if kept_per_batch else count
        self.batch = batch - kept_per_batch
        self.kept = kept
        self.kept_per_batch = kept_per_batch
        if self.batch > self.count:
            raise InputError(
                f"the step selects {self.count} images, fewer than a global batch takes of them "
                f"({self.batch}); lower optimization.batch"
            )
        self.seed = seed
        self.share = slice(rank * batch // world_size, (rank + 1) * batch // world_size)
        self.iterations = range(start_iteration, total_iterations)

    def __len__(self) -> int:
        return len(self.iterations)

    def upcoming(self) -> np.ndarray:
        """Return positions in the order in which batches need them, for at least one epoch."""
        epoch, number = divmod(self.iterations.start, self.count // self.batch)
        kept = np.arange(self.count, self.count + self.kept if self.kept_per_batch else self.count)
        rest = self._order(epoch)[number * self.batch :]
        return np.concatenate([kept, rest, self._order(epoch + 1)])

    def __iter__(self) -> Iterator[list[Key]]:
        order = np.empty(0, np.int64)
        ordered_epoch = -1
        for iteration in self.iterations:
            epoch, number = divmod(iteration, self.count // self.batch)
            if epoch != ordered_epoch:
                order = self._order(epoch)
                ordered_epoch = epoch
            batch = order[number * self.batch : (number + 1) * self.batch]
            keys = [(epoch, position) for position in batch.tolist()]
            yield _alternate(keys, self._kept_keys(iteration))[self.share]

    def _order(self, epoch: int) -> np.ndarray:
        return Generator(Philox(key=[self.seed, epoch])).permutation(self.count)

    def _kept_keys(self, iteration: int) -> list[Key]:
        """Return the keys of a batch's kept images; their epochs are passes over all of these."""
        keys = []
        for number in range(iteration * self.kept_per_batch, (iteration + 1) * self.kept_per_batch):
            passes, place = divmod(number, self.kept)
            # Counter 0 orders the epochs, and a last number above 0 augments.
            bits = Philox(key=[self.seed, passes], counter=[0, 0, 1, 0])
            keys.append((passes, self.count + int(Generator(bits).permutation(self.kept)[place])))
        return keys


def as_item(image: np.ndarray, mask: np.ndarray | None, row: int) -> Item:
    """Return a view as a dataset's item, without a copy."""
    item: Item = {"image": torch.from_numpy(image).permute(2, 0, 1), "row": row}
    if mask is not None:
        item["mask"] = torch.from_numpy(mask)
    return item


def _alternate(first: list[Key], second: list[Key]) -> list[Key]:
    """Return all keys of both lists, taken from each in turn."""
    turns = chain.from_iterable(zip_longest(first, second))
    return [key for key in turns if key is not None]
