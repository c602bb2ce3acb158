"""Parts of a dataset as tasks of a Ray cluster, one CPU each; every machine must see the source's files under one path."""

from collections.abc import Iterator, Sequence

import ray
from ray.exceptions import RayTaskError

from orchestrator.ingestion import StoredPart, store_part
from orchestrator.resources import connect
from orchestrator.store import Store
from training.data.parts import Part, current_key
from training.data.sources import BadData, Source

THREADS = 2  # of a task: one reads while the other decodes


def store_parts(store: Store, source: Source, parts: Sequence[Part]) -> Iterator[tuple[Part, StoredPart]]:
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


def _store(store: Store, source: Source, part: Part) -> StoredPart:
    """What runs on the cluster."""
    if current_key(source, part) != part.key:
        node = ray.util.get_node_ip_address()
        raise BadData(
            f"machine {node} of the cluster sees other files than this one, or they are changing ({part.split}/{part.ids[0]} "
            "and the next): put the dataset where all machines find it under one path, or ingest it with --where here"
        )
    return store_part(store, source, part, threads=THREADS)
