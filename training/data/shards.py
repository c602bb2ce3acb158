"""Read a stored dataset: the index of what each row holds, and the bytes of its shards.

Images are selected from the index alone, and each image or mask is a known byte range of its shard.
No mask has to be opened, or even read, to know what is in it.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from training.config import BACKGROUND
from training.data.manifest import json_digest
from training.data.reading import AS_STORED, Reading


@dataclass(frozen=True)
class Index:
    """What each row of a split holds, known without opening a mask.

    All members are in the split's order.
    """

    ids: list[str]
    shard: np.ndarray  # uint32 [rows], position in the split's list of shards
    pixels: np.ndarray  # int64 [rows, classes + 1], pixels of each mask value, without void
    image_range: np.ndarray  # int64 [rows, 2], first byte in the shard and number of bytes
    mask_range: np.ndarray  # int64 [rows, 2], likewise
    row_sha256: list[str]  # hex
    orientation: np.ndarray  # uint8 [rows], how photos are turned, as EXIF counts; 1 is as stored
    sizes: np.ndarray  # int64 [rows, 2], width and height in pixels, as images are read

    @classmethod
    def load(cls, path: Path, classes: int) -> "Index":
        """Read an index file.

        Args:
            path: The Parquet file, of the schema `training.data.dataset_writer.INDEX_SCHEMA`.
            classes: How many classes the dataset has, without background.
        """
        # Planning imports this module and does not always read an index; Arrow takes long to
        # import.
        from pyarrow import parquet

        def to_array(arrow: Any) -> np.ndarray:
            return np.from_dlpack(arrow)

        # read_table and to_numpy would import pandas, which takes longer than all of this.
        table = parquet.ParquetFile(path).read()
        column = {name: table[name].combine_chunks() for name in table.column_names}

        def integers(*names: str) -> np.ndarray:
            return np.stack([to_array(column[name]).astype(np.int64) for name in names], axis=1)

        values = column["values"]
        values_per_row = np.diff(to_array(values.offsets))
        rows = np.repeat(np.arange(len(table)), values_per_row)
        pixels = np.zeros((len(table), classes + 1), np.int64)
        pixels[rows, to_array(values.flatten())] = to_array(column["pixels"].flatten())
        return cls(
            ids=column["id"].to_pylist(),
            shard=to_array(column["shard"]),
            pixels=pixels,
            image_range=integers("image_offset", "image_bytes"),
            mask_range=integers("mask_offset", "mask_bytes"),
            row_sha256=[digest.hex() for digest in column["row_sha256"].to_pylist()],
            orientation=(
                to_array(column["orientation"])
                if "orientation" in column
                else np.ones(len(table), np.uint8)
            ),
            sizes=integers("width", "height"),
        )

    @property
    def labels(self) -> np.ndarray:
        """Return the classes in each image, bool [rows, classes]; column c - 1 for class id c."""
        return self.pixels[:, BACKGROUND + 1 :] > 0

    @cached_property
    def row_of(self) -> dict[str, int]:
        """Return the row of each id."""
        return {id: row for row, id in enumerate(self.ids)}

    def selection_digest(self, rows: np.ndarray) -> str:
        """Return the digest of the ids and bytes of the images at `rows`, in that order."""
        return json_digest([(self.ids[row], self.row_sha256[row]) for row in rows])


class Unavailable(Exception):
    """A shard cannot be read or fetched. The message names the image and says what to do."""


@dataclass(frozen=True)
class LocalSplit:
    """A split whose files lie on this machine and have been verified.

    Files are verified first because a wrong offset must never reach a memory map.
    """

    index: Index
    shards: tuple[Path, ...]
    classes: tuple[str, ...]
    content: str  # as in the split's manifest
    name: str = "the dataset"  # how messages call the split
    reading: Reading = AS_STORED
    # Companion layers by what a step's document calls them. Each holds a map, in the place of the
    # mask, of the images that have one, and no photo (`training.data.layers`).
    layers: Mapping[str, "LocalSplit"] = field(default_factory=dict)

    def open_shard(self, row: int) -> np.ndarray:
        """Return the bytes of the shard that holds `row`: uint8, mapped, read-only.

        Raises:
            Unavailable: The shard cannot be read or fetched.
        """
        return np.memmap(self.shards[self.index.shard[row]], np.uint8, mode="r")

    def prefetching(self, rows: np.ndarray) -> AbstractContextManager[None]:
        """Return a context in which `rows` are about to be read, roughly in that order.

        The caller starts processes that read the rows before it enters the context.
        """
        return nullcontext()

    def layer_rows(self, layer: str, rows: np.ndarray) -> np.ndarray:
        """Return the rows of a companion layer's index for images at `rows`, int64 [n].

        Raises:
            KeyError: An image has no map.
        """
        row_of = self.layers[layer].index.row_of
        return np.array([row_of[self.index.ids[row]] for row in rows], dtype=np.int64)


def byte_range(shard: np.ndarray, span: np.ndarray) -> np.ndarray:
    """Return the bytes of a shard in a range of an index: first byte and number of bytes."""
    first, count = span.tolist()
    return shard[first : first + count]
