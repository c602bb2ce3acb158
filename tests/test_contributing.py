"""CONTRIBUTING's worked example is run as a reader would: its two files are written, its test passes, its method trains."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Runs in a process of its own, in which training.methods also finds the files of a folder given as argument.
TRAIN = """
import sys
from pathlib import Path

import training.methods

folder = Path(sys.argv[1])
training.methods.__path__.append(str(folder))

import pytest

from orchestrator.chain import Base, Chain
from orchestrator.plan import resolve
from training.config import Augmentation, ModelConfig, Optimization
from training.data.digits import Digits
from training.data.shards import Index, LocalSplit, build
from training.fit import fit
from training.methods import head_distillation
from training.runtime import Runtime
from training.scenario import Scenario

assert pytest.main(["-q", "-p", "no:cacheprovider", "-W", "error", "--rootdir", str(folder), str(folder)]) == 0

manifest, _ = build(Digits(train=24, val=2), folder / "data")
files = manifest.splits["train"]
index = Index.load(folder / "data" / f"{files.index.sha256}.parquet", 10)
shards = tuple(folder / "data" / f"{shard.sha256}.arrow" for shard in files.shards)
data = LocalSplit(index, shards, manifest.classes, files.content)
digits, short = tuple("0123456789"), Optimization(epochs=2, batch=8)
chain = Chain.model_validate({
    "name": "example",
    "scenario": Scenario(dataset="digits", groups=(digits[:6], digits[6:]), supervision="pixel"),
    "base": Base(optimization=short),
    "method": {"name": "head-distillation", "weight": 2},  # as it is read back from a store
    "optimization": short,
    "model": ModelConfig(encoder="tiny", output_stride=4, head_channels=6, eval_pooling=8),
    "augmentation": Augmentation(crop=32),
})
parent = None
for planned in resolve(chain, manifest.classes, index, files.content):
    rows = []
    parent = fit(
        planned.step, data, planned.rows, Runtime(log_every=1), parent=parent, encoder_weights=None,
        folder=folder / planned.key, resume=None, save=lambda *_: None, log=rows.append,
    )
assert planned.step.method == head_distillation.Config(weight=2)
assert len(rows) >= 2 and {"loss/segmentation", "loss/distillation"} <= set(rows[0]), rows
print("trained")
"""


@pytest.fixture
def example() -> dict[str, str]:
    """The files of the worked example, by their paths."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^`([\w/]+\.py)`\n```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))


def test_the_worked_example_trains(example: dict[str, str], tmp_path: Path):
    assert sorted(example) == ["tests/unit/training/test_head_distillation.py", "training/methods/head_distillation.py"]
    for path, code in example.items():
        (tmp_path / Path(path).name).write_text(code, encoding="utf-8")
    command = [sys.executable, "-c", TRAIN, str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "2 passed" in result.stdout
    assert result.stdout.endswith("trained\n")


def test_the_worked_example_is_in_house_style(example: dict[str, str]):
    ruff = Path(sys.executable).with_name("ruff")
    for path, code in example.items():
        for action in (["check"], ["format", "--check"]):
            command = [ruff, *action, "--no-cache", "--stdin-filename", path, "-"]
            result = subprocess.run(command, cwd=ROOT, input=code, capture_output=True, text=True, check=False)
            assert result.returncode == 0, f"{path}: {result.stdout}{result.stderr}"
