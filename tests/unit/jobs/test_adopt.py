"""Check which exported models `jobs.adopt` refuses before it reads a dataset."""

from pathlib import Path

import pytest
from safetensors.torch import save

from jobs import adopt
from orchestrator.prediction.export import ABOUT, About
from orchestrator.store.open import open_store
from tests.support.datasets import publish_digits
from training.config import ModelConfig
from training.models.segmenter import Segmenter

TINY = ModelConfig(encoder="tiny", output_stride=4, head_channels=4, eval_pooling=8)


def test_an_exported_model_without_background_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    store = open_store(str(tmp_path / "store"))
    publish_digits(store, tmp_path, seed=1, train=4, val=2)
    about = About(
        step="k",
        attempt="a",
        classes=("3", "0", "1"),
        class_ids=(4, 1, 2),
        short_side=None,
        model=TINY,
        channels=(2, 1),
    )
    path = tmp_path / "model.safetensors"
    metadata = {ABOUT: about.model_dump_json(), "format": "pt"}
    path.write_bytes(save(Segmenter(TINY, about.channels).state_dict(), metadata))
    for more in ([], ["--classes", "0,1"]):
        with pytest.raises(SystemExit):
            adopt.main([str(path), "--name", "mine", "--store", store.uri, "--no-tracking", *more])
        said = " ".join(capsys.readouterr().err.split())
        assert "model.safetensors is a model without a background channel" in said
