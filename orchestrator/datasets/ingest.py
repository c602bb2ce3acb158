"""From a source to a published dataset: parts are looked at and stored in any order, then named together.

Each part of a split (training/data/shard_writer.py) becomes one shard in the store, and a note of what became of it unless an image
could not be used:

    datasets/parts/<key>.note      the part's shard and what its rows hold, as JSON, behind the digest of that

So an ingest that was interrupted goes on where it was, and one that was finished opens none of the images again. Threads of
this process look at few images sooner than a cluster starts; many go to Ray tasks.
"""

import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, NamedTuple

from orchestrator.cluster.ray_tasks import run_tasks
from orchestrator.datasets.catalog import Publication, check_name, publish
from orchestrator.datasets.store_shard import StoredShard, store_shard, stored_shards
from orchestrator.records import layout
from orchestrator.store.base import Store, StoreError
from training.data.dataset_writer import SHARD_BYTES, assemble_dataset, plan_shards
from training.data.manifest import Manifest
from training.data.shard_writer import ShardJob, current_key
from training.data.source import BadData, Source
from training.data.validation import BadRow

LARGE = (
    20_000  # images from which on a cluster is sooner done, though it takes ten seconds to start
)
NODE_THREADS = 2  # of a task: one reads while the other decodes
Where = Literal["auto", "here", "cluster"]
OnBad = Literal["error", "skip"]
Progress = Callable[[int, int], None]


class Ingestion(NamedTuple):
    """What `ingest` did."""

    manifest: Manifest
    bad: list[BadRow]  # left out
    publication: Publication


def ingest(
    source: Source,
    store: Store,
    name: str,
    *,
    on_bad: OnBad = "error",
    where: Where = "auto",
    shard_bytes: int = SHARD_BYTES,
    progress: Progress = lambda done, total: None,
) -> Ingestion:
    """Put the source into the store as `name`; the manifest is the same wherever and however parallel it is made.

    `progress(done, total)` counts images. Raises BadRows when rows are bad and `on_bad` is error, BadData, StoreError; the
    name then stands for what it stood for.
    """
    check_name(name)
    plans = plan_shards(source, shard_bytes)
    parts = [part for planned in plans.values() for part in planned.jobs]
    total = sum(planned.images for planned in plans.values())
    done = stored_shards(store, parts)
    pending = [part for part in parts if part.key not in done]
    images = sum(len(part.ids) for part in pending)
    seen, uploaded = total - images, []
    progress(seen, total)

    def advance(count: int = 1) -> None:
        nonlocal seen
        seen += count
        progress(seen, total)

    if where == "cluster" or (where == "auto" and images >= LARGE):
        for part, stored in run_tasks(partial(store_on_node, store, source), pending):
            shard = stored.part.shard
            if shard and not store.exists(layout.shard(shard.sha256)):
                raise StoreError(
                    f"a machine of the cluster stored {layout.shard(shard.sha256)!r}, and it is not in the store {store.uri} as "
                    "this machine sees it: use a store that all machines share, or --where here"
                )
            done[part.key] = stored.part
            uploaded.append(stored.uploaded)
            advance(len(part.ids))
    else:
        for part in pending:
            stored = store_shard(store, source, part, advance)
            done[part.key] = stored.part
            uploaded.append(stored.uploaded)
    with TemporaryDirectory(prefix="stepchain-ingest-") as scratch:
        manifest, bad = assemble_dataset(source, plans, done, Path(scratch), on_bad)
        published = publish(store, name, Path(scratch), manifest)
    sizes = [size for size in uploaded if size]
    published = published._replace(
        uploaded=published.uploaded + len(sizes), bytes=published.bytes + sum(sizes)
    )
    return Ingestion(manifest, bad, published)


def store_on_node(store: Store, source: Source, part: ShardJob) -> StoredShard:
    """Store one shard in a task of a cluster, whose machines must see the source's files under one path.

    Raises:
        BadData: The machine sees other files than the driver did.
    """
    if current_key(source, part) != part.key:
        raise BadData(
            f"machine {socket.gethostname()} of the cluster sees other files than this one, or they are "
            f"changing ({part.split}/{part.ids[0]} and the next): put the dataset where all machines "
            "find it under one path, or ingest it with --where here"
        )
    return store_shard(store, source, part, threads=NODE_THREADS)
