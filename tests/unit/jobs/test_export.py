"""An exported model loads without Stepchain and says what the published one says."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs.export import main
from orchestrator.store.base import Store
from stepchain import find_step, predict

WITH_ONNX = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("onnx", "onnxscript", "onnxruntime"))),
    reason="needs stepchain[onnx]",
)
# torch warns of its own code while it decomposes a graph for ONNX.
OWN_WARNING = pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning")
FORMATS = [
    "safetensors",
    pytest.param("torch", marks=pytest.mark.slow),
    pytest.param("onnx", marks=[pytest.mark.slow, WITH_ONNX, OWN_WARNING]),
]
FILES = {"safetensors": "model.safetensors", "torch": "model.pt2", "onnx": "model.onnx"}


def export(store: Store, out: Path, kind: str) -> None:
    main(["demo:1", "--format", kind, "--out", str(out), "--store", store.uri])


@pytest.mark.parametrize("kind", FORMATS)
def test_the_lines_beside_it_predict_without_stepchain(
    published: Store, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
):
    """They run as a person would run them: beside the file, where our packages are not found."""
    out = tmp_path / "exported"
    export(published, out, kind)
    pixels = np.random.default_rng(0).integers(0, 256, (52, 84, 3), np.uint8)
    # A PNG under the name that the lines open, so that its pixels are exact.
    Image.fromarray(pixels).save(out / "photo.jpg", "PNG")
    page = (out / f"{FILES[kind]}.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert code in capsys.readouterr().out
    assert "stepchain" not in "\n".join(re.findall(r"^(?:import|from) .*", code, re.MULTILINE))
    checked = f"{code}\nimport sys\nassert not {{'training', 'orchestrator'}} & set(sys.modules)\n"
    (out / "lines.py").write_text(checked)
    result = subprocess.run(
        [sys.executable, "lines.py"], cwd=out, capture_output=True, text=True, check=False, env={}
    )
    assert result.returncode == 0, result.stderr
    step = find_step(published, "demo:1")
    (labels,) = predict(step, [pixels])
    ids, counts = np.unique(labels, return_counts=True)
    expected = [
        f"{step.class_names[id]} {count / labels.size:.1%}"
        for id, count in zip(ids.tolist(), counts.tolist(), strict=True)
    ]
    assert sorted(result.stdout.splitlines()) == sorted(expected)


def test_weights_have_the_names_of_the_published_ones(published: Store, tmp_path: Path):
    from safetensors import safe_open

    out = tmp_path / "weights.safetensors"
    export(published, out, "safetensors")
    with safe_open(out, "pt") as file:
        about = json.loads(file.metadata()["stepchain"])
        assert "encoder.stem.0.weight" in file.keys()  # noqa: SIM118  it is no dict
    assert about["classes"] == ["background", *"0123456789"]
    assert about["class_ids"] == [*range(11)]
    assert {path.name for path in tmp_path.glob("[!s]*") if path.is_file()} == {
        "weights.safetensors",
        "weights.safetensors.md",
        "network.py",
    }


@pytest.mark.parametrize(
    ("out", "kind", "words"),
    [
        ("model.onnx", "torch", "is a name for --format onnx"),
        ("held", "torch", "model.pt2 is there already"),
        ("held/model.pt2/below", "torch", "cannot be a folder"),
        ("held", "safetensors", "network.py is another file"),
        ("more", "safetensors", "network.py is a folder"),
    ],
)
def test_what_cannot_be_written_is_refused(
    published: Store,
    tmp_path: Path,
    out: str,
    kind: str,
    words: str,
    capsys: pytest.CaptureFixture[str],
):
    held = tmp_path / "held"
    held.mkdir()
    (tmp_path / "more" / "network.py").mkdir(parents=True)
    for name in ("model.pt2", "network.py"):
        (held / name).write_text("mine")
    with pytest.raises(SystemExit) as end:
        export(published, tmp_path / out, kind)
    assert end.value.code == 2
    assert words in capsys.readouterr().err
    assert sorted(path.name for path in held.iterdir()) == ["model.pt2", "network.py"]


def test_a_file_that_computes_something_else_is_not_kept(
    published: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr("training.models.standalone.MEAN", (0.5, 0.5, 0.5))
    with pytest.raises(SystemExit) as end:
        export(published, tmp_path / "model.safetensors", "safetensors")
    assert end.value.code == 1
    assert "does not compute what the step does" in capsys.readouterr().err
    assert not [*tmp_path.glob("*model.safetensors*")]
    assert not [*tmp_path.glob(".*model.safetensors*")]


def test_packages_that_are_missing_are_named(
    published: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr("orchestrator.prediction.export.find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        export(published, tmp_path / "model.onnx", "onnx")
    assert "pip install 'stepchain[onnx]'" in capsys.readouterr().err
