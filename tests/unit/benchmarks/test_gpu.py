"""Check the GPU benchmark without a GPU: its tiny sizes, its page, and how it finds the batch."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu_report import report
from tests.support.paths import ROOT


@pytest.mark.slow
def test_tiny_sizes_run_every_part_on_the_cpu(tmp_path: Path) -> None:
    out = tmp_path / "folder" / "gpu.json"
    gpu.main(out, cpu=True)
    result = json.loads(out.read_text())
    assert result["failed"] == {}
    assert result["machine"]["device"] == "cpu"
    assert result["peaks"]["copy"] > 0
    for kind in ("base", "mib", "wilson"):
        rows = result[kind]["variants"]
        names = [(row["code"], row["precision"]) for row in rows]
        assert names == [
            ("this code", "bfloat16"),
            ("this code", "float32"),
            ("transcription", "bfloat16"),
            ("transcription", "float32"),
        ]
        assert all(row["images_per_second"] > 0 for row in rows)
    assert result["two_workers"]["difference"] < 1e-9
    curves = result["curves"]
    assert curves["cpu float32"] == pytest.approx(curves["cpu bfloat16"], rel=0.1)
    page = out.with_suffix(".md").read_text()
    assert page.count("| wilson | ") == 4
    assert "Two workers (gloo) and one" in page


def test_it_imports_neither_ray_nor_mlflow_nor_the_orchestrator() -> None:
    code = (
        "import sys, benchmarks.gpu; "
        "names = {name.partition('.')[0] for name in sys.modules}; "
        "print(sorted(names & {'ray', 'mlflow', 'orchestrator', 'jobs', 'boto3'}))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert result.stdout.strip() == "[]"


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


def test_a_part_that_fails_is_named_and_the_others_go_on() -> None:
    def fails() -> None:
        raise ValueError("no such kernel")

    result = gpu.run_parts({"broken": fails, "fine": lambda: 3})
    assert result == {"failed": {"broken": "ValueError: no such kernel"}, "fine": 3}
    assert "**broken failed**: ValueError: no such kernel" in report(result)


def test_the_page_has_ratios_to_both_transcriptions() -> None:
    row = {
        "peak_gigabytes": 10.6,
        "kernels": 2201,
        "waits": ["pamr.py:1"],
        "flops": 12e12,
        "bytes": 100e9,
        "model_images_per_second": 328.0,
    }
    variants = []
    for code, precision, speed in (
        ("this code", "bfloat16", 240.0),
        ("transcription", "bfloat16", 160.0),
        ("transcription", "float32", 60.0),
    ):
        variants.append(row | {"code": code, "precision": precision, "images_per_second": speed})
    result = {
        "failed": {},
        "peaks": {"bfloat16": 480e12, "float32": 50e12, "copy": 2e12},
        "wilson": {"batch": 24, "variants": variants},
    }
    lines = report(result).splitlines()
    ours = next(line for line in lines if line.startswith("| wilson | this code"))
    cells = [cell.strip() for cell in ours.strip("|").split("|")]
    assert cells[:4] == ["wilson", "this code", "bfloat16", "24"]
    assert cells[4:9] == ["240", "4.00", "1.50", "25%", "50%"]
    assert cells[9:] == ["10.6", "2,201", "1", "328"]
