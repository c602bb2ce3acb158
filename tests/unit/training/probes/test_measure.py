"""Probes of two models on scenes of digits: what must come out when the later one is the earlier one, and when it is not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from training.checkpoint import ModelDocument
from training.config import EvaluationConfig, ModelConfig
from training.data.digits import Digits
from training.data.shards import LocalSplit
from training.metrics import Confusion, score, wilson
from training.models.segmenter import Segmenter
from training.probes.measure import Bias, Pair, Similarity, Stitching, _counts, measure, open_pair
from training.probes.stitching import parts

MODEL = ModelConfig(encoder="tiny", output_stride=4, head_channels=8, eval_pooling=None)
AS_IT_IS = EvaluationConfig(short_side=None, crop=None)
EARLIER, LATER = ((1, 2, 3),), ((1, 2, 3), (4, 5))


@pytest.fixture
def scenes(local_split: Callable[..., LocalSplit]) -> tuple[LocalSplit, LocalSplit]:
    source = Digits(seed=1, train=24, val=6)
    return local_split(source, "train"), local_split(source, "val")


def published(folder: Path, groups: tuple[tuple[int, ...], ...], state: dict[str, torch.Tensor] | None = None) -> Path:
    """A model's folder; `state`: the entries of an earlier model that it starts from."""
    document = ModelDocument(model=MODEL, groups=groups)
    torch.manual_seed(len(groups))
    model = Segmenter(MODEL, document.channels)
    model.load_state_dict(model.state_dict() | (state or {}))
    folder.mkdir()
    (folder / "model.json").write_text(document.model_dump_json())
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / "model.safetensors")
    return folder


def pair(tmp_path: Path, scenes: tuple[LocalSplit, LocalSplit], *, drifted: bool = False) -> Pair:
    """A model, and one that grew from it: with the same weights, or with weights of its own."""
    first = published(tmp_path / "earlier", EARLIER)
    second = published(tmp_path / "later", LATER, None if drifted else load_file(first / "model.safetensors"))
    return open_pair(first, second, *scenes, AS_IT_IS, torch.device("cpu"))


def own_miou(pair: Pair) -> float | None:
    counts: Confusion = _counts(pair, lambda images: pair.earlier(images).logits, pair.earlier_document)
    return score(counts, EARLIER, wilson()).miou_all_without_background


@pytest.mark.parametrize("joint", ["identity", "least_squares"])
def test_a_model_that_did_not_change_is_stitched_without_loss(tmp_path: Path, scenes: Any, joint: Any):
    unchanged = pair(tmp_path, scenes)
    for cut in parts(unchanged.earlier):
        answer = measure(Stitching(cut=cut, joint=joint, images=16), unchanged)
        assert answer["miou"] == pytest.approx(own_miou(unchanged), abs=0.02), cut  # least squares rounds at ties
    assert measure(Stitching(cut="classifier", joint="identity", images=16), unchanged)["miou"] == own_miou(unchanged)


def test_training_the_joint_is_repeatable(tmp_path: Path, scenes: Any):
    drifted = pair(tmp_path, scenes, drifted=True)
    probe = Stitching(cut="head", joint="trained", images=16, epochs=2)
    assert measure(probe, drifted) == measure(probe, drifted)


def test_similarity_is_one_where_nothing_changed_and_less_where_it_did(tmp_path: Path, scenes: Any):
    same = measure(Similarity(cut="head", images=16), pair(tmp_path, scenes))
    assert same["cka"] == pytest.approx(1, abs=1e-9)
    (tmp_path / "other").mkdir()
    other = measure(Similarity(cut="head", images=16), pair(tmp_path / "other", scenes, drifted=True))
    assert other["cka"] < 0.99


def test_bias_as_it_is_scores_the_later_model(tmp_path: Path, scenes: Any):
    drifted = pair(tmp_path, scenes, drifted=True)
    answer = measure(Bias(images=16), drifted)
    scores = score(_counts(drifted, lambda images: drifted.later(images).logits, drifted.later_document), LATER, wilson())
    assert answer["as_it_is"]["new"] == scores.miou_new
    assert answer["as_it_is"]["earlier"] == pytest.approx(scores.miou_old)
    assert answer["classes"] == [0, 1, 2, 3, 4, 5]
    assert len(answer["norms"]) == len(answer["biases"]) == 6


def test_models_that_do_not_continue_each_other_are_refused(tmp_path: Path, scenes: Any):
    first, second = published(tmp_path / "a", ((1, 2),)), published(tmp_path / "b", LATER)
    with pytest.raises(ValueError, match="does not continue"):
        open_pair(first, second, *scenes, AS_IT_IS, torch.device("cpu"))
