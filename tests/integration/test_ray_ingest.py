"""The tasks of a real Ray cluster build the same dataset as one process."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from orchestrator.datasets.catalog import known, resolve
from orchestrator.datasets.ingest import ingest
from orchestrator.store.open import open_store
from tests.support.datasets import build_dataset
from training.data.source import Sample
from training.data.validation import BadRows
from training.data.voc import Voc

pytestmark = [pytest.mark.ray, pytest.mark.slow]


class Vanishing(Voc):
    """A dataset whose files are gone when the cluster reads them."""

    def read(self, split: str, id: str) -> Sample:
        raise OSError("the network is down")


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    yield
    ray.shutdown()


def test_a_cluster_makes_the_same_dataset_and_tells_what_is_wrong(voc_folder: Path, tmp_path: Path):
    expected, _ = build_dataset(Voc(voc_folder), tmp_path / "built", shard_bytes=20_000)
    store = open_store(str(tmp_path / "store"))
    seen = []

    def progress(done: int, total: int) -> None:
        seen.append(done)

    voc = Voc(voc_folder)
    done = ingest(voc, store, "voc", where="cluster", shard_bytes=20_000, progress=progress)
    assert done.manifest == expected == resolve(store, "voc")[1]
    assert seen[-1] == 32
    assert seen == sorted(seen)

    other = open_store(str(tmp_path / "other"))
    with pytest.raises(OSError, match="the network is down"):
        ingest(Vanishing(voc_folder), other, "voc", where="cluster")
    mask = Voc(voc_folder).files("train", Voc(voc_folder).ids("train")[3])[1]
    mask.unlink()
    with pytest.raises(BadRows, match="does not exist"):
        ingest(Voc(voc_folder), other, "voc", where="cluster")
    assert known(other) == []
