"""Find companion layers of a dataset's training split, and open them.

A layer belongs to the content of the split, whatever names stand for the dataset. A dataset that is
ingested with other images therefore has none of the old one's layers.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from orchestrator.datasets.catalog import UnknownDataset, load_index, resolve
from orchestrator.datasets.stored_split import open_stored_split
from orchestrator.records import layout
from orchestrator.store.base import NotFound, Store
from training.data.manifest import LAYERED, Manifest
from training.data.shards import LocalSplit
from training.nearest import nearest


def layers_of(store: Store, manifest: Manifest) -> dict[str, str]:
    """Return the digests of the manifests of a dataset's layers, by name."""
    if LAYERED not in manifest.splits:
        return {}
    folder = layout.layer_name(manifest.splits[LAYERED].content)
    return {key.removeprefix(folder): store.read(key).decode() for key in store.list(folder)}


def find_layer(store: Store, manifest: Manifest, dataset: str, name: str) -> str:
    """Return the digest of the manifest of a dataset's layer.

    Raises:
        UnknownDataset: The dataset has no such layer.
    """
    try:
        return store.read(layout.layer_name(manifest.splits[LAYERED].content, name)).decode()
    except NotFound:
        names = [*layers_of(store, manifest)]
        near = nearest(name, names)
        meant = f"did you mean {near!r}? " if near else ""
        has = f"it has {', '.join(names)}" if names else "it has none"
        raise UnknownDataset(
            f"dataset {dataset!r} has no layer {name!r}: {meant}{has}; put one there with "
            f"`python -m jobs.ingest layer {dataset} --name {name} --root FOLDER`"
        ) from None


def with_layers(
    split: LocalSplit,
    store: Store,
    layers: Mapping[str, tuple[str, str]],
    rows: np.ndarray,
    cache_root: Path,
) -> LocalSplit:
    """Return the split with layers open for the images at `rows`.

    Args:
        split: A training split.
        store: The store that holds the layers.
        layers: Name and manifest's digest of each layer, by what the split is to call it.
        rows: The images whose maps will be read.
        cache_root: Folder of the cache.

    Raises:
        StoreError: The store does not answer.
    """
    opened = {}
    for key, (name, identity) in layers.items():
        _, manifest = resolve(store, identity)
        index = load_index(store, manifest, LAYERED, cache_root)
        opened[key] = open_stored_split(
            store,
            manifest,
            LAYERED,
            cache_root,
            dataset=f"layer {name} of {split.name}",
            rows=np.array([index.row_of[split.index.ids[row]] for row in rows], np.int64),
        )
    return replace(split, layers=opened)
