"""A model is not scored on images that it was trained on, unless somebody asks for it."""

from pathlib import Path

import pytest

from orchestrator.datasets.ingest import ingest
from orchestrator.datasets.overlap import check_unseen
from orchestrator.planning.fields import with_field
from orchestrator.planning.planner import Planner
from orchestrator.store.open import open_store
from stepchain.presets import small_voc_wilson
from training.config import InputError
from training.data.voc import Voc


def test_scoring_on_training_images_is_refused_unless_asked_for(
    voc_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("STEPCHAIN_CACHE", str(tmp_path / "cache"))
    store = open_store(str(tmp_path / "store"))
    apart = ingest(Voc(voc_folder), store, "voc")
    lists = voc_folder / "ImageSets/Segmentation"
    val = (lists / "val.txt").read_text()
    (lists / "train_aug.txt").write_text((lists / "train_aug.txt").read_text() + val)
    done = ingest(Voc(voc_folder), store, "trainval")
    assert done.summary.shared == {("train", "val"): 8}

    chain = with_field(small_voc_wilson(), "optimization.batch", 2)
    assert Planner(store).plan(chain).steps
    chain = with_field(chain, "scenario.dataset", "trainval")
    message = r"8 of 8 images of 'trainval', split 'val', are trained on .*--allow-overlap"
    with pytest.raises(InputError, match=message):
        Planner(store).plan(chain)
    assert Planner(store, allow_overlap=True).plan(chain).steps
    assert Planner(store, recorded=True).plan(chain).steps

    check_unseen(store, apart.publication.manifest, "voc", apart.manifest, "val")
    check_unseen(store, "0" * 64, "voc", done.manifest, "val")  # no longer in the store
    with pytest.raises(InputError, match="8 of 8 images of 'voc'"):
        check_unseen(store, done.publication.manifest, "voc", apart.manifest, "val")
