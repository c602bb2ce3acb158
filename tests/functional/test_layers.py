"""Test companion layers from a folder to the batches of the step that reads them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from jobs import ingest
from orchestrator.datasets.catalog import UnknownDataset, load_index, resolve, stored_files
from orchestrator.datasets.layers import layers_of, with_layers
from orchestrator.datasets.stored_split import open_stored_split
from orchestrator.planning.chain import Chain
from orchestrator.planning.planner import plan_chain
from orchestrator.planning.resolver import PlanError, PlannedStep
from orchestrator.store.base import Store
from orchestrator.store.cache import CorruptedObject
from orchestrator.store.open import open_store
from stepchain import digits_wilson, with_field
from tests.support.datasets import publish_digits
from training.batches import step_batches
from training.data.shards import LocalSplit
from training.data.source import BadData
from training.data.transforms import decode_mask
from training.methods import offline_layer
from training.runtime import Runtime

BEYOND_8_BITS = 300


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = open_store(str(tmp_path / "store"))
    publish_digits(store, tmp_path, seed=1, train=40, val=8)
    return store


@pytest.fixture
def split(store: Store, tmp_path: Path) -> LocalSplit:
    _, manifest = resolve(store, "digits")
    return open_stored_split(store, manifest, "train", tmp_path / "cache")


def write_maps(folder: Path, split: LocalSplit, without: tuple[int, ...] = ()) -> Path:
    """Write for each image its own mask, plus 300 where it shows a class."""
    folder.mkdir()
    for row, id in enumerate(split.index.ids):
        if row not in without:
            shard = split.open_shard(row)
            first, count = split.index.mask_range[row].tolist()
            mask = decode_mask(shard[first : first + count]).astype(np.uint16)
            mask[mask > 0] += BEYOND_8_BITS
            Image.fromarray(mask).save(folder / f"{id}.png")
    return folder


def ingest_maps(folder: Path, store: Store, name: str = "maps") -> None:
    command = ["layer", "digits", "--root", str(folder), "--name", name, "--store", store.uri]
    ingest.main(command)


def chain(**fields: Any) -> Chain:
    made = with_field(digits_wilson(), "method", offline_layer.Config(layer="maps"))
    for path, value in fields.items():
        made = with_field(made, path.replace("__", "."), value)
    return with_field(made, "optimization.batch", 4)


def planned(store: Store, **fields: Any) -> tuple[PlannedStep, ...]:
    return plan_chain(chain(**fields), store).steps


def with_garbage_masks(split: LocalSplit, folder: Path) -> LocalSplit:
    """Return the split with every byte of every mask replaced."""
    index = split.index
    paths = []
    for number in np.unique(index.shard).tolist():
        rows = np.flatnonzero(index.shard == number)
        data = bytearray(split.open_shard(int(rows[0])).tobytes())
        for first, count in index.mask_range[rows].tolist():
            data[first : first + count] = b"?" * count
        paths.append(folder / f"garbage{number}.arrow")
        paths[-1].write_bytes(data)
    return LocalSplit(index, tuple(paths), split.classes, split.content)


@pytest.mark.parametrize("processes", [0, 2])
def test_a_layer_is_cut_like_the_mask_and_the_mask_is_not_read(
    store: Store,
    split: LocalSplit,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    processes: int,
):
    # As of a method that takes any number.
    monkeypatch.setattr(offline_layer.Config, "layers_hold_classes", False)
    ingest_maps(write_maps(tmp_path / "maps", split), store)
    step = planned(store, augmentation__flip=True)[1]
    (digest,) = step.layers
    data = with_layers(split, store, step.layers, step.rows, tmp_path / "cache")
    runtime = Runtime(loader_workers=processes)
    read = next(iter(step_batches(step.step, data, step.rows, runtime, 0, 1)))
    assert read.targets is None
    values = read.layers[digest]
    assert values.dtype == torch.int32
    # The same images with masks, cut by the same draws.
    task = step.step.task.model_copy(update={"supervision": "pixel", "labels": "seen"})
    document = step.step.model_copy(update={"task": task})
    other = next(iter(step_batches(document, data, step.rows, runtime, 0, 1)))
    assert torch.equal(read.pixels, other.pixels)
    channels = torch.tensor([0, *(BEYOND_8_BITS + id for id in task.classes)])
    assert torch.equal(values, channels[other.masks].int())
    assert values.max() > 255
    blind = replace(with_garbage_masks(split, tmp_path), layers=data.layers)
    again = next(iter(step_batches(step.step, blind, step.rows, runtime, 0, 1)))
    assert torch.equal(again.pixels, other.pixels)
    assert torch.equal(again.layers[digest], channels[other.masks].int())
    with pytest.raises(BadData, match="mask"):
        next(iter(step_batches(document, blind, step.rows, runtime, 0, 1)))


@pytest.mark.parametrize("value", [11, 254, BEYOND_8_BITS])
def test_a_value_that_is_no_class_of_the_dataset_stops_the_step_that_reads_class_ids(
    store: Store, split: LocalSplit, tmp_path: Path, value: int
):
    folder = write_maps(tmp_path / "maps", split)
    for row, id in enumerate(split.index.ids):
        width, height = split.index.sizes[row].tolist()
        values = np.zeros((height, width), np.uint16)
        values[:, ::2], values[0, 0] = len(split.classes), 255
        values[-1, -1] = value if row % 2 else 0
        Image.fromarray(values).save(folder / f"{id}.png")
    ingest_maps(folder, store)
    step = planned(store)[1]
    data = with_layers(split, store, step.layers, step.rows, tmp_path / "cache")
    batches = step_batches(step.step, data, step.rows, Runtime(), 0, step.iterations)
    with pytest.raises(BadData, match=rf"row \d+ \(id .*\).*the map holds {value}, .* 1 to 10, 0"):
        list(batches)


def test_the_digest_of_what_is_read_is_in_the_key_of_the_steps_that_read_it(
    store: Store, split: LocalSplit, tmp_path: Path
):
    before = plan_chain(digits_wilson(), store).steps
    ingest_maps(write_maps(tmp_path / "maps", split), store)
    assert [step.key for step in plan_chain(digits_wilson(), store).steps] == [
        step.key for step in before
    ]
    first = planned(store)
    assert first[0].layers == {}
    assert first[1].step.method.layers == tuple(first[1].layers)
    # Another name, and a map of an image that the step does not train on, change nothing.
    others = set(range(len(split.index.ids))) - set(first[1].rows.tolist())
    ingest_maps(write_maps(tmp_path / "fewer", split, without=(min(others),)), store, "fewer")
    assert planned(store, method__layer="fewer")[1].key == first[1].key
    # Another map of one that it trains on does.
    row = int(first[1].rows[0])
    Image.fromarray(np.zeros((64, 64), np.uint8)).resize(
        tuple(split.index.sizes[row].tolist())
    ).save(tmp_path / "maps" / f"{split.index.ids[row]}.png")
    ingest_maps(tmp_path / "maps", store)
    assert planned(store)[1].key != first[1].key


def test_what_cannot_be_read_is_refused_before_anything_is_spent(
    store: Store, split: LocalSplit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(UnknownDataset, match=r"no layer 'maps': it has none; put one .* layer dig"):
        planned(store)
    folder = write_maps(tmp_path / "maps", split, without=tuple(range(5)))
    (folder / "stranger.png").write_bytes((folder / f"{split.index.ids[9]}.png").read_bytes())
    ingest_maps(folder, store)
    said = " ".join(capsys.readouterr().out.split())
    assert "1 files belong to no training image of digits" in said
    assert f"5 training images have no map, such as {split.index.ids[0]}" in said
    with pytest.raises(PlanError, match=r"'maps' has no map of \d of the \d+ images that step 1"):
        planned(store)
    with pytest.raises(UnknownDataset, match="did you mean 'maps'"):
        planned(store, method__layer="map")


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (Image.new("L", (10, 10)), "is 10 x 10 pixels and its image"),
        (Image.new("RGB", (64, 64)), "one number for each pixel"),
    ],
)
def test_a_map_that_cannot_be_used_is_one_sentence(
    store: Store,
    split: LocalSplit,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    picture: Image.Image,
    message: str,
):
    folder = write_maps(tmp_path / "maps", split)
    picture.save(folder / f"{split.index.ids[3]}.png")
    with pytest.raises(SystemExit):
        ingest_maps(folder, store)
    said = " ".join(capsys.readouterr().err.split())
    assert message in said
    assert f"{split.index.ids[3]}.png" in said
    assert layers_of(store, resolve(store, "digits")[1]) == {}


def test_a_layers_own_name_is_refused(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit):
        ingest_maps(tmp_path, store, "my sam")
    assert "'my sam' cannot name a layer: use letters" in capsys.readouterr().err


def test_a_damaged_layer_says_what_mends_it(store: Store, split: LocalSplit, tmp_path: Path):
    folder = write_maps(tmp_path / "maps", split)
    ingest_maps(folder, store)
    _, manifest = resolve(store, layers_of(store, resolve(store, "digits")[1])["maps"])
    (index,) = (key for key in stored_files(manifest) if key.startswith("datasets/indexes/"))
    store.write(index, store.read(index)[:-9])
    with pytest.raises(CorruptedObject, match="delete it, and ingest the layer again"):
        load_index(store, manifest, "train", tmp_path / "cache")
    store.delete(index)
    ingest_maps(folder, store)
    load_index(store, manifest, "train", tmp_path / "cache")


def test_info_shows_layers_and_verifies_them(
    store: Store, split: LocalSplit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    ingest_maps(write_maps(tmp_path / "maps", split), store)
    ingest.main(["info", "digits", "--store", store.uri, "--verify"])
    said = " ".join(capsys.readouterr().out.split())
    assert "layer maps: 40 train maps" in said
    _, manifest = resolve(store, "digits")
    _, maps = resolve(store, layers_of(store, manifest)["maps"])
    store.delete(f"datasets/shards/{maps.splits['train'].shards[0].sha256}.arrow")
    with pytest.raises(SystemExit):
        ingest.main(["info", "digits", "--store", store.uri, "--verify"])


def test_look_shows_each_layer_beside_its_photos(store: Store, split: LocalSplit, tmp_path: Path):
    ingest_maps(write_maps(tmp_path / "maps", split, without=(0,)), store, "saliency")
    page = tmp_path / "look.html"
    ingest.main(["look", "digits", "--store", store.uri, "--sample", "5", "--out", str(page)])
    text = page.read_text()
    assert "saliency: 39 of 40 images have a map" in text
    assert text.count(": values 0 to 3") == 2 * 4 * 2  # photo and map, as alt and as title
