"""Check the GPU benchmark without a GPU: its tiny sizes on the CPU, and how it finds the batch."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu


def test_tiny_sizes_run_on_the_cpu_and_give_one_document(tmp_path: Path) -> None:
    out = tmp_path / "folder" / "gpu.json"
    gpu.main(out, cpu=True)
    result = json.loads(out.read_text())
    assert result["machine"]["device"] == "cpu"
    assert [step["step"] for step in result["digits_wilson"]] == [0, 1]
    assert all(math.isfinite(step["last_loss"]) for step in result["digits_wilson"])
    assert list(result["resnet101"]) == ["bfloat16", "float32_tf32", "float32_ieee"]
    for measured in result["resnet101"].values():
        assert measured["batch"] == gpu.TINY.batch
        assert measured["images_per_second"] > 0


def test_without_a_gpu_the_script_ends_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="finds no GPU here; --cpu"):
        gpu.main(tmp_path / "gpu.json")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("fits", "tried"), [(24, [24]), (7, [24, 12, 6]), (1, [24, 12, 6, 3])])
def test_the_batch_is_halved_until_it_fits(fits: int, tried: list[int]) -> None:
    batches = []

    def measure(batch: int) -> dict[str, Any]:
        batches.append(batch)
        if batch > fits:
            raise torch.OutOfMemoryError("no memory")
        return {"batch": batch}

    found = gpu.largest_batch(measure, 24)
    assert batches == tried
    assert found == ({"batch": tried[-1]} if fits > 1 else {"out_of_memory": True})
