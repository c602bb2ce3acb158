"""Publish datasets in a store, and find them by name or digest.

Files are written in this order: shards, indexes, the manifest that names them by digest, and last
the name, which is the only object that changes. A process that finds a name therefore finds
everything that it stands for.
"""

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from orchestrator.records import layout
from orchestrator.store.base import READERS, NotFound, Store, StoreError, write_if_changed
from orchestrator.store.cache import CorruptedObject, file_sha256, open_object
from orchestrator.store.canonical import canonical_json, digest
from training.config import InputError
from training.data.manifest import Manifest, StoredFile
from training.data.shards import Index
from training.nearest import nearest

# Files that are downloaded at the same time when a dataset is verified.
DOWNLOADS = 4


class UnknownDataset(StoreError):
    """The store has no such dataset, or the dataset no such split."""


class Publication(NamedTuple):
    """What `publish` did."""

    manifest: str  # digest
    files: int  # of the dataset
    uploaded: int  # of these, now; the others were there
    bytes: int  # uploaded
    renewed: bool  # the name did not stand for this manifest before


def check_name(name: str, what: str = "dataset") -> None:
    """Raise InputError unless `name` can name a dataset, or what else is meant.

    A name has letters, digits, `.`, `_` and `-`, and is no digest.
    """
    if not _is_name(name):
        raise InputError(
            f"{name!r} cannot name a {what}: use letters, digits, '.', '_' and '-', "
            "beginning with a letter or digit"
        )


