"""Parts of a dataset as tasks of a Ray cluster, one CPU each; every machine must see the source's files under one path."""

from collections.abc import Iterator, Sequence

import ray
from ray.exceptions import RayTaskError

from orchestrator.cluster.connection import connect
from orchestrator.datasets.store_shard import StoredShard, store_shard
from orchestrator.store.base import Store
from training.data.shard_writer import ShardJob, current_key
from training.data.source import BadData, Source

THREADS = 2  # of a task: one reads while the other decodes


def store_shards(
    store: Store, source: Source, parts: Sequence[ShardJob]
) -> Iterator[tuple[ShardJob, StoredShard]]:
    """Store the parts on the cluster; gives each when it is done. What still runs when the caller stops is cancelled.

    Raises what `store_part` raises, and BadData when a machine sees other files than this one.
    """
    connect()
    shared = ray.put(source)  # once a machine, not once a task
    task = ray.remote(num_cpus=1)(_store)
    running = {task.remote(store, shared, part): part for part in parts}
    try:
        while running:
            (ready, *_), _ = ray.wait(list(running))
            try:
                stored = ray.get(ready)
            except RayTaskError as error:
                raise error.cause from error
            yield running.pop(ready), stored
    finally:
        for reference in running:
            ray.cancel(reference)


def _store(store: Store, source: Source, part: ShardJob) -> StoredShard:
    """What runs on the cluster."""
    if current_key(source, part) != part.key:
        node = ray.util.get_node_ip_address()
        raise BadData(
            f"machine {node} of the cluster sees other files than this one, or they are changing ({part.split}/{part.ids[0]} "
            "and the next): put the dataset where all machines find it under one path, or ingest it with --where here"
        )
    return store_shard(store, source, part, threads=THREADS)
