"""CONTRIBUTING's worked example is followed as a reader would: its two files are written, its tests pass, its method trains."""

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import training.methods
from orchestrator.planning.chain import Base, Chain
from orchestrator.planning.resolver import Resolver
from tests.support.paths import ROOT
from training.config import Augmentation, ModelConfig, Optimization
from training.data.digits import Digits
from training.fit import fit
from training.runtime import Runtime
from training.scenario import Scenario

METHOD, TEST = (
    "training/methods/head_distillation.py",
    "tests/unit/training/test_head_distillation.py",
)
DIGITS = tuple("0123456789")
SHORT = Optimization(epochs=2, batch=12)


@pytest.fixture
def example() -> dict[str, str]:
    """The files of the worked example, by their paths."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return dict(
        re.findall(r"^`([\w/]+\.py)`\n```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    )


@pytest.fixture
def written(
    example: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A folder with both files, in which training.methods finds its method too, as it would in its own folder."""
    for path, code in example.items():
        (tmp_path / Path(path).name).write_text(code, encoding="utf-8")
    monkeypatch.setattr(training.methods, "__path__", [*training.methods.__path__, str(tmp_path)])
    yield tmp_path
    del sys.modules["training.methods.head_distillation"], training.methods.head_distillation


def test_the_example_is_a_method_and_its_test(example: dict[str, str]):
    assert sorted(example) == [TEST, METHOD]


def test_the_tests_of_the_example_pass(written: Path):
    spec = importlib.util.spec_from_file_location("example", written / Path(TEST).name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    tests = [value for name, value in vars(module).items() if name.startswith("test_")]
    assert len(tests) == 2
    for test in tests:
        test()


def test_the_method_of_the_example_trains(written: Path, local_split):
    data = local_split(Digits(train=24, val=2))
    document = {"name": "head-distillation", "weight": 2.0}  # as a chain is read back from a store
    chain = Chain.model_validate(
        {
            "name": "example",
            "scenario": Scenario(
                dataset="digits", groups=(DIGITS[:6], DIGITS[6:]), supervision="pixel"
            ),
            "base": Base(optimization=SHORT),
            "method": document,
            "optimization": SHORT,
            "model": ModelConfig(encoder="tiny", output_stride=4, head_channels=6, eval_pooling=8),
            "augmentation": Augmentation(crop=32),
        }
    )
    parent, rows = None, []
    for planned in Resolver(data.classes, data.index, data.content).resolve(chain):
        rows.clear()
        places = {
            "parent": parent,
            "encoder_weights": None,
            "folder": written / planned.key,
            "resume": None,
        }
        runtime = Runtime(log_every=1)
        parent = fit(
            planned.step,
            data,
            planned.rows,
            runtime,
            **places,
            save=lambda *_: None,
            log=rows.append,
        )
    assert len(rows) >= 2
    assert all({"loss/segmentation", "loss/distillation"} <= set(row) for row in rows)
    assert rows[-1]["loss/distillation"] > 0


@pytest.mark.parametrize("action", [["check"], ["format", "--check"]], ids=lambda action: action[0])
def test_the_example_is_in_house_style(example: dict[str, str], action: list[str]):
    for path, code in example.items():
        command = [
            Path(sys.executable).with_name("ruff"),
            *action,
            "--no-cache",
            "--stdin-filename",
            path,
            "-",
        ]
        result = subprocess.run(
            command, cwd=ROOT, input=code, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, f"{path}: {result.stdout}{result.stderr}"
