"""A dataset as it is stored: Arrow shards of original bytes, a Parquet index of what each row holds, a manifest of both.

`build` looks at every image once, strictly: whatever it writes decodes, has masks of its image's size, and holds no undeclared
class. From then on images are selected from the index alone, and each image or mask is a known byte range of its shard: no
mask has to be opened, or even read, to know what is in it. A split's `content` digest covers the classes and the rows but
not how they are spread over files, so sharding anew, or a newer Arrow, changes no step's identity.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from training.config import BACKGROUND, VOID, Document
from training.data.inspection import BadRow, BadRows, Row, good_rows
from training.data.sources import BadData, Source

BATCH_ROWS = 16  # of an Arrow record batch
SHARD_SCHEMA = pa.schema([("id", pa.string()), ("image", pa.binary()), ("mask", pa.binary())], metadata={"stepchain": "1"})
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


class StoredFile(Document):
    """A file, by its digest."""

    sha256: str
    bytes: int


class Shard(StoredFile):
    """An Arrow IPC file of original bytes: id, image, mask."""

    rows: int


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


def build(
    source: Source,
    folder: Path,
    *,
    on_bad: Literal["error", "skip"] = "error",
    shard_bytes: int = 64 * 2**20,
    progress: Callable[[str, int, int], None] = lambda split, done, total: None,
) -> tuple[Manifest, list[BadRow]]:
    """Write the source's splits to `folder` as <sha256>.arrow and <sha256>.parquet; same rows, same bytes.

    Returns the manifest and the rows that were left out. `progress(split, done, total)` counts images. Raises BadRows, with all
    of them, when rows are bad and `on_bad` is error (what `folder` then holds is of no use), BadData when nothing is left.
    """
    if len(source.classes) >= VOID:
        raise BadData(
            f"the dataset declares {len(source.classes)} classes; masks have 8 bits, which leaves room for {VOID - 1}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    bad: list[BadRow] = []
    splits = {}
    for split in source.splits:
        rows = good_rows(source, split, bad, partial(progress, split))
        shards, index = _write_shards(rows, folder, shard_bytes)
        unusable = [row for row in bad if row.split == split]
        if not index["id"] and not unusable:
            raise BadData(f"split {split!r} lists no images; leave the split out, or mend its list")
        if not index["id"] and on_bad == "skip":
            raise BadData(f"split {split!r} has no usable image; the first is {unusable[0].id}: {unusable[0].reason}")
        hashes = [digest.hex() for digest in index["row_sha256"]]
        content = _digest({"classes": source.classes, "rows": list(zip(index["id"], hashes, strict=True))})
        stored = _write_index(index, folder)
        splits[split] = SplitManifest(index=stored, shards=tuple(shards), rows=len(hashes), content=content)
    if bad and on_bad == "error":
        raise BadRows(bad)
    return Manifest(classes=source.classes, splits=splits), bad


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


@dataclass(frozen=True)
class LocalSplit:
    """A split whose files lie on this machine and have been verified: a wrong offset must never reach a memory map."""

    index: Index
    shards: tuple[Path, ...]
    classes: tuple[str, ...]
    content: str


def _write_shards(rows: Iterable[Row], folder: Path, shard_bytes: int) -> tuple[list[Shard], dict[str, list]]:
    """Write rows to shards of about `shard_bytes`; returns the shards and the index's columns."""
    shards: list[Shard] = []
    index: dict[str, list] = {name: [] for name in INDEX_SCHEMA.names}
    pending: list[Row] = []
    size = 0
    for row in rows:
        pending.append(row)
        size += len(row.sample.image) + len(row.sample.mask)
        if size >= shard_bytes:
            _write_shard(pending, folder, shards, index)
            pending, size = [], 0
    if pending:
        _write_shard(pending, folder, shards, index)
    return shards, index


def _write_shard(rows: list[Row], folder: Path, shards: list[Shard], index: dict[str, list]) -> None:
    """Write one shard and append it to `shards`, its rows to `index`."""
    partial_file = folder / "shard.partial"
    with pa.OSFile(str(partial_file), "wb") as sink, pa.ipc.new_file(sink, SHARD_SCHEMA) as writer:
        for start in range(0, len(rows), BATCH_ROWS):
            samples = [row.sample for row in rows[start : start + BATCH_ROWS]]
            columns = [
                pa.array(values, kind.type) for values, kind in zip(zip(*samples, strict=True), SHARD_SCHEMA, strict=True)
            ]
            writer.write_batch(pa.record_batch(columns, schema=SHARD_SCHEMA))
    offsets = _byte_offsets(partial_file)
    for number, (row, (image_offset, mask_offset)) in enumerate(zip(rows, offsets, strict=True)):
        values = np.flatnonzero(row.pixels[:VOID])
        entry = (
            row.sample.id, len(shards), number, row.width, row.height, values, row.pixels[values],
            image_offset, len(row.sample.image), mask_offset, len(row.sample.mask), row.sha256,
        )  # fmt: skip
        for name, value in zip(INDEX_SCHEMA.names, entry, strict=True):
            index[name].append(value)
    shards.append(Shard(**_name_by_digest(partial_file, ".arrow").model_dump(), rows=len(rows)))


def _byte_offsets(shard: Path) -> list[tuple[int, int]]:
    """Where each row's image and mask start in the file."""
    result: list[tuple[int, int]] = []
    with pa.memory_map(str(shard)) as file:
        origin = file.read_buffer(1).address
        file.seek(0)
        reader = pa.ipc.open_file(file)
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number)
            starts = []
            for name in ("image", "mask"):
                _, offsets, data = batch.column(name).buffers()
                within = np.frombuffer(offsets, np.int32)[: batch.num_rows].astype(np.int64)
                starts.append(data.address - origin + within)
            result += zip(*(column.tolist() for column in starts), strict=True)
    return result


def _write_index(columns: dict[str, list], folder: Path) -> StoredFile:
    partial_file = folder / "index.partial"
    table = pa.table([pa.array(columns[field.name], field.type) for field in INDEX_SCHEMA], schema=INDEX_SCHEMA)
    parquet.write_table(table, partial_file, compression="zstd", write_page_checksum=True)
    return _name_by_digest(partial_file, ".parquet")


def _name_by_digest(path: Path, suffix: str) -> StoredFile:
    """Rename a finished file to its digest."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    size = path.stat().st_size
    path.replace(path.with_name(sha256 + suffix))
    return StoredFile(sha256=sha256, bytes=size)


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, separators=(",", ":")).encode()).hexdigest()
