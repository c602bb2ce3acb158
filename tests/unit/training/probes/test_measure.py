"""Probes of two models on scenes of digits give the known answers."""

from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tests.support.datasets import build_dataset, open_split
from training.checkpoint import ModelDocument
from training.config import EvaluationConfig, ModelConfig
from training.data.digits import Digits
from training.data.shards import LocalSplit
from training.data.source import Sample
from training.metrics import score, wilson
from training.models.segmenter import Segmenter, normalise, upsample
from training.precision import set_precision, uses_tf32
from training.probes import measure as measuring
from training.probes.measure import Pair, _counts, measure, open_pair
from training.probes.questions import Bias, Similarity, Stitching
from training.probes.stitching import parts

MODEL = ModelConfig(encoder="tiny", output_stride=4, head_channels=8, eval_pooling=None)
AS_IT_IS = EvaluationConfig(short_side=None, crop=None)
EARLIER, LATER = ((1, 2, 3),), ((1, 2, 3), (4, 5))


class AsPredicted(Digits):
    """Scenes whose masks are what a model predicts, so that the model is always right."""

    def __init__(self, model: Segmenter) -> None:
        super().__init__(seed=1, train=24, val=6)
        self.model = model

    def read(self, split: str, id: str) -> Sample:
        sample = super().read(split, id)
        with torch.no_grad():
            logits = upsample(self.model(pixels(sample)).logits, (64, 64))
        file = BytesIO()
        Image.fromarray(logits.argmax(1)[0].to(torch.uint8).numpy()).save(file, "PNG")
        return sample._replace(mask=file.getvalue())


def pixels(sample: Sample) -> torch.Tensor:
    with Image.open(BytesIO(sample.image)) as image:
        return normalise(torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None])


def earlier_model() -> Segmenter:
    """Return a model with random weights, whose classes are all predicted somewhere."""
    torch.manual_seed(0)
    model = (
        Segmenter(MODEL, ModelDocument(model=MODEL, groups=EARLIER).channels)
        .eval()
        .requires_grad_(False)
    )
    source = Digits(seed=1, train=24, val=6)
    logits = torch.cat(
        [model(pixels(source.read("train", id))).logits for id in source.ids("train")]
    )
    deviation, mean = torch.std_mean(logits, (0, 2, 3))
    (classifier,) = model.classifiers
    assert isinstance(classifier, torch.nn.Conv2d)
    assert classifier.bias is not None
    classifier.weight.div_(deviation[:, None, None, None])
    classifier.bias.sub_(mean).div_(deviation)
    return model


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> tuple[LocalSplit, LocalSplit]:
    folder = tmp_path_factory.mktemp("scenes")
    manifest, _ = build_dataset(AsPredicted(earlier_model()), folder)
    return open_split(manifest, "train", folder), open_split(manifest, "val", folder)


def published(
    folder: Path, groups: tuple[tuple[int, ...], ...], state: dict[str, torch.Tensor] | None = None
) -> Path:
    """Write a model's folder. It starts from the entries `state` of an earlier model."""
    document = ModelDocument(model=MODEL, groups=groups)
    torch.manual_seed(len(groups))
    model = Segmenter(MODEL, document.channels)
    model.load_state_dict(model.state_dict() | (state or {}))
    folder.mkdir()
    (folder / "model.json").write_text(document.model_dump_json())
    save_file(
        {name: value.contiguous() for name, value in model.state_dict().items()},
        folder / "model.safetensors",
    )
    return folder


def pair(tmp_path: Path, scenes: tuple[LocalSplit, LocalSplit], *, drifted: bool = False) -> Pair:
    """Return a model that is always right, and a later one: with its weights, or drifted."""
    state = earlier_model().state_dict()
    first = published(tmp_path / "earlier", EARLIER, state)
    second = published(tmp_path / "later", LATER, None if drifted else state)
    train, val = scenes
    return open_pair(first, second, train, val, AS_IT_IS, torch.device("cpu"))


@pytest.fixture
def settings() -> Iterator[None]:
    """Restore what the process computes in."""
    convolutions = torch.backends.cudnn.conv  # pyright: ignore[reportAttributeAccessIssue]
    matmul = torch.backends.cuda.matmul
    before = convolutions.fp32_precision, matmul.fp32_precision, torch.backends.cudnn.benchmark
    yield
    convolutions.fp32_precision, matmul.fp32_precision, torch.backends.cudnn.benchmark = before


def test_a_gpu_measures_alike_whatever_the_process_trained_before(
    tmp_path: Path,
    scenes: tuple[LocalSplit, LocalSplit],
    settings: None,
    monkeypatch: pytest.MonkeyPatch,
):
    gpu = torch.device("cuda")
    set_precision("tf32", gpu, fixed_shapes=True)
    # What a GPU would compute in can be seen without one.
    monkeypatch.setattr(measuring, "_bias", lambda probe, pair: {"tf32": uses_tf32(pair.device)})
    on_gpu = replace(pair(tmp_path, scenes), device=gpu)
    assert measure(Bias(images=1), on_gpu) == {"tf32": False}
    assert not torch.backends.cudnn.benchmark


