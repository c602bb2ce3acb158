"""A dataset as it is stored: Arrow shards of original bytes, a Parquet index of what each row holds, a manifest of both.

`build` looks at every image once, strictly: whatever it writes decodes, has masks of its image's size, and holds no undeclared
class. From then on images are selected from the index alone, and each image or mask is a known byte range of its shard: no
mask has to be opened, or even read, to know what is in it. A split's `content` digest covers the classes and the rows but
not how they are spread over files, so sharding anew, or a newer Arrow, changes no step's identity.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from training.config import BACKGROUND, VOID, Document
from training.data.shard_writer import (
    IndexRow,
    Shard,
    ShardJob,
    StoredFile,
    WrittenShard,
    divide,
    name_by_digest,
    write_shard,
)
from training.data.source import BadData, Source
from training.data.validation import BadRow, BadRows

SHARD_BYTES = 64 * 2**20  # about what a shard is to hold
INDEX_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("shard", pa.uint32()),  # position in the manifest's list of shards
        ("row", pa.uint32()),  # in the shard
        ("width", pa.uint32()),
        ("height", pa.uint32()),
        ("values", pa.list_(pa.uint8())),  # mask values present, ascending, void left out
        ("pixels", pa.list_(pa.uint32())),  # of each of these values
        ("image_offset", pa.uint64()),  # bytes from the start of the shard
        ("image_bytes", pa.uint32()),
        ("mask_offset", pa.uint64()),
        ("mask_bytes", pa.uint32()),
        ("row_sha256", pa.binary(32)),  # sha256 of the sha256 of the image and that of the mask
    ],
    metadata={"stepchain": "1"},
)


class SplitManifest(Document):
    """The files of one split."""

    index: StoredFile
    shards: tuple[Shard, ...]
    rows: int
    content: str  # digest over the classes and the rows, whatever the files


class Manifest(Document):
    """A dataset: its classes (id = position + 1; 0 is background, 255 void) and the files of its splits."""

    format: int = 1
    classes: tuple[str, ...]
    splits: dict[str, SplitManifest]


class Plan(NamedTuple):
    """How a split is to be looked at and stored."""

    parts: list[ShardJob]
    listed_twice: list[BadRow]
    images: int  # that are listed


def plan(source: Source, shard_bytes: int = SHARD_BYTES) -> dict[str, Plan]:
    """The parts of each split, each of which makes one shard. They follow from the source alone, not from who does the work.

    Raises BadData for more classes than masks can hold, and for a split that lists no images.
    """
    if len(source.classes) >= VOID:
        raise BadData(
            f"the dataset declares {len(source.classes)} classes; masks have 8 bits, which leaves room for {VOID - 1}"
        )
    plans = {}
    for split in source.splits:
        counted = Counter(source.ids(split))
        if not counted:
            raise BadData(f"split {split!r} lists no images; leave the split out, or mend its list")
        twice = [
            BadRow(split=split, id=id, reason="the id is listed twice; take one out of the list")
            for id, count in counted.items()
            if count > 1
        ]
        once = [id for id, count in counted.items() if count == 1]
        plans[split] = Plan(list(divide(source, split, once, shard_bytes)), twice, len(counted))
    return plans


def assemble(
    source: Source,
    plans: dict[str, Plan],
    done: Mapping[str, WrittenShard],
    folder: Path,
    on_bad: Literal["error", "skip"],
) -> tuple[Manifest, list[BadRow]]:
    """Write each split's index to `folder`, from what became of its parts, by their keys.

    Returns the manifest and the rows that were left out. Raises BadRows, with all of them, when rows are bad and `on_bad` is
    error, BadData when a split has nothing left.
    """
    splits: dict[str, SplitManifest] = {}
    written = {split: [done[part.key] for part in plan.parts] for split, plan in plans.items()}
    bad = {
        split: plan.listed_twice + [row for part in written[split] for row in part.bad]
        for split, plan in plans.items()
    }
    unusable = [row for rows in bad.values() for row in rows]
    if unusable and on_bad == "error":
        raise BadRows(unusable)
    for split, parts in written.items():
        shards = tuple(part.shard for part in parts if part.shard)
        if not shards:
            reason = (
                f"; the first is {bad[split][0].id}: {bad[split][0].reason}" if bad[split] else ""
            )
            raise BadData(f"split {split!r} has no usable image{reason}")
        rows = [row for part in parts for row in part.rows]
        content = _digest(
            {"classes": source.classes, "rows": [(row.id, row.row_sha256) for row in rows]}
        )
        index = _write_index([part.rows for part in parts if part.shard], folder)
        splits[split] = SplitManifest(index=index, shards=shards, rows=len(rows), content=content)
    return Manifest(classes=source.classes, splits=splits), unusable


def build(
    source: Source,
    folder: Path,
    *,
    on_bad: Literal["error", "skip"] = "error",
    shard_bytes: int = SHARD_BYTES,
    progress: Callable[[str, int, int], None] = lambda split, done, total: None,
) -> tuple[Manifest, list[BadRow]]:
    """Write the source's splits to `folder` as <sha256>.arrow and <sha256>.parquet; same rows, same bytes.

    `progress(split, done, total)` counts images. Returns and raises what `assemble` does; after an error, what `folder` holds
    is of no use.
    """
    plans = plan(source, shard_bytes)
    done: dict[str, WrittenShard] = {}
    for split, planned in plans.items():
        images = count(1)
        for part in planned.parts:
            done[part.key] = write_shard(
                source,
                part,
                folder,
                lambda s=split, n=images, p=planned: progress(s, next(n), p.images),
            )
    return assemble(source, plans, done, folder, on_bad)


@dataclass(frozen=True)
class Index:
    """What each row of a split holds, without opening a mask. All arrays are in the split's order."""

    ids: list[str]
    shard: np.ndarray  # position in the split's list of shards
    row: np.ndarray  # in the shard
    width: np.ndarray
    height: np.ndarray
    pixels: np.ndarray  # int64 [rows, classes + 1], column = mask value; void is what is missing
    image_range: np.ndarray  # int64 [rows, 2], first byte in the shard and number of bytes
    mask_range: np.ndarray
    row_sha256: list[str]

    @classmethod
    def load(cls, path: Path, classes: int) -> "Index":
        """Read an index file of a dataset of so many classes."""
        table = parquet.read_table(path)
        column = {name: table[name].combine_chunks() for name in table.column_names}
        values = column["values"]
        counts = np.diff(values.offsets.to_numpy())
        pixels = np.zeros((len(table), classes + 1), np.int64)
        rows = np.repeat(np.arange(len(table)), counts)
        pixels[rows, values.flatten().to_numpy()] = column["pixels"].flatten().to_numpy()

        def integers(*names: str) -> np.ndarray:
            return np.stack([column[name].to_numpy().astype(np.int64) for name in names], axis=1)

        return cls(
            ids=column["id"].to_pylist(),
            shard=column["shard"].to_numpy(),
            row=column["row"].to_numpy(),
            width=column["width"].to_numpy(),
            height=column["height"].to_numpy(),
            pixels=pixels,
            image_range=integers("image_offset", "image_bytes"),
            mask_range=integers("mask_offset", "mask_bytes"),
            row_sha256=[digest.hex() for digest in column["row_sha256"].to_pylist()],
        )

    @property
    def labels(self) -> np.ndarray:
        """Classes in each image, bool [rows, classes]; column c - 1 for class id c."""
        return self.pixels[:, BACKGROUND + 1 :] > 0

    def selection_digest(self, rows: np.ndarray) -> str:
        """Digest of the images at `rows`, in that order: their ids and bytes."""
        return _digest([(self.ids[row], self.row_sha256[row]) for row in rows])


