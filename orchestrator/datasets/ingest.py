"""Turn a source into a published dataset: check and store its shards in any order, then name them.

One shard job (`training.data.shard_writer`) makes one shard. The store also keeps a note of a job
whose images can all be used. An ingest that was interrupted therefore continues where it was, and
one that is repeated opens no image again. For few images, the threads of this process are done
before a cluster would have started. Many images go to the cluster.
"""

import socket
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, NamedTuple

from orchestrator.cluster.ray_tasks import run_tasks
from orchestrator.datasets.catalog import Publication, check_name, publish
from orchestrator.datasets.store_shard import StoredShard, store_shard, stored_shards
from orchestrator.records import layout
from orchestrator.store.base import Store, StoreError
from training.data.dataset_summary import DatasetSummary, summarise
from training.data.dataset_writer import SHARD_BYTES, assemble_dataset, plan_shards
from training.data.manifest import Manifest
from training.data.reading import NOTHING_ASKED, Asked
from training.data.shard_writer import ShardJob, WrittenShard, current_key
from training.data.source import BadData, Source
from training.data.validation import BadRow

# From this number of images on, a cluster is faster, although it takes ten seconds to start.
LARGE = 20_000

# Threads of a task: one reads while the other decodes.
NODE_THREADS = 2
Where = Literal["auto", "here", "cluster"]
OnBad = Literal["error", "skip"]
Progress = Callable[[int, int], None]


class Ingestion(NamedTuple):
    """What `ingest` did."""

    manifest: Manifest
    bad: list[BadRow]  # left out
    remarks: list[str]  # what was found and decided, for the person who ingests
    summary: DatasetSummary
    publication: Publication


class _Progress:
    """The shard jobs that are done, and how many images that is."""

    def __init__(self, total: int, show: Progress) -> None:
        self.written: dict[str, WrittenShard] = {}  # by the key of the job
        self.uploaded: list[int] = []  # bytes of the shards that the store did not have
        self._total = total
        self._show = show
        self._images = 0

    def advance(self, images: int = 1) -> None:
        """Count images that were checked."""
        self._images += images
        self._show(self._images, self._total)

    def finish(self, job: ShardJob, stored: StoredShard) -> None:
        """Keep the result of a job."""
        self.written[job.key] = stored.written
        if stored.uploaded:
            self.uploaded.append(stored.uploaded)


def ingest(
    source: Source,
    store: Store,
    name: str,
    *,
    on_bad: OnBad = "error",
    where: Where = "auto",
    shard_bytes: int = SHARD_BYTES,
    asked: Asked = NOTHING_ASKED,
    progress: Progress = lambda done, total: None,
) -> Ingestion:
    """Publish a source as the dataset `name`.

    The manifest does not depend on where the images are checked, or in which order. If the ingest
    fails, the name stands for the dataset that it stood for before.

    Args:
        source: The images and masks.
        store: The store to write to.
        name: Name of the dataset.
        on_bad: What to do with images that cannot be used: raise an error, or leave them out.
        where: Whether to check the images here or on the cluster; by default their number decides.
        shard_bytes: About what a shard is to hold.
        asked: How files are to be read, where they do not say it themselves.
        progress: Called with the number of images that are done, and of all images.

    Raises:
        BadRows: Images cannot be used, and `on_bad` is "error".
        BadData: The source cannot be read, or what its files mean must be asked.
        StoreError: The store does not answer.
    """
    check_name(name)
    plans = plan_shards(source, shard_bytes, asked)
    jobs = list(chain.from_iterable(planned.jobs for planned in plans.values()))
    done = _Progress(sum(planned.images for planned in plans.values()), progress)
    done.written = stored_shards(store, jobs)
    pending = [job for job in jobs if job.key not in done.written]
    done.advance(_count_images(jobs) - _count_images(pending))
    if where == "cluster" or (where == "auto" and _count_images(pending) >= LARGE):
        _store_on_cluster(store, source, pending, done)
    else:
        _store_here(store, source, pending, done)
    with TemporaryDirectory(prefix="stepchain-ingest-") as scratch:
        dataset = assemble_dataset(source, plans, done.written, Path(scratch), on_bad, asked)
        published = publish(store, name, Path(scratch), dataset.manifest)
    published = published._replace(
        uploaded=published.uploaded + len(done.uploaded),
        bytes=published.bytes + sum(done.uploaded),
    )
    rows = {}
    for split, planned in plans.items():
        rows[split] = list(chain.from_iterable(done.written[job.key].rows for job in planned.jobs))
    summary = summarise(rows, len(source.classes))
    return Ingestion(dataset.manifest, dataset.bad, dataset.remarks, summary, published)


def _count_images(jobs: Sequence[ShardJob]) -> int:
    return sum(len(job.ids) for job in jobs)


def _store_here(store: Store, source: Source, jobs: Sequence[ShardJob], done: _Progress) -> None:
    """Store the shards by threads of this process."""
    for job in jobs:
        done.finish(job, store_shard(store, source, job, done.advance))


def _store_on_cluster(
    store: Store, source: Source, jobs: Sequence[ShardJob], done: _Progress
) -> None:
    """Store the shards in tasks of the cluster. Raise StoreError if they are not seen here."""
    for job, stored in run_tasks(partial(store_on_node, store, source), jobs):
        shard = stored.written.shard
        if shard and not store.exists(layout.shard(shard.sha256)):
            raise StoreError(
                f"a machine of the cluster stored {layout.shard(shard.sha256)!r}, and it is not in "
                f"the store {store.uri} as this machine sees it: use a store that all machines "
                "share, or --where here"
            )
        done.finish(job, stored)
        done.advance(len(job.ids))


def store_on_node(store: Store, source: Source, job: ShardJob) -> StoredShard:
    """Store one shard in a task of a cluster.

    All machines must see the source's files under one path.

    Raises:
        BadData: The machine sees other files than the driver did.
    """
    if current_key(source, job) != job.key:
        raise BadData(
            f"machine {socket.gethostname()} of the cluster sees other files than this one, or "
            f"they are changing ({job.split}/{job.ids[0]} and the next): put the dataset where "
            "all machines find it under one path, or ingest it with --where here"
        )
    return store_shard(store, source, job, threads=NODE_THREADS)
