"""Follow CONTRIBUTING's worked example as a reader would.

Its two files are written, its tests pass, its method trains, and its campaign file is read.
"""

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import training.methods
from orchestrator.planning.campaign_file import load_campaign
from orchestrator.planning.chain import Base, Chain
from orchestrator.planning.resolver import Resolver
from tests.support.paths import ROOT
from training.config import Augmentation, ModelConfig, Optimization
from training.data.digits import Digits
from training.fit import fit
from training.journal import MemoryJournal
from training.runtime import Runtime
from training.scenario import Scenario

METHOD = "training/methods/head_distillation.py"
TEST = "tests/unit/training/methods/test_head_distillation.py"
DIGITS = tuple("0123456789")
SHORT = Optimization(epochs=2, batch=12)


def contributing() -> str:
    return (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


@pytest.fixture
def example() -> dict[str, str]:
    """Return the files of the worked example, by their paths."""
    pattern = r"^`([\w/]+\.py)`\n```python\n(.*?)^```$"
    return dict(re.findall(pattern, contributing(), re.MULTILINE | re.DOTALL))


@pytest.fixture
def written(
    example: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """Return a folder with both files, from which `training.methods` imports the method."""
    for path, code in example.items():
        (tmp_path / Path(path).name).write_text(code, encoding="utf-8")
    monkeypatch.setattr(training.methods, "__path__", [*training.methods.__path__, str(tmp_path)])
    yield tmp_path
    if sys.modules.pop("training.methods.head_distillation", None):
        delattr(training.methods, "head_distillation")


def test_the_example_is_a_method_and_its_test(example: dict[str, str]) -> None:
    assert sorted(example) == sorted([TEST, METHOD])


def test_the_tests_of_the_example_pass(written: Path) -> None:
    spec = importlib.util.spec_from_file_location("example", written / Path(TEST).name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    tests = [value for name, value in vars(module).items() if name.startswith("test_")]
    assert len(tests) == 2
    for test in tests:
        test()


def test_the_method_of_the_example_trains(written: Path, local_split) -> None:
    data = local_split(Digits(train=24, val=2))
    chain = Chain.model_validate(
        {
            "name": "example",
            "scenario": Scenario(
                dataset="digits", groups=(DIGITS[:6], DIGITS[6:]), supervision="pixel"
            ),
            "base": Base(optimization=SHORT),
            # As a chain is read from a store.
            "method": {"name": "head-distillation", "weight": 2.0},
            "optimization": SHORT,
            "model": ModelConfig(encoder="tiny", output_stride=4, head_channels=6, eval_pooling=8),
            "augmentation": Augmentation(crop=32),
        }
    )
    parent = None
    journal = MemoryJournal()
    for planned in Resolver(data.classes, data.index, data.content).resolve(chain):
        journal.rows.clear()
        parent = fit(
            planned.step,
            data,
            planned.rows,
            Runtime(log_every=1),
            parent=parent,
            encoder_weights=None,
            folder=written / planned.key,
            resume=None,
            journal=journal,
        )
    rows = journal.rows
    assert len(rows) >= 2
    assert all({"loss/segmentation", "loss/distillation"} <= set(row) for row in rows)
    assert rows[-1]["loss/distillation"] > 0


def test_the_campaign_of_the_example_is_read(written: Path) -> None:
    pattern = r"^<!-- tests/test_contributing.py reads this campaign -->\n```python\n(.*?)^```$"
    (code,) = re.findall(pattern, contributing(), re.MULTILINE | re.DOTALL)
    path = written / "campaign.py"
    path.write_text(code, encoding="utf-8")
    campaign = load_campaign(str(path), written)
    assert [chain.method.name for chain in campaign.chains] == ["head-distillation"] * 2


@pytest.mark.parametrize("action", [["check"], ["format", "--check"]], ids=lambda action: action[0])
def test_the_example_is_in_house_style(example: dict[str, str], action: list[str]) -> None:
    ruff = Path(sys.executable).with_name("ruff")
    for path, code in example.items():
        command = [ruff, *action, "--no-cache", "--stdin-filename", path, "-"]
        result = subprocess.run(
            command, cwd=ROOT, input=code, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, f"{path}: {result.stdout}{result.stderr}"


def test_the_campaign_of_the_methods_page_is_read(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    code = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)[0]
    path = tmp_path / "mib_parts.py"
    path.write_text(code, encoding="utf-8")
    campaign = load_campaign(str(path), tmp_path)
    assert [chain.method.name for chain in campaign.chains] == ["mib"] * 3
