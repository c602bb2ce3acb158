"""Faults of a network and a store change no result, or they end in one clear error.

A proxy in front of a real S3 server damages its answers. With `STEPCHAIN_FAULTS=200` the last test
goes on until that many faults have happened.
"""

import hashlib
import io
import os
import random
import threading
from collections.abc import Callable, Iterator
from itertools import chain as chained
from itertools import repeat
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from orchestrator.cluster import workers
from orchestrator.cluster.resources import Resources
from orchestrator.datasets.catalog import publish
from orchestrator.datasets.stored_split import DataError, open_stored_split
from orchestrator.execution.context import RunContext
from orchestrator.execution.ensure import ensure_chain
from orchestrator.planning.chain import Base, Chain
from orchestrator.planning.planner import plan_chain
from orchestrator.records import layout
from orchestrator.store.base import NotFound, Store, StoreError
from orchestrator.store.cache import CorruptedObject, fetch
from orchestrator.store.open import open_store
from orchestrator.store.retries import Retries
from orchestrator.store.s3 import S3Store
from tests.support.datasets import build_dataset
from tests.support.proxy import DATA, Choose, Fault, Proxy
from training.config import Augmentation, EvaluationConfig, ModelConfig, Optimization
from training.data.dataset import GlobalBatches, SegmentationDataset
from training.data.digits import Digits
from training.data.loader import load_batches
from training.data.manifest import Manifest
from training.data.shards import LocalSplit
from training.data.transforms import evaluation_view
from training.methods import fine_tuning, wilson
from training.runtime import Runtime
from training.scenario import Scenario

pytestmark = pytest.mark.s3real
KINDS = ("unavailable", "refuse", *DATA)
# A stall takes as long as a client waits.
QUICK_OR_SLOW = [
    pytest.param(kind, marks=pytest.mark.slow) if kind == "stall" else kind for kind in KINDS
]


