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
from training.data.file_index import IdFinder, is_litter
from training.data.text_files import Line, read_lines, split_columns

# Image ids of step 0, 1 and so on.
Lists = tuple[tuple[str, ...], ...]
# train-0.npy as MiB ships them, train-0.txt, and voc_15-5_overlap_step0.txt as `jobs.ingest export`
# writes them.
NAME = re.compile(r"(?P<series>train[-_]?|(?:.*[-_])?step[-_]?)(?P<step>\d+)\.(?:npy|txt)")


def read_selections(store: Store, folder: Path, dataset: str) -> Lists:
    """Return the lists of a folder for a dataset of the store. Write nothing.

    Raises:
        UnknownDataset: There is no such dataset, or it has no training split.
        InputError: The folder does not hold lists of the dataset's images.
    """
    _, manifest = resolve(store, dataset)
    if "train" not in manifest.splits:
        raise UnknownDataset(f"dataset {dataset!r} has no split 'train' for lists to select from")
    index = load_index(store, manifest, "train", default_cache())
    return read_lists(folder, index.ids, manifest.splits["train"].left_out)


def read_lists(folder: Path, ids: list[str], left_out: int = 0) -> Lists:
    """Return the lists of a folder.

    The file of step t is `train-t.npy` with positions in the training list, as MiB ships them, or
    `train-t.txt` with one image id per line, or what `jobs.ingest export` writes.

    Args:
        folder: The folder of the files, or a path with which the names of all of them begin.
        ids: The training list.
        left_out: Number of images that the list lacks of the source's. Positions in the source's
            list are then others than in this one.

    Raises:
        InputError: A step has no file or two, a file names an image that is not in the list, or
            positions are given and images were left out.
    """
    files = _files_of_steps(folder)
    positions = [path for _, path in files if path.suffix == ".npy"]
    if positions and left_out:
        raise InputError(
            f"{positions[0]} holds positions in the list of all training images, and {left_out} of "
            "them were left out when the dataset was ingested, so the positions after them are "
            "wrong: give ids, as train-0.txt and so on, or ingest a dataset that is whole"
        )
    return tuple(_read_list(path, ids) for _, path in files)


def _files_of_steps(folder: Path) -> list[tuple[int, Path]]:
    """Return the number of each step and its file, in order.

    Raise InputError if a step has none or two, or the folder holds several series.
    """
    inside = folder.is_dir()
    among = folder if inside else folder.parent
    series: dict[str, list[tuple[int, Path]]] = {}
    for path in among.glob("*"):
        match = NAME.fullmatch(path.name)
        if match and not is_litter(path.name) and (inside or path.name.startswith(folder.name)):
            series.setdefault(match["series"], []).append((int(match["step"]), path))
    if len(series) > 1:
        first, second, *_ = (among / name.removesuffix("_step") for name in sorted(series))
        raise InputError(
            f"{folder} holds lists of {len(series)} scenarios: say which, as --selections {first} "
            f"or --selections {second}"
        )
    files = sorted(next(iter(series.values()), []))
    if not files or [step for step, _ in files] != list(range(len(files))):
        raise InputError(
            f"{folder} must hold one list for each step, train-0 and so on without a gap, "
            "as .npy of positions or .txt of ids, or what `jobs.ingest export` wrote"
        )
    return files


def _read_list(path: Path, ids: list[str]) -> tuple[str, ...]:
    if path.suffix == ".npy":
        return _read_positions(path, ids)
    finder = IdFinder(ids)
    listed: dict[str, None] = {}
    for line in read_lines(path, is_name=finder.knows):
        listed |= dict.fromkeys(_ids_of_line(line, path, finder))
    if not listed:
        raise InputError(f"{path} is empty: give one image id per line")
    return tuple(listed)


def _ids_of_line(line: Line, path: Path, finder: IdFinder) -> list[str]:
    """Return the ids that a line names. Raise InputError for a name that is not in the list."""
    columns = [line.text] if finder.knows(line.text) else split_columns(line.text)
    if not any(map(finder.find, columns)):
        columns = [line.text]  # a path with blanks in it
    named: list[str] = []
    for column in columns:
        found = finder.find(column)
        if len(found) > 1:
            raise InputError(
                f"line {line.number} of {path}, {column!r}, can mean the images "
                f"{' and '.join(found[:3])}: give the id as the dataset has it"
            )
        # The number of a class may follow.
        if not found and not (named and re.fullmatch(r"-?[1-9]?\d?\d", column)):
            raise InputError(
                f"line {line.number} of {path} names {column!r}, which is not in the training "
                "list: give one image id per line"
            )
        named += found
    return named


def _read_positions(path: Path, ids: list[str]) -> tuple[str, ...]:
    try:
        # By default, numpy refuses to unpickle objects.
        positions = np.load(path)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} cannot be read as an array of numpy: {error}") from None
    is_valid = positions.dtype.kind in "iu" and positions.ndim == 1 and len(positions) > 0
    if not is_valid or positions.min() < 0 or positions.max() >= len(ids):
        raise InputError(
            f"{path} must hold positions in the training list, which has {len(ids)} images: "
            f"0 to {len(ids) - 1}"
        )
    return tuple(ids[position] for position in np.unique(positions))


def lists_digest(lists: Lists) -> str:
    """Return the digest that a scenario names lists by."""
    return digest(canonical_json(lists))


def publish_lists(store: Store, lists: Lists) -> str:
    """Put the lists into the store. Return the digest that a scenario names them by."""
    sha256 = lists_digest(lists)
    store.write(layout.image_lists(sha256), canonical_json(lists), only_if_absent=True)
    return sha256


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
