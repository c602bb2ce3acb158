"""Batches of a dataset, decoded by other processes straight into memory that they share with the one that trains.

A loader process writes each batch into one of a few places that were shared before it was forked, and sends no more than word
that it is there. Nothing is copied or allocated on the way: fresh memory for each batch, which torch's own loader takes, costs
as much time as decoding a third of its images, for the system clears every page of it. The places are reused in turn. A process
has at most AHEAD batches under way or waiting, and gets its next task when one of them is taken; so with one place more, none
is written to while its batch is in use, without anybody keeping count.
"""

import mmap
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from training.data.dataset import GlobalBatches, Key, SegmentationDataset
from training.data.shards import Unavailable
from training.data.source import BadData

AHEAD = 2  # batches of a loader process


class Place(NamedTuple):
    """Where a batch is, and which rows of the split it shows."""

    process: int
    place: int
    rows: list[int]


class Failure(NamedTuple):
    """Why there is no batch. An exception that DataLoader carries between processes loses its sentence in a traceback."""

    error: Exception


class Places(Dataset[Place | Failure]):
    """The memory, and the dataset that fills it."""

    def __init__(self, dataset: SegmentationDataset, batch: int, side: int, processes: int) -> None:
        self.dataset = dataset
        self.count = AHEAD + 1 if processes else 1
        shape = (max(processes, 1), self.count, batch, side, side)
        self.images = _shared((*shape, 3))
        self.masks = None if dataset.label_map is None else _shared(shape)
        self.filled = 0

    def __getitem__(self, keys: Sequence[Key]) -> Place | Failure:
        """Fill the next of this process's places with the items of a batch."""
        worker = get_worker_info()
        where = Place(worker.id if worker else 0, self.filled % self.count, [])
        self.filled += 1
        try:
            for position, key in enumerate(keys):
                there = where.process, where.place, position
                out = self.images[there], None if self.masks is None else self.masks[there]
                *view, row = self.dataset.view(key, out)
                for room, pixels in zip(out, view, strict=True):
                    if room is not None and not np.may_share_memory(
                        room, pixels
                    ):  # of another size, which is an error
                        room[:] = pixels
                where.rows.append(row)
        except (BadData, Unavailable) as error:
            return Failure(error)
        return where

    def batch(self, where: Place) -> dict[str, Tensor]:
        """The batch that is at a place, as long as it is."""
        batch = {
            "image": torch.from_numpy(self.images[where.process, where.place]).permute(0, 3, 1, 2)
        }
        if self.masks is not None:
            batch["mask"] = torch.from_numpy(self.masks[where.process, where.place])
        return batch | {"row": torch.tensor(where.rows)}


def load_batches(
    dataset: SegmentationDataset, batches: GlobalBatches, side: int, processes: int
) -> Iterator[dict[str, Tensor]]:
    """The dataset's views of `side` x `side` pixels in the sampler's order, whatever the number of loader processes.

    image uint8 [B, 3, side, side] with channels last in memory, mask uint8 [B, side, side] unless weak, row int64 [B]. They are
    overwritten when the next batch is asked for; where there is a GPU they are copies, in pinned memory. Raises BadData and
    Unavailable.
    """
    places = Places(dataset, batches.share.stop - batches.share.start, side, processes)
    loader = iter(
        DataLoader(
            places,
            batch_size=None,  # the sampler's lists of keys go to the dataset as they are
            sampler=batches,  # pyright: ignore[reportArgumentType]
            num_workers=processes,
            collate_fn=_as_it_is,
            prefetch_factor=AHEAD if processes else None,
            multiprocessing_context="fork" if processes else None,
        )
    )
    try:
        with dataset.split.prefetching(dataset.rows[batches.upcoming()]):
            for where in loader:
                if isinstance(where, Failure):
                    raise where.error
                batch = places.batch(where)
                yield (
                    {name: value.pin_memory() for name, value in batch.items()}
                    if torch.cuda.is_available()
                    else batch
                )
    finally:
        del (
            loader
        )  # whose processes end with it, and not when the traceback of an error is forgotten


def _shared(shape: tuple[int, ...]) -> np.ndarray:
    """Memory that processes forked from now on have in common, uint8; not of /dev/shm, which containers keep small."""
    return np.frombuffer(mmap.mmap(-1, int(np.prod(shape))), np.uint8).reshape(shape)


def _as_it_is(where: Any) -> Any:
    return where