@pytest.fixture
def proxy(swift_bucket: str, swift_url: str, s3_environment: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """Run a proxy between the client and the server."""
    with Proxy(swift_url) as proxy:
        threading.Thread(target=proxy.serve_forever, args=(0.05,), daemon=True).start()
        s3_environment.setenv("AWS_ENDPOINT_URL", proxy.url)
        yield proxy
        proxy.shutdown()


@pytest.fixture
def store(swift_bucket: str, proxy: Proxy) -> Store:
    # The client gives up soon on an answer that stops.
    return S3Store(swift_bucket, "some/prefix", Retries(s3_read_seconds=1.5))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    folder = tmp_path_factory.mktemp("digits")
    manifest, _ = build_dataset(Digits(seed=3, train=24, val=6), folder, shard_bytes=30_000)
    assert len(manifest.splits["train"].shards) > 3
    return folder, manifest


def meeting(*faults: Fault) -> Choose:
    """Return a choice of these faults for the first requests, and of none for all later ones."""
    left = chained(faults, repeat(None))
    return lambda method, path: next(left)


def rows_of(split: LocalSplit, processes: int = 0) -> dict[int, np.ndarray]:
    """Return every image of a split by row, as a loader of so many processes reads it."""

    def transform(image, mask, rng):
        return evaluation_view(image, mask, EvaluationConfig(short_side=None, crop=None))

    table = np.arange(256, dtype=np.uint8)
    rows = np.arange(len(split.index.ids))
    dataset = SegmentationDataset(split, rows, transform=transform, label_map=table, seed=0)
    order = GlobalBatches(len(dataset), 3, 0, 0, 1, 0, len(dataset) // 3)
    found = {}
    for batch in load_batches(dataset, order, 64, processes):
        found |= dict(zip(batch["row"].tolist(), batch["image"].numpy().copy(), strict=True))
    return found


@pytest.mark.parametrize("kind", QUICK_OR_SLOW)
@pytest.mark.parametrize("size", [100, 100_000])
def test_what_passes_is_as_if_it_had_not_been(
    store: Store, proxy: Proxy, tmp_path: Path, kind: str, size: int
):
    data = random.Random(size).randbytes(size)
    store.write("a.bin", data)
    digest = hashlib.sha256(data).hexdigest()
    # HEAD and GET of a download: the second is hit in any case.
    for number, faults in enumerate([(kind, kind), (None, kind, None, kind)]):
        before = proxy.faults
        proxy.choose = meeting(*faults)
        assert fetch(store, "a.bin", digest, tmp_path / str(number)).read_bytes() == data
        assert proxy.faults > before
    # An object that is read without a digest is protected by the network's checksums alone.
    if kind != "flip":
        proxy.choose = meeting(kind, kind)
        assert store.read("a.bin") == data
        proxy.choose = meeting(kind, kind)
        assert store.read_range("a.bin", 10, 50) == data[10:60]


@pytest.mark.parametrize("kind", ["unavailable", "refuse"])
def test_a_write_that_is_refused_is_made_again(store: Store, proxy: Proxy, kind: str):
    proxy.choose = meeting(kind, kind)
    assert store.write("a", b"one")
    assert store.read("a") == b"one"


@pytest.mark.parametrize("kind", [*QUICK_OR_SLOW, "expired"])
def test_what_does_not_pass_is_one_sentence(store: Store, proxy: Proxy, tmp_path: Path, kind: str):
    store.write("a.bin", b"data" * 100)
    digest = hashlib.sha256(b"data" * 100).hexdigest()
    proxy.choose = lambda method, path: kind
    sentence = r"'a\.bin'.*in the store s3://|object 'a\.bin' of the store s3://"
    with pytest.raises(StoreError, match=sentence) as caught:
        fetch(store, "a.bin", digest, tmp_path / "cache")
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "cache" / "objects").glob("*.bin"))
    assert isinstance(caught.value, CorruptedObject) == (kind == "flip")
    if kind == "expired":
        assert "whether its credentials have expired" in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "processes", "reason"),
    [
        ("expired", 0, "the server refused it"),
        ("flip", 2, "is corrupted"),
        ("vanished", 1, "there is no object"),
    ],
)
def test_an_image_that_cannot_be_had_is_named(
    store: Store,
    proxy: Proxy,
    built: tuple[Path, Manifest],
    tmp_path: Path,
    kind: str,
    processes: int,
    reason: str,
):
    publish(store, "digits", *built)
    split = open_stored_split(store, built[1], "train", tmp_path / "cache", dataset="digits")
    shard = layout.shard(built[1].splits["train"].shards[2].sha256)
    if kind == "vanished":
        store.delete(shard)
    else:
        proxy.choose = lambda method, path: kind if shard in path else None
    rows = np.flatnonzero(split.index.shard == 2)
    sentence = r"of digits, split train is in shard 2 of \d+, which cannot be used: "
    with pytest.raises(DataError, match=sentence) as caught:
        rows_of(split, processes)
    assert any(f"row {row} (id {split.index.ids[row]})" in str(caught.value) for row in rows)
    assert shard in str(caught.value)
    assert "Traceback" not in str(caught.value)
    assert reason in str(caught.value)


def test_few_rows_of_damaged_answers_are_those_of_the_shard(
    store: Store,
    proxy: Proxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    built: tuple[Path, Manifest],
):
    monkeypatch.setattr("orchestrator.datasets.row_ranges.REQUEST_BYTES", 10)
    publish(store, "digits", *built)
    whole = open_stored_split(store, built[1], "train", tmp_path / "whole")
    few = open_stored_split(store, built[1], "train", tmp_path / "few", rows=np.array([3, 11]))
    before = proxy.faults
    for row in (3, 11):
        proxy.choose = meeting("flip", "truncate", "flip", "flip")
        first, count = few.index.image_range[row]
        image = np.s_[first : first + count]
        np.testing.assert_array_equal(few.open_shard(row)[image], whole.open_shard(row)[image])
    assert proxy.faults > before + 1
    other = open_stored_split(store, built[1], "train", tmp_path / "other", rows=np.array([3]))
    proxy.choose = lambda method, path: "flip"
    with pytest.raises(DataError, match=r"row 3 \(id train-00003\) of object .* is corrupted"):
        other.open_shard(3)