def publish(
    store: Store,
    name: str,
    folder: Path,
    manifest: Manifest,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Publication:
    """Upload the files of a manifest that the store lacks, then let `name` stand for the manifest.

    If it is interrupted, the name is not changed. Called again, it uploads only what is missing.

    Args:
        store: The store to write to.
        name: Name of the dataset.
        folder: Folder of the files.
        manifest: The files of the dataset.
        progress: Called with the bytes that are done, and all bytes.
    """
    check_name(name)
    return publish_under(store, layout.dataset_name(name), folder, manifest, progress)


def publish_under(
    store: Store,
    reference: str,
    folder: Path,
    manifest: Manifest,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Publication:
    """Do what `publish` does, and write the manifest's digest to the key `reference`."""
    files = stored_files(manifest)
    with ThreadPoolExecutor(READERS) as pool:
        present = dict(zip(files, pool.map(store.exists, files), strict=True))
    total = sum(file.bytes for file in files.values())
    done = 0
    uploaded = []
    for key, file in files.items():
        if not present[key]:
            store.upload(folder / Path(key).name, key)
            uploaded.append(file.bytes)
        done += file.bytes
        progress(done, total)
    data = canonical_json(manifest)
    identity = digest(data)
    write_if_changed(store, layout.manifest(identity), data)
    renewed = write_if_changed(store, reference, identity.encode())
    return Publication(identity, len(files), len(uploaded), sum(uploaded), renewed)


def resolve(store: Store, name: str) -> tuple[str, Manifest]:
    """Return digest and manifest of a dataset.

    Args:
        store: The store.
        name: The dataset's name, its digest, or the beginning of the digest, as `ls` prints it.

    Raises:
        UnknownDataset: The store has no such dataset, or several digests begin so.
        CorruptedObject: The manifest has another digest, or a name stands for none that is there.
    """
    named = None if _is_digest(name) else _ref(store, name)
    identity = named or (name if _is_digest(name) else _by_beginning(store, name))
    try:
        data = store.read(layout.manifest(identity)) if identity else None
    except NotFound:
        data = None
    if named and data is None:
        raise CorruptedObject(
            f"the object {layout.manifest(named)!r} of dataset {name!r} in the store {store.uri} "
            "is missing: ingest it again"
        )
    if identity is None or data is None:
        raise UnknownDataset(
            f"there is no dataset {name!r} in the store {store.uri}: {_advice(name, known(store))}"
        )
    if digest(data) != identity:
        raise CorruptedObject(
            f"manifest {identity} of dataset {name!r} in the store {store.uri} is corrupted: "
            "ingest it again"
        )
    return identity, Manifest.model_validate_json(data)


def check_replaced(store: Store, name: str, classes: tuple[str, ...], replace: bool) -> str | None:
    """Return the digest of the dataset that a name stands for before it is given to another.

    Args:
        store: The store.
        name: Name of the dataset that is to be published.
        classes: Its classes.
        replace: Whether the name may be taken from a dataset of other classes.

    Raises:
        InputError: The name stands for a dataset of other classes, and `replace` is false.
    """
    try:
        before, manifest = resolve(store, name)
    except (UnknownDataset, CorruptedObject):
        return None
    if manifest.classes != classes and not replace:
        raise InputError(
            f"{name!r} stands for a dataset of other classes in {store.uri} "
            f"({_few(manifest.classes)}; now {_few(classes)}): give this one another --name, or "
            "take the name with --replace"
        )
    return before


def _few(classes: tuple[str, ...]) -> str:
    shown = ", ".join(classes[:3])
    return f"{len(classes)}: {shown} ..." if len(classes) > 3 else shown


def known(store: Store) -> list[str]:
    """Return the names of the datasets in the store."""
    return known_and_foreign(store)[0]


def known_and_foreign(store: Store) -> tuple[list[str], list[str]]:
    """Return the names of the datasets, and the keys beside them that can name none.

    Such keys are copies that people, file managers and services that synchronise folders make, as
    `digits 2` or `digits (conflicted copy)`.
    """
    keys = list(store.list(layout.DATASET_NAMES))
    names = [key.removeprefix(layout.DATASET_NAMES) for key in keys]
    foreign = [key for key, name in zip(keys, names, strict=True) if not _is_name(name)]
    return [name for name in names if _is_name(name)], foreign


def stored_files(manifest: Manifest) -> dict[str, StoredFile]:
    """Return the dataset's shards and then its indexes, by their keys in a store."""
    splits = manifest.splits.values()
    shards = {layout.shard(shard.sha256): shard for split in splits for shard in split.shards}
    return shards | {layout.index(split.index.sha256): split.index for split in splits}


def damaged(
    store: Store, files: dict[str, StoredFile], progress: Callable[[int], None] = lambda done: None
) -> list[str]:
    """Return the keys of files that are missing in the store or have another digest.

    Args:
        store: The store to look at.
        files: The files to read, by key.
        progress: Called with the bytes that are done.
    """
    found = []
    done = 0
    with ThreadPoolExecutor(DOWNLOADS) as pool:
        results = pool.map(lambda key: _is_sound(store, key, files[key]), files)
        for (key, file), is_sound in zip(files.items(), results, strict=True):
            done += file.bytes
            progress(done)
            if not is_sound:
                found.append(key)
    return found


def _is_sound(store: Store, key: str, file: StoredFile) -> bool:
    """Return True if the object exists and has the digest of its file."""
    with TemporaryDirectory(prefix="stepchain-verify-") as scratch:
        path = store.local_path(key) or Path(scratch) / "object"
        try:
            if not path.exists():
                store.download(key, path)
        except NotFound:
            return False
        return file_sha256(path) == file.sha256


def load_index(store: Store, manifest: Manifest, split: str, cache_root: Path) -> Index:
    """Return what the rows of a split hold. Raise UnknownDataset if there is no such split."""
    if split not in manifest.splits:
        raise UnknownDataset(
            f"the dataset has no split {split!r}; it has {', '.join(manifest.splits)}"
        )
    file = manifest.splits[split].index
    key = layout.index(file.sha256)
    mend = how_to_mend(manifest.classes)
    with open_object(store, key, file.sha256, cache_root, mend) as opened:
        return Index.load(Path(opened.name), len(manifest.classes))


def how_to_mend(classes: tuple[str, ...]) -> str:
    """Return how to mend a damaged file of a dataset with these classes, or of a layer, with none.

    To ingest without --verify is not enough: it only asks whether the store has a file.
    """
    if classes:
        return "ingest the dataset again with --verify"
    return "delete it, and ingest the layer again"


def _ref(store: Store, name: str) -> str | None:
    """Return the digest that a name stands for, or None."""
    check_name(name)
    try:
        found = store.read(layout.dataset_name(name)).decode(errors="replace").strip()
    except NotFound:
        return None
    if not _is_digest(found):
        raise CorruptedObject(
            f"the object {layout.dataset_name(name)!r} in the store {store.uri} is "
            f"{'damaged' if found else 'empty'}: ingest {name!r} again, which takes no upload, or "
            "delete the object"
        )
    return found


def _by_beginning(store: Store, name: str) -> str | None:
    """Return the digest that begins so, None if none does or the name is too short for one."""
    if not re.fullmatch(r"[0-9a-f]{8,63}", name):
        return None
    stems = [Path(key).stem for key in store.list(f"{layout.MANIFESTS}{name}")]
    digests = [stem for stem in stems if _is_digest(stem)]
    if len(digests) > 1:
        raise UnknownDataset(
            f"the digests of {len(digests)} datasets begin with {name!r}: give more"
        )
    return digests[0] if digests else None


def _advice(name: str, names: list[str]) -> str:
    if not names:
        return "it has none yet; put one there with `python -m jobs.ingest`"
    near = nearest(name, names)
    meant = f"did you mean {near!r}? " if near else ""
    return f"{meant}It has {', '.join(names)}"


def _is_name(name: str) -> bool:
    return bool(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name)) and not _is_digest(name)


def _is_digest(name: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{64}", name) is not None
