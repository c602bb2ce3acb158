"""Keep lists of the images that each step trains on, for protocols that no rule reproduces.

MiB's partition of ADE20K is such a protocol. The lists are given as a folder and put into the
store once, as image ids, under their own digest. A scenario names that digest. What enters a step's
key is the digest of its own images, as under any rule.
"""

import json
import re
from pathlib import Path

import numpy as np

from orchestrator.datasets.catalog import UnknownDataset, load_index, resolve
from orchestrator.records import layout
from orchestrator.store.base import Store
from orchestrator.store.cache import CorruptedObject, default_cache
from orchestrator.store.canonical import canonical_json, digest
from training.config import InputError

# Image ids of step 0, 1 and so on.
Lists = tuple[tuple[str, ...], ...]
NAME = r"train-(\d+)\.(npy|txt)"


def publish_selections(store: Store, folder: Path, dataset: str) -> str:
    """Put the lists of a folder into the store.

    Returns:
        The digest that a scenario names them by.

    Raises:
        UnknownDataset: There is no such dataset, or it has no training split.
        InputError: The folder does not hold lists of the dataset's images.
    """
    _, manifest = resolve(store, dataset)
    if "train" not in manifest.splits:
        raise UnknownDataset(f"dataset {dataset!r} has no split 'train' for lists to select from")
    index = load_index(store, manifest, "train", default_cache())
    return publish_lists(store, read_lists(folder, index.ids))


def read_lists(folder: Path, ids: list[str]) -> Lists:
    """Return the lists of a folder.

    The file of step t is `train-t.npy` with positions in the training list, as MiB ships them, or
    `train-t.txt` with one image id per line.

    Args:
        folder: The folder of the files.
        ids: The training list.

    Raises:
        InputError: A step has no file or two, or a file names an image that is not in the list.
    """
    files = []
    for path in folder.glob("*"):
        if match := re.fullmatch(NAME, path.name):
            files.append((int(match[1]), path))
    files.sort()
    if not files or [step for step, _ in files] != list(range(len(files))):
        raise InputError(
            f"{folder} must hold one list for each step, train-0 and so on without a gap, "
            "as .npy of positions or .txt of ids"
        )
    return tuple(_read_list(path, ids) for _, path in files)


def _read_list(path: Path, ids: list[str]) -> tuple[str, ...]:
    if path.suffix == ".npy":
        return _read_positions(path, ids)
    listed = dict.fromkeys(path.read_text().split())
    known = set(ids)
    unknown = [id for id in listed if id not in known]
    if unknown or not listed:
        problem = (
            f"names {unknown[0]!r}, which is not in the training list" if unknown else "is empty"
        )
        raise InputError(f"{path} {problem}: give one image id per line")
    return tuple(listed)


def _read_positions(path: Path, ids: list[str]) -> tuple[str, ...]:
    # By default, numpy refuses to unpickle objects.
    positions = np.load(path)
    is_valid = positions.dtype.kind in "iu" and len(positions) > 0
    if not is_valid or positions.min() < 0 or positions.max() >= len(ids):
        raise InputError(
            f"{path} must hold positions in the training list, which has {len(ids)} images: "
            f"0 to {len(ids) - 1}"
        )
    return tuple(ids[position] for position in np.unique(positions))


def publish_lists(store: Store, lists: Lists) -> str:
    """Put the lists into the store. Return the digest that a scenario names them by."""
    data = canonical_json(lists)
    store.write(layout.image_lists(digest(data)), data, only_if_absent=True)
    return digest(data)


def load_lists(store: Store, sha256: str) -> Lists:
    """Return the lists of a digest.

    Raises:
        NotFound: The store has no lists of this digest.
        CorruptedObject: The object has another digest.
    """
    data = store.read(layout.image_lists(sha256))
    if digest(data) != sha256:
        raise CorruptedObject(
            f"{layout.image_lists(sha256)!r} in {store.uri} was damaged: "
            "delete it and publish the lists again"
        )
    return tuple(tuple(ids) for ids in json.loads(data))
