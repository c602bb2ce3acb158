"""What tests of several packages need: a small folder in VOC's layout, any source as a step would see it, S3 servers, a
finished campaign.
"""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import boto3
import botocore.endpoint
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import settings
from PIL import Image

from orchestrator.datasets.catalog import publish
from orchestrator.planning.campaign import Campaign, sweep, with_field
from orchestrator.planning.campaign_record import publish_campaign
from orchestrator.planning.planner import SPLIT, PlannedChain, Planner
from orchestrator.planning.resolver import PlannedStep
from orchestrator.records.publish import chain_record, publish_evaluation
from orchestrator.records.schema import File, Provenance, StepRecord
from orchestrator.store.base import Store
from orchestrator.store.canonical import canonical_json
from orchestrator.store.open import open_store
from stepchain.presets import digits_wilson
from training.data.digits import Digits
from training.data.shards import Index, LocalSplit, Manifest, build
from training.data.source import Source

settings.register_profile(
    "untimed", deadline=None
)  # how busy the machine is says nothing about the code
settings.load_profile("untimed")
VOC_SUBSET = (8, 9, 13, 15, 18, 10, 12, 17)  # cat chair horse person sofa, cow dog sheep
LocalBuild = Callable[..., LocalSplit]


@pytest.fixture
def voc_folder(tmp_path: Path) -> Path:
    """24 training and 8 validation photos of about 64 x 48, each with two boxes of a class, bordered by void."""
    root = tmp_path / "VOC2012"
    for folder in ("ImageSets/Segmentation", "JPEGImages", "SegmentationClassAug"):
        (root / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, count in {"train_aug": 24, "val": 8}.items():
        ids = [f"2007_{name}_{number:03d}" for number in range(count)]
        (root / "ImageSets" / "Segmentation" / f"{name}.txt").write_text("\n".join(ids) + "\n")
        for number, id in enumerate(ids):
            height, width = 48 + number % 5, 64 - number % 7
            mask = np.zeros((height, width), np.uint8)
            for box in range(2):
                top, left = rng.integers(0, height - 20), rng.integers(0, width - 20)
                mask[top : top + 20, left : left + 20] = 255
                mask[top + 1 : top + 19, left + 1 : left + 19] = VOC_SUBSET[
                    (number + box) % len(VOC_SUBSET)
                ]
            noise = rng.integers(0, 60, (height, width, 3))
            image = (noise + mask[..., None] * np.array([7, 3, 1]) % 180).astype(np.uint8)
            Image.fromarray(image).save(root / "JPEGImages" / f"{id}.jpg", quality=90)
            save_mask(mask, root / "SegmentationClassAug" / f"{id}.png")
    return root


def save_mask(mask: np.ndarray, path: Path) -> None:
    """Write class values as a PNG with a palette."""
    picture = Image.fromarray(mask).convert("P")
    picture.putpalette([37 * value % 256 for value in range(768)])
    picture.save(path)


@pytest.fixture
def local_split(tmp_path: Path) -> LocalBuild:
    """Function that builds a source below tmp_path and gives one of its splits as training sees it."""

    def make(source: Source, split: str = "train", **options: object) -> LocalSplit:
        folder = tmp_path / "built"
        manifest, _ = build(source, folder, **options)  # pyright: ignore[reportArgumentType]
        return open_split(manifest, split, folder)

    return make


def open_split(manifest: Manifest, split: str, folder: Path) -> LocalSplit:
    """A split of what `build` wrote to `folder`."""
    files = manifest.splits[split]
    index = Index.load(folder / f"{files.index.sha256}.parquet", len(manifest.classes))
    shards = tuple(folder / f"{shard.sha256}.arrow" for shard in files.shards)
    return LocalSplit(index, shards, manifest.classes, files.content)


@pytest.fixture(scope="session")
def secret() -> str:
    """The secret key that the S3 servers know."""
    return "not-to-be-seen-anywhere"


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    """URL of an S3 server that keeps everything in memory, and checks neither signatures nor checksums."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def swift_url(tmp_path_factory: pytest.TempPathFactory, secret: str) -> Iterator[str]:
    """URL of a real S3 server, see infra/local/swift.py."""
    command = [
        sys.executable,
        "-m",
        "infra.local.swift",
        tmp_path_factory.mktemp("swift"),
        "--end-with-input",
    ]
    keys = {"AWS_ACCESS_KEY_ID": "tester:tester", "AWS_SECRET_ACCESS_KEY": secret}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(
        command, cwd=Path(__file__).parents[1], env=os.environ | keys, text=True, **pipes
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        assert url, "Swift did not start: what it says stands above"
        yield url
        server.terminate()  # its input ends with this process, whatever becomes of it


@pytest.fixture
def s3_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, secret: str
) -> pytest.MonkeyPatch:
    """AWS variables of a user with keys, without anything of this machine's own configuration."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "tester:tester")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr(
        botocore.endpoint.time, "sleep", lambda seconds: None
    )  # between its attempts
    return monkeypatch


