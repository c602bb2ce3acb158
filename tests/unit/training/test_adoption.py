"""A network that other code trained is read whole, or refused in one sentence."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.support.foreign_weights import varied
from training.adoption import Described, UnclearFile, read_about, read_network, write_network
from training.checkpoint import load_model
from training.config import InputError, ModelConfig
from training.models.segmenter import Segmenter

TINY = ModelConfig(encoder="tiny", output_stride=4, head_channels=4, eval_pooling=8)
FIELDS: dict[str, Any] = {
    "output_stride": 4,
    "dilated_blocks": "later",
    "eval_pooling": 8,
    "activation": "relu",
}
CLASSES = ("a", "b", "c")


@pytest.fixture
def model() -> Segmenter:
    torch.manual_seed(0)
    return varied(Segmenter(TINY, (4,)))


def saved(state: Any, path: Path) -> Path:
    torch.save(state, path)
    return path


def test_a_network_is_read_as_it_was_and_rebuilt_from_its_files(model: Segmenter, tmp_path: Path):
    path = tmp_path / "model.safetensors"
    save_file(model.state_dict(), path)
    network = read_network(path, FIELDS, CLASSES)
    assert network.layout == "stepchain"
    assert network.config == TINY
    write_network(tmp_path / "files", network, (3, 1, 2))
    found, document = load_model(tmp_path / "files")
    assert document.class_ids == (0, 3, 1, 2)
    images = torch.rand(1, 3, 32, 32)
    assert torch.equal(found(images).logits, model(images).logits)


def test_ssuls_step_0_is_adopted_and_its_later_steps_are_not(tmp_path: Path):
    config = TINY.model_copy(update={"classifier": "ssul"})
    base, later = (varied(Segmenter(config, channels)) for channels in ((4,), (3, 1)))
    save_file(base.state_dict(), tmp_path / "base.safetensors")
    network = read_network(tmp_path / "base.safetensors", FIELDS, CLASSES)
    assert network.config == config
    images = torch.rand(1, 3, 32, 32)
    assert torch.equal(network.model(images).logits, base(images).logits)
    save_file(later.state_dict(), tmp_path / "later.safetensors")
    with pytest.raises(InputError, match=r"of several steps.* adopt its step 0"):
        read_network(tmp_path / "later.safetensors", FIELDS, CLASSES)


@pytest.mark.parametrize("nested", ["state_dict", "model_state", "model"])
def test_a_checkpoint_is_read_with_the_numbers_beside_it(
    nested: str, model: Segmenter, tmp_path: Path
):
    state = {f"module.{name}": value.half() for name, value in model.state_dict().items()}
    path = saved({"epoch": 3, nested: state, "best_score": np.float64(0.5)}, tmp_path / "c.pth")
    found = read_network(path, FIELDS, CLASSES).model.state_dict()
    assert found["head.norm.weight"].dtype == torch.float32


def test_what_no_weights_say_is_asked_for(model: Segmenter, tmp_path: Path):
    path = saved(model.state_dict(), tmp_path / "w.pth")
    fields = {"output_stride": 4, "activation": "relu"}
    with pytest.raises(InputError, match=r"--model\.dilated-blocks, --model\.eval-pooling, or a"):
        read_network(path, fields, CLASSES)


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        (("a", "b"), "4 channels, background and 3 classes, and --classes names 2"),
        (("background", "a", "b", "c"), "leave background out"),
    ],
)
def test_classes_that_are_not_the_channels_are_refused(
    classes: tuple[str, ...], words: str, model: Segmenter, tmp_path: Path
):
    with pytest.raises(InputError, match=words):
        read_network(saved(model.state_dict(), tmp_path / "w.pth"), FIELDS, classes)


def test_what_does_not_match_is_named(model: Segmenter, tmp_path: Path):
    state = model.state_dict()
    del state["head.norm.bias"]
    state["head.more"] = torch.zeros(1)
    state["head.pooled_reduce.weight"] = torch.zeros(4, 32, 3, 3)
    path = saved(state, tmp_path / "w.pth")
    with pytest.raises(InputError, match="does not hold the weights") as caught:
        read_network(path, FIELDS, CLASSES)
    for words in (
        "1 missing (head.norm.bias)",
        "1 unexpected (head.more)",
        "1 misshaped (head.pooled_reduce.weight (4, 32, 3, 3) instead of (4, 32, 1, 1))",
    ):
        assert words in str(caught.value)


def test_weights_that_are_not_finite_are_refused(model: Segmenter, tmp_path: Path):
    state = model.state_dict()
    state["head.norm.bias"][0] = torch.nan
    with pytest.raises(InputError, match="not finite"):
        read_network(saved(state, tmp_path / "w.pth"), FIELDS, CLASSES)


def test_what_loading_would_run_is_refused_by_its_name(tmp_path: Path):
    path = saved({"args": Path("/"), "model": {}}, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"holds a pathlib\.\w+ besides tensors"):
        read_network(path, FIELDS, CLASSES)


def test_another_networks_names_are_refused(tmp_path: Path):
    path = saved({"features.0.weight": torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"no layout that can be adopted \(it holds features"):
        read_network(path, FIELDS, CLASSES)


def test_only_an_exported_file_says_something_of_itself(model: Segmenter, tmp_path: Path):
    save_file(model.state_dict(), tmp_path / "plain.safetensors")
    assert read_about(tmp_path / "plain.safetensors") is None
    said = {"step": "x", "classes": ["background", "a"], "class_ids": [0, 1], "model": {"a": 1}}
    save_file(model.state_dict(), tmp_path / "ours.safetensors", {"stepchain": json.dumps(said)})
    expected = Described(classes=("background", "a"), class_ids=(0, 1), model={"a": 1})
    assert read_about(tmp_path / "ours.safetensors") == expected


@pytest.mark.parametrize(
    "said",
    [
        "oops",
        "",
        "[1]",
        '{"classes": ["background", "a"], "model": {}}',
        '{"classes": ["background", "a"], "class_ids": [0], "model": {}}',
        '{"classes": 1, "class_ids": [0, 1], "model": {}}',
        '{"classes": ["background", "a"], "class_ids": [0, 1], "model": 1}',
    ],
)
def test_what_a_file_says_of_itself_and_nobody_can_read_is_refused(said: str, tmp_path: Path):
    path = tmp_path / "w.safetensors"
    save_file({"a": torch.zeros(1)}, path, {"stepchain": said})
    with pytest.raises(UnclearFile, match=f"what {path} says of itself.* give --classes and --pre"):
        read_about(path)


def test_half_a_file_is_refused_by_whoever_reads_it_first(model: Segmenter, tmp_path: Path):
    path = tmp_path / "half.safetensors"
    save_file(model.state_dict(), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="is not a readable file of weights: it is broken") as one:
        read_about(path)
    with pytest.raises(InputError) as other:
        read_network(path, FIELDS, CLASSES)
    assert str(one.value) == str(other.value)
