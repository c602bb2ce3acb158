"""A model on an encoder of Transformers is exported to files that need torch and that library."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from orchestrator.prediction.export import About, Export
from tests.support.encoders import small_model
from training.checkpoint import ModelDocument, freeze, save_model_files
from training.config import InputError
from training.models.segmenter import Segmenter, normalise, upsample

pytest.importorskip("transformers")
PREDICT = """
import json, torch
from network import Network
from safetensors import safe_open
from safetensors.torch import load_file, save_file
with safe_open("model.safetensors", "pt") as file:
    about = json.loads(file.metadata()["stepchain"])
model = Network(about["model"], about["channels"]).eval()
model.load_state_dict(load_file("model.safetensors"))
with torch.inference_mode():
    save_file({"scores": model(load_file("pixels.safetensors")["pixels"])}, "scores.safetensors")
"""


def test_the_exported_network_computes_the_same_elsewhere(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = small_model("swin", "stage3", "stage4", output_stride=16)
    model = freeze(Segmenter(config, (3, 1)))
    files = tmp_path / "files"
    document = ModelDocument(model=config, groups=((1, 2), (3,)))
    save_model_files(files, document, model.state_dict(), {}, [])
    about = About(
        step="k",
        attempt="a",
        classes=("background", "cat", "dog", "cow"),
        class_ids=(0, 1, 2, 3),
        short_side=None,
        model=config,
        channels=document.channels,
    )
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(InputError, match="give --format safetensors"):
        Export(out, "torch").write(files, about)
    Export(out, "safetensors").write(files, about)
    assert "It needs transformers, torch" in (out / "model.safetensors.md").read_text()
    pixels = torch.randint(0, 256, (1, 3, 70, 90), dtype=torch.uint8)
    save_file({"pixels": pixels}, out / "pixels.safetensors")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([sys.executable, "-c", PREDICT], cwd=out, env=environment, check=True)
    expected = upsample(model(normalise(pixels)).logits, (70, 90))
    torch.testing.assert_close(load_file(out / "scores.safetensors")["scores"], expected)