@pytest.fixture
def moto_bucket(s3_environment: pytest.MonkeyPatch, moto_url: str) -> str:
    """A bucket of the test's own, on the server that AWS_ENDPOINT_URL names."""
    return new_bucket(s3_environment, moto_url)


@pytest.fixture
def swift_bucket(s3_environment: pytest.MonkeyPatch, swift_url: str) -> str:
    """A bucket of the test's own, on the server that AWS_ENDPOINT_URL names."""
    return new_bucket(s3_environment, swift_url)


def new_bucket(environment: pytest.MonkeyPatch, url: str) -> str:
    environment.setenv("AWS_ENDPOINT_URL", url)
    name = f"bucket-{uuid.uuid4().hex}"
    client = boto3.client("s3")
    client.create_bucket(Bucket=name)
    client.close()
    return name


@pytest.fixture(scope="session")
def finished_campaign(tmp_path_factory: pytest.TempPathFactory) -> tuple[Campaign, Store]:
    """Six variants with two seeds each, their made-up scores published as if they had been trained, and the store."""
    folder = tmp_path_factory.mktemp("campaign")
    store = open_store(str(folder / "store"))
    publish(store, "digits", folder / "built", build(Digits(train=60, val=8), folder / "built")[0])
    start = with_field(digits_wilson(), "name", "hardness")
    axes = {"method.prior": ("bce", "fixed"), "method.alpha": (0, 0.5, 1), "seed": (1, 2)}
    campaign = Campaign(
        "hardness", "How hard?\n\n    python -m jobs.campaign run hardness", sweep(start, axes)
    )
    planner = Planner(store)
    for chain in campaign.chains:
        plan = planner.plan(chain)
        records = [_published(store, plan, step) for step in plan.steps]
        split = plan.source(SPLIT)
        evaluations = [
            publish_evaluation(
                store, r.key, r.attempt, split, plan.scoring, _counts(plan, r), "cpu"
            )
            for r in records
        ]
        record = chain_record(chain, records, evaluations).model_copy(
            update={"created": "2026-01-02T03:05:06Z"}
        )
        store.write(f"chains/{record.key}.json", canonical_json(record))
    publish_campaign(store, campaign)
    return campaign, store


def _published(store: Store, plan: PlannedChain, planned: PlannedStep) -> StepRecord:
    rows = [
        {"iteration": n, "total": 30, "time": 1.7e9 + n, "loss": 1 / n, "lr/head": 0.1}
        for n in (10, 20, 30)
    ]
    curves = json.dumps(rows).encode()
    record = StepRecord(
        key=planned.key,
        step=planned.step,
        index=planned.index,
        parent=planned.parent,
        parent_attempt="a1" if planned.parent else None,
        attempt="a1",
        files={"curves.json": File(sha256=sha256(curves).hexdigest(), bytes=len(curves))},
        class_names=planned.class_names,
        data=plan.source("train"),
        iterations=30,
        seconds={"train": 42.0},
        images_per_second=312.0,
        resources={"workers": 1},
        provenance=Provenance(
            commit=None,
            dirty=None,
            versions={},
            user="ada",
            host="node",
            device="cpu",
            created="2026-01-02T03:04:05Z",
        ),
    )
    store.write(f"steps/{planned.key}/attempts/a1/files/curves.json", curves)
    store.write(f"steps/{planned.key}/record.json", canonical_json(record))
    return record


def _counts(plan: PlannedChain, record: StepRecord) -> bytes:
    """Confusion in which old classes suffer from a hard alpha and a learned prior, new ones from a fixed prior."""
    method, old = plan.chain.method, set(record.step.task.previous_classes)
    rng = np.random.default_rng([plan.chain.seed, int(record.key, 16) % 1000])
    rows = [(0, 0, 0, 5000)]
    for class_id in range(1, 11):
        share = 0.85 - 0.02 * class_id + rng.normal(0, 0.02)
        if record.index:
            share -= 0.25 * (getattr(method, "alpha", 0) - 0.4) ** 2 if class_id in old else 0.1
            share -= 0.08 * ((getattr(method, "prior", "") == "fixed") != (class_id in old))
        known = class_id in record.step.task.classes
        kept = round(1000 * share) if known else 0
        taken = (1000 - kept) // 3 if known and record.index else 0
        newest = record.step.task.new_classes[-1]
        shares = ((class_id, kept), (newest, taken), (0, 1000 - kept - taken))
        rows += [(0, class_id, predicted, pixels) for predicted, pixels in shares if pixels]
    types = (pyarrow.uint32(), pyarrow.uint8(), pyarrow.uint8(), pyarrow.uint32())
    columns = [
        pyarrow.array(column, kind) for column, kind in zip(np.array(rows).T, types, strict=True)
    ]
    out = BytesIO()
    pyarrow.parquet.write_table(
        pyarrow.table(columns, names=["image", "truth", "predicted", "pixels"]), out
    )
    return out.getvalue()
