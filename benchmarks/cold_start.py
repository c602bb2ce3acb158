"""How long training waits for its first batch from S3, and how much is fetched for a step that selects few images.

    python -m benchmarks.cold_start [--count 2000] [--workers 2] [--share 0.05] [--json]

The images of `benchmarks.loader` are published to a real S3 server on this machine (OpenStack Swift, as in the tests; on a
network the waiting is longer by what the network adds). Measured are the seconds to the first batch with an empty cache and
with a full one, the seconds until all is here, and, for a step that selects a share of the images, the bytes that were fetched
beside the bytes that it needs and those of the whole dataset.
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

from benchmarks.loader import BATCH, TABLE, Photos
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
class Counting(S3Store):
    """A bucket that counts what is taken from it, in this process."""

    taken: list[int] = field(default_factory=list)

    def read_range(self, key: str, first: int, count: int) -> bytes:
        self.taken.append(count)
        return super().read_range(key, first, count)

    def download(self, key: str, path: Path) -> None:
        super().download(key, path)
        self.taken.append(path.stat().st_size)


def main() -> None:
    """Measure, and print a few sentences or, last of all, one line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=2000, help="images")
    parser.add_argument("--workers", type=int, default=2, help="loader processes")
    parser.add_argument(
        "--share", type=float, default=0.05, help="of the images, that a step selects"
    )
    parser.add_argument("--json", action="store_true", help="end with a line of JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="stepchain-cold-") as scratch, server(Path(scratch)):
        folder = Path(scratch)
        store = Counting("benchmark", "store")
        manifest = ingest(Photos(options.count), store, "photos", where="here").manifest
        rows = np.arange(options.count)
        cold, whole = waiting(store, manifest, folder / "cache", rows, options.workers)
        warm, _ = waiting(store, manifest, folder / "cache", rows, options.workers)
        store.taken.clear()
        few = np.sort(
            np.random.default_rng(0).permutation(options.count)[
                : int(options.share * options.count)
            ]
        )
        split = open_stored_split(store, manifest, "train", folder / "few", rows=few)
        index_bytes = sum(store.taken)
        for row in few:
            split.open_shard(int(row))
        fetched = sum(store.taken) - index_bytes
        needed = int(
            sum(place[few, 1].sum() for place in (split.index.image_range, split.index.mask_range))
        )
    total = sum(shard.bytes for shard in manifest.splits["train"].shards)
    print(
        f"first batch of {BATCH}: {cold:.2f} s cold, {warm:.2f} s warm; an epoch of {total / 1e6:.0f} MB: {whole:.1f} s cold"
    )
    print(
        f"{len(few)} of {options.count} images: {fetched / 1e6:.1f} MB fetched, {needed / 1e6:.1f} MB needed, "
        f"{total / 1e6:.0f} MB stored"
    )
    if options.json:
        numbers = {
            "cold": cold,
            "warm": warm,
            "epoch": whole,
            "fetched_to_needed": fetched / needed,
            "fetched_share": fetched / total,
        }
        print(json.dumps({name: round(number, 3) for name, number in numbers.items()}))


def waiting(
    store: Counting, manifest: Manifest, cache: Path, rows: np.ndarray, workers: int
) -> tuple[float, float]:
    """Seconds from nothing to the first batch, and to the end of an epoch."""
    start = time.monotonic()
    split = open_stored_split(store, manifest, "train", cache, rows=rows)
    crop = partial(random_resized_crop, augmentation=Augmentation(crop=CROP))
    dataset = SegmentationDataset(split, rows, transform=crop, label_map=TABLE, seed=0)
    batches = load_batches(
        dataset, GlobalBatches(len(rows), BATCH, 0, 0, 1, 0, len(rows) // BATCH), CROP, workers
    )
    next(batches)
    first = time.monotonic() - start
    for _ in batches:
        pass
    return first, time.monotonic() - start


@contextmanager
def server(folder: Path) -> Iterator[None]:
    """Swift with a bucket, which the AWS variables then name."""
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
