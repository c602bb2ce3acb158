"""Refuse to score a model on images that it was trained on.

A validation list that is part of the training list is a common slip, and its scores are too good.
"""

from orchestrator.datasets.catalog import UnknownDataset, load_index, resolve
from orchestrator.store.base import Store
from orchestrator.store.cache import default_cache
from training.config import InputError
from training.data.manifest import Manifest


def check_unseen(store: Store, trained: str, name: str, scored: Manifest, split: str) -> None:
    """Raise InputError if images of a split are among those to train on.

    Images are the same if their bytes and those of their masks are. Nothing is said where the store
    no longer has the dataset that was trained on.

    Args:
        store: The store.
        trained: Digest of the dataset that is trained on.
        name: Name of the dataset to score on.
        scored: Its manifest.
        split: The split of it.
    """
    try:
        _, training = resolve(store, trained)
    except UnknownDataset:
        return
    seen = set(load_index(store, training, "train", default_cache()).row_sha256)
    index = load_index(store, scored, split, default_cache())
    shared = [id for id, row in zip(index.ids, index.row_sha256, strict=True) if row in seen]
    if shared:
        raise InputError(
            f"{len(shared)} of {len(index.ids)} images of {name!r}, split {split!r}, are trained "
            f"on as well (such as {shared[0]}), so scores on it say too much: ingest the dataset "
            "with lists that share no image, or score on them with --allow-overlap"
        )
