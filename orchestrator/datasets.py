"""Datasets in a store: published once, found by name, localised by digest.

    datasets/shards/<sha256>.arrow        original bytes
    datasets/indexes/<sha256>.parquet     what each row of a split holds
    datasets/manifests/<sha256>.json      the files of a dataset, named by its own digest
    datasets/refs/<name>                  digest of the manifest that the name stands for: the only object that changes

They are written in this order, so whoever finds a name finds all that it stands for.
"""

import re
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from orchestrator.cache import CorruptedObject, fetch
from orchestrator.identity import canonical_json, digest
from orchestrator.store import NotFound, Store, StoreError, write_if_changed
from training.config import InputError
from training.data.shards import Index, LocalSplit, Manifest

REFS = "datasets/refs/"


class UnknownDataset(StoreError):
    """The store has no such dataset, or the dataset no such split."""


class Publication(NamedTuple):
    """What `publish` did."""

    manifest: str  # digest
    files: int  # of the dataset
    uploaded: int  # of these, now; the others were there
    bytes: int  # uploaded
    renewed: bool  # the name did not stand for this manifest before


def check_name(name: str) -> None:
    """Raises InputError unless `name` can be a dataset's: letters, digits, `.`, `_` and `-`, no digest."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) or _is_digest(name):
        raise InputError(
            f"{name!r} cannot name a dataset: use letters, digits, '.', '_' and '-', beginning with a letter or digit"
        )


def publish(
    store: Store,
    name: str,
    folder: Path,
    manifest: Manifest,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Publication:
    """Upload what `training.data.shards.build` wrote to `folder`, skip what is there, and let `name` stand for it.

    `progress(done, total)` counts bytes. Interrupted, it leaves no name behind, and goes on where it was when repeated.
    """
    check_name(name)
    splits = manifest.splits.values()
    files = {shard_key(shard.sha256): shard for split in splits for shard in split.shards}
    files |= {index_key(split.index.sha256): split.index for split in splits}
    total, done, uploaded = sum(file.bytes for file in files.values()), 0, []
    for key, file in files.items():  # shards first
        if not store.exists(key):
            store.upload(folder / Path(key).name, key)
            uploaded.append(file.bytes)
        done += file.bytes
        progress(done, total)
    data = canonical_json(manifest)
    identity = digest(data)
    write_if_changed(store, manifest_key(identity), data)
    renewed = write_if_changed(store, REFS + name, identity.encode())
    return Publication(identity, len(files), len(uploaded), sum(uploaded), renewed)


def resolve(store: Store, name: str) -> tuple[str, Manifest]:
    """Digest and manifest of the dataset that is called, or has the digest, `name`. Raises UnknownDataset."""
    identity = name if _is_digest(name) else _ref(store, name)
    try:
        data = store.read(manifest_key(identity)) if identity else None
    except NotFound:
        data = None
    if identity is None or data is None:
        raise UnknownDataset(f"there is no dataset {name!r} in the store {store.uri}: {_advice(name, known(store))}")
    if digest(data) != identity:
        raise CorruptedObject(f"manifest {identity} of dataset {name!r} in the store {store.uri} is corrupted: ingest it again")
    return identity, Manifest.model_validate_json(data)


def known(store: Store) -> list[str]:
    """Names of the datasets in the store."""
    return [key.removeprefix(REFS) for key in store.list(REFS)]


def localise(store: Store, manifest: Manifest, split: str, cache_root: Path) -> LocalSplit:
    """The split's files on this machine, verified. Raises UnknownDataset for a split that it does not have."""
    if split not in manifest.splits:
        raise UnknownDataset(f"the dataset has no split {split!r}; it has {', '.join(manifest.splits)}")
    files = manifest.splits[split]
    index = fetch(store, index_key(files.index.sha256), files.index.sha256, cache_root)
    shards = tuple(fetch(store, shard_key(shard.sha256), shard.sha256, cache_root) for shard in files.shards)
    return LocalSplit(Index.load(index, len(manifest.classes)), shards, manifest.classes, files.content)


def shard_key(sha256: str) -> str:
    return f"datasets/shards/{sha256}.arrow"


def index_key(sha256: str) -> str:
    return f"datasets/indexes/{sha256}.parquet"


def manifest_key(sha256: str) -> str:
    return f"datasets/manifests/{sha256}.json"


def _ref(store: Store, name: str) -> str | None:
    """The digest that a name stands for, if any."""
    check_name(name)
    try:
        return store.read(REFS + name).decode()
    except NotFound:
        return None


def _advice(name: str, names: list[str]) -> str:
    if not names:
        return "it has none yet; put one there with `python -m jobs.ingest`"
    near = get_close_matches(name, names, n=1, cutoff=0.5)
    meant = f"did you mean {near[0]!r}? " if near else ""
    return f"{meant}It has {', '.join(names)}"


def _is_digest(name: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{64}", name) is not None