@pytest.mark.parametrize("kind", ["truncate", "stall", "reset"])
def test_a_refusal_that_breaks_off_is_asked_for_again(store: Store, proxy: Proxy, kind: str):
    proxy.choose = meeting(kind, kind)
    with pytest.raises(NotFound):
        store.read("never/there.json")
    # One fault may be enough, because the client knows a refusal by its first line.
    assert proxy.faults


def test_a_vanished_reference_is_not_found(store: Store, tmp_path: Path):
    with pytest.raises(NotFound):
        fetch(store, "never/there.bin", "0" * 64, tmp_path)


FEW = Optimization(epochs=3, batch=4, encoder_lr=0.02, head_lr=0.02)
CHAIN = Chain(
    name="faults",
    scenario=Scenario(dataset="digits", groups=(("0", "1", "2", "3"), ("4", "5", "6"))),
    base=Base(method=fine_tuning.Config(loss="bce"), optimization=FEW),
    method=wilson.Config(warmup_epochs=1, localizer_channels=4),
    optimization=FEW,
    model=ModelConfig(encoder="tiny", output_stride=4, head_channels=4, eval_pooling=8),
    augmentation=Augmentation(crop=32),
    evaluation=EvaluationConfig(short_side=32, crop=32),
)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_random_faults_while_training_change_no_bit(
    store: Store,
    proxy: Proxy,
    built: tuple[Path, Manifest],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """Run everything of a step except Ray: shards, checkpoints, publishing and evaluation.

    A worker that fails is started again.
    """

    def run(work: Callable[[Runtime], object], *_: object) -> object:
        try:
            return work(Runtime(log_every=4, checkpoint_every=0, loader_workers=1))
        except StoreError as error:
            raise workers.WorkersFailed(str(error), None, "") from error

    resources = Resources(
        workers=1, cpus_per_worker=1, gpus_per_worker=0, loader_workers=1, checkpoint_every=0
    )
    monkeypatch.setattr(workers, "run", run)
    monkeypatch.setattr(RunContext, "resources", lambda self, *_: resources)
    # Small steps then read ranges of a shard, too.
    monkeypatch.setattr("orchestrator.datasets.row_ranges.REQUEST_BYTES", 100)

    def trained(name: str) -> list[dict[str, str]]:
        """Train in a new store with a new cache, and return the digests of each step's weights."""
        proxy.choose = lambda method, path: None
        new_store = open_store(f"{store.uri}/{name}")
        publish(new_store, "digits", *built)
        monkeypatch.setenv("STEPCHAIN_CACHE", str(tmp_path / name))
        plan = plan_chain(CHAIN, new_store)
        if name != "quiet":
            proxy.choose = disturbed(random.Random(name))
        context = RunContext(new_store, console=Console(file=io.StringIO()))
        digests = []
        for step in ensure_chain(plan, context).steps:
            files = step.record.files
            tensors = [file for file in files if file.endswith(".safetensors")]
            digests.append({file: files[file].sha256 for file in tensors})
        return digests

    quiet = trained("quiet")
    rounds = 0
    before = proxy.faults
    while proxy.faults - before < int(os.environ.get("STEPCHAIN_FAULTS", "8")):
        assert trained(f"round-{rounds}") == quiet
        rounds += 1
    print(f"{proxy.faults - before} faults in {rounds} rounds")


def disturbed(chance: random.Random) -> Choose:
    """Return a choice of faults at random, but of no more than three in a row.

    A client that tries four times therefore succeeds.
    """
    in_a_row = 0

    def choose(method: str, path: str) -> Fault:
        nonlocal in_a_row
        kinds = [*KINDS] if method in ("GET", "HEAD") else ["unavailable", "refuse"]
        # Only the network's checksums protect listings and records.
        if ("list-type" in path or path.endswith(".json")) and "flip" in kinds:
            kinds.remove("flip")
        in_a_row = in_a_row + 1 if chance.random() < 0.25 and in_a_row < 3 else 0
        return chance.choice(kinds) if in_a_row else None

    return choose
