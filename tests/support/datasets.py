"""Build datasets on this machine, and indexes without images."""

from pathlib import Path
from typing import Literal

import numpy as np

from orchestrator.datasets.catalog import publish
from orchestrator.store.base import Store
from training.data.dataset_writer import SHARD_BYTES, assemble_dataset, plan_shards
from training.data.digits import Digits
from training.data.manifest import Manifest
from training.data.reading import NOTHING_ASKED, Asked
from training.data.shard_writer import write_shard
from training.data.shards import Index, LocalSplit
from training.data.source import Source
from training.data.validation import BadRow


def build_dataset(
    source: Source,
    folder: Path,
    *,
    on_bad: Literal["error", "skip"] = "error",
    shard_bytes: int = SHARD_BYTES,
    asked: Asked = NOTHING_ASKED,
) -> tuple[Manifest, list[BadRow]]:
    """Write the source's splits to `folder` as <sha256>.arrow and <sha256>.parquet.

    It returns and raises what `assemble_dataset` does. After an error the files are of no use.
    """
    plans = plan_shards(source, shard_bytes, asked)
    jobs = [job for plan in plans.values() for job in plan.jobs]
    written = {job.key: write_shard(source, job, folder) for job in jobs}
    assembled = assemble_dataset(source, plans, written, folder, on_bad, asked)
    return assembled.manifest, assembled.bad


def publish_digits(store: Store, folder: Path, *, seed: int, train: int, val: int) -> None:
    """Publish scenes of digits as the dataset `digits`; `folder` is for the files on the way."""
    manifest, _ = build_dataset(Digits(seed=seed, train=train, val=val), folder)
    publish(store, "digits", folder, manifest)


def open_split(manifest: Manifest, split: str, folder: Path) -> LocalSplit:
    """Return a split of a dataset that `build_dataset` wrote to `folder`."""
    files = manifest.splits[split]
    index = Index.load(folder / f"{files.index.sha256}.parquet", len(manifest.classes))
    shards = tuple(folder / f"{shard.sha256}.arrow" for shard in files.shards)
    return LocalSplit(index, shards, manifest.classes, files.content, reading=manifest.reading)


def make_index(labels: np.ndarray, ids: list[str] | None = None) -> Index:
    """Return an index of images with these classes and no bytes.

    Args:
        labels: bool [images, classes]; column c - 1 for class id c.
        ids: the images' ids; image-0, image-1, ... by default.
    """
    count = len(labels)
    background = np.ones((count, 1), np.int64)
    return Index(
        ids=ids or [f"image-{number}" for number in range(count)],
        shard=np.zeros(count, np.int64),
        pixels=np.concatenate([background, labels.astype(np.int64)], axis=1),
        image_range=np.zeros((count, 2), np.int64),
        mask_range=np.zeros((count, 2), np.int64),
        row_sha256=[f"{number:064x}" for number in range(count)],
        orientation=np.ones(count, np.uint8),
        sizes=np.ones((count, 2), np.int64),
    )