@pytest.mark.parametrize("joint", ["identity", "least_squares"])
def test_a_model_that_did_not_change_is_stitched_without_loss(
    tmp_path: Path, scenes: tuple[LocalSplit, LocalSplit], joint: Any
):
    unchanged = pair(tmp_path, scenes)
    for cut in parts(unchanged.earlier):
        answer = measure(Stitching(cut=cut, joint=joint, images=16), unchanged)
        # Least squares rounds, which matters where two classes tie.
        tolerance = 0 if joint == "identity" else 0.03
        assert answer["miou"] == pytest.approx(1, abs=tolerance), cut


def test_a_trained_joint_of_a_model_that_did_not_change_loses_nothing(
    tmp_path: Path, scenes: tuple[LocalSplit, LocalSplit]
):
    answer = measure(
        Stitching(cut="head", joint="trained", images=16, epochs=2), pair(tmp_path, scenes)
    )
    # Adam takes steps of its own size even where the loss is minimal.
    assert answer["miou"] == pytest.approx(1, abs=0.1)


def test_a_permuted_layer_is_recovered_by_a_joint_and_not_without_one(
    tmp_path: Path, scenes: tuple[LocalSplit, LocalSplit]
):
    """Permute the later model's channels after the head."""
    permuted = pair(tmp_path, scenes)
    order = torch.tensor([3, 5, 0, 7, 1, 6, 2, 4])
    shuffle = torch.nn.Conv2d(8, 8, 1, bias=False).requires_grad_(False)
    shuffle.weight.copy_(torch.eye(8)[order][:, :, None, None])
    permuted.later.head = torch.nn.Sequential(permuted.later.head, shuffle)  # pyright: ignore[reportAttributeAccessIssue]
    fitted, drifted = (
        measure(Stitching(cut="head", joint=joint, images=16), permuted)["miou"]
        for joint in ("least_squares", "identity")
    )
    assert fitted == pytest.approx(1, abs=0.03)
    assert drifted < 0.7
    assert measure(Similarity(cut="head", images=16), permuted)["cka"] == pytest.approx(1, abs=1e-9)


def test_what_is_lost_in_a_layer_is_lost_after_it(
    tmp_path: Path, scenes: tuple[LocalSplit, LocalSplit]
):
    """Silence the later model's head: everything is there before it, and nothing after it."""
    silent = pair(tmp_path, scenes)
    for entry in silent.later.head.parameters():
        entry.zero_()
    before, after = (
        measure(Stitching(cut=cut, joint="least_squares", images=16), silent)["miou"]
        for cut in ("stage 2", "head")
    )
    assert before == pytest.approx(1, abs=0.03)
    assert after < 0.5
    assert measure(Similarity(cut="head", images=16), silent)["cka"] is None


def test_training_the_joint_is_repeatable(tmp_path: Path, scenes: tuple[LocalSplit, LocalSplit]):
    drifted = pair(tmp_path, scenes, drifted=True)
    probe = Stitching(cut="head", joint="trained", images=16, epochs=2)
    assert measure(probe, drifted) == measure(probe, drifted)


def test_similarity_is_one_where_nothing_changed_and_less_where_it_did(
    tmp_path: Path, scenes: tuple[LocalSplit, LocalSplit]
):
    same = measure(Similarity(cut="head", images=16), pair(tmp_path, scenes))
    assert same["cka"] == pytest.approx(1, abs=1e-9)
    (tmp_path / "other").mkdir()
    other = measure(
        Similarity(cut="head", images=16), pair(tmp_path / "other", scenes, drifted=True)
    )
    assert other["cka"] < 0.99


def test_bias_as_it_is_scores_the_later_model(
    tmp_path: Path, scenes: tuple[LocalSplit, LocalSplit]
):
    drifted = pair(tmp_path, scenes, drifted=True)
    answer = measure(Bias(images=16), drifted)
    scores = score(
        _counts(drifted, lambda images: drifted.later(images).logits, drifted.later_document),
        LATER,
        wilson(),
    )
    assert answer["as_it_is"]["new"] == scores.miou_new
    assert answer["as_it_is"]["earlier"] == pytest.approx(scores.miou_old)
    assert answer["classes"] == [0, 1, 2, 3, 4, 5]
    assert len(answer["norms"]) == len(answer["biases"]) == 6


def test_models_that_do_not_continue_each_other_are_refused(
    tmp_path: Path, scenes: tuple[LocalSplit, LocalSplit]
):
    first = published(tmp_path / "a", ((1, 2),))
    second = published(tmp_path / "b", LATER)
    train, val = scenes
    with pytest.raises(ValueError, match="does not continue"):
        open_pair(first, second, train, val, AS_IT_IS, torch.device("cpu"))