class Unavailable(Exception):
    """A shard cannot be had. The message says which image was wanted, and what to do."""


@dataclass(frozen=True)
class LocalSplit:
    """A split whose files lie on this machine and have been verified: a wrong offset must never reach a memory map."""

    index: Index
    shards: tuple[Path, ...]
    classes: tuple[str, ...]
    content: str
    name: str = "the dataset"  # as messages call it

    def open_shard(self, row: int) -> np.ndarray:
        """The bytes of the shard that holds `row`, uint8, mapped and not to be written to. Raises Unavailable."""
        return np.memmap(self.shards[self.index.shard[row]], np.uint8, mode="r")

    def prefetching(self, rows: np.ndarray) -> AbstractContextManager[None]:
        """In this context `rows` will be read in about that order. Processes that read them are to be started before it."""
        return nullcontext()


def _write_index(shards: list[tuple[IndexRow, ...]], folder: Path) -> StoredFile:
    """Write the rows of each shard as one table."""
    rows = [
        row.model_dump() | {"shard": number} for number, shard in enumerate(shards) for row in shard
    ]
    columns: dict[str, list[Any]] = {
        name: [row[name] for row in rows] for name in INDEX_SCHEMA.names
    }
    columns["row_sha256"] = [bytes.fromhex(digest) for digest in columns["row_sha256"]]
    table = pa.table(
        [pa.array(columns[field.name], field.type) for field in INDEX_SCHEMA], schema=INDEX_SCHEMA
    )
    partial_file = folder / "index.partial"
    parquet.write_table(table, partial_file, compression="zstd", write_page_checksum=True)
    return name_by_digest(partial_file, ".parquet")


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, separators=(",", ":")).encode()).hexdigest()
