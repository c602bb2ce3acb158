"""Measure how long training waits for its first batch from S3, and how much a small step fetches.

    python -m benchmarks.cold_start [--count 2000] [--workers 2] [--share 0.05] [--json]

The images of `benchmarks.photos` are published to a real S3 server on this machine, OpenStack
Swift, as in the tests. A network adds its own time to the waiting. The benchmark measures

* the seconds to the first batch, with an empty cache and with a full one;
* the seconds until an epoch has been read and everything is in the cache;
* for a step that selects a share of the images, the bytes that it fetches.

The ratios are the fetched bytes divided by the bytes that the step needs (`fetched_to_needed`) and
by those of the whole dataset (`fetched_share`).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import boto3
import numpy as np
import torch

from benchmarks.loader import BATCH, TABLE
from benchmarks.photos import Photos
from orchestrator.datasets.ingest import ingest
from orchestrator.datasets.stored_split import open_stored_split
from orchestrator.store.s3 import S3Store
from training.config import Augmentation
from training.data.dataset import GlobalBatches, SegmentationDataset
from training.data.loader import load_batches
from training.data.manifest import Manifest
from training.data.transforms import random_resized_crop

ROOT = Path(__file__).parents[1]
CROP = 512


@dataclass(frozen=True)
class CountingStore(S3Store):
    """A bucket that notes the bytes of each request of this process."""

    fetched: list[int] = field(default_factory=list)

    def read_range(self, key: str, first: int, count: int) -> bytes:
        self.fetched.append(count)
        return super().read_range(key, first, count)

    def download(self, key: str, path: Path) -> None:
        super().download(key, path)
        self.fetched.append(path.stat().st_size)


def main() -> None:
    """Measure, and print a few sentences and, with --json, one line of JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=2000, help="images")
    parser.add_argument("--workers", type=int, default=2, help="loader processes")
    parser.add_argument("--share", type=float, default=0.05, help="of the images that a step reads")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON document")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="stepchain-cold-") as scratch, server(Path(scratch)):
        folder = Path(scratch)
        store = CountingStore("benchmark", "store")
        manifest = ingest(Photos(options.count), store, "photos", where="here").manifest
        rows = np.arange(options.count)
        cold, epoch = read_epoch(store, manifest, folder / "cache", rows, options.workers)
        warm, _ = read_epoch(store, manifest, folder / "cache", rows, options.workers)
        shuffled = np.random.default_rng(0).permutation(options.count)
        few = np.sort(shuffled[: int(options.share * options.count)])
        fetched, needed = fetch_rows(store, manifest, folder / "few", few)
    total = sum(shard.bytes for shard in manifest.splits["train"].shards)
    print(f"first batch of {BATCH}: {cold:.2f} s cold, {warm:.2f} s warm")
    print(f"an epoch of {total / 1e6:.0f} MB: {epoch:.1f} s cold")
    print(
        f"{len(few)} of {options.count} images: {fetched / 1e6:.1f} MB fetched, "
        f"{needed / 1e6:.1f} MB needed, {total / 1e6:.0f} MB stored"
    )
    if options.json:
        numbers = {
            "cold": cold,
            "warm": warm,
            "epoch": epoch,
            "fetched_to_needed": fetched / needed,
            "fetched_share": fetched / total,
        }
        print(json.dumps({name: round(number, 3) for name, number in numbers.items()}))


def read_epoch(
    store: CountingStore, manifest: Manifest, cache: Path, rows: np.ndarray, workers: int
) -> tuple[float, float]:
    """Return the seconds from nothing to the first batch, and to the end of an epoch."""
    start = time.monotonic()
    split = open_stored_split(store, manifest, "train", cache, rows=rows)
    crop = partial(random_resized_crop, augmentation=Augmentation(crop=CROP))
    dataset = SegmentationDataset(split, rows, transform=crop, label_map=TABLE, seed=0)
    order = GlobalBatches(len(rows), BATCH, 0, 0, 1, 0, len(rows) // BATCH)
    batches = load_batches(dataset, order, CROP, workers)
    next(batches)
    first = time.monotonic() - start
    for _ in batches:
        pass
    return first, time.monotonic() - start


def fetch_rows(
    store: CountingStore, manifest: Manifest, cache: Path, rows: np.ndarray
) -> tuple[int, int]:
    """Fetch the images at some rows into an empty cache.

    Returns:
        The bytes that were fetched, without the index, and those of the images and their masks.
    """
    split = open_stored_split(store, manifest, "train", cache, rows=rows)
    store.fetched.clear()
    for row in rows:
        split.open_shard(int(row))
    image_bytes = split.index.image_range[rows, 1].sum()
    mask_bytes = split.index.mask_range[rows, 1].sum()
    return sum(store.fetched), int(image_bytes + mask_bytes)


@contextmanager
def server(folder: Path) -> Iterator[None]:
    """Run Swift with a bucket, and let the AWS variables name it."""
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "tester:tester",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    command = [sys.executable, "-m", "infra.local.swift", folder / "swift", "--end-with-input"]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            os.environ["AWS_ENDPOINT_URL"] = process.stdout.readline().strip()
            boto3.client("s3").create_bucket(Bucket="benchmark")
            yield
        finally:
            process.terminate()


if __name__ == "__main__":
    main()
