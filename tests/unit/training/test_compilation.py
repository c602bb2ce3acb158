"""Compiling is put off to the first call, and weights keep their names."""

import os
from pathlib import Path

import pytest
import torch

from training.compilation import CACHE, compile_encoder
from training.models.tiny import tiny


# PyTorch's own import of its compiler warns.
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")
def test_a_compiled_encoder_publishes_the_same_entries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(CACHE, "elsewhere")
    torch.manual_seed(0)
    encoder = tiny()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    compile_encoder(encoder, tmp_path)
    assert os.environ[CACHE] == str(tmp_path)
    after = encoder.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in after.items())
