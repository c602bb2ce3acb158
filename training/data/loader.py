"""Load batches that other processes decode straight into memory shared with the training process.

A loader process writes each batch into one of a few buffers that were shared before it was forked,
and sends only the buffer's number. Nothing is copied or allocated on the way. Torch's own loader
takes fresh memory for each batch, and the system clears every page of it. That costs as much time
as decoding a third of the batch's images.

The buffers of a process are reused in turn. A process has at most AHEAD batches under way or
waiting, and gets its next task when one of them is taken. With one buffer more than that, no buffer
is written to while its batch is in use, and no process has to count.
"""

import mmap
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from training.data.dataset import GlobalBatches, Item, Key, SegmentationDataset, as_item
from training.data.shards import Unavailable
from training.data.source import BadData

T = TypeVar("T")
AHEAD = 2  # batches of a loader process
ITEMS_AHEAD = 8  # single images of a loader process


class FilledBuffer(NamedTuple):
    """Where a batch lies, and the rows of the split that it shows."""

    process: int
    number: int  # of the process's buffers
    rows: list[int]


class Failure(NamedTuple):
    """The reason why there is no batch.

    It is sent as a value, because DataLoader buries the message of an exception in a traceback.
    """

    error: Exception


class BatchBuffers(Dataset[FilledBuffer | Failure]):
    """Shared memory for batches, and the dataset whose items fill it.

    Args:
        dataset: Gives the views.
        batch: Images of a batch.
        side: Side of a view, pixels.
        processes: Number of loader processes; 0 loads in this process.
    """

    def __init__(self, dataset: SegmentationDataset, batch: int, side: int, processes: int) -> None:
        self.dataset = dataset
        self.per_process = AHEAD + 1 if processes else 1
        shape = (max(processes, 1), self.per_process, batch, side, side)
        self.images = _shared_memory((*shape, 3))
        self.masks = None if dataset.label_map is None else _shared_memory(shape)
        self.layers = {layer: _shared_memory((*shape, 2)) for layer in dataset.layers}
        self.filled = 0  # by this process

    def __getitem__(self, keys: Sequence[Key]) -> FilledBuffer | Failure:
        """Fill the next of this process's buffers with the views of a batch."""
        worker = get_worker_info()
        filled = FilledBuffer(worker.id if worker else 0, self.filled % self.per_process, [])
        self.filled += 1
        images = self.images[filled.process, filled.number]
        masks = None if self.masks is None else self.masks[filled.process, filled.number]
        try:
            for position, key in enumerate(keys):
                out = images[position], None if masks is None else masks[position]
                *view, row = self.dataset.view(key, out)
                for memory, pixels in zip(out, view, strict=True):
                    # A transform that made pixels elsewhere has not used the memory; they must be
                    # of its size.
                    if memory is not None and not np.may_share_memory(memory, pixels):
                        memory[:] = pixels
                for layer, memory in self.layers.items():
                    values = self.dataset.layer_view(key, layer)
                    memory[filled.process, filled.number, position].view(np.uint16)[..., 0] = values
                filled.rows.append(row)
        except (BadData, Unavailable) as error:
            return Failure(error)
        return filled

    def batch(self, filled: FilledBuffer) -> dict[str, Tensor]:
        """Return the batch in a buffer, without a copy, until the buffer is filled again."""
        images = torch.from_numpy(self.images[filled.process, filled.number])
        batch = {"image": images.permute(0, 3, 1, 2)}
        if self.masks is not None:
            batch["mask"] = torch.from_numpy(self.masks[filled.process, filled.number])
        for layer, memory in self.layers.items():
            values = memory[filled.process, filled.number].view(np.int16)[..., 0]
            batch[layer] = torch.from_numpy(values)
        batch["row"] = torch.tensor(filled.rows)
        return batch


def load_batches(
    dataset: SegmentationDataset,
    batches: GlobalBatches,
    side: int,
    processes: int,
    *,
    pinned: bool = False,
) -> Iterator[dict[str, Tensor]]:
    """Load the dataset's views in the sampler's order, whatever the number of loader processes.

    Args:
        dataset: Gives views of `side` x `side` pixels.
        batches: The order.
        side: Side of a view, pixels.
        processes: Number of loader processes; 0 loads in this process.
        pinned: Yield copies in pinned memory, from which a GPU copies without keeping the host.

    Yields:
        image, uint8 [B, 3, side, side] with channels last in memory; mask, uint8 [B, side, side],
        unless weak; by its name each layer of the dataset, int16 [B, side, side], whose bits are
        those of an unsigned number; and row, int64 [B]. They are overwritten when the next batch is
        asked for, unless they are pinned copies. Rows are never pinned.

    Raises:
        BadData: An image or a mask cannot be decoded.
        Unavailable: A shard cannot be read or fetched.
    """
    buffers = BatchBuffers(dataset, batches.share.stop - batches.share.start, side, processes)
    loader = iter(
        DataLoader(
            buffers,
            # The sampler's lists of keys go to the dataset as they are.
            batch_size=None,
            sampler=batches,  # pyright: ignore[reportArgumentType]
            num_workers=processes,
            collate_fn=_unchanged,
            prefetch_factor=AHEAD if processes else None,
            multiprocessing_context="fork" if processes else None,
        )
    )
    try:
        with dataset.split.prefetching(dataset.rows[batches.upcoming()]):
            for filled in loader:
                if isinstance(filled, Failure):
                    raise filled.error
                batch = buffers.batch(filled)
                yield _pin(batch) if pinned else batch
    finally:
        # The loader's processes end with it, which must not wait until an error's traceback is
        # forgotten.
        del loader


class _Views(Dataset["tuple[np.ndarray, np.ndarray | None, int] | Failure"]):
    """The views of a dataset's first epoch, in order."""

    def __init__(self, dataset: SegmentationDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, position: int) -> tuple[np.ndarray, np.ndarray | None, int] | Failure:
        try:
            return self.dataset.view((0, position))
        except (BadData, Unavailable) as error:
            return Failure(error)


def load_items(dataset: SegmentationDataset, processes: int) -> Iterator[Item]:
    """Load each image of the dataset once, in order; they may differ in size.

    Args:
        dataset: Gives the views.
        processes: Number of processes that decode; 0 decodes in this process.

    Raises:
        BadData: An image or a mask cannot be decoded.
        Unavailable: A shard cannot be read or fetched.
    """
    views = _Views(dataset)
    loader: Iterator[Any] = map(views.__getitem__, range(len(dataset)))
    if processes:
        # Arrays travel through pipes; as tensors they would take a file in /dev/shm each.
        loader = iter(
            DataLoader(
                views,
                batch_size=None,
                num_workers=processes,
                collate_fn=_unchanged,
                prefetch_factor=ITEMS_AHEAD,
                multiprocessing_context="fork",
            )
        )
    try:
        with dataset.split.prefetching(dataset.rows):
            for view in loader:
                if isinstance(view, Failure):
                    raise view.error
                yield as_item(*view)
    finally:
        del loader


def _shared_memory(shape: tuple[int, ...]) -> np.ndarray:
    """Return uint8 memory that is shared with processes forked from now on.

    It is not in /dev/shm, which containers keep small.
    """
    return np.frombuffer(mmap.mmap(-1, int(np.prod(shape))), np.uint8).reshape(shape)


def _pin(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value if name == "row" else value.pin_memory() for name, value in batch.items()}


def _unchanged(value: T) -> T:
    return value
