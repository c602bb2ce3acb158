"""Datasets in a store: published once, found by name, localised by digest.

    datasets/shards/<sha256>.arrow        original bytes
    datasets/indexes/<sha256>.parquet     what each row of a split holds
    datasets/manifests/<sha256>.json      the files of a dataset, named by its own digest
    datasets/refs/<name>                  digest of the manifest that the name stands for: the only object that changes

They are written in this order, so whoever finds a name finds all that it stands for.
"""

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from difflib import get_close_matches
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from orchestrator.records import layout
from orchestrator.store.base import NotFound, Store, StoreError, write_if_changed
from orchestrator.store.cache import CorruptedObject, file_sha256, open_object
from orchestrator.store.canonical import canonical_json, digest
from training.config import InputError
from training.data.manifest import Manifest, StoredFile
from training.data.shards import Index

REQUESTS = 16  # to the store at a time


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
    """Upload the manifest's files from `folder`, skip what is there, and let `name` stand for it.

    `progress(done, total)` counts bytes. Interrupted, it leaves no name behind, and goes on where it was when repeated.
    """
    check_name(name)
    files = stored_files(manifest)
    with ThreadPoolExecutor(REQUESTS) as pool:
        present = dict(zip(files, pool.map(store.exists, files), strict=True))
    total, done, uploaded = sum(file.bytes for file in files.values()), 0, []
    for key, file in files.items():  # shards first
        if not present[key]:
            store.upload(folder / Path(key).name, key)
            uploaded.append(file.bytes)
        done += file.bytes
        progress(done, total)
    data = canonical_json(manifest)
    identity = digest(data)
    write_if_changed(store, layout.manifest(identity), data)
    renewed = write_if_changed(store, layout.dataset_name(name), identity.encode())
    return Publication(identity, len(files), len(uploaded), sum(uploaded), renewed)


def resolve(store: Store, name: str) -> tuple[str, Manifest]:
    """Digest and manifest of the dataset that is called, or has the digest, `name`. Raises UnknownDataset."""
    identity = name if _is_digest(name) else _ref(store, name)
    try:
        data = store.read(layout.manifest(identity)) if identity else None
    except NotFound:
        data = None
    if identity is None or data is None:
        raise UnknownDataset(
            f"there is no dataset {name!r} in the store {store.uri}: {_advice(name, known(store))}"
        )
    if digest(data) != identity:
        raise CorruptedObject(
            f"manifest {identity} of dataset {name!r} in the store {store.uri} is corrupted: ingest it again"
        )
    return identity, Manifest.model_validate_json(data)


def known(store: Store) -> list[str]:
    """Names of the datasets in the store."""
    return [key.removeprefix(layout.DATASET_NAMES) for key in store.list(layout.DATASET_NAMES)]


def stored_files(manifest: Manifest) -> dict[str, StoredFile]:
    """The dataset's shards and then its indexes, by their keys in a store."""
    splits = manifest.splits.values()
    shards = {layout.shard(shard.sha256): shard for split in splits for shard in split.shards}
    return shards | {layout.index(split.index.sha256): split.index for split in splits}


def damaged(
    store: Store, files: dict[str, StoredFile], progress: Callable[[int], None] = lambda done: None
) -> list[str]:
    """Keys of the files that are missing, or have another digest, in the store; all are read. `progress` takes bytes done."""

    def sound(item: tuple[str, StoredFile]) -> bool:
        key, file = item
        with TemporaryDirectory(prefix="stepchain-verify-") as scratch:
            path = store.local_path(key) or Path(scratch) / "object"
            try:
                if not path.exists():
                    store.download(key, path)
                return file_sha256(path) == file.sha256
            except NotFound:
                return False

    found, done = [], 0
    with ThreadPoolExecutor(4) as pool:
        for (key, file), whole in zip(files.items(), pool.map(sound, files.items()), strict=True):
            done += file.bytes
            progress(done)
            if not whole:
                found.append(key)
    return found


def load_index(store: Store, manifest: Manifest, split: str, cache_root: Path) -> Index:
    """What the split's rows hold. Raises UnknownDataset for a split that the dataset does not have."""
    if split not in manifest.splits:
        raise UnknownDataset(
            f"the dataset has no split {split!r}; it has {', '.join(manifest.splits)}"
        )
    file = manifest.splits[split].index
    with open_object(store, layout.index(file.sha256), file.sha256, cache_root) as opened:
        return Index.load(Path(opened.name), len(manifest.classes))


def _ref(store: Store, name: str) -> str | None:
    """The digest that a name stands for, if any."""
    check_name(name)
    try:
        return store.read(layout.dataset_name(name)).decode()
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
