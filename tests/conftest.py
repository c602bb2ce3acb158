"""What tests of several packages need: a small folder in VOC's layout, any source as a step would see it, S3 servers."""

import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import botocore.endpoint
import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

from training.data.shards import Index, LocalSplit, Manifest, build
from training.data.sources import Source

settings.register_profile("untimed", deadline=None)  # how busy the machine is says nothing about the code
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
                mask[top + 1 : top + 19, left + 1 : left + 19] = VOC_SUBSET[(number + box) % len(VOC_SUBSET)]
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
    """URL of a real S3 server, see tests/servers/swift_server.py."""
    program = Path(__file__).with_name("servers") / "swift_server.py"
    command = [sys.executable, program, tmp_path_factory.mktemp("swift"), secret]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        assert url, "Swift did not start: what it says stands above"
        yield url
        server.terminate()  # its input ends with this process, whatever becomes of it


@pytest.fixture
def s3_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, secret: str) -> pytest.MonkeyPatch:
    """AWS variables of a user with keys, without anything of this machine's own configuration."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "tester:tester")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr(botocore.endpoint.time, "sleep", lambda seconds: None)  # between its attempts
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
