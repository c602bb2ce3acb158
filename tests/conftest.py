"""Provide the fixtures of several packages. Their code is in tests/support."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from orchestrator.cluster.stop_signals import hung_up
from orchestrator.planning.campaign import Campaign
from orchestrator.store.base import Store
from tests.support import servers
from tests.support.campaigns import publish_made_up_campaign
from tests.support.datasets import build_dataset, open_split
from tests.support.photos import draw_voc_folder
from training.data.shards import LocalSplit
from training.data.source import Source

# The time of an example depends on how busy the machine is, and not on the code.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
LocalBuild = Callable[..., LocalSplit]


@pytest.fixture
def voc_folder(tmp_path: Path) -> Path:
    """Draw a folder in VOC's layout with 24 training and 8 validation photos of about 64 x 48."""
    return draw_voc_folder(tmp_path / "VOC2012")


@pytest.fixture
def local_split(tmp_path: Path) -> LocalBuild:
    """Return a function that builds a source below tmp_path and opens one of its splits."""

    def make(source: Source, split: str = "train", **options: object) -> LocalSplit:
        folder = tmp_path / "built"
        manifest, _ = build_dataset(source, folder, **options)  # pyright: ignore[reportArgumentType]
        return open_split(manifest, split, folder)

    return make


@pytest.fixture
def terminal() -> Iterator[None]:
    """Take SIGHUP as a process of a terminal does, also where the tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)
    hung_up.clear()


@pytest.fixture(scope="session")
def secret() -> str:
    """Return the secret key that the S3 servers know."""
    return servers.SECRET


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    """Yield the URL of an S3 server that keeps everything in memory."""
    with servers.run_moto() as url:
        yield url


@pytest.fixture(scope="session")
def swift_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the URL of a real S3 server."""
    with servers.run_swift(tmp_path_factory.mktemp("swift")) as url:
        yield url


@pytest.fixture
def s3_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """Set AWS variables of a user with keys, and return the monkeypatch that set them."""
    servers.set_s3_environment(monkeypatch, tmp_path)
    return monkeypatch


@pytest.fixture
def moto_bucket(s3_environment: pytest.MonkeyPatch, moto_url: str) -> str:
    """Make a bucket in memory, set AWS_ENDPOINT_URL to its server, and return its name."""
    return servers.new_bucket(s3_environment, moto_url)


@pytest.fixture
def swift_bucket(s3_environment: pytest.MonkeyPatch, swift_url: str) -> str:
    """Make a bucket on a disk, set AWS_ENDPOINT_URL to its server, and return its name."""
    return servers.new_bucket(s3_environment, swift_url)


@pytest.fixture(scope="session")
def finished_campaign(tmp_path_factory: pytest.TempPathFactory) -> tuple[Campaign, Store]:
    """Publish six variants of two seeds each with made-up scores; return campaign and store."""
    return publish_made_up_campaign(tmp_path_factory.mktemp("campaign"))
